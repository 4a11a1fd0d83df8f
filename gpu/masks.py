"""Faces covered on the device, in the picture as it lies there, as `MASK` records say."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from unface.errors import EngineError
from unface.gpu.device import (
    Device,
    Graph,
    HostMemory,
    Memory,
    Recorder,
    Stream,
    close_all,
)
from unface.gpu.plan import CHANNELS, BeyondDevice
from unface.gpu.tables import COVERING, MASK, MAX_TAPS
from unface.mtcnn.network import UInt8Array
from unface.mtcnn.team import ALONE, Team, shares

Masks = npt.NDArray[np.void]  # `MASK` [n], as `unface.anonymize.plan_masks` gives them

MAX_PIXELS = (1 << 31) - 1  # of a picture: places in it fit 32 bits
MAX_SMALL = 4096  # pixels a side that blur shrinks to; 500 is the most that its options give
SCRATCH_BYTES = 15  # a shrunk pixel: three floats and three bytes
SMALL = 1 << 20  # bytes; sharing less among threads takes longer than copying it
SCRATCH_AT_ONCE = 32 << 20  # more is blurred in several launches
GRID = 256  # squares along the longer side of a picture, to tell which faces may overlap
THREADS = 256
KERNELS = {
    0: ("cover_mosaic",),
    1: ("cover_solid",),
    2: ("shrink_faces", "blur_across", "blur_down", "enlarge_faces"),
}


class Coverer:
    """Covers faces of one picture at a time, in a stream that it shares. Not thread-safe.

    `team` copies pictures out of pinned memory. Every method may raise `DeviceFailure`; after that
    no pixel of the picture may be used.
    """

    def __init__(self, device: Device, stream: Stream, team: Team = ALONE) -> None:
        self.device, self.stream, self._team = device, stream, team
        self._memory: dict[str, Memory] = {}
        self._staging: dict[str, HostMemory] = {}
        self._graphs: dict[int, Graph] = {}

    def keep(self, pointer: int, width: int, height: int) -> int:
        """Begin to copy a picture, RGB without gaps; return where, until the next one is kept."""
        self.stream.synchronize()  # the memory may be in use
        size = width * height * CHANNELS
        copy = self._room("copy", size)
        self.stream.copy(copy.pointer, pointer, size)
        return copy.pointer

    def cover(self, pointer: int, width: int, height: int, masks: Masks) -> None:
        """Begin to cover faces of a picture, RGB without gaps, where it lies.

        Masks follow each other, so that one never uncovers what an earlier one covered. Raises
        `BeyondDevice` for a picture too large, `EngineError` for masks that do not fit into it.
        """
        _check_masks(masks, width, height)
        self.stream.synchronize()  # what an earlier call staged may still be on its way
        if len(masks):
            self._launch(pointer, width, masks, *plan_runs(masks, width, height))

    def download(self, pointer: int, width: int, height: int) -> UInt8Array:
        """Wait for a picture, covered or not, and return it as uint8 `[H, W, 3]`."""
        size = width * height * CHANNELS
        staged = self._staged("pixels", size)
        self.stream.copy(staged.pointer, pointer, size)
        self.stream.synchronize()
        source = staged.array[:size].reshape(height, width, CHANNELS)
        pixels = np.empty_like(source)

        def take(rows: tuple[int, int]) -> None:
            pixels[slice(*rows)] = source[slice(*rows)]

        self._team.map(take, shares(height, self._team.threads if size > SMALL else 1))
        return pixels

    def close(self) -> None:
        """Free everything but the stream."""
        parts = (*self._graphs.values(), *self._memory.values(), *self._staging.values())
        self._graphs.clear()
        self._memory.clear()
        self._staging.clear()
        close_all(self.stream.synchronize, *(part.close for part in parts))

    def _launch(
        self,
        pointer: int,
        width: int,
        masks: Masks,
        ordered: Masks,
        runs: list[tuple[int, int]],
        scratch: int,
    ) -> None:
        table = self._room("masks", ordered.nbytes)
        self._stage("masks", ordered)
        self.stream.copy(table.pointer, self._staging["masks"].pointer, ordered.nbytes)
        headers = np.zeros(len(runs), COVERING)
        headers["pixels"], headers["masks"], headers["width"] = pointer, table.pointer, width
        headers["scratch"] = self._room("scratch", scratch).pointer
        headers["first"], headers["count"] = np.array(runs).T
        self._stage("headers", headers)
        graph = self._graph(int(masks[0]["method"]))
        header, staged = self._memory["header"].pointer, self._staging["headers"].pointer
        for index in range(len(runs)):
            self.stream.copy(header, staged + index * COVERING.itemsize, COVERING.itemsize)
            self.stream.replay(graph)

    def _graph(self, method: int) -> Graph:
        if method not in self._graphs:
            header = self._room("header", COVERING.itemsize).pointer
            blocks = 8 * self.device.multiprocessors

            def work(recorder: Recorder) -> None:
                for kernel in KERNELS[method]:
                    recorder.launch(kernel, blocks, THREADS, header)

            self._graphs[method] = self.stream.record(work)
        return self._graphs[method]

    def _stage(self, name: str, table: Masks) -> None:
        self._staged(name, table.nbytes).array[: table.nbytes] = table.view(np.uint8)

    def _staged(self, name: str, size: int) -> HostMemory:
        """Return pinned memory of at least `size` bytes by a name; nothing may use it."""
        held = self._staging.get(name)
        if held is None or held.size < size:
            if held is not None:
                del self._staging[name]
                held.close()
            self._staging[name] = self.device.allocate_host(_power_of_two(size))
        return self._staging[name]

    def _room(self, name: str, size: int) -> Memory:
        """Return memory of the device of at least `size` bytes by a name; nothing may use it."""
        held = self._memory.get(name)
        if held is None or held.size < size:
            if held is not None:
                del self._memory[name]
                held.close()
            self._memory[name] = self.device.allocate(_power_of_two(size))
        return self._memory[name]


def plan_runs(
    masks: Masks, width: int, height: int, *, scratch_at_once: int = SCRATCH_AT_ONCE
) -> tuple[Masks, list[tuple[int, int]], int]:
    """Return masks reordered, which of them go together, and the bytes of scratch.

    Masks `first`, `count` of a run share no pixel; of two that overlap the earlier one comes in an
    earlier run. Coarse: faces that nearly touch may come one after the other too.
    """
    waves = _waves(masks, width, height)
    order = np.argsort(waves, kind="stable")
    ordered, waves = masks[order], waves[order].tolist()
    pixels = ordered["small"].astype(np.int64).prod(axis=1)
    needs = (-(-pixels * SCRATCH_BYTES // 16) * 16).tolist()
    starts, used, most = [0], 0, 0
    for index, need in enumerate(needs):
        if waves[index] != waves[starts[-1]] or used + need > max(scratch_at_once, need):
            starts.append(index)
            used = 0
        ordered["scratch"][index] = used
        used += need
        most = max(most, used)
    ends = [*starts[1:], len(masks)]
    return ordered, [(start, end - start) for start, end in zip(starts, ends, strict=True)], most


def _waves(masks: Masks, width: int, height: int) -> npt.NDArray[np.int64]:
    """Return for each mask one more than the largest number of an earlier one that it may touch."""
    step = -(-max(width, height) // GRID)
    latest = np.zeros((height // step + 1, width // step + 1), np.int64)
    waves = np.zeros(len(masks), np.int64)
    rectangles = masks[["left", "top", "width", "height"]].tolist()
    for index, (left, top, across, down) in enumerate(rectangles):
        rows = slice(top // step, (top + down - 1) // step + 1)
        columns = slice(left // step, (left + across - 1) // step + 1)
        waves[index] = latest[rows, columns].max() + 1
        latest[rows, columns] = waves[index]
    return waves


def _check_masks(masks: Masks, width: int, height: int) -> None:
    """Raise unless every mask lies in the picture, so that no kernel writes beside it."""
    if masks.dtype != MASK or masks.ndim != 1:
        raise EngineError(f"masks are {masks.dtype}; they come from unface.anonymize.plan_masks")
    if width * height > MAX_PIXELS:
        raise BeyondDevice(f"a picture of {width} x {height} pixels is too large for the GPU")
    corner, size = _pairs(masks, "left", "top"), _pairs(masks, "width", "height")
    parts, small, blurs = masks["parts"], masks["small"], masks["method"] == 2
    fits = (corner >= 0) & (size > 0) & (corner + size <= (width, height))
    fits &= (parts >= 1) & (parts <= size) & (parts <= MAX_SMALL)
    fits &= (small >= blurs[:, None]) & (small <= size) & (small <= MAX_SMALL)
    fits &= np.isfinite(masks["center"]) & (masks["half"] > 0)
    fits[:, 0] &= (masks["radius"] >= 0) & (masks["radius"] < MAX_TAPS)
    fits[:, 0] &= np.isin(masks["method"], list(KERNELS)) & (masks["method"] == masks["method"][:1])
    if not fits.all():
        bad = np.flatnonzero(~fits.all(axis=1))[0]
        raise EngineError(f"mask {bad} does not fit into a picture of {width} x {height} pixels")


def _pairs(masks: Masks, first: str, second: str) -> npt.NDArray[np.int64]:
    return np.stack([masks[first], masks[second]], axis=1).astype(np.int64)


def _power_of_two(size: int) -> int:
    return 1 << max(size - 1, 63).bit_length()
