"""What a picture asks of a GPU at the least: bytes and multiply-adds, counted from its plan.

"needed" is what the algorithm cannot do without: the picture read once, the faces written, every
multiply-add of a cell or crop once. "done" is what the kernels do: halvings and levels written and
read again, margins that two patches both compute, sums padded to what an instruction takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.tables import markdown
from unface.gpu.lane import RESULT_BYTES
from unface.gpu.plan import CHANNELS, Plan
from unface.gpu.tables import FEATURES, PATCH_COLUMNS, PATCH_ROWS

PATCH_PIXELS = (2 * PATCH_COLUMNS + 10) * (2 * PATCH_ROWS + 10)  # that its cells look at


@dataclass(frozen=True)
class Layer:
    """A layer of a network: what one cell, crop or patch makes of it.

    `needed` multiply-adds; done: `pixels` (padded to groups) times `windows` of the pooling
    times `taps` (padded to 16) times `channels` (padded to 8).
    """

    needed: int
    pixels: int
    windows: int
    taps: int
    channels: int

    @property
    def done(self) -> int:
        """Multiply-adds that the tensor cores do."""
        return self.pixels * self.windows * self.taps * self.channels


# Zhang et al. 2016, fig. 2, and `gpu/src`: pnet.cu a patch, crops.cu a crop. `needed` of P-Net is a
# cell's: four pixels of the first layer, one of each other.
PNET = (
    Layer(4 * 27 * 10, 720, 4, 3 * 16, 16),
    Layer(90 * 16, 624, 1, 9 * 16, 16),
    Layer(144 * 32, 512, 1, 9 * 16, 32),
    Layer(32 * 5, 512, 1, 32, 8),
)
RNET = (
    Layer(22 * 22 * 27 * 28, 128, 9, 3 * 16, 32),
    Layer(9 * 9 * 252 * 48, 16, 9, 9 * 32, 48),
    Layer(3 * 3 * 192 * 64, 16, 1, 4 * 48, 64),
    Layer(576 * 128, 1, 1, 576, 128),
    Layer(128 * 5, 1, 1, 128, 5),
)
ONET = (
    Layer(46 * 46 * 27 * 32, 288 + 256, 9, 3 * 16, 32),
    Layer(21 * 21 * 288 * 64, 128, 9, 9 * 32, 64),
    Layer(8 * 8 * 576 * 64, 16, 4, 9 * 64, 64),
    Layer(3 * 3 * 256 * 128, 16, 1, 4 * 64, 128),
    Layer(1152 * 256, 1, 1, 1152, 256),
    Layer(256 * 15, 1, 1, 256, 15),
)


@dataclass(frozen=True)
class Work:
    """A picture's bytes of device memory and multiply-adds."""

    needed_bytes: int
    done_bytes: int
    needed_macs: int
    done_macs: int
    picture_bytes: int  # what comes from the host


@dataclass(frozen=True)
class Ceilings:
    """What the card does: bytes a second of a copy, both ways counted; FP16 operations a second."""

    copy_bytes: float
    operations: float
    from_host_bytes: float


def work_of(plan: Plan, rnet_crops: int = 0, onet_crops: int = 0) -> Work:
    """Return the work of a picture with so many crops."""
    picture = plan.width * plan.height * CHANNELS
    crops = rnet_crops * sum(x.needed for x in RNET) + onet_crops * sum(x.needed for x in ONET)
    crops_done = rnet_crops * sum(x.done for x in RNET) + onet_crops * sum(x.done for x in ONET)
    return Work(
        picture + RESULT_BYTES,
        picture_passes(plan) + _crop_bytes(rnet_crops, onet_crops),
        plan.cells * sum(x.needed for x in PNET) + crops,
        len(plan.patches) * sum(x.done for x in PNET) + crops_done,
        picture,
    )


def picture_passes(plan: Plan) -> int:
    """Return the bytes that pass between memory and kernels up to P-Net's logits.

    Each kernel reads a map once, however often: the rest is in the caches.
    """
    frame = plan.frame
    count = int(frame["halvings"])
    sizes = [
        int(w) * int(h) * CHANNELS
        for w, h in zip(frame["widths"][:count], frame["heights"][:count], strict=True)
    ]
    halving = sum(sizes[:-1]) + sum(
        sizes[1:]
    )  # each read for the next one; all but the first written
    sources = sum(sizes[source] for source in set(plan.levels["source"].tolist()))
    canvas = int((plan.tiles["width"].astype(np.int64) * plan.tiles["height"]).sum()) * CHANNELS
    patches = len(plan.patches) * PATCH_PIXELS * CHANNELS
    return int(halving + sources + canvas + patches + 4 * plan.cells + RESULT_BYTES)


def _crop_bytes(rnet_crops: int, onet_crops: int) -> int:
    """Crops read from the picture; features, halves, written and read."""
    rnet = 24 * 24 * CHANNELS + 2 * 2 * FEATURES["rnet"]
    onet = 48 * 48 * CHANNELS + 2 * 2 * FEATURES["onet"]
    return rnet_crops * rnet + onet_crops * onet


def microseconds(work: Work, ceilings: Ceilings) -> dict[str, float]:
    """Return the times that bytes and operations take at the ceilings, and the floor they make."""
    times = {
        "needed_bytes": work.needed_bytes / ceilings.copy_bytes,
        "needed_operations": 2 * work.needed_macs / ceilings.operations,
        "done_bytes": work.done_bytes / ceilings.copy_bytes,
        "done_operations": 2 * work.done_macs / ceilings.operations,
        "from_host": work.picture_bytes / ceilings.from_host_bytes,
    }
    times = {name: 1e6 * seconds for name, seconds in times.items()}
    times["floor"] = max(times["needed_bytes"], times["needed_operations"])
    times["done"] = max(times["done_bytes"], times["done_operations"])
    return times


def show(rows: Mapping[str, tuple[Work, Mapping[str, float], Mapping[str, Any] | None]]) -> str:
    """Return a table: by case work, times at the ceilings, and the time that was measured."""
    lines = []
    for name, (work, times, speed) in rows.items():
        measured = 1e6 / speed["resident"]["fps"] if speed and "resident" in speed else None
        lines.append([
            name,
            f"{work.needed_bytes / 1e6:.1f} / {work.done_bytes / 1e6:.1f}",
            f"{work.needed_macs / 1e9:.2f} / {work.done_macs / 1e9:.2f}",
            f"{times['needed_bytes']:.1f}",
            f"{times['needed_operations']:.1f}",
            f"{times['done']:.1f}",
            f"{times['from_host']:.0f}",
            "-" if measured is None else f"{measured:.0f}",
            "-" if measured is None else f"{measured / times['floor']:.0f}",
        ])  # fmt: skip
    head = (
        "case", "MB needed/done", "GMAC needed/done", "bytes us", "ops us", "as done us",
        "host copy us", "measured us", "of floor",
    )  # fmt: skip
    return markdown(head, lines)
