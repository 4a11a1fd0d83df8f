"""Recall and false positives: which detections meet which labelled faces."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

BANDS = {"<20": (0, 20), "20-40": (20, 40), "40-80": (40, 80), ">80": (80, np.inf)}
FALSE, NEITHER = -1, -2  # a detection that meets no face; one that meets only an ignored face
Boxes = NDArray[np.float64]


@dataclass
class Counts:
    """What was found of a set of pictures; `bands` by the labelled height in pixels."""

    faces: int = 0
    found: int = 0
    false_positives: int = 0
    bands: dict[str, list[int]] = field(default_factory=lambda: {b: [0, 0] for b in BANDS})

    @property
    def recall(self) -> float:
        """Part of the labelled faces that were found; NaN where there is none."""
        return self.found / self.faces if self.faces else float("nan")


def iou(a: Boxes, b: Boxes) -> Boxes:
    """Return the intersection over union of boxes `[n, 4]` and `[m, 4]` as `[n, m]`."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    area_a, area_b = ((box[:, 2:] - box[:, :2]).prod(axis=1) for box in (a, b))
    return np.asarray(shared / (area_a[:, None] + area_b[None] - shared), np.float64)


def assign(
    boxes: Boxes, faces: Boxes, ignored: NDArray[np.bool_], at_least: float
) -> NDArray[np.int64]:
    """Return for each detection `[n]` the labelled face it takes, or `FALSE`, or `NEITHER`.

    Detections `[n, 4]`, best score first, against faces `[m, 4]`. Each takes the free face it
    overlaps most, from the IoU `at_least` on. One that meets only an ignored face is `NEITHER`.
    The answer for the first k detections does not depend on the others.
    """
    taken = np.full(len(boxes), FALSE, np.int64)
    if not len(boxes) or not len(faces):
        return taken
    free = ~ignored
    for index, row in enumerate(iou(boxes, faces)):
        best = int(np.where(free, row, -1).argmax())
        if free[best] and row[best] >= at_least:
            free[best] = False
            taken[index] = best
        elif (row[ignored] >= at_least).any():
            taken[index] = NEITHER
    return taken


def band_of(height: float) -> str:
    """Return the name of the band that a labelled height in pixels belongs to."""
    return next(band for band, (low, high) in BANDS.items() if low <= height < high)


def match(
    counts: Counts, boxes: Boxes, faces: Boxes, ignored: NDArray[np.bool_], at_least: float
) -> None:
    """Count one picture: detections `[n, 4]`, best score first, against faces `[m, 4]`.

    A detection that meets only an ignored face (marked so, or smaller than the set's limit) counts
    as nothing; see `assign`.
    """
    taken = assign(boxes, faces, ignored, at_least)
    counts.false_positives += int((taken == FALSE).sum())
    for index in np.flatnonzero(~ignored):
        found = bool((taken == index).any())
        band = counts.bands[band_of(faces[index, 3] - faces[index, 1])]
        counts.faces += 1
        counts.found += found
        band[0] += 1
        band[1] += found


def both_find(
    first: Boxes, first_scores: Boxes, second: Boxes, second_scores: Boxes, score: float = 0.95
) -> Boxes:
    """Return the boxes of `first` scored above `score` that `second` has so too (IoU > 0.5)."""
    a, b = first[first_scores > score], second[second_scores > score]
    if not len(a) or not len(b):
        return np.empty((0, 4))
    sure: Boxes = a[iou(a, b).max(axis=1) > 0.5]
    return sure


def met(boxes: Boxes, others: Boxes) -> int:
    """Return how many boxes have another with IoU > 0.5."""
    if not len(boxes) or not len(others):
        return 0
    return int((iou(boxes, others).max(axis=1) > 0.5).sum())
