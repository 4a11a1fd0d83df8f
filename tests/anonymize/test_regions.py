"""Faces that a caller keeps, and boxes that are covered always."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unface.anonymize import MaskOptions, Regions, Verify
from unface.anonymize.regions import KEEP_IOU, MAX_BOXES, left_clear
from unface.anonymize.verification import check_verifiable, stronger
from unface.errors import InvalidImage, InvalidOption

FACE = (10.0, 10.0, 30.0, 40.0)
coordinate = st.floats(0, 100, width=32)
box = st.tuples(coordinate, coordinate, st.floats(1, 50, width=32), st.floats(1, 50, width=32)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
boxes = st.lists(box, max_size=6)


def iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """By counting what a pixel of a fine grid is in would be slow: the textbook's formula."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def test_the_box_of_a_face_leaves_it_clear_and_no_other() -> None:
    other = (60.0, 10.0, 80.0, 40.0)
    assert left_clear([FACE, other], [FACE]).tolist() == [True, False]


def test_a_small_face_inside_of_a_kept_one_is_covered() -> None:
    inside = (12.0, 12.0, 20.0, 22.0)
    assert left_clear([FACE, inside], [FACE]).tolist() == [True, False]


def test_a_box_far_larger_than_the_face_leaves_nothing_clear() -> None:
    assert not left_clear([FACE], [(0, 0, 100, 100)]).any()


@given(boxes, boxes)
def test_each_kept_box_leaves_at_most_one_face_clear_the_one_it_overlaps_most(
    faces: list[Any], keep: list[Any]
) -> None:
    clear = left_clear(np.array(faces).reshape(-1, 4), np.array(keep).reshape(-1, 4))
    assert clear.sum() <= len(keep)
    for index, face in enumerate(faces):
        best = max((iou(face, kept) for kept in keep), default=0.0)
        if clear[index]:
            assert best >= KEEP_IOU - 1e-6
            assert any(
                iou(face, kept) >= max(iou(other, kept) for other in faces) - 1e-6 for kept in keep
            )


@given(boxes)
def test_faces_kept_by_their_own_boxes_stay_clear(faces: list[Any]) -> None:
    distinct = np.array(list(dict.fromkeys(faces)), np.float64).reshape(-1, 4)
    assert left_clear(distinct, distinct).all()


@pytest.mark.parametrize("name", ["keep", "cover"])
@pytest.mark.parametrize(
    "bad", [[(3, 0, 1, 2)], [(0, 0, float("nan"), 2)], [(1, 2, 3)], "face", [None], [("a",) * 4]]
)
def test_what_is_no_box_is_refused_by_name(name: str, bad: Any) -> None:
    with pytest.raises(InvalidOption, match=name):
        Regions(**{name: bad})


def test_more_boxes_than_are_taken_are_refused() -> None:
    with pytest.raises(InvalidOption, match=f"cover has {MAX_BOXES + 1} boxes"):
        Regions(cover=[FACE] * (MAX_BOXES + 1))


@pytest.mark.parametrize(
    "outside", [(100, 0, 120, 10), (0, 50, 10, 60), (-20, 0, 0, 10), (0, -9, 10, 0)]
)
def test_a_picture_that_a_box_to_cover_does_not_touch_is_refused(outside: Any) -> None:
    with pytest.raises(InvalidImage, match=r"100 x 50; cover box 1.* outside"):
        Regions(cover=[FACE, outside]).check(100, 50, MaskOptions())


@pytest.mark.parametrize("touching", [(99, 49, 200, 200), (-50, -50, 1, 1), (0, 0, 100, 50)])
def test_a_box_that_touches_the_picture_is_taken(touching: Any) -> None:
    Regions(cover=[touching]).check(100, 50, MaskOptions())


def test_covering_the_picture_again_and_again_is_refused() -> None:
    """Each box is work: a thousand boxes over 100 megapixels would take minutes."""
    whole = (0, 0, 100, 50)
    Regions(cover=[whole] * 16).check(100, 50, MaskOptions(margin=0))
    with pytest.raises(InvalidImage, match="17 times"):
        Regions(cover=[whole] * 17).check(100, 50, MaskOptions(margin=0))


@pytest.mark.parametrize("method", ["mosaic", "solid", "blur"])
def test_each_round_covers_more_and_ends_with_one_colour(method: str) -> None:
    first = MaskOptions(method=method)
    rounds = [stronger(first, number) for number in (1, 2, 3, 4)]
    margins = [first.margin, *(masks.margin for masks in rounds)]
    assert margins == sorted(set(margins))
    assert rounds[0].method in ("mosaic", "solid")
    assert rounds[0].cells <= first.cells
    assert all((masks.method, masks.shape) == ("solid", "rectangle") for masks in rounds[1:])


def test_a_margin_never_exceeds_what_masks_take() -> None:
    assert stronger(MaskOptions(margin=2), 4).margin == 2


@pytest.mark.parametrize("rounds", [-1, 5, 1.5, True, "2"])
def test_rounds_that_make_no_sense_are_refused(rounds: Any) -> None:
    with pytest.raises(InvalidOption, match="whole number from 0 to 4"):
        Verify(rounds)


def test_frames_for_review_cannot_be_verified() -> None:
    with pytest.raises(InvalidOption, match="covers nothing"):
        check_verifiable(MaskOptions(method="box"))
