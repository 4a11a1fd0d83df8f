"""A lane on the simulated GPU, its kernels run one by one, its memory read as numpy arrays."""

from __future__ import annotations

import ctypes
import platform
import shutil
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scenes import iou
from simulated import Block, SimulatedDevice

from unface.engines.native import Arrays, read_arrays
from unface.engines.shelf import named_files
from unface.gpu.engines import INPUT_SIDES, EngineNetworks
from unface.gpu.lane import Lane
from unface.gpu.networks import KernelNetworks
from unface.gpu.plan import Plan, plan_frame
from unface.gpu.tables import COUNTERS, LANE
from unface.mtcnn.faces import Faces
from unface.mtcnn.network import Networks
from unface.mtcnn.options import DetectOptions

needs_simulator = pytest.mark.skipif(
    shutil.which("g++") is None or platform.machine() != "x86_64",
    reason="the simulated GPU needs g++ and an x86-64 processor",
)
Image = NDArray[np.uint8]
Table = NDArray[Any]


@cache
def weights() -> dict[str, Arrays]:
    """Return the arrays of the FP32 engines that ship, by network."""
    return {n: read_arrays(data, n, n) for n, data in named_files("fp32.native").items()}


def noise(width: int, height: int, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def checkerboard(width: int, height: int, step: int = 1) -> Image:
    odd = (np.arange(height)[:, None] // step + np.arange(width) // step) % 2
    return np.repeat((odd * 255).astype(np.uint8)[..., None], 3, axis=2)


def same(a: Faces, b: Faces) -> bool:
    """Return whether two answers are equal bit for bit."""
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("boxes", "scores", "landmarks")
    )


def assert_nearly_the_same(faces: Faces, expected: Faces, at_least: float = 0.95) -> None:
    """Hold faces to those of another cascade: boxes, scores and landmarks, in any order."""
    assert len(faces) == len(expected)
    if not len(expected):
        return
    overlap = iou(expected.boxes, faces.boxes)
    match = overlap.argmax(axis=1)
    assert sorted(match) == list(range(len(faces)))
    assert overlap.max(axis=1).min() > at_least
    np.testing.assert_allclose(faces.scores[match], expected.scores, rtol=0, atol=0.01)
    widths = expected.boxes[:, 2] - expected.boxes[:, 0]
    moved = np.abs(faces.landmarks[match] - expected.landmarks).max(axis=(1, 2))
    assert (moved / widths).max() < 0.02


class Launch(NamedTuple):
    kernel: str
    blocks: int
    threads: int
    arguments: tuple[int, ...]


class Notes:
    """A recorder that notes what a lane would launch."""

    handle = 0

    def __init__(self) -> None:
        self.launches: list[Launch] = []

    def launch(self, kernel: str, blocks: int, threads: int, *arguments: int) -> None:
        self.launches.append(Launch(kernel, blocks, threads, arguments))

    def clear(self, pointer: int, size: int) -> None:
        pass


class Bench:
    """A lane that has a picture and has done nothing with it; `run` lets it do one step."""

    def __init__(self, seed: int = 0) -> None:
        self.device = SimulatedDevice(seed)
        self.lane = Lane(self.device, KernelNetworks(self.device, weights()), urgent=True)
        self.lane.stream.replay = lambda graph: None
        self.answers: list[Block] = []

    def load(self, image: Image, options: DetectOptions, *, pages: bool = False) -> Plan:
        """Bring a picture and the tables of its plan onto the device."""
        height, width = image.shape[:2]
        plan = plan_frame(width, height, options, pages=pages)
        self.lane.submit(image, plan)
        self.bytes("result")[: COUNTERS.itemsize] = 0
        notes = Notes()
        self.lane._work(notes, plan.across_levels)
        self.launches = notes.launches
        return plan

    def run(self, *kernels: str, stage: int | None = None) -> None:
        """Run the launches of kernels in the order in which the lane has them."""
        assert set(kernels) <= {launch.kernel for launch in self.launches}
        for kernel, blocks, threads, arguments in self.launches:
            if kernel in kernels and (stage is None or arguments[1:] == (stage,)):
                self.device.run(kernel, blocks, threads, *arguments)

    def bytes(self, name: str) -> NDArray[np.uint8]:
        """Return the lane's memory of a name, as it is there."""
        block = self.lane._memory[name]
        assert isinstance(block, Block)
        return block.array

    def table(self, name: str, dtype: np.dtype[Any], count: int | None = None) -> Table:
        """Return the first `count` records of a list; writing to it writes to the device."""
        whole = self.bytes(name)
        size = len(whole) // dtype.itemsize * dtype.itemsize
        return whole[:size].view(dtype)[:count]

    def floats(self, name: str, *shape: int) -> NDArray[np.float32]:
        return self.table(name, np.dtype("<f4"), int(np.prod(shape))).reshape(shape)

    @property
    def counters(self) -> Any:
        """How much of everything there is: a record of `COUNTERS`, to be read and written."""
        return self.bytes("result")[: COUNTERS.itemsize].view(COUNTERS)[0]

    @property
    def pointers(self) -> Any:
        """What kernels find memory by: a record of `LANE`, to be read and written."""
        return self.bytes("lane").view(LANE)[0]

    def fill(self, name: str, records: Table) -> None:
        """Write records into a list."""
        self.table(name, records.dtype)[: len(records)] = records


class CpuEngine:
    """A network of the CPU as an engine of the device, in batches of at most three."""

    max_batch = 3

    def __init__(self, device: SimulatedDevice, name: str, network: Any) -> None:
        self.device, self.name, self.network = device, name, network

    def context(self) -> CpuEngine:
        return self

    def enqueue(
        self, stream_handle: int, batch: int, input_pointer: int, output_pointers: Mapping[str, int]
    ) -> None:
        assert batch <= self.max_batch
        side = INPUT_SIDES[self.name]
        pixels = (ctypes.c_uint8 * (batch * side * side * 3)).from_address(input_pointer)
        images = np.frombuffer(pixels, np.uint8).reshape(batch, side, side, 3)

        def run() -> None:
            for output, values in self.network(images).items():
                floats = np.ascontiguousarray(values, np.float32)
                ctypes.memmove(output_pointers[output], floats.ctypes.data, floats.nbytes)

        if stream_handle:
            self.device.recording[stream_handle].append(run)
        else:
            run()


def cpu_engines(device: SimulatedDevice, networks: Networks) -> EngineNetworks:
    """Return networks of the CPU as engines of a device."""
    engines = {n: CpuEngine(device, n, getattr(networks, n)) for n in INPUT_SIDES}
    return EngineNetworks(device, engines, "tensorrt", networks.precision)
