"""Square crops of an image, resampled to a network's input, all in a few compiled calls."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from unface.kernels.arrays import can_cut, crop
from unface.kernels.library import CUT, instruction_set
from unface.mtcnn.boxes import BoxArray
from unface.mtcnn.network import UInt8Array
from unface.mtcnn.pyramid import Mipmap
from unface.mtcnn.team import shares

WINDOW = 16384  # cv2.remap takes sources and results under 32768 pixels a side
AT_ONCE = 256  # crops: 256 x 96 samples make 24576 rows of a result
FEW = 32  # crops; sharing fewer among threads takes longer than doing them
SUPERSAMPLING = 2  # samples per output pixel along each axis


def crop_squares(mipmap: Mipmap, squares: BoxArray, size: int) -> UInt8Array:
    """Return squares of the image as uint8 `[n, size, size, 3]`.

    `squares` `[n, 3]` `x1 y1 side`, in pixels of the full image, sides above 0. Each
    output pixel is the mean of 2 x 2 bilinear samples of the smallest halving in which the square
    still has `size` pixels: close to the area averaging of the original. What lies beyond the
    image is black, as in the original (other implementations clip and so distort faces there).
    """
    images, cuts = plan_cuts(mipmap, squares, size)
    crops = np.empty((len(squares), size, size, 3), np.uint8)
    if instruction_set() != "none" and can_cut(cuts, size):

        def fill(part: tuple[int, int]) -> None:
            crop(images, cuts[slice(*part)], crops[slice(*part)])

        mipmap.team.map(fill, shares(len(cuts), mipmap.team.threads if len(cuts) > FEW else 1))
        return crops
    rectangles = np.stack([cuts[side] for side in ("x", "y", "width", "height")], axis=1)
    for index, image in enumerate(images):
        chosen = np.flatnonzero(cuts["picture"] == index)
        _sample_windows(image, rectangles[chosen], crops, chosen)
    return crops


def plan_cuts(
    mipmap: Mipmap, squares: BoxArray, size: int
) -> tuple[list[UInt8Array], npt.NDArray[np.void]]:
    """Return halvings of the image and where in them squares `[n, 3]` lie, `CUT` `[n]`.

    Each square in the smallest halving in which it still has `size` pixels.
    """
    halvings = np.floor(np.log2(np.maximum(squares[:, 2] / size, 1))).astype(np.int64)
    images = [mipmap.halved(times) for times in range(halvings.max(initial=0) + 1)]
    scales = np.array([(i.shape[1] / mipmap.width, i.shape[0] / mipmap.height) for i in images])
    cuts = np.empty(len(squares), CUT)
    cuts["x"], cuts["y"] = (squares[:, :2] * scales[halvings]).T
    cuts["width"], cuts["height"] = (squares[:, 2:] * scales[halvings]).T
    cuts["picture"] = halvings
    return images, cuts


def _sample_windows(
    image: UInt8Array, rectangles: BoxArray, crops: UInt8Array, chosen: np.ndarray
) -> None:
    """Fill `crops[chosen]` from an image of any size, one window of it after the other."""
    last = (image.shape[1] - 1, image.shape[0] - 1)  # no window lies wholly beyond the image
    windows = np.floor(np.clip(rectangles[:, :2], 0, last) / WINDOW).astype(np.int64)
    for column, row in np.unique(windows, axis=0).tolist():
        inside = np.flatnonzero((windows == [column, row]).all(axis=1))
        # A window reaches back and ahead: crops begin before it by less than their padding and
        # end after it by less than two network inputs.
        x, y = max(0, column * WINDOW - 256), max(0, row * WINDOW - 256)
        window = image[y : (row + 1) * WINDOW + 256, x : (column + 1) * WINDOW + 256]
        moved = rectangles[inside] - [x, y, 0, 0]
        for begin in range(0, len(inside), AT_ONCE):
            batch = slice(begin, begin + AT_ONCE)
            crops[chosen[inside[batch]]] = _sample(window, moved[batch], crops.shape[1])


def _sample(image: UInt8Array, rectangles: BoxArray, size: int) -> UInt8Array:
    """Return rectangles `[n, 4]` `x1 y1 width height` of an image as uint8 `[n, size, size, 3]`."""
    fine = size * SUPERSAMPLING
    steps = (np.arange(fine) + 0.5) / fine
    # cv2 counts from the centre of the first pixel.
    x = rectangles[:, 0, None] + steps * rectangles[:, 2, None] - 0.5
    y = rectangles[:, 1, None] + steps * rectangles[:, 3, None] - 0.5
    shape = (len(rectangles), fine, fine)
    map_x = np.broadcast_to(x.astype(np.float32)[:, None, :], shape).reshape(-1, fine)
    map_y = np.broadcast_to(y.astype(np.float32)[:, :, None], shape).reshape(-1, fine)
    samples = cv2.remap(image, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    crops = cv2.resize(samples, (size, len(rectangles) * size), interpolation=cv2.INTER_AREA)
    return np.asarray(crops, np.uint8).reshape(-1, size, size, 3)
