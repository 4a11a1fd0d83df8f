"""What the gate found, for three readers: a terminal, a program (JSON), a person (HTML)."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any

from unface.calibration.cost import Pace
from unface.calibration.gate import Comparison, Missed, Recall, Verdict

MIB = 2**20


@dataclass(frozen=True)
class EngineFacts:
    """One side of the comparison: its name, and SHA-256 and bytes of each network's engine."""

    name: str
    hashes: dict[str, str]
    bytes: dict[str, int]
    peak_mib: float | None = None  # None: not measured

    @property
    def total_bytes(self) -> int:
        """Size of the three engines together."""
        return sum(self.bytes.values())


@dataclass(frozen=True, eq=False)
class Report:
    """A comparison with its verdict and everything that says of what and when."""

    reference: EngineFacts
    candidate: EngineFacts
    data: str  # the folder's name, or that the built-in scenes were used
    date: str
    comparison: Comparison
    verdict: Verdict
    speed: dict[str, Pace] = field(default_factory=dict)  # empty: not measured


@dataclass(frozen=True)
class Table:
    """Rows of text under a title; the first row is the head, the first column names the rows."""

    title: str
    rows: list[tuple[str, ...]]


def to_text(report: Report) -> str:
    """Return the report as plain text for a terminal."""
    first, second = report.reference.name, report.candidate.name
    lines = [f"{first} (reference) and {second} (candidate) on {report.data}", ""]
    for table in tables(report):
        lines += [table.title, *_aligned(table.rows), ""]
    lines += verdict_lines(report.verdict)
    return "\n".join(lines)


def verdict_lines(verdict: Verdict) -> list[str]:
    """Return the verdict, then each reason and each note, a line each."""
    head = f"{'PASSED' if verdict.passed else 'FAILED'} ({limits_line(verdict)})"
    return [head, *(f"  - {r}" for r in verdict.reasons), *(f"  note: {n}" for n in verdict.notes)]


def limits_line(verdict: Verdict) -> str:
    """Return the limits of the gate in words."""
    limits = verdict.limits
    return (
        f"allowed: recall {limits.recall:g} points lower, {limits.band:g} in a size band; "
        f"landmarks {limits.landmarks:g}% of face width worse"
    )


def tables(report: Report) -> list[Table]:
    """Return all figures as tables of text: recall, places, single networks, cost."""
    found = [_recall_table(report.comparison), _place_table(report.comparison)]
    if report.comparison.networks:
        found.append(_network_table(report.comparison))
    return [*found, _cost_table(report)]


def to_json(report: Report) -> str:
    """Return the report as JSON; points, percent, milliseconds and MiB as the names say."""
    comparison = report.comparison
    record = {
        "passed": report.verdict.passed,
        "reasons": report.verdict.reasons,
        "notes": report.verdict.notes,
        "limits": asdict(report.verdict.limits),
        "reference": asdict(report.reference),
        "candidate": asdict(report.candidate),
        "data": report.data,
        "date": report.date,
        "pictures": comparison.pictures,
        "equal_false_positives": {
            "thresholds": comparison.thresholds,
            "false_positives": comparison.false_positives,
            "recall": _recall_record(comparison.overall),
            "bands": {band: _recall_record(r) for band, r in comparison.bands.items()},
            "sets": {name: _recall_record(r) for name, r in comparison.sets.items()},
        },
        "default_threshold": {
            "false_positives": comparison.in_use_false_positives,
            "recall": _recall_record(comparison.in_use),
        },
        "landmark_error_percent": comparison.landmarks and asdict(comparison.landmarks),
        "box_iou": comparison.overlap and asdict(comparison.overlap),
        "networks": {
            name: {output: asdict(d) for output, d in outputs.items()}
            for name, outputs in comparison.networks.items()
        },
        "missed_by_candidate": [_missed_record(m) for m in comparison.missed_by_candidate],
        "missed_by_reference": [_missed_record(m) for m in comparison.missed_by_reference],
        "speed": {name: {**asdict(p), "ratio": p.ratio} for name, p in report.speed.items()},
    }
    return json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _recall_record(recall: Recall) -> dict[str, Any]:
    return {**asdict(recall), "difference": recall.difference}


def _missed_record(missed: Missed) -> dict[str, Any]:
    return {
        "set": missed.set,
        "image": missed.name,
        "box": missed.box,
        "reference_score": missed.reference_score,
        "candidate_score": missed.candidate_score,
    }


def _recall_table(comparison: Comparison) -> Table:
    head = ("", "faces", "reference", "candidate", "difference", "95% interval")
    named = [("all faces", comparison.overall)]
    named += [(f"  {band} px", recall) for band, recall in comparison.bands.items()]
    if len(comparison.sets) > 1:
        named += [(f"  {name}", recall) for name, recall in comparison.sets.items()]
    rows = [head, *(_recall_row(name, recall) for name, recall in named)]
    first, second = comparison.false_positives
    rows.append(("false positives", "", str(first), str(second), f"{second - first:+d}", ""))
    low, high = (f"{threshold:.3f}" for threshold in comparison.thresholds)
    rows.append(("O-Net threshold", "", low, high, "", ""))
    rows.append(_recall_row("at the default threshold", comparison.in_use))
    first, second = comparison.in_use_false_positives
    rows.append(("  false positives", "", str(first), str(second), f"{second - first:+d}", ""))
    title = f"Recall at equal false positives ({comparison.pictures} pictures)"
    return Table(title, rows)


def _recall_row(name: str, recall: Recall) -> tuple[str, ...]:
    if not recall.faces:
        return (name, "0", "", "", "", "")
    counts = (recall.reference, recall.candidate)
    shares = (f"{100 * found / recall.faces:.2f}%" for found in counts)
    low, high = recall.interval
    interval = f"{low:+.2f} to {high:+.2f}"
    return (name, str(recall.faces), *shares, f"{recall.difference:+.2f}", interval)


def _place_table(comparison: Comparison) -> Table:
    rows: list[tuple[str, ...]] = [("", "faces", "reference", "candidate", "difference")]
    marks, overlap = comparison.landmarks, comparison.overlap
    if marks is None:
        rows.append(("landmark error, % of face width", "0", "", "", ""))
    else:
        both = (f"{marks.reference:.2f}", f"{marks.candidate:.2f}")
        change = f"{marks.candidate - marks.reference:+.2f}"
        rows.append(("landmark error, % of face width", str(marks.faces), *both, change))
    if overlap is not None:
        count = str(overlap.faces)
        rows.append(("IoU of the two boxes, median", count, "", f"{overlap.median:.3f}", ""))
        rows.append(("IoU of the two boxes, 5th percentile", count, "", f"{overlap.low:.3f}", ""))
    return Table("Where the faces that both found are", rows)


def _network_table(comparison: Comparison) -> Table:
    rows: list[tuple[str, ...]] = [("", "cosine similarity", "largest difference")]
    for network, outputs in comparison.networks.items():
        for output, d in outputs.items():
            # Cut, not rounded: only what is the same may read 1.
            cosine = math.floor(d.cosine * 1e6) / 1e6
            rows.append((f"{network} {output}", f"{cosine:.6f}", f"{d.max_error:.4g}"))
    return Table("Single networks, on the same inputs", rows)


def _cost_table(report: Report) -> Table:
    head = ("", "reference", "candidate", "candidate is")
    rows: list[tuple[str, ...]] = [head]
    for name, pace in report.speed.items():
        times = (f"{pace.reference_ms:.2f} ms", f"{pace.candidate_ms:.2f} ms")
        rows.append((name, *times, _times(pace.ratio, "faster", "slower")))
    first, second = report.reference, report.candidate
    sizes = (f"{f.total_bytes / MIB:.2f} MiB" for f in (first, second))
    smaller = _times(first.total_bytes / second.total_bytes, "smaller", "larger")
    rows.append(("engine files", *sizes, smaller))
    if first.peak_mib is not None and second.peak_mib is not None:
        peaks = (f"{first.peak_mib:.0f} MiB", f"{second.peak_mib:.0f} MiB")
        rows.append(("peak memory, 1080p", *peaks, _times(first.peak_mib / second.peak_mib)))
    return Table("Cost", rows)


def _times(ratio: float, more: str = "less", less: str = "more") -> str:
    """Return "1.50x faster" for 1.5 and "1.50x slower" for 1 / 1.5."""
    if round(ratio, 2) == 1:
        return "the same"
    return f"{ratio:.2f}x {more}" if ratio > 1 else f"{1 / ratio:.2f}x {less}"


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Return rows with columns one below the other: the first to the left, others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
