"""What a run on a GPU found out: figures kept as they come, and the table against the targets."""

from __future__ import annotations

import json
import re
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.tables import markdown

MOST_WORDS = 250  # characters of a reason
Figures = dict[str, Any]


class NotMeasured(Exception):
    """Something that cannot be measured here; the message says why."""


@dataclass
class Report:
    """The figures of a run, written into `files` after every section: a run cut short keeps them.

    Sections begin while `limit_s` seconds have not passed; each fails for itself.
    """

    limit_s: float
    files: Sequence[Path] = ()
    figures: Figures = field(default_factory=dict)
    _begin: float = field(default_factory=time.monotonic)

    def section(self, name: str, work: Callable[[], Any]) -> Any:
        """Do a section, `work`'s answer among the figures by its name; None where it has none.

        What is missing, late or failing is told and noted, and the run goes on.
        """
        passed = time.monotonic() - self._begin
        print(f"\n## {name} ({passed:.0f} s)\n", flush=True)
        answer = None
        try:
            if passed > self.limit_s:
                raise NotMeasured(
                    f"{passed:.0f} s have passed; the run's limit is {self.limit_s:.0f}"
                )
            answer = work()
            if answer is not None:
                self.figures[name] = answer
        except NotMeasured as why:
            print(f"not measured: {why}", flush=True)
            self._note("not_measured", name, str(why))
        except Exception as error:  # noqa: BLE001 - the other sections are still worth having
            print(traceback.format_exc(), flush=True)
            self._note("failed", name, f"{type(error).__name__}: {error}")
        self.save()
        return answer

    def save(self) -> None:
        """Write the figures."""
        self.figures["seconds"] = round(time.monotonic() - self._begin, 1)
        for file in self.files:
            write(file, self.figures)

    def _note(self, kind: str, name: str, why: str) -> None:
        self.figures.setdefault(kind, {})[name] = why


def write(file: Path, figures: Figures) -> None:
    """Write figures as JSON; numbers that are none become null."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(_plain(figures), indent=1, allow_nan=False) + "\n")


def read(file: Path) -> Figures:
    """Return figures that `write` wrote."""
    return dict(json.loads(file.read_text()))


def file_name(card: str) -> str:
    """Return the name of a card's file of results: "gpu-nvidia-h200.json"."""
    return f"gpu-{re.sub('[^a-z0-9]+', '-', card.lower()).strip('-')}.json"


def _plain(value: Any) -> Any:
    """Return a value as JSON knows it, five digits a number."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy's
        return _plain(value.tolist())
    if isinstance(value, float):
        return float(f"{value:.5g}") if abs(value) < float("inf") else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


@dataclass(frozen=True)
class Target:
    """What a figure, by its path in `Report.figures`, has to reach: `least`, or at most `most`."""

    name: str
    path: tuple[str, ...]
    unit: str = ""
    least: float | None = None
    most: float | None = None

    @property
    def wanted(self) -> str:
        """Return the bound in words."""
        bound = f">= {self.least:g}" if self.most is None else f"<= {self.most:g}"
        return f"{bound} {self.unit}".rstrip()

    def is_met(self, value: float) -> bool:
        """Return whether a value reaches it; what is no number does not."""
        return (self.least is None or value >= self.least) and (
            self.most is None or value <= self.most
        )


MAIN = "1080p few 20"  # picture and minimum face of most targets
SPEED, AGREEMENT = "speed kernels", "agreement kernels"
TARGETS = (
    Target("1080p on the device", (SPEED, MAIN, "resident", "fps"), "frames/s", least=2000),
    Target("1080p from host memory", (SPEED, MAIN, "host", "fps"), "frames/s", least=1000),
    Target("one from host memory, p50", (SPEED, MAIN, "latency", "p50_ms"), "ms", most=1.5),
    Target("beside facenet-pytorch", ("times", "facenet-pytorch"), "times", least=30),
    Target("FP16: least IoU with FP32", (AGREEMENT, "least_iou"), least=0.95),
    Target("FP16: faces of FP32 not met", (AGREEMENT, "lost_points"), "points", most=0.1),
    Target("FP16: recall lost", (AGREEMENT, "recall_lost_points"), "points", most=0.1),
    Target("FP16: checks that failed", ("checks kernels", "failed"), most=0),
    Target(
        "INT8: recall lost", ("agreement tensorrt int8", "recall_lost_points"), "points", most=0.3
    ),
    Target("memcheck", ("sanitizers", "memcheck", "errors"), "errors", most=0),
    Target("racecheck", ("sanitizers", "racecheck", "errors"), "errors", most=0),
)


def lookup(figures: Mapping[str, Any], path: Sequence[str]) -> float | None:
    """Return the number at a path; None where there is none."""
    value: Any = figures
    for key in path:
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return float(value) if isinstance(value, (int, float)) else None


def verdicts(figures: Mapping[str, Any], targets: Sequence[Target] = TARGETS) -> list[list[str]]:
    """Return for each target its name, bound, what was measured, and met or MISSED."""
    lines = []
    for target in targets:
        value = lookup(figures, target.path)
        if value is None:
            lines.append([target.name, target.wanted, "-", "not measured"])
        else:
            met = "met" if target.is_met(value) else "MISSED"
            lines.append([target.name, target.wanted, f"{value:.4g}", met])
    return lines


def show_targets(figures: Mapping[str, Any], targets: Sequence[Target] = TARGETS) -> str:
    """Return the table against the targets, then what was not measured, or failed, and why."""
    table = markdown(("target", "wanted", "measured", ""), verdicts(figures, targets))
    reasons: dict[str, list[str]] = {}  # often several sections have one
    for kind in ("failed", "not_measured"):
        for name, why in figures.get(kind, {}).items():
            reasons.setdefault(f"{kind.replace('_', ' ')}: {str(why)[:MOST_WORDS]}", []).append(
                name
            )
    notes = [f"{', '.join(names)}: {why}" for why, names in reasons.items()]
    return "\n".join([table, *([""] if notes else []), *notes])
