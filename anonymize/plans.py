"""What a kernel needs to cover faces as `apply_masks` does: one record a face."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from unface.anonymize.masks import (
    MaskOptions,
    Region,
    blur_strength,
    checked_boxes,
    mosaic_parts,
    plan_regions,
)
from unface.errors import InvalidOption

METHOD_CODES = {"mosaic": 0, "solid": 1, "blur": 2}
MAX_TAPS = 16
MASK = np.dtype(
    [
        ("center", "<f8", 2),  # of the ellipse: x, y
        ("half", "<f8", 2),  # its half axes
        ("scratch", "<i8"),  # for whoever runs the kernels; 0
        *((name, "<i4") for name in ("left", "top", "width", "height")),  # within the picture
        ("method", "<i4"),  # one of METHOD_CODES
        ("ellipse", "<i4"),  # 0: all of the rectangle
        ("parts", "<i4", 2),  # mosaic: across, down
        ("small", "<i4", 2),  # blur: size to shrink to, width, height
        ("radius", "<i4"),  # blur: of the Gaussian kernel there
        ("color", "<i4"),  # solid: red + 256 green + 65536 blue
        ("taps", "<f4", MAX_TAPS),  # blur: weights of the kernel from its middle on
    ]
)


def plan_masks(width: int, height: int, boxes: ArrayLike, options: MaskOptions) -> NDArray[np.void]:
    """Return `MASK` `[n]` for the boxes that touch a picture of `width` x `height` pixels.

    Whoever covers them one after the other gets the pixels of `apply_masks`. Raises
    `InvalidOption` as that does, and for method `box`, which only that draws.
    """
    if options.method not in METHOD_CODES:
        raise InvalidOption(f"method is {options.method!r}; only apply_masks draws it")
    regions = list(plan_regions(width, height, checked_boxes(boxes), options))
    masks = np.zeros(len(regions), MASK)
    masks["method"] = METHOD_CODES[options.method]
    masks["ellipse"] = options.shape == "ellipse"
    masks["color"] = sum(int(channel) << 8 * n for n, channel in enumerate(options.color))
    for mask, region in zip(masks, regions, strict=True):
        mask["center"], mask["half"] = region.center, region.half
        mask["left"], mask["top"] = region.left, region.top
        mask["width"], mask["height"] = region.right - region.left, region.bottom - region.top
        mask["parts"] = mosaic_parts(region, options)
        if options.method == "blur":
            _plan_blur(mask, region, options)
    return masks


def _plan_blur(mask: np.void, region: Region, options: MaskOptions) -> None:
    blur = blur_strength(region, options)
    kernel = cv2.getGaussianKernel(2 * blur.radius + 1, blur.sigma, cv2.CV_32F)[:, 0]
    mask["small"], mask["radius"] = blur.small_size, blur.radius
    mask["taps"][: blur.radius + 1] = kernel[blur.radius :]
