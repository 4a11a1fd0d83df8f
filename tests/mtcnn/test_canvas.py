from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import astronaut

from unface.engines.shelf import open_named
from unface.mtcnn.canvas import PAGE_SIDE, cells, fill_page, owners, plan_pages
from unface.mtcnn.network import Network
from unface.mtcnn.proposals import scan
from unface.mtcnn.pyramid import Level, Mipmap, pyramid_levels

Size = tuple[int, int]


def levels_of(sizes: list[Size]) -> tuple[Level, ...]:
    return tuple(Level(1.0, width, height) for width, height in sizes)


sizes = st.lists(st.tuples(st.integers(12, 1200), st.integers(12, 1200)), min_size=1, max_size=6)


@given(sizes)
@settings(max_examples=60, deadline=None)
def test_every_cell_of_every_level_is_seen_exactly_once(sizes: list[Size]) -> None:
    levels = levels_of(sizes)
    seen = [np.zeros((cells(level.height), cells(level.width)), int) for level in levels]
    for tiles in plan_pages(levels):
        owner = owners(tiles)
        for index, tile in enumerate(tiles):
            rows, columns = np.nonzero(owner == index)
            down, right = (tile.y - tile.page_y) // 2, (tile.x - tile.page_x) // 2
            np.add.at(seen[tile.level], (rows + down, columns + right), 1)
    assert all((count == 1).all() for count in seen)


@given(sizes)
@settings(max_examples=60, deadline=None)
def test_tiles_stay_on_their_page_begin_even_and_never_overlap(sizes: list[Size]) -> None:
    for tiles in plan_pages(levels_of(sizes)):
        used = np.zeros((PAGE_SIDE, PAGE_SIDE), int)
        for tile in tiles:
            assert not any(v % 2 for v in (tile.x, tile.y, tile.page_x, tile.page_y))
            assert tile.page_x + tile.width <= PAGE_SIDE
            assert tile.page_y + tile.height <= PAGE_SIDE
            used[
                tile.page_y : tile.page_y + tile.height, tile.page_x : tile.page_x + tile.width
            ] += 1
        assert used.max() == 1


def test_pages_waste_little_of_a_large_picture() -> None:
    levels = tuple(pyramid_levels(1920, 1080, 20, 0.709))
    pixels = sum(level.width * level.height for level in levels)
    assert pixels / (len(plan_pages(levels)) * PAGE_SIDE**2) > 0.75


@pytest.fixture(params=["tflite", "native", "torch"])
def pnet(request: pytest.FixtureRequest) -> Network:
    if request.param == "torch":
        return torch_pnet()
    if request.param == "native":
        request.getfixturevalue("core")
    return open_named(f"fp32.{request.param}", threads=2).pnet


def torch_pnet() -> Network:
    """P-Net for any size: LiteRT's engine takes nothing but pages."""
    pytest.importorskip("torch", reason="torch comes with unface[engines]")
    from unface.mtcnn.networks import TorchNetwork, load_network

    return TorchNetwork(load_network("pnet"))


def test_p_net_on_pages_gives_the_cells_of_p_net_on_whole_levels(pnet: Network) -> None:
    rng = np.random.default_rng(5)
    levels = levels_of([(613, 307), (255, 256), (12, 40), (131, 12)])
    pixels = [rng.integers(0, 256, (v.height, v.width, 3), dtype=np.uint8) for v in levels]
    whole = [torch_pnet()(image[None]) for image in pixels]
    page = np.full((1, PAGE_SIDE, PAGE_SIDE, 3), 255, np.uint8)  # as if left by a page before
    checked = 0
    for tiles in plan_pages(levels):
        fill_page(page[0], tiles, lambda index: pixels[index])
        outputs, owner = pnet(page), owners(tiles)
        for index, tile in enumerate(tiles):
            rows, columns = np.nonzero(owner == index)
            down, right = (tile.y - tile.page_y) // 2, (tile.x - tile.page_x) // 2
            for name in ("logit", "box"):
                expected = whole[tile.level][name][0, rows + down, columns + right]
                np.testing.assert_allclose(outputs[name][0, rows, columns], expected, atol=1e-4)
            checked += len(rows)
    assert checked == sum(cells(level.width) * cells(level.height) for level in levels)


def test_scanning_a_photograph_finds_each_cell_once_in_order_with_its_own_answer(
    pnet: Network,
) -> None:
    """The astronaut at twice her size: levels cut at page borders, cells above 1 in 1000."""
    image = np.ascontiguousarray(np.repeat(np.repeat(astronaut()[:, 40:], 2, axis=0), 2, axis=1))
    mipmap = Mipmap(image)
    levels = tuple(pyramid_levels(mipmap.width, mipmap.height, 20, 0.709))
    found, whole = scan(mipmap, levels, pnet, 0.001), torch_pnet()
    places = list(zip(found.level.tolist(), found.row.tolist(), found.column.tolist(), strict=True))
    assert places == sorted(set(places))
    least = np.log(0.001 / 0.999)
    expected = []
    for index, level in enumerate(levels):
        outputs = whole(mipmap.level(level)[None])
        logit = outputs["logit"][0]
        # At the threshold itself the last bit decides.
        expected += [(index, r, c) for r, c in np.argwhere(logit >= least + 1e-3).tolist()]
        mine = found.level == index
        rows, columns = found.row[mine], found.column[mine]
        np.testing.assert_allclose(found.logit[mine], logit[rows, columns], atol=1e-3)
        np.testing.assert_allclose(found.offsets[mine], outputs["box"][0, rows, columns], atol=1e-3)
    assert set(expected) <= set(places)
    assert len(places) - len(expected) <= 0.002 * len(places)
    assert len(places) > 2000


@given(st.integers(12, 1200), st.integers(12, 1200))
@settings(max_examples=40, deadline=None)
def test_a_cell_that_straddles_two_tiles_belongs_to_nobody(width: int, height: int) -> None:
    for tiles in plan_pages(levels_of([(width, height), (60, 40), (31, 17)])):
        owner = owners(tiles)
        for row, column in zip(*(v.tolist() for v in np.nonzero(owner >= 0)), strict=True):
            tile = tiles[owner[row, column]]
            assert tile.page_x <= 2 * column <= tile.page_x + tile.width - 12
            assert tile.page_y <= 2 * row <= tile.page_y + tile.height - 12


def test_no_levels_need_no_pages() -> None:
    assert plan_pages(()) == ()
