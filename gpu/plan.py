"""What the host decides about a picture before the device sees it: levels, tiles, patches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from unface.errors import EngineError
from unface.gpu.tables import (
    FRAME,
    HALVINGS,
    LEVEL,
    PATCH,
    PATCH_COLUMNS,
    PATCH_ROWS,
    TILE,
)
from unface.mtcnn.canvas import PAGE_SIDE, cells, plan_pages
from unface.mtcnn.cascade import CROP_OFFSET, R_NET_SIZE
from unface.mtcnn.options import DetectOptions
from unface.mtcnn.proposals import levels_overlap, logit_from_probability
from unface.mtcnn.pyramid import Level, half_size, pyramid_levels

MAX_SIDE = 65535  # pixels: places in an image, times its size, fit 32 bits
CHANNELS = 3
ALIGNMENT = 256  # bytes, of each halving


class BeyondDevice(EngineError):
    """A picture that the GPU path does not take; the CPU does."""


@dataclass(frozen=True, eq=False)
class Plan:
    """The tables of one picture size and one choice of options; see `unface.gpu.tables`.

    `frame` lacks the pointers of `pixels`: image first, then halvings at `halving_offsets` bytes.
    """

    width: int
    height: int
    frame: npt.NDArray[np.void]
    levels: npt.NDArray[np.void]
    tiles: npt.NDArray[np.void]
    patches: npt.NDArray[np.void]
    halving_offsets: tuple[int, ...]  # of halvings 1 ..., in bytes
    halving_bytes: int
    canvas_pixels: int
    pages: int  # 0: levels lie one after the other
    cells: int
    across_levels: bool  # whether cells of two levels may suppress each other


@lru_cache(maxsize=64)
def plan_frame(width: int, height: int, options: DetectOptions, *, pages: bool = False) -> Plan:
    """Return the plan of a picture of `width` x `height` pixels.

    `pages`: levels cut into the square pages that engines take (`unface.mtcnn.canvas`); else each
    level lies whole. Raises `BeyondDevice` for a picture too large for 32-bit places.
    """
    if max(width, height) > MAX_SIDE:
        raise BeyondDevice(
            f"the picture has {width} x {height} pixels; a GPU takes {MAX_SIDE} a side"
        )
    levels = tuple(pyramid_levels(width, height, options.min_face, options.scale_factor))
    table = _level_table(levels, width, height)
    tiles, canvas_pixels, page_count = _page_tiles(levels) if pages else _level_tiles(levels)
    patches = _patches(tiles)
    halvings = _halvings(width, height, table)
    frame = np.zeros((), FRAME)
    frame["halvings"], frame["levels"] = len(halvings), len(levels)
    frame["tiles"], frame["patches"] = len(tiles), len(patches)
    frame["widths"][: len(halvings)], frame["heights"][: len(halvings)] = zip(
        *halvings, strict=True
    )
    frame["least"] = [logit_from_probability(t) for t in options.thresholds]
    frame["crop_offset"] = CROP_OFFSET
    sizes = [_aligned(w * h * CHANNELS) for w, h in halvings[1:]]
    offsets = np.cumsum([0, *sizes]).tolist()
    count = int(table["columns"].astype(np.int64) @ table["rows"].astype(np.int64))
    if max(canvas_pixels, count) >= 1 << 31:
        raise BeyondDevice(f"the pyramid of {width} x {height} pixels is too large for a GPU")
    return Plan(
        width,
        height,
        frame,
        table,
        tiles,
        patches,
        tuple(offsets[:-1]),
        offsets[-1],
        canvas_pixels,
        page_count,
        count,
        levels_overlap(levels, 0.7),
    )


def _level_table(levels: Sequence[Level], width: int, height: int) -> npt.NDArray[np.void]:
    table = np.zeros(len(levels), LEVEL)
    first = 0
    for index, level in enumerate(levels):
        columns, rows = cells(level.width), cells(level.height)
        steps = (width / level.width, height / level.height)
        # Beyond 32 bits the plan is refused; until then the number may be anything.
        place = first & 0x7FFFFFFF
        table[index] = (level.width, level.height, columns, rows, level.halvings, place, *steps)
        first += columns * rows
    return table


def _level_tiles(levels: Sequence[Level]) -> tuple[npt.NDArray[np.void], int, int]:
    """Return a tile for each level, and the canvas' pixels."""
    tiles = np.zeros(len(levels), TILE)
    offset = 0
    for index, level in enumerate(levels):
        pitch = level.width * CHANNELS
        tiles[index] = (index, 0, 0, level.width, level.height, pitch, offset & 0x7FFFFFFF, 0)
        offset += level.width * level.height
    return tiles, offset, 0


def _page_tiles(levels: tuple[Level, ...]) -> tuple[npt.NDArray[np.void], int, int]:
    """Return the tiles of all pages, the pages' pixels, and how many pages there are."""
    plan = plan_pages(levels)
    pitch = PAGE_SIDE * CHANNELS
    rows = [
        (t.level, t.x, t.y, t.width, t.height, pitch, place & 0x7FFFFFFF, 0)
        for page, tiles in enumerate(plan)
        for t in tiles
        for place in [(page * PAGE_SIDE + t.page_y) * PAGE_SIDE + t.page_x]
    ]
    return np.array(rows, TILE), len(plan) * PAGE_SIDE * PAGE_SIDE, len(plan)


def _patches(tiles: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    found = []
    for index, (width, height) in enumerate(tiles[["width", "height"]].tolist()):
        rows = np.arange(0, cells(height), PATCH_ROWS)
        columns = np.arange(0, cells(width), PATCH_COLUMNS)
        part = np.zeros((len(rows), len(columns)), PATCH)
        part["tile"], part["row"], part["column"] = index, rows[:, None], columns
        found.append(part.ravel())
    return np.concatenate(found) if found else np.zeros(0, PATCH)


def _halvings(width: int, height: int, table: npt.NDArray[np.void]) -> list[tuple[int, int]]:
    """Return the sizes of the image and of its halvings that levels or crops are taken from."""
    largest_crop = 8 * max(width, height)  # regression can grow a box beyond the image
    wanted = max(
        int(table["source"].max(initial=0)), int(math.log2(max(1, largest_crop / R_NET_SIZE)))
    )
    sizes = [(width, height)]
    while len(sizes) <= wanted and len(sizes) < HALVINGS and sizes[-1] != (1, 1):
        sizes.append(half_size(*sizes[-1]))
    return sizes


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
