"""Packing the pyramid into pages of one fixed size, so that P-Net never re-plans.

A runtime plans memory and kernels for one input shape; for another shape it plans again, which
costs as much as running. So the levels are cut into tiles and the tiles packed onto square pages,
and P-Net sees pages only. P-Net does not pad, therefore a cell's answer depends on its own 12 x 12
pixels alone, and tiles that begin on even pixels give exactly the cells of the whole level.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import numpy.typing as npt

from unface.mtcnn.network import UInt8Array
from unface.mtcnn.pyramid import P_NET_SIZE, Level

P_NET_STRIDE = 2  # level pixels from one cell to the next; Zhang et al. 2016, fig. 2
PAGE_SIDE = 256  # pixels; fits the cache and wastes least of all sizes tried: docs/performance.md


@dataclass(frozen=True)
class Tile:
    """A rectangle of a level and where it lies on a page; all in level pixels, all starts even."""

    level: int
    x: int
    y: int
    width: int
    height: int
    page_x: int
    page_y: int


def cells(length: int) -> int:
    """Return how many P-Net cells fit along `length` pixels; a last half cell is left out."""
    return max(0, (length - P_NET_SIZE) // P_NET_STRIDE + 1)


@lru_cache(maxsize=16)
def plan_pages(levels: tuple[Level, ...]) -> tuple[tuple[Tile, ...], ...]:
    """Pack levels onto pages of `PAGE_SIDE`: shelves of tiles, the tallest first.

    Returns the tiles of each page.
    """
    pieces = [
        (index, x, y, width, height)
        for index, level in enumerate(levels)
        for y, height in _cuts(level.height)
        for x, width in _cuts(level.width)
    ]
    pieces.sort(key=lambda piece: -piece[4])  # stable: tallest first, then level by level
    pages: list[list[Tile]] = []
    shelves: list[_Shelf] = []
    below = PAGE_SIDE  # where the next shelf of the last page begins
    for level, x, y, width, height in pieces:
        shelf = next((s for s in shelves if s.used + width <= PAGE_SIDE), None)
        if shelf is None:
            if below + height > PAGE_SIDE:
                pages.append([])
                below = 0
            shelf = _Shelf(len(pages) - 1, below)
            shelves.append(shelf)
            below += _even(height)
        pages[shelf.page].append(Tile(level, x, y, width, height, shelf.used, shelf.y))
        shelf.used += _even(width)
        shelves = [s for s in shelves if s.used + P_NET_SIZE <= PAGE_SIDE]
    return tuple(tuple(tiles) for tiles in pages)


def fill_page(
    page: UInt8Array, tiles: tuple[Tile, ...], level: Callable[[int], UInt8Array]
) -> None:
    """Copy the tiles' pixels onto a page, uint8 `[PAGE_SIDE, PAGE_SIDE, 3]`.

    `level(index)` gives a level's pixels, uint8 `[h, w, 3]`.
    """
    for t in tiles:
        source = level(t.level)[t.y : t.y + t.height, t.x : t.x + t.width]
        page[t.page_y : t.page_y + t.height, t.page_x : t.page_x + t.width] = source


def filled_pages(levels: tuple[Level, ...], pixels: Callable[[int], UInt8Array]) -> UInt8Array:
    """Return all pages of levels, uint8 `[n, side, side, 3]`; `pixels` as for `fill_page`."""
    plan, once = plan_pages(levels), cache(pixels)
    pages = np.zeros((len(plan), PAGE_SIDE, PAGE_SIDE, 3), np.uint8)
    for page, tiles in zip(pages, plan, strict=True):
        fill_page(page, tiles, once)
    return pages


def owners(tiles: tuple[Tile, ...]) -> npt.NDArray[np.int16]:
    """Return which of the tiles owns each cell of their page, -1 for none: int16 `[cells, cells]`.

    A cell that straddles two tiles sees pixels that were never neighbours and belongs to nobody.
    """
    side = cells(PAGE_SIDE)
    owner = np.full((side, side), -1, np.int16)
    for index, tile in enumerate(tiles):
        row, column = tile.page_y // P_NET_STRIDE, tile.page_x // P_NET_STRIDE
        owner[row : row + cells(tile.height), column : column + cells(tile.width)] = index
    return owner


@dataclass
class _Shelf:
    """A row of tiles; the first is the tallest, since tiles come tallest first."""

    page: int
    y: int
    used: int = 0


def _cuts(length: int) -> list[tuple[int, int]]:
    """Cut a length into (start, length) of at most a page, overlapping so that no cell is lost."""
    cuts = []
    start = 0
    while start == 0 or start + P_NET_SIZE <= length:
        cuts.append((start, min(PAGE_SIDE, length - start)))
        start += PAGE_SIDE - (P_NET_SIZE - P_NET_STRIDE)
    return cuts


def _even(length: int) -> int:
    return length + length % 2
