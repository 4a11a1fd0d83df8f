"""The report as one HTML page: no script, nothing from outside, the pictures inside it."""

from __future__ import annotations

import base64
from html import escape

import cv2
import numpy as np

from unface.calibration.gate import Missed
from unface.calibration.report import EngineFacts, Report, Table, limits_line, tables
from unface.mtcnn.network import UInt8Array

MOST_PICTURES = 60  # each way
CONTEXT = 0.8  # of the face's longer side, shown around it
CROP_SIDE = 160  # pixels of a picture on the page
FRAME = (255, 214, 10)  # RGB

STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #646a73; --paper: #fff; --line: #e1e4e8;
  --card: #f6f7f9; --good: #14743a; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #9aa0a8; --paper: #16181b;
  --line: #33373d; --card: #1f2226; --good: #5fd08a; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 62rem; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.5rem 0 .6rem; }
.soft { color: var(--soft); margin: .2rem 0 0; overflow-wrap: anywhere; }
.verdict { margin: 1.5rem 0; padding: 1rem 1.25rem; border-left: 6px solid; border-radius: 6px;
  background: var(--card); }
.verdict.good { border-color: var(--good); } .verdict.bad { border-color: var(--bad); }
.verdict strong { font-size: 1.3rem; letter-spacing: .04em; }
.good strong { color: var(--good); } .bad strong { color: var(--bad); }
.verdict ul { margin: .5rem 0 0; padding-left: 1.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .75rem; text-align: right; border-bottom: 1px solid var(--line);
  white-space: pre; }
th { color: var(--soft); font-weight: 600; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
code { font-size: .85em; white-space: pre; }
.verdict .soft { margin-top: .6rem; font-size: 13px; }
.faces { display: grid; grid-template-columns: repeat(auto-fill, minmax(160px, 1fr)); gap: 1rem;
  margin-top: .8rem; }
figure { margin: 0; background: var(--card); border-radius: 6px; overflow: hidden; }
figure img { display: block; width: 100%; aspect-ratio: 1; object-fit: cover; }
figcaption { padding: .5rem .6rem; font-size: 12px; line-height: 1.4; overflow-wrap: anywhere; }
figcaption span { color: var(--soft); display: block; }
"""


def to_html(report: Report) -> str:
    """Return the report as a self-contained page, with the faces that only one engine found.

    Raises `InvalidImage` when a picture can no longer be read.
    """
    first, second = report.reference, report.candidate
    title = f"{first.name} and {second.name}"
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{escape(first.name)} is the reference, {escape(second.name)} the '
        f"candidate; on {escape(report.data)}, {escape(report.date)}</p>",
        _verdict(report),
        *(_table(table) for table in tables(report)),
        _engines(first, second),
        _faces(f"Missed by {second.name}, found by {first.name}", report, by_candidate=True),
        _faces(f"Missed by {first.name}, found by {second.name}", report, by_candidate=False),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)} - unface validate</title>\n<style>{STYLE}</style>\n</head>\n"
        "<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def crop_with_context(image: UInt8Array, box: tuple[float, float, float, float]) -> UInt8Array:
    """Return a face (`x1 y1 x2 y2`) framed amid what is around it, uint8 RGB, square.

    What lies outside of the image `[H, W, 3]` is filled with its border.
    """
    x1, y1, x2, y2 = box
    side = max(x2 - x1, y2 - y1) * (1 + 2 * CONTEXT)
    scale = CROP_SIDE / side
    left, top = (x1 + x2 - side) / 2, (y1 + y2 - side) / 2
    matrix = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
    matrix[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5  # OpenCV counts from the centre of a pixel
    if scale < 0.5:  # averaged down first: `warpAffine` alone would skip pixels
        half = max(1, round(0.5 / scale))
        size = (max(1, image.shape[1] // half), max(1, image.shape[0] // half))
        factors = np.array([image.shape[1] / size[0], image.shape[0] / size[1]])
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        matrix[:, 2] += matrix[:, :2] @ ((factors - 1) / 2)
        matrix[:, :2] *= factors
    crop = cv2.warpAffine(
        image,
        matrix,
        (CROP_SIDE, CROP_SIDE),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    low = (round((x1 - left) * scale), round((y1 - top) * scale))
    high = (round((x2 - left) * scale), round((y2 - top) * scale))
    cv2.rectangle(crop, low, high, FRAME, 1, cv2.LINE_AA)
    return np.asarray(crop, np.uint8)


def _verdict(report: Report) -> str:
    verdict = report.verdict
    kind, word = ("good", "PASSED") if verdict.passed else ("bad", "FAILED")
    said = [*verdict.reasons, *(f"Note: {note}" for note in verdict.notes)]
    items = "".join(f"<li>{escape(text)}</li>" for text in said)
    listed = f"<ul>{items}</ul>" if said else ""
    return (
        f'<div class="verdict {kind}"><strong>{word}</strong>{listed}'
        f'<p class="soft">{escape(limits_line(verdict))}</p></div>'
    )


def _table(table: Table) -> str:
    head, *rows = table.rows
    cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = ["<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in rows]
    return (
        f'<h2>{escape(table.title)}</h2>\n<div class="wide"><table>\n<tr>{cells}</tr>\n'
        + "\n".join(lines)
        + "\n</table></div>"
    )


def _engines(*engines: EngineFacts) -> str:
    rows = [
        f"<tr><td>{escape(engine.name)}</td><td>{escape(network)}</td>"
        f"<td>{engine.bytes[network]:,}</td><td><code>{escape(sha256)}</code></td></tr>"
        for engine in engines
        for network, sha256 in engine.hashes.items()
    ]
    return (
        '<h2>Engines</h2>\n<div class="wide"><table>\n'
        "<tr><th>engine</th><th>network</th><th>bytes</th><th>SHA-256</th></tr>\n"
        + "\n".join(rows)
        + "\n</table></div>"
    )


def _faces(title: str, report: Report, *, by_candidate: bool) -> str:
    comparison = report.comparison
    faces = comparison.missed_by_candidate if by_candidate else comparison.missed_by_reference
    heading = f"<h2>{escape(title)} ({len(faces)})</h2>"
    if not faces:
        return f'{heading}\n<p class="soft">None.</p>'
    shown, left_out = faces[:MOST_PICTURES], len(faces) - MOST_PICTURES
    note = "Largest first; the frame is the label."
    if left_out > 0:
        note += f" {left_out} smaller {'ones are' if left_out > 1 else 'one is'} left out."
    names = (report.reference.name, report.candidate.name)
    figures = "\n".join(_figure(face, names) for face in shown)
    return f'{heading}\n<p class="soft">{note}</p>\n<div class="faces">\n{figures}\n</div>'


def _figure(face: Missed, names: tuple[str, str]) -> str:
    crop = crop_with_context(face.load(), face.box)
    _, data = cv2.imencode(".jpg", crop[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    source = "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
    scores = ", ".join(
        f"{name} {'-' if score is None else f'{score:.3f}'}"
        for name, score in zip(names, (face.reference_score, face.candidate_score), strict=True)
    )
    return (
        f'<figure><img src="{source}" alt="a face and what is around it"><figcaption>'
        f"{escape(face.name)}<span>{escape(face.set)}, {face.height:.0f} px</span>"
        f"<span>{escape(scores)}</span></figcaption></figure>"
    )
