"""Each kernel alone, on the simulated GPU, held to what does the same on the CPU.

Memory begins as 0xff, NaN as half and float, and threads and blocks run in shuffled order.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from half_networks import in_halves
from numpy.typing import NDArray
from scenes import astronaut, crowd
from workbench import Bench, Image, Table, checkerboard, needs_simulator, noise, weights

from unface.gpu.plan import Plan
from unface.gpu.tables import CANDIDATE, FRAME, HIT, LEVEL, SQUARE
from unface.kernels.library import instruction_set
from unface.mtcnn.canvas import plan_pages
from unface.mtcnn.cascade import input_squares
from unface.mtcnn.crops import crop_squares
from unface.mtcnn.networks import TorchNetwork, load_network
from unface.mtcnn.options import DetectOptions
from unface.mtcnn.proposals import logit_from_probability
from unface.mtcnn.pyramid import Level, Mipmap, pyramid_levels

pytestmark = needs_simulator

ALL = DetectOptions(min_face=12)  # every level
PICTURES: dict[str, Callable[[], Image]] = {
    "portrait": lambda: astronaut()[60:181, 150:297],
    "crowd": lambda: crowd(2, 2, 34).image,
    "noise": lambda: noise(101, 67),
    "one row of cells": lambda: noise(157, 13),
    "one cell": lambda: noise(12, 12),
    "checkerboard": lambda: checkerboard(70, 50),
    "no level": lambda: noise(90, 11),
    "one pixel": lambda: noise(1, 1),
    "one row": lambda: noise(201, 1),
    "one column": lambda: noise(1, 67),
    "white": lambda: np.full((40, 31, 3), 255, np.uint8),
}
LARGE = {"large": lambda: noise(1101, 403)}  # six halvings, the last ones by one block
# What a sum comes to depends on its order by some 1e-6; where that decides how a half is rounded,
# by a part in 2048 of a value of up to 16.
ROUNDED = 0.02
# Every factor is rounded to a part in 2048 or better; what comes out is within a few parts in a
# thousand of a logit of 10.
HALVED = 0.06


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench(seed=5)


def picture(name: str) -> Image:
    return np.ascontiguousarray({**PICTURES, **LARGE}[name]())


@cache
def torch_network(name: str) -> TorchNetwork:
    pytest.importorskip("torch", reason="torch comes with unface[engines]")
    return TorchNetwork(load_network(name))


def levels_of(plan: Plan) -> tuple[Level, ...]:
    return tuple(pyramid_levels(plan.width, plan.height, 12, 0.709))


def assert_nearly_equal(given: Image, wanted: Image) -> None:
    """Within one grey level, and that hardly ever: OpenCV rounds otherwise than the core."""
    assert given.shape == wanted.shape
    difference = np.abs(given.astype(int) - wanted)
    assert difference.max(initial=0) <= 1
    assert difference.sum() <= (1e-4 if instruction_set() != "none" else 0.03) * given.size + 1


def regions(bench: Bench, plan: Plan) -> list[tuple[int, int, int, Image]]:
    """What each tile of the canvas holds, as level, x, y and pixels."""
    found = []
    canvas = bench.bytes("canvas")
    for t in plan.tiles:
        height, width = int(t["height"]), int(t["width"])
        strides = (int(t["pitch"]), 3, 1)
        tile = np.ndarray((height, width, 3), np.uint8, canvas.data, int(t["offset"]) * 3, strides)
        found.append((int(t["level"]), int(t["x"]), int(t["y"]), tile))
    return found


@pytest.mark.parametrize("name", [*PICTURES, *LARGE])
def test_halvings_are_those_of_the_cpu(name: str, bench: Bench) -> None:
    plan = bench.load(picture(name), ALL)
    bench.run("halve", "halve_rest")
    mipmap = Mipmap(picture(name))
    memory = bench.bytes("halvings")
    for times, offset in enumerate(plan.halving_offsets, start=1):
        wanted = mipmap.halved(times)
        assert_nearly_equal(memory[offset : offset + wanted.size].reshape(wanted.shape), wanted)
    assert len(plan.halving_offsets) + 1 == plan.frame["halvings"]


@pytest.mark.parametrize("pages", [False, True], ids=["whole levels", "pages"])
@pytest.mark.parametrize("name", [*PICTURES, *LARGE])
def test_the_canvas_holds_the_levels_of_the_cpu(name: str, pages: bool, bench: Bench) -> None:
    plan = bench.load(picture(name), ALL, pages=pages)
    bench.bytes("canvas")[:] = 77
    bench.run("halve", "halve_rest", "fill_canvas")
    mipmap, levels = Mipmap(picture(name)), levels_of(plan)
    found = regions(bench, plan)
    for index, x, y, tile in found:
        wanted = mipmap.level(levels[index])[y : y + tile.shape[0], x : x + tile.shape[1]]
        assert_nearly_equal(tile, wanted)
        tile[:] = 77
    assert {index for index, *_ in found} == set(range(len(levels)))
    assert (bench.bytes("canvas") == 77).all(), "something is written beside the tiles"


def test_pages_are_laid_out_as_engines_have_them(bench: Bench) -> None:
    plan = bench.load(picture("crowd"), ALL, pages=True)
    wanted = [
        (t.level, t.x, t.y, t.width, t.height, (page * 256 + t.page_y) * 256 + t.page_x)
        for page, tiles in enumerate(plan_pages(levels_of(plan)))
        for t in tiles
    ]
    fields = ["level", "x", "y", "width", "height", "offset"]
    assert plan.tiles[fields].tolist() == wanted


def scanned(bench: Bench, name: str, pages: bool) -> Plan:
    plan = bench.load(picture(name), ALL, pages=pages)
    bench.run("halve", "halve_rest", "fill_canvas", "pnet")
    return plan


def level_pixels(bench: Bench, plan: Plan, index: int) -> Image:
    """A level as it lies in the canvas, put together from its tiles."""
    level = plan.levels[index]
    pixels = np.zeros((level["height"], level["width"], 3), np.uint8)
    for tile_level, x, y, tile in regions(bench, plan):
        if tile_level == index:
            pixels[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    return pixels


def cell_logits(bench: Bench, plan: Plan, index: int) -> NDArray[np.float32]:
    level = plan.levels[index]
    rows, columns, first = (int(level[n]) for n in ("rows", "columns", "first_cell"))
    return bench.floats("logits", plan.cells)[first:][: rows * columns].reshape(rows, columns)


@pytest.mark.parametrize("pages", [False, True], ids=["whole levels", "pages"])
@pytest.mark.parametrize("name", PICTURES)
def test_pnet_gives_every_cell_what_the_network_gives(name: str, pages: bool, bench: Bench) -> None:
    plan = scanned(bench, name, pages)
    exact = torch_network("pnet")
    for index in range(len(plan.levels)):
        pixels = level_pixels(bench, plan, index)[None]
        given = cell_logits(bench, plan, index)
        rounded = in_halves(weights()["pnet"], "pnet", pixels)["logit"][0]
        np.testing.assert_allclose(given, rounded, rtol=0, atol=ROUNDED)
        assert np.median(np.abs(given - rounded)) < 1e-4
        np.testing.assert_allclose(given, exact(pixels)["logit"][0], rtol=0, atol=HALVED)


@pytest.mark.parametrize("pages", [False, True], ids=["whole levels", "pages"])
@pytest.mark.parametrize("name", ["portrait", "crowd", "noise"])
def test_hits_are_the_cells_at_or_above_the_threshold_each_once(
    name: str, pages: bool, bench: Bench
) -> None:
    plan = scanned(bench, name, pages)
    hits = bench.table("hits", HIT, int(bench.counters["hits"]))
    least = np.float32(logit_from_probability(ALL.thresholds[0]))
    wanted = {}
    for index in range(len(plan.levels)):
        logits = cell_logits(bench, plan, index)
        boxes = in_halves(weights()["pnet"], "pnet", level_pixels(bench, plan, index)[None])["box"]
        for row, column in np.argwhere(logits >= least).tolist():
            wanted[index, row, column] = (logits[row, column], boxes[0, row, column])
    keys = [(int(h["level"]), int(h["row"]), int(h["column"])) for h in hits]
    assert sorted(keys) == sorted(wanted)
    for key, hit in zip(keys, hits, strict=True):
        assert hit["logit"] == wanted[key][0]
        np.testing.assert_allclose(hit["box"], wanted[key][1], rtol=0, atol=0.005)
    assert bench.counters["invalid"] == 0
    assert name == "noise" or len(hits) > 50


def test_a_cell_exactly_at_the_threshold_is_a_hit(bench: Bench) -> None:
    plan = scanned(bench, "crowd", False)
    logits = bench.floats("logits", plan.cells).copy()
    middle = np.sort(logits)[-100]
    for least, count in ((middle, 100), (np.nextafter(middle, np.float32(99)), 99)):
        bench.load(picture("crowd"), ALL)
        bench.bytes("frame").view(FRAME)[0]["least"] = least
        bench.run("halve", "halve_rest", "fill_canvas", "pnet")
        assert bench.counters["hits"] == count


WIDTH, HEIGHT = 301, 207
NETWORKS = {"rnet": 24, "onet": 48}


def squares() -> Table:
    """Squares of all sizes and places: within, across and beyond the border, at every halving.

    None is larger than twice the picture: no more halvings than that needs are made.
    """
    rng = np.random.default_rng(1)
    sides = [1, 1.5, 3, 11.7, 24, 47.9, 48, 48.1, 95.9, 96, 130, 191.9, 192, 250, 383.9, 384, 602]
    corners = [(x, y) for x in (-0.6, 0, 0.37, 0.85, 1) for y in (-0.3, 0.2, 0.97)]
    rows = []
    for index, side in enumerate(sides):
        for fx, fy in (corners[index % 15], corners[(index * 7 + 3) % 15]):
            rows.append((fx * WIDTH + rng.random(), fy * HEIGHT + rng.random(), side))
    rows += [
        (-900, 20, 48), (900, 20, 48), (30, -900, 48), (30, 900, 24),  # wholly beyond
        (0, 0, 48), (WIDTH - 24, HEIGHT - 24, 24), (10, 10, 24), (-8, 17, 1), (-1, 0, 1.2),
    ]  # fmt: skip
    table = np.zeros(len(rows), SQUARE)
    for name, column in zip(("x", "y", "side"), np.array(rows, np.float32).T, strict=True):
        table[name] = column
    table["key"] = rng.permutation(len(rows))
    return table


@cache
def scene() -> Image:
    picture = np.ascontiguousarray(astronaut()[10 : 10 + HEIGHT, 120 : 120 + WIDTH])
    picture[60:120, :90] = noise(90, 60, 4)
    return picture


def load_squares(bench: Bench, stage: int, count: int | None = None) -> Table:
    """Bring squares for R-Net (0) or O-Net (1); every answer is above the threshold."""
    bench.load(scene(), ALL)
    bench.run("halve", "halve_rest")
    chosen = squares()[:count]
    bench.fill(f"squares{stage}", chosen)
    bench.counters["squares"][stage] = len(chosen)
    bench.bytes("frame").view(FRAME)[0]["least"] = -1e30
    return chosen


def as_rows(chosen: Table) -> NDArray[np.float64]:
    return np.stack([chosen[n] for n in ("x", "y", "side")], axis=1).astype(np.float64)


@pytest.mark.parametrize("stage", [0, 1])
def test_crops_are_those_of_the_cpu(stage: int, bench: Bench) -> None:
    chosen, size = load_squares(bench, stage), (24, 48)[stage]
    crops = kernel_crops(bench, stage)
    assert_nearly_equal(
        crops, crop_squares(Mipmap(scene()), input_squares(as_rows(chosen), size), size)
    )
    beyond = [
        n for n, row in enumerate(chosen.tolist()) if abs(row[0]) == 900 or abs(row[1]) == 900
    ]
    assert len(beyond) == 4
    assert not crops[beyond].any()


def kernel_crops(bench: Bench, stage: int) -> Image:
    """The crops of the squares that are loaded, as the kernels cut them."""
    size, count = (24, 48)[stage], int(bench.counters["squares"][stage])
    memory = bench.device.allocate(count * size * size * 3)
    bench.pointers["crops"] = memory.pointer
    bench.device.run("cut_crops", 3, 256, bench.lane._memory["lane"].pointer, stage)
    bench.pointers["crops"] = 0
    return memory.array.reshape(count, size, size, 3)


@pytest.mark.parametrize("count", [0, 1, 17, None])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_gives_every_square_what_it_gives_on_the_cpu(
    network: str, count: int | None, bench: Bench
) -> None:
    stage, size = list(NETWORKS).index(network), NETWORKS[network]
    chosen = load_squares(bench, stage, count)
    crops = kernel_crops(bench, stage)
    bench.run(f"{network}_features", f"{network}_dense")
    given, landmarks = candidates(bench, stage + 1)
    assert given["key"].tolist() == np.sort(chosen["key"]).tolist()
    assert bench.counters["invalid"] == 0
    if not len(chosen):
        return
    order = np.argsort(chosen["key"])
    shown = input_squares(as_rows(chosen), size)[order]
    exact = torch_network(network)(crop_squares(Mipmap(scene()), shown, size))
    hold(given, landmarks, exact, shown, HALVED)
    hold(given, landmarks, in_halves(weights()[network], network, crops[order]), shown, ROUNDED)


def candidates(bench: Bench, stage: int) -> tuple[Table, NDArray[np.float32]]:
    """The candidates of a stage and their landmarks, in the order of their keys."""
    found = bench.table(f"candidates{stage}", CANDIDATE, int(bench.counters["candidates"][stage]))
    order = np.argsort(found["key"])
    return found[order], bench.floats("landmarks", len(found), 10)[order]


def hold(
    given: Table,
    landmarks: NDArray[np.float32],
    wanted: dict[str, NDArray[np.float64]],
    shown: NDArray[np.float64],
    tolerance: float,
) -> None:
    """Hold candidates to a network's outputs for the squares that it was shown."""
    np.testing.assert_allclose(given["logit"], wanted["logit"], rtol=0, atol=tolerance)
    np.testing.assert_allclose(given["offsets"], wanted["box"], rtol=0, atol=tolerance / 10)
    side = shown[:, 2:]
    box = np.concatenate([shown[:, :2], shown[:, :2] + side], axis=1)
    if "landmarks" in wanted:
        box = box + wanted["box"] * side
        corners = np.repeat(shown[:, :2], 5, axis=1)
        moved = (landmarks - corners) / side
        np.testing.assert_allclose(moved, wanted["landmarks"], rtol=0, atol=tolerance / 10 + 1e-3)
    np.testing.assert_allclose((given["box"] - box) / side, 0, rtol=0, atol=tolerance / 10 + 1e-3)


@pytest.mark.parametrize("network", NETWORKS)
def test_candidates_are_above_the_threshold_and_not_at_it(network: str, bench: Bench) -> None:
    stage = list(NETWORKS).index(network)
    load_squares(bench, stage)
    bench.run(f"{network}_features", f"{network}_dense")
    logits = np.sort(candidates(bench, stage + 1)[0]["logit"])
    load_squares(bench, stage)
    bench.bytes("frame").view(FRAME)[0]["least"][stage + 1] = logits[20]
    bench.run(f"{network}_features", f"{network}_dense")
    above = candidates(bench, stage + 1)[0]["logit"]
    assert np.sort(above).tolist() == logits[logits > logits[20]].tolist()
    assert 0 < len(above) < len(logits)


def test_level_tables_are_those_of_the_cpu(bench: Bench) -> None:
    plan = bench.load(picture("crowd"), ALL)
    on_device = bench.table("levels", LEVEL, len(plan.levels))
    levels = levels_of(plan)
    assert [(lv["width"], lv["height"]) for lv in on_device] == [
        (level.width, level.height) for level in levels
    ]
    mipmap = Mipmap(picture("crowd"))
    sources = [mipmap.source(level).shape[:2] for level in levels]
    widths, heights = plan.frame["widths"], plan.frame["heights"]
    assert [(heights[lv["source"]], widths[lv["source"]]) for lv in on_device] == sources
