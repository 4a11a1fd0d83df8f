"""The times at 1080p as an SVG, written by hand: no library, legible on light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from benchmarks.figures import Case, Photographs, Row
from benchmarks.tables import NOTHING, milliseconds, recall

SIZE, KIND, THREADS, MIN_FACES = "1080p", "few", 2, (20, 40)
WIDTH, ROW, TOP, PANEL_GAP = 860, 28, 74, 62
NAMES_END, BARS, BARS_END = 158, 170, 590  # x of the columns
FOUND_END, PHOTOGRAPHS_END = 684, 832
BAR = 14  # pixels high
TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000)
ROOM_FOR_FIGURE = 1.6  # the axis goes on beyond the slowest, whose time is written there

STYLE = """
:root { color-scheme: light dark; }
.paper { fill: #ffffff; stroke: #e1e4e8; } .ink { fill: #1c1e21; } .soft { fill: #646a73; }
.missed { fill: #b3261e; } .ours { fill: #0b7a75; } .peer { fill: #a9b2bd; }
.grid { stroke: #e6e8eb; }
.spread { stroke: #1c1e21; stroke-opacity: .55; }
text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
.title { font-size: 17px; font-weight: 600; } .panel { font-weight: 600; }
.small { font-size: 11px; }
.bold { font-weight: 600; } .end { text-anchor: end; } .middle { text-anchor: middle; }
@media (prefers-color-scheme: dark) {
.paper { fill: #16181b; stroke: #33373d; } .ink { fill: #e8eaed; } .soft { fill: #9aa0a8; }
.missed { fill: #ff8a80; } .ours { fill: #35b8b0; } .peer { fill: #59626e; }
.grid { stroke: #2a2e33; }
.spread { stroke: #e8eaed; } }
"""


def chosen(cases: Sequence[Case]) -> list[Case]:
    """Return the cases that the plot shows, one a panel."""
    return [
        case
        for min_face in MIN_FACES
        for case in cases
        if (case.size, case.kind, case.threads) == (SIZE, KIND, THREADS)
        and case.min_face == min_face
        and case.rows
    ]


def draw(
    cases: Sequence[Case],
    photographs: Mapping[str, Photographs],
    not_measured: Mapping[str, str],
    machine: Mapping[str, str],
) -> str | None:
    """Return the SVG: bars of milliseconds by detector, recall beside; None without such cases."""
    panels = chosen(cases)
    if not panels:
        return None
    low, high = limits([row for case in panels for row in case.rows.values()])
    parts, y = [], TOP
    for case in panels:
        parts.append(_panel(case, photographs, y, (low, high)))
        y += ROW * len(case.rows) + PANEL_GAP
    parts.append(_foot(not_measured, machine, y - 14))
    height = y + 20
    title = f"Milliseconds to find the faces of a {SIZE} picture, {THREADS} threads"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img" aria-label="{title}">\n<style>{STYLE}</style>\n'
        f'<rect class="paper" x=".5" y=".5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>\n'
        + _text(24, 34, title, "ink title")
        + "".join(parts)
        + "</svg>\n"
    )


def limits(rows: Sequence[Row]) -> tuple[float, float]:
    """Return where the axis begins and ends: a tick below the fastest, beyond the slowest."""
    fastest = min(row.times.low_ms for row in rows)
    slowest = max(row.times.high_ms for row in rows)
    low = max((tick for tick in TICKS if tick < fastest), default=fastest / 2)
    return low, slowest * ROOM_FOR_FIGURE


def position(value: float, axis: tuple[float, float]) -> float:
    """Return the x of a time on the logarithmic axis."""
    low, high = (math.log(limit) for limit in axis)
    return BARS + (BARS_END - BARS) * (math.log(value) - low) / (high - low)


def _panel(
    case: Case, photographs: Mapping[str, Photographs], top: float, axis: tuple[float, float]
) -> str:
    order = sorted(case.rows, key=lambda name: case.rows[name].times.median_ms)
    bottom = top + ROW * len(order)
    parts = [
        _text(24, top - 12, f"Minimum face {case.min_face}", "ink panel"),
        _text(FOUND_END, top - 12, "found here", "soft small end"),
        _text(PHOTOGRAPHS_END, top - 12, "photographs*", "soft small end"),
    ]
    for tick in TICKS:
        if axis[0] <= tick <= axis[1]:
            x = position(tick, axis)
            line = f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>\n'
            label = f"{tick / 1000:g} s" if tick >= 1000 else f"{tick}"
            parts += [line, _text(x, bottom + 14, label, "soft small middle")]
    for index, name in enumerate(order):
        middle = top + ROW * index + ROW / 2
        parts.append(_bar(name, case.rows[name], photographs.get(name), middle, axis))
    return "".join(parts)


def _bar(
    name: str, row: Row, photographs: Photographs | None, middle: float, axis: tuple[float, float]
) -> str:
    ours = name.startswith("unface")
    times, weight = row.times, " bold" if ours else ""
    x, low, high = (position(v, axis) for v in (times.median_ms, times.low_ms, times.high_ms))
    shown = NOTHING
    if photographs is not None:
        shown = f"{photographs.recall:.1%}, {photographs.false_positives}"
    found = "missed" if row.found < row.counted else "ink"
    base = middle + 4.5
    return (
        _text(NAMES_END, base, name, f"ink end{weight}")
        + f'<rect class="{"ours" if ours else "peer"}" x="{BARS}" y="{middle - BAR / 2:g}" '
        f'width="{max(x - BARS, 1):.1f}" height="{BAR}" rx="2"/>\n'
        f'<line class="spread" x1="{low:.1f}" x2="{high:.1f}" y1="{middle:g}" y2="{middle:g}"/>\n'
        + _text(max(x, high) + 8, base, f"{milliseconds(times.median_ms)} ms", f"ink{weight}")
        + _text(FOUND_END, base, recall(row), f"{found} end{weight}")
        + _text(PHOTOGRAPHS_END, base, shown, f"ink end{weight}")
    )


def _foot(not_measured: Mapping[str, str], machine: Mapping[str, str], y: float) -> str:
    how = (
        "Median of turns, line: least to most; logarithmic. "
        "* Recall and false positives on labelled photographs, minimum face 20."
    )
    where = f"{machine['processor']}, {machine['cores']} cores, {machine['date']}."
    missing = f" Not measured: {', '.join(not_measured)}." if not_measured else ""
    return _text(24, y, how, "soft small") + _text(24, y + 16, where + missing, "soft small")


def _text(x: float, y: float, text: str, classes: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{classes}">{escape(text)}</text>\n'
