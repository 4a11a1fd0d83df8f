"""The image pyramid: which levels P-Net sees, and how their pixels are made."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from unface.kernels.arrays import resize_rows
from unface.kernels.library import instruction_set
from unface.mtcnn.network import UInt8Array
from unface.mtcnn.team import ALONE, Team, shares

P_NET_SIZE = 12  # pixels a P-Net cell looks at; Zhang et al. 2016, fig. 2
SMALL = 1 << 17  # bytes; sharing less among threads takes longer than doing it


@dataclass(frozen=True)
class Level:
    """One pyramid level: the image resized to `width` x `height` pixels."""

    scale: float  # nominal: level pixels per image pixel
    width: int
    height: int

    @property
    def halvings(self) -> int:
        """How often the image is halved before it is resized to this level."""
        return max(0, math.floor(-math.log2(self.scale)))


def half_size(width: int, height: int) -> tuple[int, int]:
    """Return the size of an image halved once, rounded up."""
    return max(1, (width + 1) // 2), max(1, (height + 1) // 2)


def pyramid_levels(width: int, height: int, min_face: float, scale_factor: float) -> list[Level]:
    """Return the levels of an image of `width` x `height` pixels, the largest first.

    Scales are `12 / min_face * scale_factor ** k` while the shorter side keeps 12 pixels, sizes
    are rounded up, as in the original (`ceil(h * scale)`). An image smaller than the minimum face
    has no level.
    """
    levels = []
    scale = P_NET_SIZE / min_face
    while _pixels(min(width, height), scale) >= P_NET_SIZE:
        size = (math.ceil(_pixels(side, scale)) for side in (width, height))
        levels.append(Level(scale, *size))
        scale *= scale_factor
    return levels


class Mipmap:
    """An image and its halvings, from which pyramid levels and crops are taken.

    The original resizes every level and crop from the full image with area averaging (what the
    "bilinear" of its `imResample` does when shrinking). Averaging twice, by powers of two first,
    gives nearly the same pixels for a tenth of the work; `docs/performance.md` has the recall of
    both. Halvings are made when first asked for.
    """

    def __init__(self, image: UInt8Array, team: Team = ALONE) -> None:
        """Take an image, uint8 `[H, W, 3]`; it is not copied where it is contiguous."""
        self._images = [np.ascontiguousarray(image)]
        self.team = team

    @property
    def width(self) -> int:
        """Width of the full image in pixels."""
        return int(self._images[0].shape[1])

    @property
    def height(self) -> int:
        """Height of the full image in pixels."""
        return int(self._images[0].shape[0])

    def halved(self, times: int) -> UInt8Array:
        """Return the image halved so many times (sizes rounded up), uint8 `[h, w, 3]`."""
        while len(self._images) <= times:
            height, width = self._images[-1].shape[:2]
            self._images.append(_resize(self._images[-1], *half_size(width, height), self.team))
        return self._images[times]

    def level(self, level: Level) -> UInt8Array:
        """Return the pixels of a pyramid level, uint8 `[level.height, level.width, 3]`."""
        return _resize(self.source(level), level.width, level.height, self.team)

    def source(self, level: Level) -> UInt8Array:
        """Return the smallest halving that a level is resized from, uint8 `[h, w, 3]`."""
        return self.halved(level.halvings)


def _pixels(side: int, scale: float) -> float:
    """Return `side * scale` free of rounding errors: 47 * (12 / 47) is 12, not a little less."""
    return round(side * scale, 6)


def _resize(image: UInt8Array, width: int, height: int, team: Team) -> UInt8Array:
    if image.shape[:2] == (height, width):
        return image
    if instruction_set() == "none":
        averaged = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        return np.asarray(averaged, np.uint8)
    resized = np.empty((height, width, 3), np.uint8)
    parts = shares(height, team.threads if resized.size > SMALL else 1)
    team.map(lambda part: resize_rows(image, resized, *part), parts)
    return resized
