"""What the sections of `benchmarks.serving` report: rows beside targets, percentiles, files."""

from __future__ import annotations

import json
import math
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import psutil

from benchmarks.machine import describe
from benchmarks.serving_client import OK, REFUSED, Call
from benchmarks.tables import markdown

LIBRARIES = ("unface", "grpcio", "protobuf", "numpy", "opencv-python-headless", "pillow")
HEAD = ("what", "figure", "target", "")
MET, MISSED = "met", "MISSED"


class Row(NamedTuple):
    """A line of a table; `met` is None where there is no target."""

    what: str
    figure: str
    target: str = ""
    met: bool | None = None


@dataclass
class Section:
    """What one section measured: its rows, the server's flags, and the figures behind the rows."""

    name: str
    flags: dict[str, str] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def add(self, what: str, figure: str, target: str = "", met: bool | None = None) -> None:
        """Add a row."""
        self.rows.append(Row(what, figure, target, met))

    @property
    def missed(self) -> bool:
        """Whether a target was missed."""
        return any(row.met is False for row in self.rows)


class Outcome(NamedTuple):
    """Calls by what became of them; `other` has the names of all statuses that should not be."""

    sent: int
    accepted: int
    refused: int
    other: dict[str, int]


def outcome(calls: Sequence[Call]) -> Outcome:
    """Count calls by status."""
    codes = Counter(call.code for call in calls)
    other = {code: count for code, count in codes.items() if code not in (OK, REFUSED)}
    return Outcome(len(calls), codes[OK], codes[REFUSED], other)


def milliseconds(calls: Iterable[Call], code: str = OK) -> list[float]:
    """Return the milliseconds of the calls with a status."""
    return [call.seconds * 1000 for call in calls if call.code == code]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of the values (0 to 1) do not exceed; NaN of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def per_second(calls: Sequence[Call], seconds: float) -> float:
    """Return the rate at which calls were answered within the seconds of a closed loop."""
    if not calls:
        return 0.0
    ends = min(call.sent for call in calls) + seconds
    return sum(call.code == OK and call.ended <= ends for call in calls) / seconds


def full_speed_after(calls: Sequence[Call], event: float, window: float = 0.5) -> float:
    """Return the seconds from an event until calls are answered as fast as before it.

    That is: until the end of the first `window` with at least nine tenths of the median rate of
    the windows before the event. Infinity where there is none.
    """
    ends = sorted(call.ended for call in calls if call.code == OK)
    if not ends or ends[0] + window > event:
        return math.inf
    before = [_within(ends, at, at + window) for at in _steps(ends[0], event - window, window)]
    enough = 0.9 * median(before)
    for at in _steps(event, ends[-1] - window, window / 10):
        if _within(ends, at, at + window) >= enough:
            return max(0.0, next(end for end in ends if end >= at) - event)
    return math.inf


def calm_after(calls: Sequence[Call], event: float, most_ms: float, run: int = 5) -> float:
    """Return the seconds from an event to the first answer that is quick again.

    And not by chance: so is the median of the `run` answers that begin with it.
    """
    answered = sorted((call for call in calls if call.ended >= event), key=lambda call: call.sent)
    for first in range(len(answered) - run + 1):
        some = answered[first : first + run]
        taken = milliseconds(some)
        if len(taken) == run and max(taken[0], median(taken)) <= most_ms:
            return max(0.0, some[0].ended - event)
    return math.inf


def growth(values: Sequence[int]) -> float:
    """Return by what share the last quarter's median is above the first quarter's."""
    quarter = max(1, len(values) // 4)
    return median(values[-quarter:]) / median(values[:quarter]) - 1 if values else math.nan


def show(section: Section) -> str:
    """Return a section as Markdown."""
    flags = "; ".join(f"{name}: {flags}" for name, flags in section.flags.items())
    lines = [[r.what, r.figure, r.target, _verdict(r.met)] for r in section.rows]
    return f"### {section.name}\n\nserver: {flags or 'as it comes'}\n\n{markdown(HEAD, lines)}"


def record(section: Section, others_busy: float) -> dict[str, Any]:
    """Return a section as it is kept, with machine, date and versions."""
    return {
        "machine": describe(),
        "others_busy": round(others_busy, 2),
        "versions": {"python": platform.python_version(), **{n: version(n) for n in LIBRARIES}},
        "flags": section.flags,
        "rows": [row._asdict() for row in section.rows],
        "figures": section.figures,
    }


def keep(file: Path, sections: Mapping[str, Mapping[str, Any]]) -> None:
    """Write sections to a JSON file, in the place of those of the same names that it has."""
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    file.write_text(json.dumps({**kept, **sections}, indent=1) + "\n", encoding="utf-8")


def measure(sections: Mapping[str, Callable[[], Section]], file: Path | None) -> bool:
    """Measure, print and, in a file, keep each section; returns whether a target was missed."""
    missed = False
    for name, section_of in sections.items():
        others = busy_cores()
        section = section_of()
        print(f"{show(section)}\n\ncores that other programs took before: {others:.2f}\n")
        if file is not None:
            keep(file, {name: record(section, others)})
        missed |= section.missed
    return missed


def busy_cores(seconds: float = 1.0) -> float:
    """Return how many cores other programs take now: figures of a busy machine mean less."""
    before, begin = _busy_seconds(), time.monotonic()
    time.sleep(seconds)
    return max(0.0, (_busy_seconds() - before) / (time.monotonic() - begin))


def as_figures(**values: Any) -> dict[str, Any]:
    """Return values for `Section.figures`, numbers with four digits that count."""
    return {name: _rounded(value) for name, value in values.items()}


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(name): _rounded(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(one) for one in value]
    return value


def _verdict(met: bool | None) -> str:
    return "" if met is None else MET if met else MISSED


def _steps(begin: float, end: float, step: float) -> list[float]:
    return [begin + step * number for number in range(int((end - begin) / step) + 1)]


def _within(ends: Sequence[float], begin: float, end: float) -> int:
    return sum(begin <= at < end for at in ends)
