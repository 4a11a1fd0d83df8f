"""The door to the GPU: memory, streams, graphs, kernels, as little of each as the cascade needs.

`Device` says what the cascade asks for. `unface.gpu.cuda` answers it with NVIDIA's cuda-core; the
tests answer it with a simulator that runs the same kernels on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from unface.errors import EngineError

if TYPE_CHECKING:
    from unface.gpu.arrays import CudaArray, ResidentImage


class DeviceFailure(EngineError):
    """The GPU is not there, went away, ran out of memory or refused a call."""


class Memory(Protocol):
    """Memory of the device, or pinned memory of the host."""

    pointer: int
    size: int  # bytes

    def close(self) -> None:
        """Free it; nothing that is under way may use it."""
        ...


class HostMemory(Memory, Protocol):
    """Pinned memory: copies to and from the device do not wait for the host."""

    array: npt.NDArray[np.uint8]  # [size]


class Recorder(Protocol):
    """What can be part of a graph."""

    handle: int  # of the stream being recorded, for engines

    def launch(self, kernel: str, blocks: int, threads: int, *arguments: int) -> None:
        """Run a kernel; arguments are a pointer, then 32-bit whole numbers."""
        ...

    def clear(self, pointer: int, size: int) -> None:
        """Set bytes of the device to zero."""
        ...


class Graph(Protocol):
    """Recorded work."""

    def close(self) -> None:
        """Free it."""
        ...


class Stream(Protocol):
    """Work in order, beside that of other streams. Every method may raise `DeviceFailure`."""

    handle: int  # for engines

    def copy(self, target: int, source: int, size: int) -> None:
        """Copy bytes between host and device; returns before it is done."""
        ...

    def record(self, work: Callable[[Recorder], None]) -> Graph:
        """Return a graph of what `work` does with the recorder; nothing runs yet."""
        ...

    def replay(self, graph: Graph) -> None:
        """Run a graph; returns before it is done."""
        ...

    def synchronize(self) -> None:
        """Wait until everything is done; raises what went wrong on the way."""
        ...

    def close(self) -> None:
        """Free the stream."""
        ...


class Device(Protocol):
    """A GPU. Every method may raise `DeviceFailure`."""

    name: str
    multiprocessors: int

    def allocate(self, size: int) -> Memory:
        """Return memory of the device."""
        ...

    def allocate_host(self, size: int) -> HostMemory:
        """Return pinned memory."""
        ...

    def stream(self, *, urgent: bool) -> Stream:
        """Return a stream; what is urgent goes first."""
        ...

    def view(self, image: CudaArray, stream: Stream) -> ResidentImage:
        """Return where an array lies on the device; `stream` waits for what still writes to it.

        Raises `InvalidImage` for what is not RGB uint8 `[H, W, 3]` without gaps, or lies elsewhere.
        """
        ...

    def synchronize(self) -> None:
        """Wait until all streams are done."""
        ...

    def close(self) -> None:
        """Let go of the device."""
        ...


def close_all(*closings: Callable[[], None]) -> None:
    """Call each, also after one that fails; then raise the first failure."""
    failures: list[Exception] = []
    for close in closings:
        try:
            close()
        except Exception as error:  # noqa: BLE001, PERF203 - raised below
            failures.append(error)
    if failures:
        raise failures[0]
