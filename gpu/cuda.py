"""`unface.gpu.device.Device` on an NVIDIA GPU, through NVIDIA's cuda-core and cuda-bindings."""

from __future__ import annotations

import ctypes
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np

from unface.errors import InvalidImage
from unface.gpu.arrays import CudaArray, ResidentImage, view_resident
from unface.gpu.device import Device, DeviceFailure, Graph, Recorder, Stream

PATIENCE = 10.0  # seconds; the largest picture takes a fraction of one
SPIN, NAP = 1e-3, 5e-5  # seconds
OLDEST_DRIVER = 13000  # as cuDriverGetVersion counts: CUDA 13.0, driver 580
_resets: Counter[int] = Counter()  # of each GPU's context, by this process


def open_cuda(ordinal: int = 0) -> Device:
    """Return a GPU of this machine, its kernels compiled.

    Raises `DeviceFailure` saying what is missing: the packages, the driver, a GPU, or a new enough
    one of them.
    """
    try:
        from cuda.bindings import driver

        # Importing it takes a tenth of a second; where there is no driver it is not needed.
        if find_spec("cuda.core") is None:
            raise ModuleNotFoundError(name="cuda.core")
    except ImportError as error:
        raise DeviceFailure(
            f"{error.name or 'cuda-core'} is not installed: pip install 'unface[gpu]'"
        ) from error
    try:
        result = driver.cuDriverGetVersion()
    except Exception as error:
        raise DeviceFailure("there is no NVIDIA driver; driver 580 or newer is needed") from error
    with _failing("the NVIDIA driver does not answer"):
        version = _checked(result)
    if version < OLDEST_DRIVER:
        raise DeviceFailure(
            f"the NVIDIA driver knows CUDA {version // 1000}.{version % 1000 // 10}; "
            f"{OLDEST_DRIVER // 1000}.0 is needed (driver 580 or newer)"
        )
    with _failing("the NVIDIA driver does not answer"):
        _checked(driver.cuInit(0))
        count = _checked(driver.cuDeviceGetCount())
    if not 0 <= ordinal < count:
        raise DeviceFailure(f"there is no GPU {ordinal}; this process sees {count}")
    return CudaDevice(ordinal)


class CudaDevice:
    """A GPU by its number; see `unface.gpu.device.Device`."""

    def __init__(self, ordinal: int) -> None:
        from cuda.core import Device

        from unface.gpu.program import KERNELS, OLDEST, compile_kernels

        self._ordinal = ordinal
        self._entered = threading.local()
        with self.work("the GPU cannot be opened"):
            device = Device(ordinal)
            self.name = device.name
            self.multiprocessors = int(device.properties.multiprocessor_count)
            capability = tuple(device.compute_capability)
        if capability < OLDEST:
            raise DeviceFailure(
                f"{self.name} has compute capability {capability[0]}.{capability[1]}; "
                f"{OLDEST[0]}.{OLDEST[1]} or newer is needed"
            )
        with self.work("the kernels cannot be compiled for this GPU"):
            code = compile_kernels(f"sm_{capability[0]}{capability[1]}")
            self.kernels = {name: code.get_kernel(name) for name in KERNELS}

    def allocate(self, size: int) -> CudaMemory:
        """See `unface.gpu.device.Device`."""
        return CudaMemory(self, size)

    def allocate_host(self, size: int) -> PinnedMemory:
        """See `unface.gpu.device.Device`."""
        return PinnedMemory(self, size)

    def stream(self, *, urgent: bool) -> Stream:
        """See `unface.gpu.device.Device`."""
        return CudaStream(self, urgent=urgent)

    def view(self, image: CudaArray, stream: Stream) -> ResidentImage:
        """See `unface.gpu.device.Device`."""
        with self.work("the array on the GPU cannot be taken"):
            return view_resident(image, stream.handle, self._ordinal)

    def synchronize(self) -> None:
        """See `unface.gpu.device.Device`."""
        from cuda.core import Device

        with self.work("the GPU did not finish"):
            Device(self._ordinal).sync()

    def close(self) -> None:
        """Let go of the device; a context that an error left useless is made anew for others."""
        from cuda.bindings import driver

        self.kernels.clear()
        with self.work("the GPU cannot be closed"):
            (state, *_) = driver.cuCtxSynchronize()
            if state != driver.CUresult.CUDA_SUCCESS:
                _resets[self._ordinal] += 1
                _checked(driver.cuDevicePrimaryCtxReset(self._ordinal))
                _checked(driver.cuDevicePrimaryCtxRetain(self._ordinal))

    @contextmanager
    def work(self, what: str) -> Iterator[None]:
        """Make the device this thread's own, and whatever goes wrong inside a `DeviceFailure`."""
        from cuda.core import Device

        with _failing(what):
            if not getattr(self._entered, "done", False):
                Device(self._ordinal).set_current()
                self._entered.done = True
            yield


class CudaMemory:
    """Memory of the device. A reset frees it; others may have the place then."""

    def __init__(self, device: CudaDevice, size: int) -> None:
        from cuda.bindings import driver

        self._device, self.size = device, size
        with device.work(f"{size / 2**20:.3g} MiB of GPU memory cannot be had"):
            self.pointer = int(_checked(driver.cuMemAlloc(size)))
        self._resets = _resets[device._ordinal]

    def close(self) -> None:
        """Free it."""
        from cuda.bindings import driver

        pointer, self.pointer = self.pointer, 0
        if pointer and self._resets == _resets[self._device._ordinal]:
            with self._device.work("GPU memory cannot be freed"):
                _checked(driver.cuMemFree(pointer))


class PinnedMemory:
    """Pinned memory of the host."""

    def __init__(self, device: CudaDevice, size: int) -> None:
        from cuda.bindings import driver

        self._device, self.size = device, size
        with device.work(f"{size / 2**20:.3g} MiB of pinned memory cannot be had"):
            self.pointer = int(_checked(driver.cuMemHostAlloc(size, 0)))
        self.array = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(self.pointer))

    def close(self) -> None:
        """Free it."""
        from cuda.bindings import driver

        if self.pointer:
            pointer, self.pointer = self.pointer, 0
            self.array = np.empty(0, np.uint8)
            with self._device.work("pinned memory cannot be freed"):
                _checked(driver.cuMemFreeHost(pointer))


class CudaStream:
    """A stream; see `unface.gpu.device.Stream`."""

    def __init__(self, device: CudaDevice, *, urgent: bool) -> None:
        from cuda.bindings import driver
        from cuda.core import Device, StreamOptions

        self._device = device
        with device.work("a stream cannot be had"):
            lowest, highest = _checked(driver.cuCtxGetStreamPriorityRange())
            options = StreamOptions(nonblocking=True, priority=highest if urgent else lowest)
            self._stream = Device(device._ordinal).create_stream(options=options)
            self.handle = int(self._stream.handle)
            self._done = self._stream.record()

    def copy(self, target: int, source: int, size: int) -> None:
        """See `unface.gpu.device.Stream`."""
        from cuda.bindings import driver

        with self._device.work("a copy failed"):
            _checked(driver.cuMemcpyAsync(target, source, size, self.handle))

    def record(self, work: Callable[[Recorder], None]) -> Graph:
        """See `unface.gpu.device.Stream`."""
        with self._device.work("the work cannot be recorded"):
            builder = self._stream.create_graph_builder()
            builder.begin_building("relaxed")  # engines may take memory meanwhile
            work(CudaRecorder(self._device, builder))
            builder.end_building()
            return CudaGraph(self._device, builder, builder.complete())

    def replay(self, graph: Graph) -> None:
        """See `unface.gpu.device.Stream`."""
        assert isinstance(graph, CudaGraph)  # noqa: S101 - for the type checker: it recorded it
        with self._device.work("a graph cannot be launched"):
            graph.graph.launch(self._stream)

    def synchronize(self) -> None:
        """See `unface.gpu.device.Stream`. A GPU that hangs is given up after `PATIENCE`."""
        with self._device.work("the GPU did not finish its work"):
            self._done = self._stream.record(self._done)
            begin = time.monotonic()
            while not self._done.is_done:
                waited = time.monotonic() - begin
                if waited > PATIENCE:
                    raise DeviceFailure(f"it hangs for {PATIENCE:g} seconds")
                # At first sleeping would take longer than the work: let other threads go, no more.
                time.sleep(0 if waited < SPIN else NAP)

    def close(self) -> None:
        """See `unface.gpu.device.Stream`."""
        with self._device.work("a stream cannot be closed"):
            self._stream.close()


class CudaRecorder:
    """See `unface.gpu.device.Recorder`."""

    def __init__(self, device: CudaDevice, builder: Any) -> None:
        self._device, self._builder = device, builder
        self.handle = int(builder.stream.handle)

    def launch(self, kernel: str, blocks: int, threads: int, *arguments: int) -> None:
        """See `unface.gpu.device.Recorder`."""
        from cuda.core import LaunchConfig, launch

        config = LaunchConfig(grid=blocks, block=threads)
        pointer, *numbers = arguments
        words = [np.int32(number) for number in numbers]
        launch(self._builder, config, self._device.kernels[kernel], pointer, *words)

    def clear(self, pointer: int, size: int) -> None:
        """See `unface.gpu.device.Recorder`."""
        from cuda.bindings import driver

        _checked(driver.cuMemsetD8Async(pointer, 0, size, self.handle))


class CudaGraph:
    """See `unface.gpu.device.Graph`."""

    def __init__(self, device: CudaDevice, builder: Any, graph: Any) -> None:
        self._device, self._builder, self.graph = device, builder, graph

    def close(self) -> None:
        """Free it."""
        with self._device.work("a graph cannot be freed"):
            self.graph.close()
            self._builder.close()


def _checked(result: tuple[Any, ...]) -> Any:
    """Return what a call of the bindings returned beside its status; raises `DeviceFailure`."""
    from cuda.bindings import driver

    status, *values = result
    if status != driver.CUresult.CUDA_SUCCESS:
        raise DeviceFailure(status.name)
    return values[0] if len(values) == 1 else tuple(values)


@contextmanager
def _failing(what: str) -> Iterator[None]:
    """Turn whatever is raised inside into a `DeviceFailure` that says `what` failed, and why.

    The bindings raise many kinds: of their own, RuntimeError, OSError, MemoryError.
    """
    try:
        yield
    except InvalidImage:
        raise
    except Exception as error:
        raise DeviceFailure(f"{what}: {error}") from error
