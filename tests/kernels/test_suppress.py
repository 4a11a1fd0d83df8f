from __future__ import annotations

import subprocess
import sys
from typing import Literal

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from unface.kernels.arrays import suppress
from unface.mtcnn import boxes as bx

Boxes = NDArray[np.float64]
Overlap = Literal["union", "min"]
OVERLAPS = st.sampled_from(["union", "min"])
THRESHOLDS = st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0])


def in_numpy(boxes: Boxes, threshold: float, overlap: Overlap) -> list[int]:
    pairs = bx.overlapping_pairs(boxes, threshold, overlap)
    return bx.survivors(len(boxes), *pairs).tolist()


@st.composite
def crowds(draw: st.DrawFn) -> Boxes:
    """Draw boxes of few or of all sizes; some empty or inside out, some the same."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(0, 120))
    place, size = draw(st.sampled_from([(10.0, 5.0), (100.0, 30.0), (1e3, 1e3), (1e6, 1e5)]))
    octaves = draw(st.sampled_from([0.0, 3.0, 12.0]))
    corners = rng.uniform(-place, place, (count, 2))
    sides = rng.uniform(0.5, 1, (count, 2)) * size * np.exp2(-rng.uniform(0, octaves, (count, 1)))
    if draw(st.booleans()):  # whole numbers: ties, and boxes that touch
        corners, sides = np.floor(corners), np.floor(sides)
    boxes = np.concatenate([corners, corners + sides], axis=1)
    odd = rng.random(count)
    boxes[odd < 0.05, 2] = boxes[odd < 0.05, 0]
    turned = odd > 0.95
    boxes[turned] = boxes[turned][:, [2, 1, 0, 3]]
    both = (odd > 0.9) & ~turned
    boxes[both] = boxes[both][:, [2, 3, 0, 1]]
    again = rng.integers(0, max(count, 1), count)
    return np.where((rng.random(count) < 0.2)[:, None], boxes[again], boxes)


@given(crowds(), THRESHOLDS, OVERLAPS)
@settings(max_examples=500, deadline=None)
def test_the_core_keeps_what_numpy_keeps(boxes: Boxes, threshold: float, overlap: Overlap) -> None:
    assert suppress(boxes, threshold, overlap).tolist() == in_numpy(boxes, threshold, overlap)


edges = st.sampled_from(
    [0.0, -0.0, 5e-324, 1e-9, 0.5, 1.0, 1.5, 2.0, 4.0, 1e3, 2.0**31, 2.0**32, 2.0**63, 1e100, 1e150]
).flatmap(lambda edge: st.sampled_from([edge, -edge]))


@given(st.lists(st.tuples(edges, edges, edges, edges), max_size=30), THRESHOLDS, OVERLAPS)
@settings(max_examples=500, deadline=None)
@example([(-1e150, -1e150, 1e150, 1e150)] * 2 + [(0.0, 0.0, 1.0, 1.0)] * 2, 0.5, "union")
@example([(0.0, 2.0**63, 1.0, 2.0**63), (0.0, 1e100, 1.0, 1e100)], 0.5, "union")
def test_boxes_of_all_sizes_are_kept_as_numpy_keeps_them(
    rows: list[tuple[float, float, float, float]], threshold: float, overlap: Overlap
) -> None:
    boxes = np.array(rows, np.float64).reshape(-1, 4)
    assert suppress(boxes, threshold, overlap).tolist() == in_numpy(boxes, threshold, overlap)


@pytest.mark.parametrize("overlap", ["union", "min"])
def test_of_equal_boxes_the_first_stays(overlap: Overlap) -> None:
    boxes = np.tile([10.0, 20.0, 50.0, 80.0], (1000, 1))
    assert suppress(boxes, 0.7, overlap).tolist() == [0]


def test_nothing_and_one() -> None:
    assert suppress(np.empty((0, 4)), 0.5, "union").tolist() == []
    assert suppress(np.array([[1.0, 2.0, 3.0, 4.0]]), 0.5, "min").tolist() == [0]


def test_infinite_boxes_end() -> None:
    inf = np.inf
    rows = [[-inf, -inf, inf, inf], [0, 0, 1, 1], [0, -inf, 1, inf], [inf, inf, inf, inf]] * 3
    kept = suppress(np.array(rows, np.float64), 0.5, "min").tolist()
    assert kept[0] == 0
    assert 1 not in kept  # it is covered by the first


@pytest.mark.parametrize(
    "boxes",
    [np.zeros((3, 3)), np.zeros((3, 5)), np.zeros(4), np.zeros((1, 2, 4)), [[0, 0, 1, np.nan]]],
)
def test_what_are_no_boxes_is_refused(boxes: Boxes) -> None:
    with pytest.raises(ValueError, match="boxes have shape"):
        suppress(np.asarray(boxes), 0.5, "union")


def test_boxes_in_another_layout_count_as_they_look() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 100, (300, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 30, (300, 2))], axis=1)
    wanted = suppress(boxes, 0.3, "union").tolist()
    assert suppress(np.asfortranarray(boxes), 0.3, "union").tolist() == wanted
    assert suppress(np.repeat(boxes, 2, axis=0)[::2], 0.3, "union").tolist() == wanted
    same = boxes.astype(np.float32)
    single = suppress(same, 0.3, "union").tolist()  # type: ignore[arg-type]
    assert single == suppress(same.astype(np.float64), 0.3, "union").tolist()


CODE = """
import resource
import numpy as np
from unface.kernels.arrays import suppress
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
boxes = {boxes}
assert len(suppress(boxes[:10], 0.5, "union"))
before = peak()
kept = suppress(boxes, 0.5, "union")
print(len(kept), peak() - before)
"""
GRID = "np.array([[x, y, x + 12, y + 12] for y in range(0, 2528, 8) for x in range(0, 2536, 8)])"
SAME = "np.tile([0., 0., 10., 10.], (100_000, 1))"


@pytest.mark.parametrize(("boxes", "kept"), [(GRID, 316 * 317), (SAME, 1)])
def test_a_hundred_thousand_boxes_take_memory_by_their_number(boxes: str, kept: int) -> None:
    """The pairs of the second are 40 GB."""
    code = CODE.format(boxes=boxes)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    count, grown = result.stdout.split()
    assert int(count) == kept
    assert float(grown) < 40  # a box is sorted as 64 bytes, perhaps twice
