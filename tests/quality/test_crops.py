"""Reported places, and the crops of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unface.anonymize import decode
from unface.errors import InvalidOption
from unface.quality.crops import MOST, crop_window, cut_crops
from unface.quality.places import MAX_PLACES, Place, Report, Window, check_report


def report(*boxes: tuple[float, ...], size: tuple[int | None, int | None] = (100, 80)) -> Report:
    return Report("", "", *size, tuple(Place("missed", *box) for box in boxes))


@st.composite
def placed(draw: st.DrawFn) -> tuple[Place, int, int]:
    width, height = draw(st.integers(1, 5000)), draw(st.integers(1, 5000))
    xs, ys = (
        sorted(draw(st.lists(st.floats(0, side, width=32), min_size=2, max_size=2, unique=True)))
        for side in (width, height)
    )
    return Place("missed", xs[0], ys[0], xs[1], ys[1]), width, height


@given(placed())
def test_a_crop_holds_its_place_and_never_more_than_half_of_the_picture(
    placing: tuple[Place, int, int],
) -> None:
    place, width, height = placing
    check_report(Report("", "", width, height, (place,)))
    window = crop_window(place, width, height)
    if window is None:
        # The whole pixels that it touches are too many already.
        touched = (math.ceil(place.x2 + 1) - math.floor(place.x1 - 1)) * (
            math.ceil(place.y2 + 1) - math.floor(place.y1 - 1)
        )
        assert touched * 1.2 >= MOST * width * height
        return
    assert 0 <= window.x <= place.x1
    assert place.x2 <= window.x + window.width <= width
    assert 0 <= window.y <= place.y1
    assert place.y2 <= window.y + window.height <= height
    assert window.width * window.height <= MOST * width * height


def test_a_crop_is_the_place_grown_by_half_its_side_on_each_side() -> None:
    assert crop_window(Place("false", 100, 200, 140, 220), 1000, 1000) == Window(80, 190, 80, 40)
    assert crop_window(Place("false", 0, 0, 40, 20), 1000, 1000) == Window(0, 0, 60, 30)


def test_a_face_that_fills_much_of_the_picture_gets_less_around_it() -> None:
    window = crop_window(Place("missed", 200, 200, 800, 800), 1000, 1000)
    assert window is not None
    assert 600 < window.width < 710
    assert crop_window(Place("missed", 0, 0, 1000, 900), 1000, 1000) is None


def test_crops_are_lossless_pictures_of_what_lies_there() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (80, 100, 3)).astype(np.uint8)
    first, second = cut_crops(
        pixels, [Place("missed", 10, 20, 20, 30), Place("false", 60, 60, 64, 62)]
    )
    assert (first.place, first.window) == (0, Window(5, 15, 20, 20))
    assert (decode(first.png).pixels == pixels[15:35, 5:25]).all()
    assert (second.place, second.window) == (1, Window(58, 59, 8, 4))


def test_all_crops_together_are_no_more_than_half_of_the_picture() -> None:
    pixels = np.zeros((100, 100, 3), np.uint8)
    places = [Place("missed", x, y, x + 20, y + 20) for x in (0, 40, 80) for y in (0, 40, 80)]
    crops = list(cut_crops(pixels, places))
    assert 1 < len(crops) < len(places)
    assert sum(c.window.width * c.window.height for c in crops) <= 5000


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 0, 10),
        (10, 0, 5, 10),
        (0, 10, 5, 10),
        (-0.1, 0, 5, 5),
        (0, -1, 5, 5),
        (90, 0, 100.1, 5),
        (0, 70, 5, 81),
        (math.nan, 0, 5, 5),
        (0, 0, 5, math.nan),
        (0, 0, math.inf, 5),
        (-math.inf, 0, 5, 5),
    ],
)
def test_a_place_that_is_empty_or_outside_is_refused(box: tuple[float, ...]) -> None:
    with pytest.raises(InvalidOption, match="inside of the picture"):
        check_report(report((0, 0, 5, 5), box))


@pytest.mark.parametrize("box", [(0, 0, math.inf, 5), (0, math.nan, 5, 5), (-1, 0, 5, 5)])
def test_without_the_pictures_size_places_must_still_be_numbers(box: tuple[float, ...]) -> None:
    check_report(report((0, 0, 1e6, 5), size=(None, None)))
    with pytest.raises(InvalidOption):
        check_report(report(box, size=(None, None)))


@pytest.mark.parametrize("count", [0, MAX_PLACES + 1])
def test_too_few_and_too_many_places_are_refused(count: int) -> None:
    with pytest.raises(InvalidOption, match=f"{count} places are reported; 1 to 1000"):
        check_report(report(*[(0, 0, 5, 5)] * count))


def test_the_whole_picture_and_the_most_places_are_accepted() -> None:
    check_report(report(*[(0, 0, 100, 80)] * MAX_PLACES))
