"""Suppression by all threads at once, on the simulated GPU, is the greedy one that the CPU does.

Threads and blocks run in another order at each launch: an answer that hangs on it would differ.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from workbench import Bench, needs_simulator, noise

from unface.gpu.plan import Plan, plan_frame
from unface.gpu.tables import CANDIDATE, FACE, HIT, SQUARE
from unface.mtcnn import boxes as bx
from unface.mtcnn.options import DetectOptions
from unface.mtcnn.proposals import (
    Cells,
    cell_boxes,
    logit_from_probability,
    suppress_within_levels,
)
from unface.mtcnn.pyramid import pyramid_levels

pytestmark = needs_simulator

OPTIONS = DetectOptions(min_face=12)
OVERLAPPING = DetectOptions(min_face=12, scale_factor=0.9)  # cells of two levels may do
WIDTH, HEIGHT = 90, 61
LEAST = logit_from_probability(OPTIONS.thresholds[0])
OVERLAPS: dict[int, bx.Overlap] = {0: "union", 1: "union", 2: "min"}  # by stage

Logits = NDArray[np.float32]  # of all cells; a hit is what is above 1


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench(seed=1)


@pytest.fixture(scope="module")
def cells() -> int:
    """How many cells the levels have."""
    return plan_frame(WIDTH, HEIGHT, OPTIONS).cells


def load_cells(
    bench: Bench, logits: Logits, order: NDArray[np.int64], options: DetectOptions = OPTIONS
) -> tuple[Plan, Cells]:
    """Bring cells onto the device as P-Net leaves them, hits in an order; return the hits."""
    plan = bench.load(noise(WIDTH, HEIGHT), options)
    bench.floats("logits", plan.cells)[:] = logits
    hits = np.zeros(int((logits >= LEAST).sum()), HIT)
    begin = 0
    for index, level in enumerate(plan.levels):
        rows, columns, first = (int(level[n]) for n in ("rows", "columns", "first_cell"))
        grid = logits[first : first + rows * columns].reshape(rows, columns)
        for row, column in np.argwhere(grid >= LEAST).tolist():
            offsets = (np.array([row, column, index, row + column]) % 7 - 3) / 20
            hits[begin] = (index, row, column, grid[row, column], offsets)
            begin += 1
    bench.fill("hits", hits[order[order < len(hits)]])
    bench.counters["hits"] = len(hits)
    level, row, column = (hits[n].astype(np.int64) for n in ("level", "row", "column"))
    return plan, Cells(level, row, column, hits["logit"].copy(), hits["box"].copy())


def keys_of(cells: Cells, plan: Plan) -> NDArray[np.int64]:
    levels = plan.levels[cells.level]
    return levels["first_cell"] + cells.row * levels["columns"] + cells.column


def assert_suppressed_alike(bench: Bench, logits: Logits, order: NDArray[np.int64]) -> None:
    plan, cells = load_cells(bench, logits, order)
    levels = tuple(pyramid_levels(WIDTH, HEIGHT, OPTIONS.min_face, OPTIONS.scale_factor))
    kept = cells[suppress_within_levels(cells, levels)]
    squares = bx.to_squares(bx.regress(cell_boxes(kept, levels, WIDTH, HEIGHT), kept.offsets))
    bench.run("suppress_cells")
    found = bench.table("squares0", SQUARE, int(bench.counters["squares"][0])).copy()
    found, wanted = found[np.argsort(found["key"])], np.argsort(keys_of(kept, plan))
    assert found["key"].tolist() == keys_of(kept, plan)[wanted].tolist()
    given = np.stack([found[n] for n in ("x", "y", "side")], axis=1)
    np.testing.assert_allclose(given, squares[wanted], rtol=1e-5, atol=1e-4)
    settled = bench.floats("logits", plan.cells)
    assert np.isinf(settled[logits >= LEAST]).all()
    assert (settled[logits < LEAST] == logits[logits < LEAST]).all()


@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_cells_are_suppressed_as_on_the_cpu(
    bench: Bench, cells: int, seed: int, density: float, values: int
) -> None:
    rng = np.random.default_rng(seed)
    logits = np.where(
        rng.random(cells) < density,
        1 + rng.integers(0, values, cells),  # ties
        LEAST - 0.1,
    )
    assert_suppressed_alike(bench, logits.astype(np.float32), rng.permutation(cells))


RAMPS: dict[str, Callable[[int], NDArray[np.floating]]] = {
    "rising": lambda n: np.arange(n) + 1.0,
    "falling": lambda n: np.arange(n)[::-1] + 1.0,
    "all equal": lambda n: np.ones(n),
    "none": lambda n: np.zeros(n),
    "one": lambda n: np.eye(1, n)[0] * 9,
    "every second": lambda n: np.arange(n) % 2 * 3.0,
}


@pytest.mark.parametrize("ramp", RAMPS)
def test_cells_that_wait_for_each_other_in_a_long_row_are_settled(
    ramp: str, bench: Bench, cells: int
) -> None:
    logits = RAMPS[ramp](cells).astype(np.float32)
    assert_suppressed_alike(bench, logits, np.arange(cells))


def test_cells_go_to_suppression_across_levels_where_levels_overlap(bench: Bench) -> None:
    count = plan_frame(WIDTH, HEIGHT, OVERLAPPING).cells
    rng = np.random.default_rng(8)
    logits = np.where(rng.random(count) < 0.2, 1 + rng.random(count), -1).astype(np.float32)
    plan, cells = load_cells(bench, logits, rng.permutation(count), OVERLAPPING)
    levels = tuple(pyramid_levels(WIDTH, HEIGHT, 12, 0.9))
    kept = cells[suppress_within_levels(cells, levels)]
    bench.run("suppress_cells")
    assert bench.counters["squares"][0] == 0
    assert bench.counters["candidates"][0] == len(kept.logit)
    bench.run("find_rivals", "settle_rivals", stage=0)
    boxes = cell_boxes(kept, levels, WIDTH, HEIGHT)
    keys, order = keys_of(kept, plan), np.argsort(keys_of(kept, plan))
    best = bx.nms(boxes[order], kept.logit[order], 0.7, "union")
    found = bench.table("squares0", SQUARE, int(bench.counters["squares"][0]))
    assert sorted(found["key"].tolist()) == sorted(keys[order][best].tolist())
    assert len(best) < len(kept.logit), "nothing was there to suppress"


Crowd = tuple[NDArray[np.float32], Logits, NDArray[np.int64]]  # boxes, logits, keys


@st.composite
def crowds(draw: st.DrawFn) -> Crowd:
    """Boxes of whole pixels: overlaps are exact, some just the threshold; many are equal."""
    count = draw(st.integers(0, 70))
    corners = draw(hnp.arrays(np.float32, (count, 2), elements=st.integers(-20, 30)))
    sizes = draw(hnp.arrays(np.float32, (count, 2), elements=st.integers(0, 30)))
    logits = draw(hnp.arrays(np.float32, count, elements=st.integers(0, 8)))
    keys = draw(st.permutations(range(count)))
    return np.concatenate([corners, corners + sizes], axis=1), logits, np.array(keys, np.int64)


def assert_greedy(bench: Bench, stage: int, crowd: Crowd) -> None:
    boxes, logits, keys = crowd
    bench.load(noise(WIDTH, HEIGHT), OVERLAPPING)
    records = np.zeros(len(boxes), CANDIDATE)
    records["box"], records["logit"], records["key"] = boxes, logits, keys
    landmarks = np.arange(len(boxes) * 10, dtype=np.float32).reshape(-1, 10)
    bench.fill(f"candidates{stage}", records)
    bench.floats("landmarks", len(boxes), 10)[:] = landmarks
    bench.counters["candidates"][stage] = len(boxes)
    bench.run("find_rivals", "settle_rivals", stage=stage)
    order = np.argsort(keys)  # of equal logits the lower key is better
    kept = order[bx.nms(boxes[order].astype(float), logits[order], 0.7, OVERLAPS[stage])]
    if stage == 2:
        faces = bench.bytes("result")[32:].view(FACE)[: bench.counters["faces"]]
        place = np.argsort(keys)[faces["key"]]
        assert sorted(place.tolist()) == sorted(kept.tolist())
        for name, wanted in (("box", boxes), ("logit", logits), ("landmarks", landmarks)):
            assert (faces[name] == wanted[place]).all()
        return
    found = bench.table(f"squares{stage}", SQUARE, int(bench.counters["squares"][stage]))
    sizes = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0)
    large = kept[sizes[kept] >= 1]  # smaller ones no network looks at
    assert sorted(found["key"].tolist()) == sorted(keys[large].tolist())


@pytest.mark.parametrize("stage", [1, 2])
@given(crowd=crowds())
@settings(max_examples=120, deadline=None)
def test_boxes_are_suppressed_as_on_the_cpu(bench: Bench, stage: int, crowd: Crowd) -> None:
    assert_greedy(bench, stage, crowd)


def chain(count: int, step: float, rising: bool) -> Crowd:
    x = np.arange(count, dtype=np.float32) * step
    boxes = np.stack([x, 0 * x, x + 100, 0 * x + 100], axis=1)
    logits = np.arange(count, dtype=np.float32)
    return boxes, logits if rising else logits[::-1].copy(), np.arange(count)


def scattered(count: int) -> Crowd:
    rng = np.random.default_rng(count)
    corners = rng.uniform(-50, 300, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(20, 60, (count, 2))], axis=1)
    logits = rng.normal(0, 3, count).round(1)
    return boxes.astype(np.float32), logits.astype(np.float32), rng.permutation(count)


CROWDS: dict[str, Callable[[], Crowd]] = {
    "nothing": lambda: chain(0, 1, True),
    "one": lambda: chain(1, 1, True),
    "a word of bits": lambda: scattered(32),
    "one more": lambda: scattered(33),
    "two thousand": lambda: scattered(2048),
    "a rising chain": lambda: chain(600, 12, True),
    "a falling chain": lambda: chain(600, 12, False),
    "all alike": lambda: chain(500, 0, True),
    "all equal": lambda: (np.tile(np.float32([1, 2, 30, 40]), (500, 1)), np.ones(500, np.float32),
                          np.arange(500)[::-1].copy()),
    "all empty": lambda: (np.ones((70, 4), np.float32), np.ones(70, np.float32), np.arange(70)),
    "inside out": lambda: (np.float32([[30, 30, 10, 10], [0, 0, 40, 40], [30, 0, 10, 40],
                                       [5, 5, 38, 38]]),
                           np.float32([9, 8, 7, 6]), np.arange(4)),
}  # fmt: skip


@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("name", CROWDS)
def test_crowds_of_every_kind_are_suppressed_as_on_the_cpu(
    name: str, stage: int, bench: Bench
) -> None:
    assert_greedy(bench, stage, CROWDS[name]())


def test_hits_that_found_no_place_end_the_step_and_do_not_hang_it(bench: Bench, cells: int) -> None:
    """Such a cell is in no list, so that it never settles, and its neighbours wait for it."""
    logits = np.arange(cells, dtype=np.float32) + 1
    load_cells(bench, logits, np.arange(cells))
    bench.pointers["hit_capacity"] = cells - 1
    bench.run("suppress_cells")
    bench.pointers["hit_capacity"] = bench.lane.sizes.hits
    assert bench.counters["squares"][0] == 0
    assert bench.counters["hits"] == cells
