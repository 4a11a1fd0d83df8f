from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from unface.mtcnn import boxes as bx

pytestmark = pytest.mark.usefixtures("arithmetic")


def slow_nms(
    boxes: NDArray[np.float64], scores: NDArray[np.float32], threshold: float, overlap: str
) -> list[int]:
    """Greedy suppression as the paper's code says it, one box at a time."""
    order = sorted(range(len(boxes)), key=lambda k: -scores[k])
    kept: list[int] = []
    for k in order:
        for j in kept:
            w = min(boxes[k, 2], boxes[j, 2]) - max(boxes[k, 0], boxes[j, 0])
            h = min(boxes[k, 3], boxes[j, 3]) - max(boxes[k, 1], boxes[j, 1])
            shared = max(w, 0) * max(h, 0)
            areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (boxes[k], boxes[j])]
            whole = min(areas) if overlap == "min" else sum(areas) - shared
            if whole > 0 and shared / whole > threshold:
                break
        else:
            kept.append(k)
    return kept


@st.composite
def crowds(draw: st.DrawFn) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    count = draw(st.integers(0, 60))
    corners = draw(hnp.arrays(np.float64, (count, 2), elements=st.integers(-20, 60)))
    sizes = draw(hnp.arrays(np.float64, (count, 2), elements=st.integers(0, 40)))
    scores = draw(hnp.arrays(np.float32, count, elements=st.integers(0, 8)))  # many ties
    return np.concatenate([corners, corners + sizes], axis=1), scores


@given(crowds(), st.sampled_from([0.3, 0.5, 0.7]), st.sampled_from(["union", "min"]))
@settings(max_examples=300, deadline=None)
def test_nms_is_exactly_the_greedy_one(
    crowd: tuple[NDArray[np.float64], NDArray[np.float32]], threshold: float, overlap: bx.Overlap
) -> None:
    boxes, scores = crowd
    assert bx.nms(boxes, scores, threshold, overlap).tolist() == slow_nms(
        boxes, scores, threshold, overlap
    )


@pytest.mark.parametrize("at_once", [1, 7, 1000])
def test_nms_does_not_depend_on_how_much_is_done_at_once(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    rng = np.random.default_rng(3)
    corners = rng.uniform(0, 300, (400, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 60, (400, 2))], axis=1)
    scores = rng.random(400).astype(np.float32)
    expected = bx.nms(boxes, scores, 0.5, "union")
    monkeypatch.setattr(bx, "PAIRS_AT_ONCE", at_once)
    assert bx.nms(boxes, scores, 0.5, "union").tolist() == expected.tolist()


def test_nms_counts_beyond_16_bits() -> None:
    count = 40_000  # facenet-pytorch indexes with int16
    x = np.arange(count, dtype=np.float64) * 20
    boxes = np.stack([x, 0 * x, x + 10, 0 * x + 10], axis=1)
    scores = np.linspace(0, 1, count, dtype=np.float32)
    assert bx.nms(boxes, scores, 0.5, "union").tolist() == list(range(count))[::-1]


def test_min_overlap_drops_a_small_box_within_a_large_one_and_union_keeps_it() -> None:
    boxes = np.array([[0, 0, 100, 100], [40, 40, 60, 60]], np.float64)
    scores = np.array([0.9, 0.8], np.float32)
    assert bx.nms(boxes, scores, 0.7, "min").tolist() == [0]
    assert bx.nms(boxes, scores, 0.7, "union").tolist() == [0, 1]


def test_nothing_in_nothing_out() -> None:
    assert bx.nms(np.empty((0, 4)), np.empty(0, np.float32), 0.5, "union").tolist() == []


def test_a_chain_of_overlaps_keeps_every_second_box() -> None:
    x = np.arange(200, dtype=np.float64) * 4
    boxes = np.stack([x, 0 * x, x + 10, 0 * x + 10], axis=1)
    scores = np.linspace(1, 0, 200, dtype=np.float32)
    assert bx.nms(boxes, scores, 0.4, "union").tolist() == list(range(0, 200, 2))


def test_regression_moves_edges_by_fractions_of_the_size() -> None:
    box = np.array([[10.0, 20.0, 30.0, 60.0]])
    moved = bx.regress(box, np.array([[0.1, -0.1, 0.2, 0.5]], np.float32))
    np.testing.assert_allclose(moved, [[12, 16, 34, 80]], rtol=1e-6)


@given(
    hnp.arrays(np.float64, (5, 2), elements=st.floats(-100, 100)),
    hnp.arrays(np.float64, (5, 2), elements=st.floats(0, 100)),
)
def test_squares_keep_the_centre_and_take_the_longer_side(
    corners: NDArray[np.float64], sizes: NDArray[np.float64]
) -> None:
    boxes = np.concatenate([corners, corners + sizes], axis=1)
    squares = bx.to_squares(boxes)
    again = bx.boxes_from_squares(squares)
    np.testing.assert_allclose(squares[:, 2], (boxes[:, 2:] - boxes[:, :2]).max(axis=1), atol=1e-9)
    np.testing.assert_allclose(again[:, :2] + again[:, 2:], boxes[:, :2] + boxes[:, 2:], atol=1e-9)


def test_clipping_cuts_at_the_last_row_and_column() -> None:
    boxes = np.array([[-5.0, -5.0, 200.0, 300.0], [150.0, 10.0, 180.0, 20.0]])
    assert bx.clip(boxes, 100, 50).tolist() == [[0, 0, 100, 50], [100, 10, 100, 20]]


def vectorized_nms(
    boxes: NDArray[np.float64], scores: NDArray[np.float32], threshold: float
) -> list[int]:
    """The best box, then all that overlap it too much are gone, and again: for thousands."""
    left = np.argsort(-scores, kind="stable")
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(int(best))
        low = np.maximum(boxes[best, :2], boxes[left, :2])
        high = np.minimum(boxes[best, 2:], boxes[left, 2:])
        shared = np.clip(high - low, 0, None).prod(axis=1)
        left = left[shared / (areas[best] + areas[left] - shared) <= threshold]
    return kept


def test_thousands_of_boxes_are_suppressed_as_one_by_one() -> None:
    rng = np.random.default_rng(11)
    corners = rng.uniform(0, 800, (5000, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(15, 120, (5000, 1))], axis=1)
    scores = rng.random(5000).astype(np.float32).round(2)  # ties
    assert bx.nms(boxes, scores, 0.4, "union").tolist() == vectorized_nms(boxes, scores, 0.4)


def test_one_box_is_kept() -> None:
    assert bx.nms(np.array([[1.0, 2, 3, 4]]), np.ones(1, np.float32), 0.5, "union").tolist() == [0]


def test_of_equal_boxes_and_scores_the_first_is_kept() -> None:
    boxes = np.tile([[10.0, 10.0, 30.0, 30.0]], (50, 1))
    assert bx.nms(boxes, np.full(50, 0.5, np.float32), 0.99, "union").tolist() == [0]


def test_boxes_that_only_touch_do_not_suppress_each_other() -> None:
    boxes = np.array([[0, 0, 10, 10], [10, 0, 20, 10], [0, 10, 10, 20]], np.float64)
    assert len(bx.nms(boxes, np.ones(3, np.float32), 0.0, "min")) == 3


def test_an_overlap_of_exactly_the_threshold_is_kept() -> None:
    boxes = np.array([[0, 0, 12, 12], [4, 0, 16, 12]], np.float64)  # 96 / 192
    assert len(bx.nms(boxes, np.ones(2, np.float32), 0.5, "union")) == 2
    assert len(bx.nms(boxes, np.ones(2, np.float32), 0.4999, "union")) == 1


@given(crowds(), st.sampled_from([0.0, 0.5, 0.7]), st.sampled_from(["union", "min"]))
@settings(deadline=None)
def test_overlapping_pairs_are_those_of_all_pairs(
    crowd: tuple[NDArray[np.float64], NDArray[np.float32]], threshold: float, overlap: bx.Overlap
) -> None:
    boxes, scores = crowd
    better, worse = bx.overlapping_pairs(boxes, threshold, overlap)
    pairs = list(zip(better.tolist(), worse.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    every = [(i, j) for j in range(len(boxes)) for i in range(j)]
    expected = {
        p for p in every if len(slow_nms(boxes[list(p)], scores[:2], threshold, overlap)) < 2
    }
    assert set(pairs) == expected


@given(st.integers(1, 30), st.data())
def test_survivors_are_those_no_better_survivor_rules_out(count: int, data: st.DataObject) -> None:
    every = [(i, j) for j in range(count) for i in range(j)]
    chosen = data.draw(st.lists(st.sampled_from(every), unique=True)) if every else []
    kept: list[int] = []
    for item in range(count):
        if not any((rival, item) in chosen for rival in kept):
            kept.append(item)
    better, worse = (np.array([p[k] for p in chosen], np.int64) for k in (0, 1))
    assert bx.survivors(count, better, worse).tolist() == kept


def test_boxes_turned_inside_out_overlap_nothing() -> None:
    boxes = np.array(
        [[30, 30, 10, 10], [0, 0, 40, 40], [30, 0, 10, 40], [5, 5, 38, 38]], np.float64
    )
    scores = np.array([0.9, 0.8, 0.7, 0.6], np.float32)
    assert bx.nms(boxes, scores, 0.3, "min").tolist() == [0, 1, 2]


def test_suppression_takes_memory_by_the_pairs_at_once_and_not_by_all_pairs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A column of boxes: each shares its x with all others, two million pairs in all."""
    monkeypatch.setenv("UNFACE_KERNELS", "none")  # the core makes no pairs
    y = np.arange(2000, dtype=np.float64) * 20
    boxes = np.stack([0 * y, y, 0 * y + 10, y + 10], axis=1)
    scores = np.ones(2000, np.float32)
    peaks = []
    for at_once in (1 << 14, 1 << 30):
        monkeypatch.setattr(bx, "PAIRS_AT_ONCE", at_once)
        tracemalloc.start()
        assert len(bx.nms(boxes, scores, 0.5, "union")) == 2000
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[0] < 8e6 < 2e8 < peaks[1]


@given(
    hnp.arrays(np.float64, (4, 4), elements=st.floats(-200, 300)),
    st.integers(1, 99),
    st.integers(1, 99),
)
def test_clipping_keeps_what_is_inside_and_nothing_else(
    boxes: NDArray[np.float64], width: int, height: int
) -> None:
    clipped = bx.clip(boxes, width, height)
    assert ((clipped >= 0) & (clipped <= [width, height, width, height])).all()
    inside = (boxes >= 0) & (boxes <= [width, height, width, height])
    assert (clipped[inside] == boxes[inside]).all()
    assert (bx.clip(clipped, width, height) == clipped).all()


@given(hnp.arrays(np.float64, (6, 4), elements=st.floats(-500, 500)))
def test_regression_by_nothing_moves_nothing(boxes: NDArray[np.float64]) -> None:
    assert (bx.regress(boxes, np.zeros((6, 4), np.float32)) == boxes).all()
