"""Pictures and boxes through the compiled core, as arrays."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from unface.kernels.library import CUT, Picture, check, library

UInt8Array = npt.NDArray[np.uint8]
FAR = 1e9  # pixels: whole numbers of the core hold it
MAX_SIDE = 1 << 30  # pixels: twice that, or three more, fits an int32
MAX_STEP = 3.9  # source pixels a crop pixel may cover: four taps, two samples
MAX_RATIO = 3  # source pixels a pixel of a shrunk image may cover: four taps


def picture(image: UInt8Array) -> Picture:
    """Return an image, C-contiguous uint8 `[H, W, 3]`, as the core sees it; it must stay alive."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"image is {image.dtype} {image.shape}; uint8 [H, W, 3] is needed")
    if not image.flags.c_contiguous:
        raise ValueError("image is not contiguous")
    if max(image.shape) > MAX_SIDE:
        raise ValueError(f"image has {image.shape[1]} x {image.shape[0]} pixels: too long")
    return Picture(image.ctypes.data, image.shape[1], image.shape[0])


def resize_rows(image: UInt8Array, resized: UInt8Array, begin: int, end: int) -> None:
    """Fill rows `[begin, end)` of `resized` `[h, w, 3]` with `image` shrunk to its size.

    Averages areas, as cv2.INTER_AREA does, rounding aside, for shrinking by `MAX_RATIO` at most.
    """
    source, target = picture(image), picture(resized)
    width, height = target.width, target.height
    if not 0 <= begin <= end <= height or not resized.flags.writeable:
        raise ValueError(f"rows {begin} to {end} of {height} cannot be filled")
    check_shrinking(source, width, height)
    check(
        library().unface_resize(
            ctypes.addressof(source), resized.ctypes.data, width, height, begin, end - begin
        )
    )


def check_shrinking(source: Picture, width: int, height: int) -> None:
    """Raise `ValueError` unless the core can shrink a picture to a size."""
    for before, after in ((source.width, width), (source.height, height)):
        if not after <= before <= MAX_RATIO * after:
            raise ValueError(f"{source.width} x {source.height} to {width} x {height} is too much")


def crop(images: Sequence[UInt8Array], cuts: npt.NDArray[np.void], crops: UInt8Array) -> None:
    """Fill `crops` `[n, size, size, 3]` with rectangles of images, `cuts` of `CUT` `[n]`.

    Each pixel is the mean of 2 x 2 bilinear samples; black beyond the image. A side may have
    `MAX_STEP` times `size` pixels at most.
    """
    size = crops.shape[1] if crops.ndim == 4 else 0
    if crops.shape != (len(cuts), size, size, 3) or crops.dtype != np.uint8:
        raise ValueError(f"{len(cuts)} rectangles do not fit crops {crops.dtype} {crops.shape}")
    if not crops.flags.c_contiguous or not crops.flags.writeable:
        raise ValueError("crops are not contiguous, or not to be written")
    cuts = checked_cuts(images, cuts, size)
    sources = pictures(images)
    check(library().unface_crops(sources, cuts.ctypes.data, len(cuts), size, crops.ctypes.data))


def pictures(images: Sequence[UInt8Array]) -> ctypes.Array[Picture]:
    """Return images as the core sees several; they must stay alive."""
    return (Picture * len(images))(*map(picture, images))


def can_cut(cuts: npt.NDArray[np.void], size: int) -> bool:
    """Return whether the core can make crops of `size` pixels of these rectangles."""
    width, height = cuts["width"], cuts["height"]
    place = np.maximum(abs(cuts["x"]), abs(cuts["y"]))
    side = np.maximum(width, height)
    return bool(((width > 0) & (height > 0) & (side <= MAX_STEP * size) & (place < FAR)).all())


def checked_cuts(
    images: Sequence[UInt8Array], cuts: npt.NDArray[np.void], size: int
) -> npt.NDArray[np.void]:
    """Return `cuts` as the core wants them; raises `ValueError` where it could not cut."""
    if cuts.dtype != CUT or cuts.ndim != 1 or not can_cut(cuts, size):
        raise ValueError("a rectangle is too large for its crop, has no size, or is far away")
    if not ((cuts["picture"] >= 0) & (cuts["picture"] < len(images))).all():
        raise ValueError("a rectangle is of no picture")
    return np.ascontiguousarray(cuts)


def suppress(
    boxes: npt.NDArray[np.float64], threshold: float, overlap: Literal["union", "min"]
) -> npt.NDArray[np.int64]:
    """Return which of boxes `[n, 4]`, best first, greedy suppression keeps, in order."""
    wanted = np.ascontiguousarray(boxes, np.float64)
    if wanted.ndim != 2 or wanted.shape[1] != 4 or np.isnan(wanted).any():
        raise ValueError(f"boxes have shape {wanted.shape}, or values that are no numbers")
    kept = np.empty(len(wanted), np.int64)
    count = check(
        library().unface_suppress(
            wanted.ctypes.data, len(wanted), threshold, overlap == "min", kept.ctypes.data
        )
    )
    return kept[:count]
