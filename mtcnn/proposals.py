"""Stage 1: P-Net over the whole pyramid, to candidate squares."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from unface.mtcnn import boxes as bx
from unface.mtcnn.boxes import BoxArray, FloatArray, IntArray
from unface.mtcnn.canvas import (
    P_NET_STRIDE,
    PAGE_SIDE,
    Tile,
    cells,
    fill_page,
    owners,
    plan_pages,
)
from unface.mtcnn.network import Network, Scanner, checked, is_scanner, run
from unface.mtcnn.pyramid import P_NET_SIZE, Level, Mipmap
from unface.mtcnn.team import shares

STRIP_ROWS = 16  # rows of cells, at least: a strip computes four rows twice
SAME_LEVEL_RADIUS = 1  # cells further apart overlap by half or less: 12 x 12 boxes, stride 2


@dataclass(frozen=True)
class Cells:
    """P-Net cells above the threshold, ordered by level, row, column.

    `level`, `row`, `column` int64 `[n]`; `logit` float32 `[n]`; `offsets` float32 `[n, 4]`.
    """

    level: IntArray
    row: IntArray
    column: IntArray
    logit: FloatArray
    offsets: FloatArray

    def __getitem__(self, chosen: IntArray) -> Cells:
        return Cells(
            self.level[chosen],
            self.row[chosen],
            self.column[chosen],
            self.logit[chosen],
            self.offsets[chosen],
        )


def propose(mipmap: Mipmap, levels: tuple[Level, ...], pnet: Network, threshold: float) -> BoxArray:
    """Return candidate squares of the image, `[n, 3]` `x1 y1 side` in image pixels."""
    found = scan(mipmap, levels, pnet, threshold)
    found = found[suppress_within_levels(found, levels)]
    boxes = cell_boxes(found, levels, mipmap.width, mipmap.height)
    if levels_overlap(levels, 0.7):
        kept = bx.nms(boxes, found.logit, 0.7, "union")
        boxes, found = boxes[kept], found[kept]
    return bx.to_squares(bx.regress(boxes, found.offsets))


def levels_overlap(levels: tuple[Level, ...], threshold: float) -> bool:
    """Return whether cells of two levels can overlap by more than `threshold`.

    Not more than the smaller area of the larger, which is 0.503 for a scale factor of 0.709.
    """
    areas = [level.width * level.height for level in levels]
    return any(small > threshold * large for large, small in itertools.pairwise(areas))


def scan(mipmap: Mipmap, levels: tuple[Level, ...], pnet: Network, threshold: float) -> Cells:
    """Return the cells of all levels whose face probability is at least `threshold`."""
    least = logit_from_probability(threshold)
    if is_scanner(pnet):
        return _scan_levels(mipmap, levels, pnet, least)
    pixels = cache(lambda index: mipmap.level(levels[index]))
    page = np.zeros((1, PAGE_SIDE, PAGE_SIDE, 3), np.uint8)
    found = []
    for tiles in plan_pages(levels):
        fill_page(page[0], tiles, pixels)
        found.append(_hits(run(pnet, page), tiles, least))
    return _in_order(found)


def _scan_levels(mipmap: Mipmap, levels: tuple[Level, ...], pnet: Scanner, least: float) -> Cells:
    """Scan strips of the levels, as many at once as the mipmap has threads."""
    sources = [mipmap.source(level) for level in levels]  # made before threads ask for them
    strips = list(cut_strips(levels, mipmap.team.threads))

    def scan_strip(strip: tuple[int, int, int]) -> npt.NDArray[np.void]:
        index, begin, end = strip
        level = levels[index]
        return pnet.scan(sources[index], (level.width, level.height), (begin, end), least)

    found = mipmap.team.map(scan_strip, strips)
    level = np.repeat([strip[0] for strip in strips], [len(hits) for hits in found])
    hits = np.concatenate(found)
    checked({"logit": hits["logit"], "box": hits["box"]})
    row, column = hits["row"].astype(np.int64), hits["column"].astype(np.int64)
    return Cells(level, row, column, hits["logit"], hits["box"])


def cut_strips(levels: tuple[Level, ...], threads: int) -> Iterator[tuple[int, int, int]]:
    """Yield strips of levels, `(level, begin, end)` in rows of cells, in order.

    A strip costs some rows beside its own, so that one thread gets whole levels and more get four
    strips each, of nearly the same number of cells.
    """
    total = sum(cells(level.width) * cells(level.height) for level in levels)
    fair = total if threads == 1 else total / (4 * threads)
    for index, level in enumerate(levels):
        rows = cells(level.height)
        count = min(math.ceil(rows * cells(level.width) / fair), max(1, rows // STRIP_ROWS))
        for begin, end in shares(rows, count):
            yield index, begin, end


def suppress_within_levels(found: Cells, levels: tuple[Level, ...]) -> IntArray:
    """Return which cells greedy suppression within each level keeps (overlap above 0.5).

    Boxes of a level are equal squares, 12 pixels wide and 2 apart, so that only the eight nearest
    cells overlap by more than half: (12 - 2)(12 - 2) / (288 - 100) = 0.53, but 8 * 12 / 192 = 0.5.
    """
    widths = np.array([cells(level.width) + SAME_LEVEL_RADIUS for level in levels], np.int64)
    heights = np.array([cells(level.height) + SAME_LEVEL_RADIUS for level in levels], np.int64)
    begins = np.concatenate([[0], np.cumsum(widths * heights)])
    stride = widths[found.level]
    keys = begins[found.level] + found.row * stride + found.column  # ascending
    rank = np.empty(len(keys), np.int64)
    order = np.argsort(-found.logit, kind="stable")
    rank[order] = np.arange(len(keys))
    better, worse = [], []
    for row, column in ((0, 1), (1, -1), (1, 0), (1, 1)):
        wanted = keys + row * stride + column
        at = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
        a = np.flatnonzero(keys[at] == wanted)
        b = at[a]
        better.append(np.minimum(rank[a], rank[b]))
        worse.append(np.maximum(rank[a], rank[b]))
    return order[bx.survivors(len(keys), np.concatenate(better), np.concatenate(worse))]


def cell_boxes(found: Cells, levels: tuple[Level, ...], width: int, height: int) -> BoxArray:
    """Return the 12 x 12 pixels of each cell in image pixels, `[n, 4]`.

    Level sizes are rounded up, so the true scale differs from the nominal, and between the axes.
    """
    scale_x = np.array([level.width / width for level in levels])[found.level]
    scale_y = np.array([level.height / height for level in levels])[found.level]
    x, y = found.column * P_NET_STRIDE, found.row * P_NET_STRIDE
    edges = [x / scale_x, y / scale_y, (x + P_NET_SIZE) / scale_x, (y + P_NET_SIZE) / scale_y]
    return np.stack(edges, axis=1)


def logit_from_probability(probability: float) -> float:
    """Return the logit whose sigmoid is `probability`."""
    return math.log(probability / (1 - probability))


def _hits(outputs: dict[str, FloatArray], tiles: tuple[Tile, ...], least: float) -> Cells:
    owner = owners(tiles)
    logit = outputs["logit"][0]
    rows, columns = np.nonzero((logit >= least) & (owner >= 0))
    level, down, right = np.array(
        [
            (t.level, (t.y - t.page_y) // P_NET_STRIDE, (t.x - t.page_x) // P_NET_STRIDE)
            for t in tiles
        ]
    )[owner[rows, columns]].T
    return Cells(
        level, rows + down, columns + right, logit[rows, columns], outputs["box"][0, rows, columns]
    )


def _in_order(found: list[Cells]) -> Cells:
    level = np.concatenate([c.level for c in found])
    row = np.concatenate([c.row for c in found])
    column = np.concatenate([c.column for c in found])
    logit = np.concatenate([c.logit for c in found])
    offsets = np.concatenate([c.offsets for c in found])
    return Cells(level, row, column, logit, offsets)[np.lexsort((column, row, level))]
