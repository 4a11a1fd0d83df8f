"""What replaces the pixels of a face."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from unface.anonymize.limits import check_rgb_image
from unface.errors import InvalidOption

METHODS = ("mosaic", "solid", "blur", "box")
SHAPES = ("ellipse", "rectangle")

_MIN_CELL_PX = 4  # a mosaic finer than this leaves a small face nearly as it was
_MIN_KERNEL_PX = 15
_FAR_PX = 1e12  # as good as any place outside, and no product with it overflows
_BLUR_SIGMA_PX = 3.0  # sigma after shrinking: enough that shrinking itself cannot be seen
_MAX_INT32_ROWS = (2**31 - 1) // 255
_FRAME_COLOR = (0, 255, 0)

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class MaskOptions:
    """How faces are covered.

    `mosaic` and `solid` cannot be undone. `blur` can be: McPherson et al. 2016 (Defeating Image
    Obfuscation with Deep Learning) name most blurred faces; take it for looks only. `box` draws a
    frame and the score for review and **anonymizes nothing**.

    Raises `InvalidOption` naming the field, its value and what it accepts.
    """

    method: str = "mosaic"  # one of METHODS
    shape: str = "ellipse"  # one of SHAPES; the ellipse goes through the corners of the grown box
    margin: float = 0.1  # of the box's width and height, added on every side
    cells: int = 5  # mosaic: along the longer side of the covered region; over 8 shows features
    kernel: float = 0.6  # blur: Gaussian kernel over the longer side of the box
    color: tuple[int, int, int] = (0, 0, 0)  # solid: RGB

    def __post_init__(self) -> None:
        for field, value, accepted in (
            ("method", self.method, METHODS),
            ("shape", self.shape, SHAPES),
        ):
            if value not in accepted:
                raise InvalidOption(f"{field} is {value!r}; there are {', '.join(accepted)}")
        _check_number("margin", self.margin, 0, 2)
        _check_number("kernel", self.kernel, 0.3, 2)
        if not _is_whole(self.cells) or not 2 <= self.cells <= 16:
            raise InvalidOption(f"cells is {self.cells!r}; it must be a whole number from 2 to 16")
        if not isinstance(self.color, (tuple, list)) or len(self.color) != 3:
            raise InvalidOption(f"color is {self.color!r}; it must be red, green and blue")
        if not all(_is_whole(channel) and 0 <= channel <= 255 for channel in self.color):
            raise InvalidOption(
                f"color is {self.color!r}; it must be red, green and blue from 0 to 255"
            )


def _check_number(field: str, value: float, low: float, high: float) -> None:
    is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:  # NaN compares false
        raise InvalidOption(f"{field} is {value!r}; it must be a number from {low} to {high}")


def _is_whole(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


class Region(NamedTuple):
    """Which part of a picture one face covers, in pixels; `x, y` pairs of the uncut shape."""

    left: int  # the rectangle within the picture: left <= x < right, top <= y < bottom
    top: int
    right: int
    bottom: int
    center: tuple[float, float]
    half: tuple[float, float]  # half the width and height; the ellipse's half axes
    side: float  # longer side of the whole shape, also where the picture cuts it
    face_side: float  # longer side of the box as given


class Blur(NamedTuple):
    """How strongly a region is blurred: shrunk, blurred with a Gaussian, enlarged again."""

    small_size: tuple[int, int]  # width, height
    sigma: float  # of the Gaussian, in shrunk pixels
    radius: int  # its kernel has 2 radius + 1 weights


class _Part(NamedTuple):
    """The pixels one face covers: a view into the picture and which of its pixels to replace."""

    pixels: Image  # [h, w, 3], written in place
    inside: Image | None  # uint8 [h, w], 0 or 1; None: all
    region: Region


def apply_masks(
    image: Image,
    boxes: ArrayLike,
    options: MaskOptions = MaskOptions(),
    *,
    scores: ArrayLike | None = None,
    in_place: bool = False,
) -> Image:
    """Return a copy of a picture with every face covered.

    `image` is uint8 `[H, W, 3]` and is not changed. `boxes` is `[n, 4]`, `x1 y1 x2 y2` in pixels
    of the image, where `0 0 W H` is the whole picture; parts outside of it are ignored. `scores`
    `[n]` are written beside the frames of method `box` and not used otherwise. `in_place` is for
    pixels that nobody needs any more: `image` itself is covered and returned, unless it is
    read-only or not C-contiguous.

    Faces are covered one after the other on the result so far, so that a face never uncovers an
    earlier one. Raises `InvalidImage` for other arrays and `InvalidOption` for boxes that are not
    finite, not in order, or not `[n, 4]`: nothing is returned rather than a face left clear.
    """
    check_rgb_image(image)
    checked = checked_boxes(boxes)
    # OpenCV writes into a copy, and loses it, where it cannot take an array as it is.
    result = image if in_place and image.flags.carray else np.array(image, order="C")
    if options.method == "box":
        _draw_frames(result, checked, scores)
        return result
    cover = _COVERS[options.method]
    for region in plan_regions(image.shape[1], image.shape[0], checked, options):
        cover(_part(result, region, options), options)
    return result


def checked_boxes(boxes: ArrayLike) -> NDArray[np.float64]:
    """Return boxes as float64 `[n, 4]`, or raise as `apply_masks` does."""
    checked = np.asarray(boxes, dtype=np.float64)
    if checked.size == 0 and checked.shape[-1] in (0, 4):
        return np.empty((0, 4))
    if checked.ndim != 2 or checked.shape[1] != 4:
        raise InvalidOption(f"boxes have shape {checked.shape}; it must be n x 4 (x1 y1 x2 y2)")
    in_order = (checked[:, :2] <= checked[:, 2:]).all(axis=1)
    bad = np.flatnonzero(~(np.isfinite(checked).all(axis=1) & in_order))
    if bad.size:
        raise InvalidOption(
            f"box {bad[0]} is {checked[bad[0]].tolist()}; it must be finite, "
            "with x1 <= x2 and y1 <= y2"
        )
    return checked


def plan_regions(
    width: int, height: int, boxes: NDArray[np.float64], options: MaskOptions
) -> Iterator[Region]:
    """Yield what each box covers of a picture, in order; nothing for a box outside of it."""
    boxes = np.clip(boxes, -_FAR_PX, _FAR_PX)
    sides = boxes[:, 2:] - boxes[:, :2]
    # At least one pixel, also for a box without area: better a dot too many than a face clear.
    low = np.floor(boxes[:, :2] - options.margin * sides)
    high = np.maximum(np.ceil(boxes[:, 2:] + options.margin * sides), low + 1)
    center, half = (low + high) / 2, (high - low) / 2
    if options.shape == "ellipse":
        half *= math.sqrt(2)  # through the corners of the grown box
    first = np.clip(np.floor(center - half), 0, (width, height)).astype(np.int64)
    last = np.clip(np.ceil(center + half), 0, (width, height)).astype(np.int64)
    longer, face = 2 * half.max(axis=1), sides.max(axis=1)
    for index in np.flatnonzero((first < last).all(axis=1)).tolist():
        (left, top), (right, bottom) = first[index].tolist(), last[index].tolist()
        middle, axes = tuple(center[index].tolist()), tuple(half[index].tolist())
        sides_px = float(longer[index]), float(face[index])
        yield Region(left, top, right, bottom, middle, axes, *sides_px)


def mosaic_parts(region: Region, options: MaskOptions) -> tuple[int, int]:
    """Return into how many equal parts a mosaic cuts a region across and down.

    None is shorter than a cell unless it is the only one; at most `options.cells` fit.
    """
    cell = max(region.side / options.cells, _MIN_CELL_PX)
    across, down = region.right - region.left, region.bottom - region.top
    return max(int(across / cell + 1e-9), 1), max(int(down / cell + 1e-9), 1)


def blur_strength(region: Region, options: MaskOptions) -> Blur:
    """Return a blur at least as strong as OpenCV's Gaussian with a kernel of the same size.

    Large faces are shrunk, blurred and enlarged, so that the cost does not grow with the kernel.
    """
    kernel = max(math.ceil(options.kernel * region.face_side), _MIN_KERNEL_PX) | 1
    sigma = 0.3 * ((kernel - 1) * 0.5 - 1) + 0.8  # OpenCV, getGaussianKernel
    shrink = max(sigma / _BLUR_SIGMA_PX, 1.0)
    width, height = region.right - region.left, region.bottom - region.top
    small_size = (max(round(width / shrink), 1), max(round(height / shrink), 1))
    return Blur(small_size, sigma / shrink, math.ceil(3 * (sigma / shrink)))


def _part(image: Image, region: Region, options: MaskOptions) -> _Part:
    left, top, right, bottom, center, half = region[:6]
    inside = None
    if options.shape == "ellipse":
        across = _distances(left, right, center[0], half[0])
        down = _distances(top, bottom, center[1], half[1])
        inside = (across[None, :] <= (1 - down)[:, None]).view(np.uint8)
    return _Part(image[top:bottom, left:right], inside, region)


def _distances(first: int, last: int, center: float, half: float) -> NDArray[np.float64]:
    """Return the squared distances of pixels from a center, in units of half an axis."""
    distances: NDArray[np.float64] = np.arange(first + 0.5, last)
    distances -= center
    distances /= half
    distances *= distances
    return distances


def _paste(part: _Part, cover: Image) -> None:
    if part.inside is None:
        part.pixels[:] = cover
    else:
        cv2.copyTo(cover, part.inside, part.pixels)


def _cover_mosaic(part: _Part, options: MaskOptions) -> None:
    """Cover with at most cells x cells rectangles, each in the mean colour of its pixels."""
    height, width = part.pixels.shape[:2]
    across, down = mosaic_parts(part.region, options)
    rows, columns = _edges(height, down), _edges(width, across)
    sums = [_column_sums(part.pixels[top:bottom]) for top, bottom in itertools.pairwise(rows)]
    totals = np.add.reduceat(np.array(sums), columns[:-1], axis=1, dtype=np.int64)
    heights, widths = np.diff(rows), np.diff(columns)
    means = np.rint(totals / (heights[:, None] * widths)[..., None]).astype(np.uint8)
    _paste(part, means.repeat(widths, axis=1).repeat(heights, axis=0))


def _column_sums(pixels: Image) -> NDArray[Any]:
    """Return the sum of every column, `[w, 3]`: int32, or float64 where that could overflow."""
    depth = cv2.CV_32S if len(pixels) <= _MAX_INT32_ROWS else cv2.CV_64F
    sums: NDArray[Any] = cv2.reduce(pixels, 0, cv2.REDUCE_SUM, dtype=depth)[0]
    return sums


def _edges(length: int, parts: int) -> list[int]:
    return [round(i * length / parts) for i in range(parts + 1)]


def _cover_solid(part: _Part, options: MaskOptions) -> None:
    height, width = part.pixels.shape[:2]
    color = [int(channel) for channel in options.color]
    cover = part.pixels if part.inside is None else np.empty_like(part.pixels)
    cv2.rectangle(cover, (0, 0), (width - 1, height - 1), color, cv2.FILLED)
    if part.inside is not None:
        _paste(part, cover)


def _cover_blur(part: _Part, options: MaskOptions) -> None:
    """Cover with a Gaussian blur.

    The region is blurred on its own and mirrored at its border: a pixel there is not repeated,
    which would give it back a quarter of its weight at a corner.
    """
    height, width = part.pixels.shape[:2]
    blur = blur_strength(part.region, options)
    small = cv2.resize(part.pixels, blur.small_size, interpolation=cv2.INTER_AREA)
    size = 2 * blur.radius + 1
    # In float32: of uint8, OpenCV computes it bit for bit the same everywhere, in 6 times the time.
    blurred = cv2.GaussianBlur(
        small.astype(np.float32),
        (size, size),
        sigmaX=blur.sigma,
        borderType=cv2.BORDER_REFLECT_101,
    )
    rounded = cv2.convertScaleAbs(blurred)
    large = cv2.resize(rounded, (width, height), interpolation=cv2.INTER_LINEAR)
    _paste(part, large.astype(np.uint8, copy=False))


_COVERS: dict[str, Callable[[_Part, MaskOptions], None]] = {
    "mosaic": _cover_mosaic,
    "solid": _cover_solid,
    "blur": _cover_blur,
}


def _draw_frames(image: Image, boxes: NDArray[np.float64], scores: ArrayLike | None) -> None:
    """Draw a frame around every box and write its score above, for review."""
    labels = None if scores is None else np.asarray(scores, dtype=np.float64)
    if labels is not None and labels.shape != (len(boxes),):
        raise InvalidOption(f"scores have shape {labels.shape}; there are {len(boxes)} boxes")
    height, width = image.shape[:2]
    thickness = max(round(min(height, width) / 400), 1)
    # Far outside is as good as just outside, and fits OpenCV's 32-bit coordinates.
    corners = np.clip(np.rint(boxes), -thickness, np.array([width, height] * 2) + thickness)
    for index, (left, top, right, bottom) in enumerate(corners.astype(int).tolist()):
        cv2.rectangle(image, (left, top), (right - 1, bottom - 1), _FRAME_COLOR, thickness)
        if labels is not None:
            _write_score(image, f"{labels[index]:.2f}", left, top, thickness)


def _write_score(image: Image, text: str, left: int, top: int, thickness: int) -> None:
    scale = 0.5 * thickness
    font = cv2.FONT_HERSHEY_SIMPLEX
    (text_width, text_height), _ = cv2.getTextSize(text, font, scale, thickness)
    x, y = max(left, 0), max(top - 4 * thickness, text_height)
    # A plate, not an outline: OpenCV 5 sets thicker letters further apart, so they would not align.
    cv2.rectangle(image, (x, y - text_height), (x + text_width, y + thickness), (0, 0, 0), -1)
    cv2.putText(image, text, (x, y), font, scale, _FRAME_COLOR, thickness)
