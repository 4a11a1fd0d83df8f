from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from unface.kernels.arrays import MAX_RATIO, resize_rows
from unface.mtcnn.pyramid import Mipmap, pyramid_levels

Size = tuple[int, int]  # width, height


def shrunk(image: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    resized = np.empty((size[1], size[0], 3), np.uint8)
    resize_rows(image, resized, 0, size[1])
    return resized


def noise(size: Size, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


def off_by(image: NDArray[np.uint8], size: Size) -> int:
    """Return the largest difference from OpenCV's area averaging."""
    wanted = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(int)
    return int(np.abs(shrunk(image, size) - wanted).max())


@st.composite
def shrinkings(draw: st.DrawFn, most: float = 2.05) -> tuple[Size, Size]:
    """Draw a size and what it is shrunk to, up to `most` along each axis."""
    before = draw(st.tuples(*2 * [st.integers(1, 90)]))
    ratios = draw(st.tuples(*2 * [st.floats(1, most)]))
    sides = zip(before, ratios, strict=True)
    width, height = (max(-(-side // MAX_RATIO), round(side / ratio)) for side, ratio in sides)
    return before, (width, height)


@given(shrinkings(), st.integers(0, 99))
@settings(max_examples=400, deadline=None)
def test_shrinking_averages_areas_as_opencv_does(sizes: tuple[Size, Size], seed: int) -> None:
    before, after = sizes
    assert off_by(noise(before, seed), after) <= 1


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (5, 77), (640, 480), (641, 479)])
def test_halving_averages_areas_as_opencv_does(size: Size) -> None:
    assert off_by(noise(size), ((size[0] + 1) // 2, (size[1] + 1) // 2)) <= 1


@pytest.mark.parametrize("size", [(640, 480), (333, 517), (40, 1000), (97, 41)])
@pytest.mark.parametrize("min_face", [12, 20, 33])
def test_levels_of_a_pyramid_average_areas_as_opencv_does(size: Size, min_face: int) -> None:
    mipmap = Mipmap(noise(size))
    for level in pyramid_levels(*size, min_face, 0.709):
        assert off_by(mipmap.source(level), (level.width, level.height)) <= 1


@given(shrinkings(MAX_RATIO), st.tuples(*3 * [st.integers(0, 255)]))
@settings(max_examples=200, deadline=None)
def test_a_plane_of_one_colour_stays_exactly_so(
    sizes: tuple[Size, Size], colour: tuple[int, int, int]
) -> None:
    before, after = sizes
    plane = np.full((before[1], before[0], 3), colour, np.uint8)
    assert (shrunk(plane, after) == np.array(colour, np.uint8)).all()


@pytest.mark.parametrize("width", [1, 2, 3, 16, 17, 100])
def test_its_own_size_is_the_image(width: int) -> None:
    image = noise((width, 9))
    assert (shrunk(image, (width, 9)) == image).all()


@given(shrinkings(MAX_RATIO), st.data())
@settings(max_examples=200, deadline=None)
def test_rows_do_not_depend_on_the_cut_and_nothing_else_is_written(
    sizes: tuple[Size, Size], data: st.DataObject
) -> None:
    before, (width, height) = sizes
    image = noise(before)
    whole = shrunk(image, (width, height))
    edges = st.integers(0, height)
    begin, end = sorted(data.draw(st.tuples(edges, edges)))
    for untouched in (0, 170):
        part = np.full_like(whole, untouched)
        resize_rows(image, part, begin, end)
        assert (part[begin:end] == whole[begin:end]).all()
        assert (part[:begin] == untouched).all()
        assert (part[end:] == untouched).all()


@pytest.mark.parametrize("size", [(65_500, 4), (4, 65_500), (70_001, 3)])
def test_the_longest_pictures_are_averaged_to_their_ends(size: Size) -> None:
    assert off_by(noise(size), ((size[0] + 1) // 2, (size[1] + 1) // 2)) <= 1
    assert off_by(noise(size), (-(-size[0] // 3), -(-size[1] // 3))) <= 1


def test_bad_arguments_are_refused() -> None:
    image, resized = noise((20, 20)), noise((12, 12))
    wrong = [
        (image, resized, -1, 12), (image, resized, 0, 13), (image, resized, 5, 4),
        (image, noise((21, 12)), 0, 12), (image, noise((12, 21)), 0, 12),
        (image, noise((6, 12)), 0, 12), (image, noise((12, 6)), 0, 6),
        (image.astype(np.float32), resized, 0, 12), (image, resized.astype(np.uint16), 0, 12),
        (image[:, :, :2], resized, 0, 12), (image, resized[:, :, :2], 0, 12),
        (image[:, :, 0], resized, 0, 12), (image, resized[:, :, 0], 0, 12),
        (image[:0], resized, 0, 12), (image, resized[:0], 0, 0), (image, resized[:, :0], 0, 12),
        (image[:, ::-1], resized, 0, 12), (image, resized[:, ::-1], 0, 12),
    ]  # fmt: skip
    before = resized.copy()
    for arguments in wrong:
        with pytest.raises(ValueError, match=r"image|rows|too much"):
            resize_rows(*arguments)
    frozen = noise((12, 12), 1)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="cannot be filled"):
        resize_rows(image, frozen, 0, 12)
    assert (resized == before).all()
