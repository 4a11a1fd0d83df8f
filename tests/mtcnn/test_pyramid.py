from __future__ import annotations

import cv2
import numpy as np
import pytest
from scenes import astronaut

from unface.mtcnn.pyramid import Level, Mipmap, pyramid_levels

pytestmark = pytest.mark.usefixtures("arithmetic")

GOLDEN = {  # ceil(side * 12 / min_face * 0.709 ** k), worked out by hand calculator
    (640, 480, 20): [
        (384, 288), (273, 205), (194, 145), (137, 103), (98, 73), (69, 52), (49, 37), (35, 26),
        (25, 19), (18, 14),
    ],
    (100, 101, 40): [(30, 31), (22, 22), (16, 16)],
    (20, 20, 20): [(12, 12)],
}  # fmt: skip


@pytest.mark.parametrize("case", GOLDEN)
def test_level_sizes_are_rounded_up_as_in_the_original(case: tuple[int, int, int]) -> None:
    width, height, min_face = case
    levels = pyramid_levels(width, height, min_face, 0.709)
    assert [(level.width, level.height) for level in levels] == GOLDEN[case]


@pytest.mark.parametrize("size", [(19, 100), (100, 19), (1, 1), (20000, 1)])
def test_an_image_smaller_than_the_minimum_face_has_no_level(size: tuple[int, int]) -> None:
    assert pyramid_levels(*size, 20, 0.709) == []


def test_an_image_exactly_as_large_as_the_minimum_face_is_one_cell() -> None:
    """47 * (12 / 47) is a little less than 12 in floating point, 187 * (12 / 187) a little more."""
    for side in range(12, 4000):
        (level,) = pyramid_levels(side, side, side, 0.709)
        assert (level.width, level.height) == (12, 12), side


@pytest.mark.parametrize("min_face", [12, 20, 80])
def test_faces_are_searched_up_to_the_whole_image(min_face: int) -> None:
    last = pyramid_levels(1000, 700, min_face, 0.709)[-1]
    assert 12 <= last.height < 18  # so a 12-pixel cell covers more than two thirds of the image


def test_every_step_shrinks_by_the_scale_factor() -> None:
    scales = [level.scale for level in pyramid_levels(3000, 2000, 24, 0.8)]
    np.testing.assert_allclose(np.array(scales[1:]) / scales[:-1], 0.8)


def test_levels_through_halvings_are_close_to_direct_area_averaging() -> None:
    image = astronaut()
    for level in pyramid_levels(512, 512, 20, 0.709):
        direct = cv2.resize(image, (level.width, level.height), interpolation=cv2.INTER_AREA)
        direct = direct.astype(int)
        difference = np.abs(Mipmap(image).level(level) - direct).mean()
        a_pixel_aside = np.abs(direct[:, 1:] - direct[:, :-1]).mean()
        assert difference < a_pixel_aside / 3, level


def test_levels_do_not_depend_on_the_order_they_are_asked_for() -> None:
    image = astronaut()[:301, :407]
    levels = pyramid_levels(407, 301, 20, 0.709)
    forward, backward = Mipmap(image), Mipmap(image)
    down = [forward.level(level) for level in levels]
    up = [backward.level(level) for level in reversed(levels)]
    assert all((a == b).all() for a, b in zip(down, reversed(up), strict=True))


def test_halvings_round_odd_sizes_up_and_never_vanish() -> None:
    mipmap = Mipmap(np.full((5, 1, 3), 7, np.uint8))
    assert [mipmap.halved(k).shape[:2] for k in range(4)] == [(5, 1), (3, 1), (2, 1), (1, 1)]
    assert (mipmap.halved(3) == 7).all()


def test_a_level_of_full_scale_is_the_image() -> None:
    image = astronaut()
    assert (Mipmap(image).level(Level(1.0, 512, 512)) == image).all()
