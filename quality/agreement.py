"""How far two profiles agree on one picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from unface.calibration.matching import iou
from unface.quality.trials import Agreement

SAME_FACE = 0.5  # IoU from which on two boxes are the same face, as when engines are judged


def compare(boxes_a: ArrayLike, boxes_b: ArrayLike) -> Agreement:
    """Match boxes `[n, 4]` with boxes `[m, 4]`, `x1 y1 x2 y2`, each with one at most.

    Arrays or lists. The pairs that overlap most come first, from the IoU `SAME_FACE` on: which
    list is the first makes no difference.
    """
    a_boxes, b_boxes = (
        np.asarray(boxes, np.float64).reshape(-1, 4) for boxes in (boxes_a, boxes_b)
    )
    overlaps = iou(a_boxes, b_boxes)
    pairs = np.argwhere(overlaps >= SAME_FACE)
    order = np.argsort(-overlaps[pairs[:, 0], pairs[:, 1]], kind="stable")
    taken_a: set[int] = set()
    taken_b: set[int] = set()
    total = 0.0
    for a, b in pairs[order].tolist():
        if a not in taken_a and b not in taken_b:
            taken_a.add(a)
            taken_b.add(b)
            total += float(overlaps[a, b])
    matched = len(taken_a)
    return Agreement(matched, len(a_boxes) - matched, len(b_boxes) - matched, total)
