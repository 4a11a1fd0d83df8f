import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unface.anonymize import SHAPES, MaskOptions, apply_masks, plan_masks
from unface.anonymize.plans import MASK, MAX_TAPS, METHOD_CODES
from unface.errors import InvalidOption

WIDTH, HEIGHT = 60, 50
Box = tuple[float, float, float, float]


def a_box() -> st.SearchStrategy[Box]:
    place, side = st.floats(-40, 90, width=32), st.floats(0, 80, width=32)
    return st.builds(lambda x, y, w, h: (x, y, x + w, y + h), place, place, side, side)


def painted(masks: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Paint solid masks pixel by pixel, as they say."""
    result = image.copy()
    for mask in masks:
        for y in range(mask["top"], mask["top"] + mask["height"]):
            for x in range(mask["left"], mask["left"] + mask["width"]):
                across = (x + 0.5 - mask["center"][0]) / mask["half"][0]
                down = (y + 0.5 - mask["center"][1]) / mask["half"][1]
                if not mask["ellipse"] or across * across <= 1 - down * down:
                    result[y, x] = [mask["color"] >> 8 * n & 255 for n in range(3)]
    return result


@pytest.mark.parametrize("shape", SHAPES)
@given(boxes=st.lists(a_box(), max_size=2), margin=st.floats(0, 2))
def test_a_plan_covers_the_pixels_that_apply_masks_covers(
    shape: str, boxes: list[Box], margin: float
) -> None:
    options = MaskOptions(method="solid", shape=shape, margin=margin, color=(1, 200, 30))
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    planned = painted(plan_masks(WIDTH, HEIGHT, boxes, options), image)
    assert np.array_equal(planned, apply_masks(image, boxes, options))


@given(box=a_box(), cells=st.integers(2, 16), margin=st.floats(0, 2), kernel=st.floats(0.3, 2))
def test_every_number_of_a_plan_is_one_that_a_kernel_can_take(
    box: Box, cells: int, margin: float, kernel: float
) -> None:
    for method in METHOD_CODES:
        options = MaskOptions(method=method, cells=cells, margin=margin, kernel=kernel)
        for mask in plan_masks(WIDTH, HEIGHT, [box], options):
            assert 0 <= mask["left"] < mask["left"] + mask["width"] <= WIDTH
            assert 0 <= mask["top"] < mask["top"] + mask["height"] <= HEIGHT
            assert ((mask["parts"] >= 1) & (mask["parts"] <= cells)).all()
            assert (mask["small"] <= (mask["width"], mask["height"])).all()
            assert 0 <= mask["radius"] < MAX_TAPS


@given(side=st.floats(0, 1e5), margin=st.floats(0, 2), kernel=st.floats(0.3, 2))
def test_a_blur_never_takes_a_larger_kernel_or_picture_than_fits(
    side: float, margin: float, kernel: float
) -> None:
    options = MaskOptions(method="blur", margin=margin, kernel=kernel)
    (mask,) = plan_masks(10**6, 10**6, [(1e5, 1e5, 1e5 + side, 1e5 + side)], options)
    assert mask["radius"] < MAX_TAPS
    assert (mask["small"] <= 500).all()
    weights = mask["taps"][0] + 2 * mask["taps"][1:].sum()
    assert math.isclose(weights, 1, abs_tol=1e-5)


def test_faces_outside_are_left_out_and_the_others_keep_their_order() -> None:
    boxes = [(50, 40, 55, 45), (500, 3, 510, 9), (1, 2, 6, 7), (-90, -90, -80, -80)]
    masks = plan_masks(WIDTH, HEIGHT, boxes, MaskOptions(shape="rectangle", margin=0))
    assert masks[["left", "top"]].tolist() == [(50, 40), (1, 2)]


@pytest.mark.parametrize("boxes", [np.empty((0, 4), np.float32), [], np.empty(0)])
def test_no_boxes_make_an_empty_plan(boxes: np.ndarray) -> None:
    masks = plan_masks(WIDTH, HEIGHT, boxes, MaskOptions())
    assert masks.shape == (0,)
    assert masks.dtype == MASK


def test_frames_for_review_are_not_planned() -> None:
    with pytest.raises(InvalidOption, match="method is 'box'"):
        plan_masks(WIDTH, HEIGHT, [(1, 2, 3, 4)], MaskOptions(method="box"))


@pytest.mark.parametrize("boxes", [[[1, 2, np.nan, 4]], [[5, 2, 3, 4]], [1, 2, 3, 4]])
def test_boxes_that_make_no_sense_are_refused(boxes: list[object]) -> None:
    with pytest.raises(InvalidOption, match="box"):
        plan_masks(WIDTH, HEIGHT, np.array(boxes), MaskOptions())
