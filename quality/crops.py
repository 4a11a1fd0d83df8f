"""Crops of reported places: as much of a picture as a detector needs to see, and no more."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from unface.anonymize import encode
from unface.mtcnn.network import UInt8Array
from unface.quality.places import Crop, Place, Window

MARGIN = 0.5  # of a place's side, on each side of its crop: a detector needs to see around a face
MOST = 0.5  # of the picture: what all crops of a report may take in. Pictures are not collected.


def crop_window(place: Place, width: int, height: int) -> Window | None:
    """Return what a crop of the place takes in: the place grown by `MARGIN`, inside the picture.

    The margin is smaller where the crop would take in more than `MOST` of the picture. None where
    the place alone does.
    """
    wide, high = place.x2 - place.x1, place.y2 - place.y1
    most = MOST * width * height
    grown = min(1 + 2 * MARGIN, math.sqrt(most / (wide * high)))
    while grown > 1:
        x_margin, y_margin = wide * (grown - 1) / 2, high * (grown - 1) / 2
        left, top = max(0, math.floor(place.x1 - x_margin)), max(0, math.floor(place.y1 - y_margin))
        right = min(width, math.ceil(place.x2 + x_margin))
        bottom = min(height, math.ceil(place.y2 + y_margin))
        if (right - left) * (bottom - top) <= most:
            return Window(left, top, right - left, bottom - top)
        grown -= 0.05  # whole pixels are more than the box
    return None


def cut_crops(pixels: UInt8Array, places: Sequence[Place]) -> Iterator[Crop]:
    """Yield crops of places in pixels, uint8 `[H, W, 3]` RGB, in their order.

    Together they take in no more than `MOST` of the picture: a place whose crop would be too much
    gets none.
    """
    height, width = pixels.shape[:2]
    left = MOST * width * height
    for number, place in enumerate(places):
        window = crop_window(place, width, height)
        if window is None or window.width * window.height > left:
            continue
        left -= window.width * window.height
        x, y, wide, high = window
        yield Crop(number, window, encode(pixels[y : y + high, x : x + wide], "png"))
