"""What was measured, as Markdown that is legible in a terminal too."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from benchmarks.figures import Case, Photographs, Row, Times, ratio

HEAD = (
    "detector", "ms", "min..max", "x unface-fast", "x unface", "faces", "recall", "false",
    "memory", "rounds", "photographs",
)  # fmt: skip
NOTE = (
    "ms: median from decoded RGB pixels to faces, all detectors in turn on the same cores. recall: "
    "found of the picture's faces that are not below the minimum face; false: detections on no "
    "face. memory: most of the process until then. rounds: fewer where a detector has used its "
    "time for the case. photographs: recall and false positives "
    "on labelled photographs, minimum face 20 (benchmarks/results/accuracy.json)."
)
NOTHING, MISSING = "-", "not measured"


def show(
    cases: Sequence[Case],
    not_measured: Mapping[str, str],
    photographs: Mapping[str, Photographs],
) -> str:
    """Return a table for each case, then all cases in one, then who is missing and why."""
    parts = [case_table(case, not_measured, photographs) for case in cases]
    if len(cases) > 1:
        parts.append("### Median milliseconds and recall\n\n" + overview(cases))
    parts.append(NOTE)
    failed = [failure for case in cases for failure in case.failed.items()]
    reasons = dict.fromkeys((*not_measured.items(), *failed))
    parts += [f"{name} {MISSING}: {why}." for name, why in reasons]
    return "\n\n".join(parts)


def case_table(
    case: Case, not_measured: Mapping[str, str], photographs: Mapping[str, Photographs]
) -> str:
    """Return the table of one case, fastest detector first."""
    order = sorted(case.rows, key=lambda name: case.rows[name].times.median_ms)
    lines = [_cells(case, name, photographs.get(name)) for name in order]
    lines += [[name, MISSING] for name in (*case.failed, *not_measured)]
    decode = (
        "" if case.decode is None else f"\n\nJPEG decoding, not in the times: {_ms(case.decode)}"
    )
    return f"### {case.title}\n\n{markdown(HEAD, lines)}{decode}"


def overview(cases: Sequence[Case]) -> str:
    """Return one table: a line for each case, a column for each detector."""
    names = list(dict.fromkeys(name for case in cases for name in case.rows))
    lines = [[case.title, *(_brief(case.rows.get(name)) for name in names)] for case in cases]
    return markdown(("case", *names), lines)


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table with columns of even width, the first aligned left; short lines are filled."""
    rows = [[*line, *[""] * (len(head) - len(line))] for line in lines]
    widths = [max(3, *(len(line[i]) for line in [head, *rows])) for i in range(len(head))]

    def joined(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return f"| {first[0]:<{first[1]}} | " + " | ".join(f"{c:>{w}}" for c, w in others) + " |"

    rule = f"|{'-' * (widths[0] + 2)}|" + "|".join("-" * (w + 1) + ":" for w in widths[1:]) + "|"
    return "\n".join([joined(head), rule, *map(joined, rows)])


def recall(row: Row) -> str:
    """Return found of counted faces: `5/5`; a dash where the picture has none that count."""
    return f"{row.found}/{row.counted}" if row.counted else NOTHING


def milliseconds(value: float) -> str:
    """Return a time with as many digits as it is sure of."""
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _cells(case: Case, name: str, photographs: Photographs | None) -> list[str]:
    row = case.rows[name]
    return [
        name,
        milliseconds(row.times.median_ms),
        _range(row.times),
        _ratio(ratio(case, name, "unface-fast")),
        _ratio(ratio(case, name, "unface")),
        str(row.faces),
        recall(row),
        str(row.false_positives),
        f"{row.peak_mb:.0f} MB",
        str(row.times.rounds),
        NOTHING if photographs is None else _photographs(photographs),
    ]


def _photographs(photographs: Photographs) -> str:
    return f"{photographs.recall:.1%}, {photographs.false_positives} false"


def _range(times: Times) -> str:
    return f"{milliseconds(times.low_ms)}..{milliseconds(times.high_ms)}"


def _ms(times: Times) -> str:
    return f"{milliseconds(times.median_ms)} ms ({_range(times)})"


def _ratio(value: float) -> str:
    return NOTHING if math.isnan(value) else f"{value:.2f}"


def _brief(row: Row | None) -> str:
    if row is None:
        return NOTHING
    found = f", {row.found / row.counted:.0%}" if row.counted else ""
    return f"{milliseconds(row.times.median_ms)}{found}"
