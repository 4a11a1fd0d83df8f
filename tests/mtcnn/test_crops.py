from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scenes import Image, astronaut

from unface.mtcnn import crops
from unface.mtcnn.crops import WINDOW, crop_squares
from unface.mtcnn.pyramid import Mipmap

pytestmark = pytest.mark.usefixtures("arithmetic")


def slow_crop(image: NDArray[np.uint8], square: list[float], size: int) -> NDArray[np.float64]:
    """Sample 2 x 2 points of each output pixel with bilinear weights, black beyond the image."""
    x1, y1, side = square
    times = int(max(0, np.floor(np.log2(side / size))))
    level = Mipmap(image).halved(times).astype(np.float64)
    height, width = level.shape[:2]
    scale_x, scale_y = width / image.shape[1], height / image.shape[0]
    fine = np.zeros((size * 2, size * 2, 3))
    for row in range(size * 2):
        for column in range(size * 2):
            u = (x1 + (column + 0.5) / (size * 2) * side) * scale_x - 0.5
            v = (y1 + (row + 0.5) / (size * 2) * side) * scale_y - 0.5
            left, top = int(np.floor(u)), int(np.floor(v))
            for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
                y, x = top + i, left + j
                if 0 <= y < height and 0 <= x < width:
                    weight = (1 - abs(v - y)) * (1 - abs(u - x))
                    fine[row, column] += weight * level[y, x]
    return np.asarray(fine.reshape(size, 2, size, 2, 3).mean(axis=(1, 3)), np.float64)


SQUARES = [
    [100.3, 50.7, 24.0], [10.0, 10.0, 17.5], [180.2, 60.1, 110.9], [-20.5, -8.2, 60.0],
    [470.0, 480.0, 90.0], [0.0, 0.0, 512.0], [-300.0, 100.0, 700.0],
]  # fmt: skip


@pytest.mark.parametrize("square", SQUARES)
def test_crops_are_the_mean_of_bilinear_samples(square: list[float]) -> None:
    crop = crop_squares(Mipmap(astronaut()), np.array([square]), 24)[0]
    # cv2 rounds sample positions to 1/32 pixel.
    assert np.abs(crop - slow_crop(astronaut(), square, 24)).max() < 6
    assert np.abs(crop - slow_crop(astronaut(), square, 24)).mean() < 0.6


def test_what_lies_beyond_the_image_is_black() -> None:
    image = np.full((40, 40, 3), 200, np.uint8)
    crop = crop_squares(Mipmap(image), np.array([[-24.0, 0.0, 48.0]]), 24)[0]
    assert (crop[:, :11] == 0).all()
    assert (crop[1:19, 13:] == 200).all()
    assert not crop_squares(Mipmap(image), np.array([[500.0, 500.0, 30.0]]), 24).any()


@pytest.mark.parametrize("far", [WINDOW - 10.0, WINDOW + 10.0, 1e6, 1e9, -1e6, -1e9])
def test_a_square_far_beyond_the_image_is_black_too(far: float) -> None:
    mipmap = Mipmap(np.full((40, 40, 3), 200, np.uint8))
    squares = np.array([[far, 5.0, 30.0], [5.0, far, 30.0], [far, far, 1000.0]])
    for _ in range(3):  # freed memory is seldom black three times
        assert not crop_squares(mipmap, squares, 24).any()


def test_crops_do_not_depend_on_their_neighbours() -> None:
    mipmap = Mipmap(astronaut())
    rng = np.random.default_rng(1)
    squares = np.concatenate(
        [rng.uniform(-40, 500, (700, 2)), rng.uniform(5, 300, (700, 1))], axis=1
    )
    together = crop_squares(mipmap, squares, 48)
    for k in (0, 255, 256, 511, 699):
        assert (together[k] == crop_squares(mipmap, squares[k : k + 1], 48)[0]).all()


def test_each_of_more_squares_than_fit_one_call_is_its_own() -> None:
    """Squares of every halving in a shuffled order: no crop may land in another's place."""
    mipmap = Mipmap(astronaut())
    rng = np.random.default_rng(8)
    squares = np.concatenate(
        [rng.uniform(-40, 500, (1100, 2)), np.exp(rng.uniform(0, 6.2, (1100, 1)))], axis=1
    )
    shown = crop_squares(mipmap, squares, 24)
    order = rng.permutation(len(squares))
    assert (crop_squares(mipmap, squares[order], 24) == shown[order]).all()


def test_a_plane_of_one_colour_stays_so_at_every_size() -> None:
    mipmap = Mipmap(np.full((333, 517, 3), (10, 130, 250), np.uint8))
    squares = np.array([[5.5, 5.5, side] for side in (1, 2.5, 23, 24, 47.9, 48, 96, 191, 320)])
    shown = crop_squares(mipmap, squares, 24)
    assert (shown == np.array([10, 130, 250], np.uint8)).all()


def test_no_squares_give_no_crops() -> None:
    assert crop_squares(Mipmap(astronaut()), np.empty((0, 3)), 24).shape == (0, 24, 24, 3)


@pytest.mark.parametrize("upright", [False, True])
def test_images_longer_than_opencv_can_sample_are_cropped_alike(upright: bool) -> None:
    tile = astronaut()[:64]
    wide = np.ascontiguousarray(np.tile(tile, (1, 80, 1)))  # 40960 pixels

    def crop_squares(mipmap: Mipmap, squares: NDArray[np.float64], size: int) -> Image:
        if not upright:
            return crops.crop_squares(mipmap, squares, size)
        turned = Mipmap(np.ascontiguousarray(mipmap.halved(0).transpose(1, 0, 2)))
        shown = crops.crop_squares(turned, squares[:, [1, 0, 2]], size)
        return np.asarray(shown.transpose(0, 2, 1, 3), np.uint8)

    at = [512.0 * k + 200.0 for k in range(80)]
    squares = np.array([[x, 10.0, 40.0] for x in at])
    shown = crop_squares(Mipmap(wide), squares, 24)
    # Positions are rounded to 1/32 pixel, so that far from the left some fall to the other side.
    assert np.abs(shown.astype(int) - shown[0]).mean() < 0.5
    # Squares about the border of two windows, the widest that this halving has, and at the border
    # of the picture itself.
    edges = [[WINDOW + d, -20.0, 47.0] for d in (-46.5, -20.0, -1.0, 0.0, 1.0)]
    for begin in (WINDOW, 2 * WINDOW):
        near = np.ascontiguousarray(wide[:, begin - 512 : begin + 512])
        moved = np.subtract(edges, [WINDOW - 512, 0, 0])
        here = crop_squares(Mipmap(near), moved, 24).astype(int)
        there = crop_squares(Mipmap(wide), np.add(edges, [begin - WINDOW, 0, 0]), 24)
        assert np.abs(there - here).mean(axis=(1, 2, 3)).max() < 0.6
