"""Places that a caller decides about: faces to leave clear, and boxes to cover always."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unface.anonymize.masks import MaskOptions, checked_boxes, plan_regions
from unface.errors import InvalidImage, InvalidOption

MAX_BOXES = 1000
MAX_PICTURES = 16  # what `cover` covers, overlaps counted each time, in areas of the picture
KEEP_IOU = 0.5  # the usual bound from which two boxes are of the same object (PASCAL VOC)

Box = tuple[float, float, float, float]
Boxes = NDArray[np.float64]


@dataclass(frozen=True)
class Regions:
    """What a caller decides whatever is found. Boxes are `x1 y1 x2 y2` in pixels of the picture.

    Each box of `keep` leaves clear the one face that overlaps it most, with an intersection over
    union of 0.5 or more. `cover` is covered as if faces were found there, and also where `keep`
    leaves a face clear. With `cover_only` nothing is searched for.

    Raises `InvalidOption` for boxes that are not finite or not in order, and for too many.
    """

    keep: Sequence[Box] = ()
    cover: Sequence[Box] = ()
    cover_only: bool = False

    def __post_init__(self) -> None:
        for name in ("keep", "cover"):
            object.__setattr__(self, name, _boxes(name, getattr(self, name)))

    def check(self, width: int, height: int, masks: MaskOptions) -> None:
        """Raise `InvalidImage` for a picture that a box of `cover` does not touch, or for too much.

        Such a box was meant for another picture: what it should have covered would stay clear.
        """
        for index, box in enumerate(self.cover):
            if not (box[0] < width and box[1] < height and box[2] > 0 and box[3] > 0):
                raise InvalidImage(
                    f"image is {width} x {height}; cover box {index}, {list(box)}, lies outside"
                )
        regions = plan_regions(width, height, checked_boxes(self.cover), masks)
        area = sum((r.right - r.left) * (r.bottom - r.top) for r in regions)
        if area > MAX_PICTURES * width * height:
            raise InvalidImage(
                f"cover comes to {area / (width * height):.0f} times the image, with margins; "
                f"at most {MAX_PICTURES} times are covered"
            )


def left_clear(boxes: ArrayLike, keep: ArrayLike) -> NDArray[np.bool_]:
    """Return which of the faces `boxes` `[n, 4]` the boxes of `keep` `[m, 4]` leave clear, `[n]`.

    Each names at most one face: a second one beside it stays covered.
    """
    faces, kept = checked_boxes(boxes), checked_boxes(keep)
    clear = np.zeros(len(faces), bool)
    for box in kept if len(faces) else ():  # one by one: a crowd times 1000 boxes fills the memory
        overlaps = _iou(faces, box)
        best = overlaps.argmax()
        clear[best] |= overlaps[best] >= KEEP_IOU
    return clear


def _boxes(name: str, given: Sequence[Box]) -> tuple[Box, ...]:
    try:
        boxes = checked_boxes(given)
    except (InvalidOption, TypeError, ValueError) as error:
        raise InvalidOption(f"{name}: {error}") from error
    if len(boxes) > MAX_BOXES:
        raise InvalidOption(f"{name} has {len(boxes)} boxes; at most {MAX_BOXES} are taken")
    return tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in boxes.tolist())


def _iou(boxes: Boxes, box: Boxes) -> Boxes:
    """Return the intersection over union of each of `boxes` `[n, 4]` with `box` `[4]`."""
    sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    common = np.maximum(sides, 0).prod(axis=1)
    whole = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod() - common
    shares: Boxes = np.divide(common, whole, out=np.zeros_like(common), where=whole > 0)
    return shares
