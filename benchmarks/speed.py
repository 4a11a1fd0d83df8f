"""Time from the bytes of a 1080p JPEG to its faces, unface and its peers in turn.

    python -m benchmarks.speed [--quick]

Pictures are composed from the public-domain portrait that scikit-image ships: five faces, a crowd,
none. Every detector has a process of its own and the same cores; they take turns picture by
picture, so that a machine whose speed drifts slows all of them. Figures are ratios to unface in
the same run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import cv2

from benchmarks.machine import describe
from benchmarks.peers import REQUIREMENTS, NotInstalled, Worker
from benchmarks.pictures import compose

RESULTS = Path(__file__).parent / "results" / "speed.json"
CASES = [(2, 20), (2, 40), (1, 20), (1, 40)]  # threads, minimum face
WARM_UP, ROUNDS, QUICK_ROUNDS = 2, 5, 3
NAMES = ("unface", "unface-fast", *REQUIREMENTS)


def write_pictures(folder: Path) -> dict[str, Path]:
    """Write the three 1080p JPEGs."""
    few = [(100, 80, 40), (500, 60, 90), (900, 100, 180), (200, 600, 60), (1300, 500, 250)]
    many = [(10 + 118 * c, 5 + 106 * r, 44) for r in range(10) for c in range(16)]
    scenes = {"5 faces": few, "160 faces": many, "no face": []}
    paths = {}
    for name, places in scenes.items():
        path = folder / f"{name}.jpg"
        image = compose(1920, 1080, places).image[..., ::-1]
        path.write_bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes())
        paths[name] = path
    return paths


def time_case(
    pictures: dict[str, Path], threads: int, min_face: float, rounds: int
) -> dict[str, Any]:
    """Return, by picture and detector, the milliseconds of each round and the faces found."""
    opened = {name: open_worker(name, threads, min_face) for name in NAMES}
    workers = [w for w in opened.values() if isinstance(w, Worker)]
    rows: dict[str, Any] = {"not_measured": {n: w for n, w in opened.items() if isinstance(w, str)}}
    try:
        for picture, path in pictures.items():
            taken: dict[str, list[dict[str, Any]]] = {w.name: [] for w in workers}
            for _ in range(WARM_UP + rounds):
                for worker in workers:
                    taken[worker.name].append(worker.detect(path))
            rows[picture] = {name: summarize(runs) for name, runs in taken.items()}
    finally:
        for worker in workers:
            worker.close()
    return rows


def open_worker(name: str, threads: int, min_face: float) -> Worker | str:
    """Return a detector's worker, or why it cannot be had."""
    try:
        return Worker(name, threads, min_face)
    except NotInstalled as error:
        return str(error)


def summarize(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Return median, least and most milliseconds, faces, and the stand-in's share of the time."""
    standin = runs[-1]["standin_ms"] - runs[WARM_UP - 1]["standin_ms"]
    times = [run["ms"] for run in runs[WARM_UP:]]
    return {
        "median_ms": statistics.median(times),
        "min_ms": min(times),
        "max_ms": max(times),
        "faces": len(runs[-1]["scores"]),
        "standin_share": standin / sum(times),
    }


def show(results: dict[str, Any]) -> str:
    """Return a Markdown table: median milliseconds, ratio to unface, faces found."""
    lines = ["| threads, minimum face | picture | " + " | ".join(NAMES) + " |"]
    lines.append("|---|---|" + "---|" * len(NAMES))
    for case, rows in results.items():
        for picture, row in rows.items():
            if picture == "not_measured":
                lines += [f"{name} not measured: {why}" for name, why in row.items()]
                continue
            ours = row["unface"]["median_ms"]
            cells = [
                f"{r['median_ms']:.0f} ms ({r['median_ms'] / ours:.1f}x), {r['faces']} faces"
                for r in (row[name] for name in NAMES if name in row)
            ]
            lines.append(f"| {case} | {picture} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Time all cases, print the table, write `results/speed.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two threads and three rounds only")
    quick = parser.parse_args().quick
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        pictures = write_pictures(Path(folder))
        for threads, min_face in CASES[:2] if quick else CASES:
            rounds = QUICK_ROUNDS if quick else ROUNDS
            case = f"{threads} thread{'s' if threads > 1 else ''}, {min_face} px"
            results[case] = time_case(pictures, threads, min_face, rounds)
    print(show(results))
    if not quick:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps({**describe(), "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
