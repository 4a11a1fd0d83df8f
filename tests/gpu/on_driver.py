"""What the tests of `unface.gpu.cuda` do in a process whose driver is the simulator.

`LD_LIBRARY_PATH` must lead to the library of `simulated.driver_folder()`. NVRTC does not run beside
it, so that the kernels must lie in the cache (`XDG_CACHE_HOME`) already.

`python on_driver.py FUNCTION NUMBERS...` prints what a function here returns, as JSON.
"""

from __future__ import annotations

import ctypes
import json
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent.parent))
import numpy as np
from scenes import astronaut
from workbench import Image, weights

from unface.errors import InvalidImage
from unface.gpu import cuda
from unface.gpu.cascade import GpuCascade
from unface.gpu.cuda import open_cuda
from unface.gpu.device import Device, DeviceFailure
from unface.gpu.networks import KernelNetworks
from unface.mtcnn import DetectOptions, Faces

OPTIONS = DetectOptions(min_face=30, thresholds=(0.97, 0.95, 0.95))  # few crops, one face

NEVER, PLENTY = -1, 1 << 40


def portrait(step: int = 3) -> Image:
    return np.ascontiguousarray(astronaut()[20:220:step, 120:320:step])


def cascade_on(device: Device) -> GpuCascade:
    return GpuCascade(device, KernelNetworks(device, weights()))


def as_numbers(faces: Faces) -> list[Any]:
    return [faces.boxes.tolist(), faces.scores.tolist(), faces.landmarks.tolist()]


def detect(opened: list[GpuCascade]) -> list[Any]:
    """Open everything, twice find a face, close."""
    cascade = cascade_on(open_cuda())
    opened.append(cascade)
    found = [as_numbers(f) for f in cascade.detect_all([portrait(), portrait(4)], OPTIONS)]
    found.append(as_numbers(cascade.detect(portrait(), OPTIONS)))
    cascade.close()
    return found


def outcome(opened: list[GpuCascade]) -> Any:
    """What `detect` gives or raises."""
    try:
        return detect(opened)
    except DeviceFailure as error:
        return f"DeviceFailure: {error}"
    except Exception as error:  # noqa: BLE001 - which it is is what the test wants to know
        return f"{type(error).__name__}: {error}"


def once() -> Any:
    return outcome([])


def calls() -> int:
    """How many calls of the driver `detect` takes, the second time."""
    detect([])
    before = driver.count_calls()
    detect([])
    return int(driver.count_calls() - before)


def fail(first: int, last: int, step: int) -> dict[int, list[Any]]:
    """For calls by number: what happens when the driver fails from there on, and what after."""
    detect([])
    found = {}
    for number in range(first, last + 1, step):
        opened: list[GpuCascade] = []
        driver.fail_after(number)
        failed = outcome(opened)
        for cascade in opened:
            with suppress(DeviceFailure):
                cascade.close()
        driver.fail_after(NEVER)
        found[number] = [failed, outcome([])]
    return found


def starve(*limits: int) -> dict[int, list[Any]]:
    """The same where no block of memory larger than so many bytes can be had."""
    found = {}
    for limit in limits:
        driver.limit_memory(limit)
        starved = outcome([])
        driver.limit_memory(PLENTY)
        found[limit] = [starved, outcome([])]
    return found


def of_version(version: int) -> Any:
    driver.set_version(version)
    return outcome([])


def of_capability(tens: int) -> Any:
    driver.set_capability(tens)
    return outcome([])


def by_number(ordinal: int) -> str:
    try:
        return open_cuda(ordinal).name
    except DeviceFailure as error:
        return str(error)


def hang() -> list[Any]:
    """What happens when the device does not come to an end, and when it does again."""
    cascade = cascade_on(open_cuda())
    cuda.PATIENCE = 0.05
    driver.hang(1)
    found = []
    for hangs in (1, 0):
        driver.hang(hangs)
        try:
            found.append(as_numbers(cascade.detect(portrait(), OPTIONS)))
        except DeviceFailure as error:
            found.append(str(error))
    return found


def in_threads() -> list[Any]:
    """What threads find that did not open the device, one after the other."""
    cascade = cascade_on(open_cuda())
    found: list[Any] = []
    for _ in range(2):
        work = threading.Thread(
            target=lambda: found.append(as_numbers(cascade.detect(portrait(), OPTIONS)))
        )
        work.start()
        work.join()
    return found


class OnDevice:
    """An array that says that it lies on the GPU."""

    def __init__(self, pointer: int, shape: tuple[int, ...], **said: Any) -> None:
        self.__cuda_array_interface__ = {
            "shape": shape,
            "strides": None,
            "typestr": "|u1",
            "data": (pointer, False),
            "version": 3,
            "stream": None,
            **said,
        }


def arrays() -> dict[str, Any]:
    """What comes of arrays on the GPU: the faces, or what is said of them."""
    device = open_cuda()
    cascade = cascade_on(device)
    picture = portrait()
    memory, staged = device.allocate(picture.size), device.allocate_host(picture.size)
    staged.array[:] = picture.ravel()
    cascade.urgent.stream.copy(memory.pointer, staged.pointer, picture.size)
    shape = picture.shape
    wide = shape[1] * 3
    other = device.stream(urgent=False)
    awaited = OnDevice(memory.pointer, shape, stream=other.handle)
    given = {
        "as it is": OnDevice(memory.pointer, shape),
        "strides": OnDevice(memory.pointer, shape, strides=(wide, 3, 1)),
        "a stream": awaited,
        "gray": OnDevice(memory.pointer, shape[:2]),
        "four channels": OnDevice(memory.pointer, (20, 20, 4)),
        "empty": OnDevice(memory.pointer, (0, 20, 3)),
        "floats": OnDevice(memory.pointer, (20, 20, 3), typestr="<f4"),
        "every second": OnDevice(memory.pointer, (30, *shape[1:]), strides=(2 * wide, 3, 1)),
        "mirrored": OnDevice(memory.pointer, (20, 20, 3), strides=(60, -3, 1)),
    }
    found: dict[str, Any] = {}
    for name, image in given.items():
        found[name] = what_comes_of(cascade, image)
    for name, call in (("lost at once", 1), ("lost a little later", 2)):
        driver.fail_after(call)
        found[name] = what_comes_of(cascade, awaited)
        driver.fail_after(NEVER)
    return found


def what_comes_of(cascade: GpuCascade, image: Any) -> Any:
    try:
        return as_numbers(cascade.detect(image, OPTIONS))
    except (InvalidImage, DeviceFailure) as error:
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    driver = ctypes.CDLL("libcuda.so.1")
    driver.fail_after.argtypes = driver.limit_memory.argtypes = [ctypes.c_long]
    function: Callable[..., Any] = globals()[sys.argv[1]]
    print(json.dumps(function(*map(int, sys.argv[2:]))))
