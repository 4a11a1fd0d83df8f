"""The kernels around engines, on the simulated GPU: what they take out of an engine's answers."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from simulated import Block
from workbench import Bench, needs_simulator, noise

from unface.gpu.engines import PAGE_CELLS
from unface.gpu.plan import Plan
from unface.gpu.tables import CANDIDATE, FRAME, HIT, SQUARE
from unface.mtcnn.canvas import P_NET_STRIDE, PAGE_SIDE, cells
from unface.mtcnn.cascade import CROP_OFFSET
from unface.mtcnn.options import DetectOptions

pytestmark = needs_simulator

OPTIONS = DetectOptions(min_face=12)
SIDE = cells(PAGE_SIDE)  # cells of a page along one side


@pytest.fixture
def bench() -> Bench:
    return Bench(seed=7)


def answer(bench: Bench, *outputs: NDArray[np.float32]) -> None:
    """Let engines have given these outputs."""
    bench.answers = [Block(values.nbytes) for values in outputs]  # as long as the bench
    for place, (block, values) in enumerate(zip(bench.answers, outputs, strict=True)):
        block.array.view("<f4")[:] = values.ravel()
        bench.pointers["outputs"][place] = block.pointer


def run(bench: Bench, kernel: str, *numbers: int) -> None:
    bench.device.run(kernel, 5, 256, bench.lane._memory["lane"].pointer, *numbers)


def cell_of_page(plan: Plan) -> dict[tuple[int, int, int], int]:
    """For each cell of a level, the cell of all pages that looks at the same pixels."""
    found = {}
    for t in plan.tiles.tolist():
        level, x, y, width, height, _, offset, _ = t
        page, place = divmod(offset, PAGE_SIDE * PAGE_SIDE)
        page_y, page_x = divmod(place, PAGE_SIDE)
        for row in range(cells(height)):
            for column in range(cells(width)):
                at = (page_y // P_NET_STRIDE + row) * SIDE + page_x // P_NET_STRIDE + column
                key = (level, y // P_NET_STRIDE + row, x // P_NET_STRIDE + column)
                assert key not in found, "two tiles have the same cell"
                found[key] = page * PAGE_CELLS + at
    return found


@pytest.mark.parametrize("size", [(530, 290), (257, 40), (12, 12), (40, 11)])
def test_every_cell_of_every_level_is_taken_from_its_page_once(
    size: tuple[int, int], bench: Bench
) -> None:
    plan = bench.load(noise(*size), OPTIONS, pages=True)
    total = plan.pages * PAGE_CELLS
    logits = np.arange(total, dtype=np.float32)
    answer(bench, logits, logits[:, None] + np.float32([0.125, 0.25, 0.375, 0.5]))
    least = total // 2
    bench.bytes("frame").view(FRAME)[0]["least"] = least
    run(bench, "collect_cells")
    wanted = cell_of_page(plan)
    assert len(wanted) == plan.cells
    found = bench.floats("logits", plan.cells)
    for (level, row, column), cell in wanted.items():
        at = plan.levels[level]
        assert found[at["first_cell"] + row * at["columns"] + column] == cell
    assert bench.counters["hits"] == sum(cell >= least for cell in wanted.values())
    for hit in bench.table("hits", HIT, min(int(bench.counters["hits"]), bench.lane.sizes.hits)):
        cell = wanted[int(hit["level"]), int(hit["row"]), int(hit["column"])]
        assert hit["logit"] == cell >= least
        assert (hit["box"] == cell + np.float32([0.125, 0.25, 0.375, 0.5])).all()


@pytest.mark.parametrize("count", [0, 1, 257, 1500])
@pytest.mark.parametrize("stage", [0, 1])
def test_candidates_are_made_of_what_an_engine_says_of_their_squares(
    stage: int, count: int, bench: Bench
) -> None:
    bench.load(noise(50, 40), OPTIONS, pages=True)
    rng = np.random.default_rng(count)
    logits = rng.normal(0, 2, count).astype(np.float32)
    boxes, points = (rng.normal(0, 0.2, (count, n)).astype(np.float32) for n in (4, 10))
    answer(bench, logits, boxes, points)
    squares = np.zeros(count, SQUARE)
    for name in ("x", "y", "side"):
        squares[name] = rng.uniform(1, 90, count)
    squares["key"] = rng.permutation(count)
    bench.fill(f"squares{stage}", squares)
    bench.counters["squares"][stage] = count
    bench.bytes("frame").view(FRAME)[0]["least"] = 0.5
    run(bench, "judge_crops", stage)
    passed = np.flatnonzero(logits > 0.5)
    found = bench.table(f"candidates{stage + 1}", CANDIDATE, len(passed))
    assert bench.counters["candidates"][stage + 1] == len(passed)
    place = {int(key): n for n, key in enumerate(squares["key"])}
    at = np.array([place[int(key)] for key in found["key"]], np.int64)
    assert sorted(at) == passed.tolist()
    assert (found["logit"] == logits[at]).all()
    assert (found["offsets"] == boxes[at]).all()
    side = squares["side"][at]
    shift = side * np.float32(CROP_OFFSET / (24, 48)[stage])
    x, y = squares["x"][at] - shift, squares["y"][at] - shift
    wanted = np.stack([x, y, x + side, y + side], axis=1)
    if stage == 1:
        wanted = wanted + boxes[at] * side[:, None]
        corners = np.concatenate([np.tile(x, (5, 1)).T, np.tile(y, (5, 1)).T], axis=1)
        landmarks = bench.floats("landmarks", len(passed), 10)
        np.testing.assert_allclose(
            landmarks, corners + points[at] * side[:, None], rtol=1e-5, atol=1e-4
        )
    np.testing.assert_allclose(found["box"], wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("output", [0, 1, 2])
def test_an_answer_that_is_no_number_is_counted_wherever_it_is(
    output: int, value: float, bench: Bench
) -> None:
    bench.load(noise(50, 40), OPTIONS, pages=True)
    count = 40
    squares = np.zeros(count, SQUARE)
    squares["side"] = 9
    for place in (0, 17, 39):
        outputs = [np.zeros((count, n), np.float32) for n in (1, 4, 10)]
        outputs[output][place, -1] = value
        answer(bench, *outputs)
        bench.fill("squares1", squares)
        bench.counters["squares"][1], bench.counters["invalid"] = count, 0
        run(bench, "judge_crops", 1)
        assert bench.counters["invalid"] == 1
