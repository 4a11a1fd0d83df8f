"""A `Device` that runs the kernels of `unface.gpu` on the CPU (`cuda_on_cpu.h`).

Memory is numpy's, streams do everything at once, a graph is the list of what was recorded. Each
launch runs with another order of threads and blocks when `seed` is not 0. Memory begins as 0xff,
NaN in floats.
"""

from __future__ import annotations

import atexit
import ctypes
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

from unface.gpu.arrays import CudaArray, ResidentImage, resident_image

HERE = Path(__file__).parent
SOURCES = Path(str(files("unface.gpu") / "src"))
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-shared", "-fno-strict-aliasing")
STRUCTURES = (
    *("Level", "Tile", "Patch", "Frame", "Hit", "Square", "Candidate", "Face", "Counters", "Lane"),
    *("Mask", "Covering"),
)


@cache
def kernels(*flags: str) -> ctypes.CDLL:
    """Return all kernels, compiled for this machine, and the sizes of their structures."""
    sizes = "\n".join(
        f'extern "C" int sizeof_{name}() {{ return sizeof({name}); }}' for name in STRUCTURES
    )
    return ctypes.CDLL(str(build("kernels.so", f'#include "kernels.cu"\n{sizes}', flags)))


@cache
def driver_folder() -> Path:
    """Return a folder with a `libcuda.so.1` that is the simulator; for `LD_LIBRARY_PATH`."""
    found = kernels_in_sources()
    rows = ", ".join(f'{{"{n}", (kernel){n}, {count}}}' for n, count in found.items())
    table = f"Launchable launches[] = {{{rows}}};\nconst int launchable = {len(found)};"
    flags = ("-Wl,-Bsymbolic", "-fvisibility=hidden")
    text = f'#include "kernels.cu"\n#include "driver_on_cpu.h"\n{table}'
    return build("libcuda.so.1", text, flags).parent


def kernels_in_sources() -> dict[str, int]:
    """Return the names of all kernels, and how many whole numbers each takes."""
    text = "".join(file.read_text() for file in sorted(SOURCES.glob("*.cu")))
    found = re.findall(r"KERNEL\w*\([\w, ]+\) (\w+)\(([^)]*)\)", text)
    return {name: arguments.count("int ") for name, arguments in found}


def build(name: str, text: str, flags: tuple[str, ...] = ()) -> Path:
    """Return a library of a name that is the simulator and a text that it compiles with it."""
    folder = Path(mkdtemp(prefix="unface-simulator-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    unit, library = folder / "unit.cpp", folder / name
    unit.write_text(f'#include "cuda_on_cpu.h"\n{text}\n')
    command = ["g++", *FLAGS, *flags, f"-I{HERE}", f"-I{SOURCES}", unit, "-o", library]
    subprocess.run(command, check=True)
    return library


class Block:
    """Memory of the device or of the host: the same here."""

    def __init__(self, size: int) -> None:
        self.array = np.full(size, 0xFF, np.uint8)
        self.pointer, self.size = self.array.ctypes.data, size

    def close(self) -> None:
        self.array = np.empty(0, np.uint8)
        self.pointer = 0


@dataclass
class Graph:
    steps: list[Callable[[], None]] = field(default_factory=list)

    def close(self) -> None:
        self.steps.clear()


@dataclass
class Recorder:
    device: SimulatedDevice
    steps: list[Callable[[], None]]

    @property
    def handle(self) -> int:
        """A key of `SimulatedDevice.recording`, where engines append what they do."""
        self.device.recording[id(self)] = self.steps
        return id(self)

    def launch(self, kernel: str, blocks: int, threads: int, *arguments: int) -> None:
        self.steps.append(lambda: self.device.run(kernel, blocks, threads, *arguments))

    def clear(self, pointer: int, size: int) -> None:
        self.steps.append(lambda: ctypes.memset(pointer, 0, size) and None)


class Stream:
    handle = 0

    def __init__(self, device: SimulatedDevice) -> None:
        self.device = device

    def copy(self, target: int, source: int, size: int) -> None:
        self.device.called("copy")
        ctypes.memmove(target, source, size)

    def record(self, work: Callable[[Recorder], None]) -> Graph:
        self.device.called("record")
        graph = Graph()
        work(Recorder(self.device, graph.steps))
        return graph

    def replay(self, graph: Graph) -> None:
        self.device.called("replay")
        for step in graph.steps:
            step()

    def synchronize(self) -> None:
        self.device.called("synchronize")

    def close(self) -> None:
        pass


class SimulatedDevice:
    """`calls` counts what was asked of it; `fail` raises what it likes at any of them."""

    name, multiprocessors = "simulator", 2

    def __init__(
        self,
        seed: int = 0,
        fail: Callable[[int, str], None] | None = None,
        flags: tuple[str, ...] = (),
    ) -> None:
        self.seed, self.fail, self.calls = seed, fail, 0
        self._library = kernels(*flags)
        self.recording: dict[int, list[Callable[[], None]]] = {}

    def called(self, what: str) -> None:
        self.calls += 1
        if self.fail:
            self.fail(self.calls, what)

    def run(self, kernel: str, blocks: int, threads: int, *arguments: int) -> None:
        self.called(kernel)
        if self.seed:
            self.seed += 1
        lane, a, b = (*arguments, 0, 0)[:3]
        function = ctypes.cast(getattr(self._library, kernel), ctypes.c_void_p)
        self._library.simulate(
            function, blocks, threads, ctypes.c_void_p(lane), a, b, ctypes.c_uint(self.seed)
        )

    def allocate(self, size: int) -> Block:
        self.called("allocate")
        return Block(size)

    def allocate_host(self, size: int) -> Block:
        self.called("allocate_host")
        return Block(size)

    def stream(self, *, urgent: bool) -> Stream:
        self.called("stream")
        return Stream(self)

    def view(self, image: CudaArray, stream: object) -> ResidentImage:
        self.called("view")
        said = image.__cuda_array_interface__
        dtype = np.dtype(said["typestr"]).name
        return resident_image(said["data"][0], dtype, said["shape"], said.get("strides"), image)

    def synchronize(self) -> None:
        self.called("synchronize")

    def close(self) -> None:
        pass
