"""Boxes: regression, squares, clipping and non-maximum suppression.

A box is float64 `x1 y1 x2 y2` in a continuous frame: pixel (0, 0) covers [0, 1) x [0, 1), so that
width is `x2 - x1`. The original counts pixels from 1 and includes the last one; its `x2 - x1 + 1`
is our width. Double precision costs nothing here and keeps near ties the same for all engines.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from unface.kernels.arrays import suppress
from unface.kernels.library import instruction_set

BoxArray = npt.NDArray[np.float64]
FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Overlap = Literal["union", "min"]

PAIRS_AT_ONCE = 1 << 20  # bounds the memory of a suppression, whatever the crowd


def regress(boxes: BoxArray, offsets: FloatArray) -> BoxArray:
    """Move the edges of boxes `[n, 4]` by offsets `[n, 4]`, fractions of width and height."""
    sizes = boxes[:, 2:] - boxes[:, :2]
    moved: BoxArray = boxes + offsets * np.concatenate([sizes, sizes], axis=1)
    return moved


def to_squares(boxes: BoxArray) -> BoxArray:
    """Return boxes `[n, 4]` as squares `[n, 3]` `x1 y1 side`: same centre, the longer side."""
    sizes = boxes[:, 2:] - boxes[:, :2]
    side = sizes.max(axis=1, keepdims=True)
    return np.concatenate([boxes[:, :2] + (sizes - side) / 2, side], axis=1)


def boxes_from_squares(squares: BoxArray) -> BoxArray:
    """Return squares `[n, 3]` as boxes `[n, 4]`."""
    return np.concatenate([squares[:, :2], squares[:, :2] + squares[:, 2:]], axis=1)


def clip(boxes: BoxArray, width: int, height: int) -> BoxArray:
    """Return boxes `[n, 4]` cut to the image `[0, width] x [0, height]`."""
    return np.clip(boxes, 0.0, np.array([width, height, width, height], np.float64))


def nms(boxes: BoxArray, scores: FloatArray, threshold: float, overlap: Overlap) -> IntArray:
    """Return the indices of boxes that greedy non-maximum suppression keeps, best score first.

    A box goes when it overlaps a better kept one by more than `threshold`: intersection over
    union, or over the smaller area ("min", the last stage of Zhang et al. 2016). Of equal scores
    the one that comes first is better. Exactly the greedy result, without a step per box and in
    memory bounded by `PAIRS_AT_ONCE` and the number of overlaps found.

    `boxes` `[n, 4]`, `scores` float32 `[n]`; returns int64 `[k]`.
    """
    order = np.argsort(-scores, kind="stable")
    if instruction_set() != "none":
        return order[suppress(boxes[order], threshold, overlap)]
    better, worse = overlapping_pairs(boxes[order], threshold, overlap)
    return order[survivors(len(order), better, worse)]


def overlapping_pairs(
    boxes: BoxArray, threshold: float, overlap: Overlap
) -> tuple[IntArray, IntArray]:
    """Return index pairs i < j of boxes `[n, 4]` that overlap by more than `threshold`.

    A sweep along x: sorted by left edge, a box meets only those that begin before it ends.
    """
    by_left = np.argsort(boxes[:, 0], kind="stable")
    left, right = boxes[by_left, 0], boxes[by_left, 2]
    first = np.arange(1, len(boxes) + 1)
    meetings = np.maximum(np.searchsorted(left, right, side="left") - first, 0)
    found: list[tuple[IntArray, IntArray]] = []
    for begin, end in _runs(meetings, PAIRS_AT_ONCE):
        a = np.repeat(np.arange(begin, end), meetings[begin:end])
        offset = np.cumsum(meetings[begin:end]) - meetings[begin:end]
        b = a + 1 + np.arange(len(a)) - np.repeat(offset, meetings[begin:end])
        i, j = by_left[a], by_left[b]
        hit = _overlap(boxes[i], boxes[j], overlap) > threshold
        i, j = i[hit], j[hit]
        found.append((np.minimum(i, j), np.maximum(i, j)))
    if not found:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    return np.concatenate([p[0] for p in found]), np.concatenate([p[1] for p in found])


def survivors(count: int, better: IntArray, worse: IntArray) -> IntArray:
    """Return which of `count` ranked items greedy suppression keeps, in rank order.

    `better[k] < worse[k]` are the pairs of which only one may stay. Each round settles every item
    whose better rivals are all settled, so that rounds follow the longest chain, not the count.
    """
    kept = np.zeros(count, bool)
    undecided = np.ones(count, bool)
    while len(better):
        blocked = np.zeros(count, bool)
        blocked[worse] = True
        newly_kept = undecided & ~blocked
        kept |= newly_kept
        undecided &= blocked
        undecided[worse[newly_kept[better]]] = False
        live = undecided[better] & undecided[worse]
        better, worse = better[live], worse[live]
    return np.flatnonzero(kept | undecided)


def _overlap(a: BoxArray, b: BoxArray, overlap: Overlap) -> BoxArray:
    """Return the overlap of boxes `a[k]` and `b[k]`, `[n, 4]` each; 0 where both are empty."""
    size = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    intersection = np.maximum(size[:, 0], 0) * np.maximum(size[:, 1], 0)
    area_a = (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1])
    area_b = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    whole = area_a + area_b - intersection if overlap == "union" else np.minimum(area_a, area_b)
    overlaps: BoxArray = np.divide(intersection, whole, out=np.zeros_like(whole), where=whole > 0)
    return overlaps


def _runs(counts: IntArray, limit: int) -> list[tuple[int, int]]:
    """Cut `counts` into runs `[begin, end)` whose sums stay within `limit`, one item at least."""
    total = np.cumsum(counts)
    runs, begin = [], 0
    while begin < len(counts):
        before = total[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(total, before + limit, side="right")))
        runs.append((begin, end))
        begin = end
    return runs
