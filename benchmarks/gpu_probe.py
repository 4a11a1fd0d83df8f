"""Looking into a lane of the GPU cascade: its counters and buffers, its work cut short, its time.

Uses what is private to `unface.gpu.lane.Lane`, in this file alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from unface.gpu.cascade import BULK_LANES, GpuCascade
from unface.gpu.device import Device, Graph, HostMemory, Memory, Recorder, Stream
from unface.gpu.lane import Crowded, Lane
from unface.gpu.networks import DeviceNetworks
from unface.gpu.plan import Plan
from unface.gpu.tables import COUNTERS
from unface.mtcnn.network import UInt8Array

KEPT = ("lane", "frame", "levels", "tiles", "patches")  # tables that the host wrote
SPACER_BYTES = 512 << 20  # a copy that takes the device longer than the host needs to queue work


def checked(result: tuple[Any, ...]) -> Any:
    """Return what a call of cuda-bindings returned beside its status; raises `RuntimeError`."""
    status, *values = result
    if int(status) != 0:
        raise RuntimeError(status.name)
    return values[0] if len(values) == 1 else tuple(values)


def counters(lane: Lane) -> dict[str, int]:
    """Return what the device counted of the last picture that was collected."""
    row = lane._staging["result"].array[: COUNTERS.itemsize].view(COUNTERS)[0]
    squares, candidates = row["squares"].tolist(), row["candidates"].tolist()
    return {
        "hits": int(row["hits"]),
        "rnet_crops": squares[0],
        "onet_crops": squares[1],
        "rnet_kept": candidates[1],
        "onet_kept": candidates[2],
        "faces": int(row["faces"]),
    }


def detect(lane: Lane, image: UInt8Array, plan: Plan) -> NDArray[np.void]:
    """Return the faces of a picture, `FACE` `[n]`, done again where a list was too short."""
    while True:
        lane.submit(image, plan)
        try:
            return lane.collect()
        except Crowded:
            continue


def read(lane: Lane, name: str, dtype: Any, count: int) -> NDArray[Any]:
    """Return the first `count` elements of one of a lane's buffers, by its name there."""
    size = np.dtype(dtype).itemsize * count
    if not size:
        return np.empty(0, dtype)
    memory = lane._memory[name]
    assert size <= memory.size, f"{name} has {memory.size} bytes, not {size}"
    return np.asarray(download(lane.device, lane.stream, memory.pointer, size).view(dtype))


def poison(lane: Lane, byte: int) -> None:
    """Fill everything that the device computes for a picture with a byte; 255 is NaN in floats."""
    from cuda.bindings import driver

    for name, memory in lane._memory.items():
        if name not in KEPT:
            checked(driver.cuMemsetD8Async(memory.pointer, byte, memory.size, lane.stream.handle))
    lane.stream.synchronize()
    lane._staging["result"].array[:] = byte


def upload(device: Device, stream: Stream, image: UInt8Array) -> Memory:
    """Return a copy of an array on the device."""
    staged, memory = device.allocate_host(image.nbytes), device.allocate(image.nbytes)
    staged.array[: image.nbytes] = image.reshape(-1).view(np.uint8)
    stream.copy(memory.pointer, staged.pointer, image.nbytes)
    stream.synchronize()
    staged.close()
    return memory


def download(device: Device, stream: Stream, pointer: int, size: int) -> NDArray[np.uint8]:
    """Return bytes of the device."""
    staged = device.allocate_host(size)
    stream.copy(staged.pointer, pointer, size)
    stream.synchronize()
    found = np.array(staged.array[:size])
    staged.close()
    return found


@contextmanager
def lanes_of(device: Device, networks: DeviceNetworks, count: int) -> Iterator[list[Lane]]:
    """Open lanes for the time of a block."""
    lanes = [Lane(device, networks, urgent=False) for _ in range(count)]
    try:
        yield lanes
    finally:
        for lane in lanes:
            lane.close()


@contextmanager
def borrowed(
    device: Device, networks: DeviceNetworks, lanes: int = BULK_LANES
) -> Iterator[GpuCascade]:
    """Open a cascade for the time of a block; device and networks serve on after it."""
    cascade = GpuCascade(device, networks, lanes)
    try:
        yield cascade
    finally:
        for lane in (cascade.urgent, *cascade._bulk):
            lane.close()
        cascade._team.close()


@contextmanager
def held(memories: Sequence[Memory | HostMemory]) -> Iterator[None]:
    """Free memory after a block."""
    try:
        yield
    finally:
        for memory in memories:
            memory.close()


# --- a picture's work, cut short -----------------------------------------------------------------


class _Enough(Exception):
    """What is being recorded shall end here."""


class _Prefix:
    """A `Recorder` that passes the first `most` steps on and notes their names."""

    def __init__(self, recorder: Recorder, most: int) -> None:
        self._recorder, self._most = recorder, most
        self.names: list[str] = []

    @property
    def handle(self) -> int:
        """The stream's; asked for once for every engine that is run."""
        self._step("engine")
        return self._recorder.handle

    def launch(self, kernel: str, blocks: int, threads: int, *arguments: int) -> None:
        """See `Recorder`."""
        self._step(" ".join([kernel, *map(str, arguments[1:])]))
        self._recorder.launch(kernel, blocks, threads, *arguments)

    def clear(self, pointer: int, size: int) -> None:
        """See `Recorder`."""
        self._step("clear")
        self._recorder.clear(pointer, size)

    def _step(self, name: str) -> None:
        if len(self.names) == self._most:
            raise _Enough
        self.names.append(name)


def record_prefix(lane: Lane, plan: Plan, most: int) -> tuple[Graph, list[str]]:
    """Return a graph of the first `most` steps of a picture's work, and their names.

    The lane has had a picture of this plan: memory and tables are those of it.
    """
    names: list[str] = []

    def work(recorder: Recorder) -> None:
        prefix = _Prefix(recorder, most)
        with suppress(_Enough):
            lane._work(cast(Recorder, prefix), plan.across_levels)
        names.extend(prefix.names)

    return lane.stream.record(work), names


# --- time ----------------------------------------------------------------------------------------


class Clock:
    """Time on a stream by the device's own clock.

    Before each repeat comes a long copy: the host queues what is timed while it goes on, so that
    the host's own time is not in the figures, and the caches are cold.
    """

    def __init__(self, device: Device, stream: Stream, spacer_bytes: int = SPACER_BYTES) -> None:
        self._stream, self._size = stream, spacer_bytes
        self._spacers = device.allocate(spacer_bytes), device.allocate(spacer_bytes)

    def milliseconds(
        self, work: Callable[[], object], repeats: int, warm_up: int = 3
    ) -> list[float]:
        """Return how long each of some repeats took."""
        from cuda.bindings import driver

        events = [
            (checked(driver.cuEventCreate(0)), checked(driver.cuEventCreate(0)))
            for _ in range(warm_up + repeats)
        ]
        try:
            target, source = (spacer.pointer for spacer in self._spacers)
            for begin, end in events:
                self._stream.copy(target, source, self._size)
                checked(driver.cuEventRecord(begin, self._stream.handle))
                work()
                checked(driver.cuEventRecord(end, self._stream.handle))
            self._stream.synchronize()
            return [float(checked(driver.cuEventElapsedTime(*pair))) for pair in events[warm_up:]]
        finally:
            for pair in events:
                for event in pair:
                    checked(driver.cuEventDestroy(event))

    def close(self) -> None:
        """Free the copies' memory."""
        for spacer in self._spacers:
            spacer.close()
