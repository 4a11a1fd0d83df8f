from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from unface.mtcnn.canvas import PAGE_SIDE, cells, fill_page, owners, plan_pages
from unface.mtcnn.cascade import Cascade
from unface.mtcnn.pyramid import Level, pyramid_levels

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


def test_p_net_on_pages_gives_the_cells_of_p_net_on_whole_levels(cascade: Cascade) -> None:
    rng = np.random.default_rng(5)
    levels = levels_of([(613, 307), (255, 256), (12, 40), (131, 12)])
    pixels = [rng.integers(0, 256, (v.height, v.width, 3), dtype=np.uint8) for v in levels]
    pnet = cascade.networks.pnet
    whole = [pnet(image[None]) for image in pixels]
    page = np.zeros((1, PAGE_SIDE, PAGE_SIDE, 3), np.uint8)
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
