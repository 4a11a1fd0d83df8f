"""What was measured, as values: times and what was found, by case and detector."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unface.calibration.matching import Counts, match

IOU = 0.4  # from here on a face of a composed picture is found, as in sets of portraits
Answer = dict[str, Any]  # of a worker


@dataclass(frozen=True)
class Times:
    """Milliseconds of the runs that count, which are never a process's first on a picture."""

    median_ms: float
    low_ms: float
    high_ms: float
    rounds: int


@dataclass(frozen=True)
class Row:
    """One detector in one case.

    `faces` detected, `found` of `counted` faces of the picture (those not below the minimum face),
    `false_positives`; `peak_mb` is the most memory of its process until then, `standin_share` the
    part of the time spent in the torchvision stand-in.
    """

    times: Times
    faces: int
    found: int
    counted: int
    false_positives: int
    peak_mb: float
    standin_share: float = 0.0


@dataclass(frozen=True)
class Case:
    """One picture with one minimum face and number of threads.

    `failed` says by detector why one did not start or failed on the picture.

    `decode` is unface's own JPEG decoding, in none of the detectors' times.
    """

    size: str
    kind: str
    threads: int
    min_face: int
    rows: Mapping[str, Row]
    failed: Mapping[str, str] = field(default_factory=dict)
    decode: Times | None = None

    @property
    def title(self) -> str:
        """Return the case in words."""
        many = "s" if self.threads > 1 else ""
        return (
            f"{self.size}, {self.kind}, {self.threads} thread{many}, minimum face {self.min_face}"
        )


@dataclass(frozen=True)
class Photographs:
    """Recall and false positives on labelled photographs, all sets together, minimum face 20."""

    faces: int
    found: int
    false_positives: int

    @property
    def recall(self) -> float:
        """Part of the labelled faces that were found."""
        return self.found / self.faces


def times(milliseconds: Sequence[float]) -> Times:
    """Return the figures of some runs, one at least."""
    return Times(median(milliseconds), min(milliseconds), max(milliseconds), len(milliseconds))


def row(runs: Sequence[Answer], truth: NDArray[np.float64], min_face: float) -> Row:
    """Return the figures of a detector's runs on a picture with the faces `[n, 4]`."""
    last = runs[-1]
    counts = judge(last["boxes"], last["scores"], truth, min_face)
    spent = sum(run["ms"] for run in runs)
    return Row(
        times([run["ms"] for run in runs]),
        len(last["scores"]),
        counts.found,
        counts.faces,
        counts.false_positives,
        last["peak_mb"],
        sum(run["standin_ms"] for run in runs) / spent,
    )


def judge(
    boxes: Sequence[Sequence[float]],
    scores: Sequence[float],
    truth: NDArray[np.float64],
    min_face: float,
) -> Counts:
    """Return what boxes meet of the faces `[n, 4]`; those below `min_face` count neither way."""
    found = np.array(boxes, np.float64).reshape(-1, 4)
    best_first = np.argsort(-np.array(scores, np.float64), kind="stable")
    counts = Counts()
    match(counts, found[best_first], truth, truth[:, 3] - truth[:, 1] < min_face, IOU)
    return counts


def ratio(case: Case, name: str, to: str) -> float:
    """Return how many times the median of `to` a detector took; NaN where one is missing."""
    if name not in case.rows or to not in case.rows:
        return math.nan
    return case.rows[name].times.median_ms / case.rows[to].times.median_ms


def read_photographs(results: Path) -> dict[str, Photographs]:
    """Return what `results/accuracy.json` says, by detector; nothing if there is no such file."""
    if not results.exists():
        return {}
    figures = json.loads(results.read_text())["figures"]
    return {name: pooled(row["sets"]) for name, row in figures.items() if "sets" in row}


def pooled(sets: Mapping[str, Mapping[str, Any]]) -> Photographs:
    """Return the counts of all sets together."""
    keys = ("faces", "found", "false_positives")
    return Photographs(*(sum(int(counts[key]) for counts in sets.values()) for key in keys))
