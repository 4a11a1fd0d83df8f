"""Pictures that already lie on the GPU: searched where they are, covered in memory of their own."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import pytest
from deferred import LateDevice
from scenes import astronaut
from simulated import Block, SimulatedDevice, driver_folder
from workbench import Image, needs_simulator, noise, same, weights

from unface.anonymize import MaskOptions, apply_masks, plan_masks
from unface.errors import InvalidImage, InvalidOption
from unface.gpu.arrays import CudaArray, DeviceImage, is_resident
from unface.gpu.cascade import GpuCascade
from unface.gpu.device import DeviceFailure
from unface.gpu.masks import Masks
from unface.gpu.networks import KernelNetworks
from unface.gpu.plan import BeyondDevice
from unface.local import Local
from unface.mtcnn.faces import Faces
from unface.mtcnn.options import DetectOptions

pytestmark = needs_simulator

OPTIONS = DetectOptions(min_face=24)
MASKS = MaskOptions(method="blur")


class Array:
    """As CuPy's: it says where it lies and keeps the memory until it goes."""

    def __init__(self, device: SimulatedDevice, image: Image, **said: object) -> None:
        fail, device.fail = device.fail, None
        self.block = device.allocate(image.size)
        device.fail = fail
        self.block.array[:] = image.ravel()
        self.__cuda_array_interface__ = {
            "shape": image.shape,
            "strides": None,
            "typestr": "|u1",
            "data": (self.block.pointer, False),
            "version": 3,
        } | said

    def __del__(self) -> None:
        self.block.close()


def portrait(step: int = 3) -> Image:
    """One face, 67 x 67 pixels."""
    return np.ascontiguousarray(astronaut()[20:220:step, 120:320:step])


def gpu(device: SimulatedDevice) -> GpuCascade:
    return GpuCascade(device, KernelNetworks(device, weights()), lanes=2)


def cover(faces: Faces) -> Masks:
    return plan_masks(faces.width, faces.height, faces.boxes, MASKS)


def pixels_of(image: DeviceImage) -> Image:
    """Read an image as another library would."""
    said = image.__cuda_array_interface__
    assert (said["version"], said["strides"], said["stream"]) == (3, None, None)
    pointer, read_only = said["data"]
    assert not read_only
    there = {"shape": said["shape"], "typestr": said["typestr"], "data": (pointer, True)}
    holder = type("Holder", (), {"__array_interface__": there | {"version": 3}})()
    return np.array(holder)


DEVICES = pytest.mark.parametrize("kind", [SimulatedDevice, LateDevice])


# Detection -----------------------------------------------------------------------------------


@DEVICES
def test_a_picture_on_the_device_has_the_faces_of_one_in_main_memory(
    kind: type[SimulatedDevice],
) -> None:
    cascade = gpu(kind())
    for image in (portrait(), noise(90, 31), portrait(2), portrait()):
        array = Array(cascade.device, image)
        expected = cascade.detect(image, OPTIONS)
        assert same(cascade.detect(array, OPTIONS), expected)
        assert (expected.width, expected.height) == (image.shape[1], image.shape[0])
        assert np.array_equal(array.block.array, image.ravel())
    cascade.close()


@DEVICES
def test_pictures_here_and_there_are_answered_in_order(kind: type[SimulatedDevice]) -> None:
    cascade = gpu(kind())
    images = [portrait(), noise(50, 40), portrait(2), portrait(), noise(20, 90), portrait(2)]
    expected = [cascade.detect(image, OPTIONS) for image in images]
    mixed = [Array(cascade.device, image) if n % 3 else image for n, image in enumerate(images)]
    assert all(map(same, cascade.detect_all(mixed, OPTIONS), expected))
    assert [len(faces) for faces in expected] == [1, 0, 1, 1, 0, 1]
    cascade.close()


class Fleeting(Sequence[Any]):
    """Arrays that nobody else keeps."""

    def __init__(self, device: SimulatedDevice, images: list[Image]) -> None:
        self.device, self.images = device, images

    def __getitem__(self, index: Any) -> Any:
        return Array(self.device, self.images[index])

    def __len__(self) -> int:
        return len(self.images)


def test_an_array_stays_until_its_faces_are_there() -> None:
    cascade = gpu(LateDevice())
    images = [portrait(), noise(50, 40), portrait(2), portrait()]
    expected = [cascade.detect(image, OPTIONS) for image in images]
    found = cascade.detect_all(Fleeting(cascade.device, images), OPTIONS)
    assert all(map(same, found, expected))


def test_a_list_that_was_too_short_is_made_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = gpu(SimulatedDevice()).detect(portrait(), OPTIONS)
    monkeypatch.setattr("unface.gpu.lane.FIRST_HITS", 8)
    monkeypatch.setattr("unface.gpu.lane.FIRST_CANDIDATES", 32)
    cascade = gpu(SimulatedDevice())
    array = Array(cascade.device, portrait())
    assert same(cascade.detect(array, OPTIONS), expected)
    assert cascade.urgent.sizes.hits > 8
    monkeypatch.setattr("unface.gpu.lane.FIRST_HITS", 8)
    monkeypatch.setattr("unface.gpu.lane.FIRST_CANDIDATES", 32)
    fresh = gpu(SimulatedDevice())
    covered, faces = fresh.anonymize_array(Array(fresh.device, portrait()), OPTIONS, cover)
    assert same(faces, expected)
    assert np.array_equal(pixels_of(covered), covered_on(SimulatedDevice(), portrait()))


REFUSED: list[tuple[dict[str, object], str]] = [
    ({"typestr": "<f4"}, "image is float32"),
    ({"typestr": "|i1"}, "image is int8"),
    ({"shape": (67, 67)}, r"shape \[67, 67\]"),
    ({"shape": (67, 67, 4)}, r"shape \[67, 67, 4\]"),
    ({"shape": (3, 67, 67)}, r"shape \[3, 67, 67\]"),
    ({"shape": (0, 67, 3)}, r"shape \[0, 67, 3\]"),
    ({"shape": (1, 67, 67, 3)}, "shape"),
    ({"shape": (33, 67, 3), "strides": (402, 3, 1)}, "not contiguous"),
    ({"strides": (3, 201, 1)}, "not contiguous"),
    ({"strides": (201, 3, -1)}, "not contiguous"),
]


@pytest.mark.parametrize(("said", "message"), REFUSED)
def test_what_is_no_picture_is_refused_and_the_next_one_is_answered(
    said: dict[str, object], message: str
) -> None:
    cascade = gpu(SimulatedDevice())
    bad, good = (Array(cascade.device, portrait(), **more) for more in (said, {}))
    for work in (
        lambda: cascade.detect(bad, OPTIONS),
        lambda: cascade.detect_all([portrait(), good, bad, good], OPTIONS),
        lambda: cascade.anonymize_array(bad, OPTIONS, cover),
    ):
        with pytest.raises(InvalidImage, match=message):
            cast(Callable[[], object], work)()
    assert len(cascade.detect(good, OPTIONS)) == 1
    assert np.array_equal(bad.block.array, portrait().ravel())


def test_an_array_that_would_be_covered_where_it_lies_is_refused() -> None:
    cascade = gpu(SimulatedDevice())
    array: Any = Array(cascade.device, portrait())
    with pytest.raises(InvalidImage):
        cascade.anonymize(array, OPTIONS, cover)
    with pytest.raises(InvalidImage):
        list(cascade.anonymize_all([array], OPTIONS, cover))
    assert np.array_equal(array.block.array, portrait().ravel())


def test_arrays_in_main_memory_do_not_lie_on_a_gpu() -> None:
    class OnlyDlpack:
        def __dlpack_device__(self) -> tuple[int, int]:
            return (2, 0)

    assert is_resident(Array(SimulatedDevice(), portrait()))
    assert is_resident(OnlyDlpack())
    for image in (portrait(), b"", "picture.jpg", None, [portrait()], 7):
        assert not is_resident(image)


# Anonymization -------------------------------------------------------------------------------


def covered_on(device: SimulatedDevice, image: Image) -> Image:
    return gpu(device).anonymize(image, OPTIONS, cover)[0]


@DEVICES
def test_an_array_is_covered_in_a_copy_as_a_picture_in_main_memory(
    kind: type[SimulatedDevice],
) -> None:
    cascade, image = gpu(kind()), portrait()
    array = Array(cascade.device, image)
    covered, faces = cascade.anonymize_array(array, OPTIONS, cover)
    assert same(faces, cascade.detect(image, OPTIONS))
    assert len(faces) == 1
    assert covered.shape == image.shape
    assert np.array_equal(pixels_of(covered), covered_on(kind(), image))
    assert np.abs(pixels_of(covered) - apply_masks(image, faces.boxes, MASKS).astype(int)).max() < 3
    assert np.array_equal(array.block.array, image.ravel())


class OnDevice:
    """A `Detector` whose GPU is a simulated one."""

    def __init__(self) -> None:
        self.cascade = gpu(SimulatedDevice())

    def cover(self, image: CudaArray, plan: Any, options: DetectOptions) -> Any:
        return self.cascade.anonymize_array(image, options, plan)


def test_a_face_on_the_device_is_kept_and_a_place_covered() -> None:
    local, image = Local(cast("Any", OnDevice())), portrait()
    device, place = local.detector.cascade.device, (2.0, 2.0, 9.0, 9.0)  # type: ignore[attr-defined]
    found = local.detector.cascade.detect(image, OPTIONS)  # type: ignore[attr-defined]
    kept = local.anonymize_with_faces(
        Array(device, image), min_face=24, keep=[found[0].box], cover=[place], method="solid"
    )
    expected = apply_masks(image, [place], MaskOptions(method="solid"))
    assert np.array_equal(pixels_of(kept.image), expected)
    assert (len(kept.faces), len(kept.kept)) == (0, 1)
    for refused in ({"verify": True}, {"cover_only": True}):
        with pytest.raises(InvalidOption, match="on a GPU"):
            local.anonymize_with_faces(Array(device, image), **refused)


def test_a_result_stays_when_others_come_and_when_the_cascade_goes() -> None:
    cascade = gpu(LateDevice())
    images = [portrait(), noise(67, 67), portrait(2), portrait()]
    results = [
        cascade.anonymize_array(Array(cascade.device, image), OPTIONS, cover)[0] for image in images
    ]
    cascade.close()
    for image, result in zip(images, results, strict=True):
        assert np.array_equal(pixels_of(result), covered_on(SimulatedDevice(), image))


def test_a_result_is_a_picture_on_the_device_too() -> None:
    cascade = gpu(SimulatedDevice())
    covered, _ = cascade.anonymize_array(Array(cascade.device, portrait()), OPTIONS, cover)
    assert is_resident(covered)
    assert cascade.detect(covered, OPTIONS).width == 67
    again, _ = cascade.anonymize_array(covered, OPTIONS, cover)
    assert again.__cuda_array_interface__["data"] != covered.__cuda_array_interface__["data"]


def test_the_memory_of_a_result_is_freed_when_it_goes_and_no_earlier() -> None:
    cascade = gpu(device := LateDevice())
    array = Array(device, portrait())
    cascade.anonymize_array(array, OPTIONS, cover)  # the cascade has all it needs
    before = open_blocks(device)
    covered, _ = cascade.anonymize_array(array, OPTIONS, cover)
    assert open_blocks(device) == before + 1
    holder = type("Tensor", (), {"owner": covered})()
    del covered
    assert open_blocks(device) == before + 1
    del holder
    gc.collect()
    assert open_blocks(device) == before


def open_blocks(device: LateDevice) -> int:
    return sum(block.pointer != 0 for block in device.blocks)


def test_memory_that_cannot_be_freed_any_more_says_nothing() -> None:
    class Lost(Block):
        def close(self) -> None:
            super().close()
            raise DeviceFailure("the GPU is gone")

    image = DeviceImage(Lost(12), 2, 2)
    del image
    gc.collect()  # warnings are errors in tests


def test_whatever_call_fails_no_pixels_come_out_and_none_are_written() -> None:
    sound = gpu(device := SimulatedDevice())
    array = Array(device, portrait())
    begin = device.calls
    sound.anonymize_array(array, OPTIONS, cover)
    for number in range(begin + 1, device.calls + 1):
        late = LateDevice()
        cascade, array = gpu(late), Array(late, portrait())
        before = open_blocks(late)
        late.fail = fail_at(late.calls + number - begin)
        with pytest.raises(DeviceFailure, match="failed"):
            cascade.anonymize_array(array, OPTIONS, cover)
        late.fail = None
        for stream in late.streams:
            stream.pending.clear()  # what was begun is lost with the GPU
        assert np.array_equal(array.block.array, portrait().ravel())
        cascade.close()
        gc.collect()
        assert open_blocks(late) == 1 < before, "the array alone"


def fail_at(call: int) -> Callable[[int, str], None]:
    def fail(number: int, what: str) -> None:
        if number == call:
            raise DeviceFailure(f"{what} failed")

    return fail


def test_faces_that_cannot_be_planned_leave_nothing_behind() -> None:
    def confused(faces: Faces) -> Masks:
        raise ValueError("no plan")

    cascade = gpu(device := LateDevice())
    array = Array(device, portrait())
    cascade.detect(array, OPTIONS)
    before = open_blocks(device)
    with pytest.raises(ValueError, match="no plan"):
        cascade.anonymize_array(array, OPTIONS, confused)
    gc.collect()
    assert open_blocks(device) == before
    assert np.array_equal(array.block.array, portrait().ravel())


def test_a_picture_beyond_the_device_is_refused_as_such() -> None:
    cascade = gpu(SimulatedDevice())
    wide = Array(cascade.device, np.zeros((1, 65536, 3), np.uint8))
    with pytest.raises(BeyondDevice, match="65535 a side"):
        cascade.detect(wide, OPTIONS)
    with pytest.raises(BeyondDevice, match="65535 a side"):
        cascade.anonymize_array(wide, OPTIONS, cover)


# cuda-core -----------------------------------------------------------------------------------

ON_THE_DRIVER = """
import ctypes, gc, sys, weakref
sys.path[:0] = {path!r}
import numpy as np
from workbench import weights
from test_resident import OPTIONS, Array, cover, fill, pixels_of, portrait
from unface.errors import InvalidImage
from unface.gpu.arrays import view_resident
from unface.gpu.cascade import GpuCascade
from unface.gpu.cuda import open_cuda
from unface.gpu.networks import KernelNetworks

class Held:
    def __init__(self, device, image, **said):
        self.memory = device.allocate(image.size)
        fill(self.memory.pointer, image)
        self.__cuda_array_interface__ = dict(
            shape=image.shape, strides=None, typestr="|u1",
            data=(self.memory.pointer, False), version=3, stream=None) | said

device = open_cuda()
cascade = GpuCascade(device, KernelNetworks(device, weights()))
array = Held(device, portrait())
expected = cascade.detect(portrait(), OPTIONS)
for faces in (cascade.detect(array, OPTIONS), *cascade.detect_all([array, portrait()], OPTIONS)):
    assert np.array_equal(faces.boxes, expected.boxes) and len(faces) == 1
covered, _ = cascade.anonymize_array(array, OPTIONS, cover)
assert np.array_equal(pixels_of(covered), cascade.anonymize(portrait(), OPTIONS, cover)[0])
try:
    view_resident(array, cascade.urgent.stream.handle, 1)
except InvalidImage as error:
    assert "lies on device 0; GPU 1 works here" in str(error)
else:
    raise AssertionError("it lies elsewhere")
for bad in (dict(typestr="<f4"), dict(shape=(67, 67)), dict(strides=(3, 201, 1)), dict(data=None)):
    try:
        cascade.detect(Held(device, portrait(), **bad), OPTIONS)
    except InvalidImage:
        continue
    raise AssertionError(bad)
view = device.view(array, cascade.urgent.stream)
alive = weakref.ref(array)
del array
gc.collect()
assert alive() is not None
del view
gc.collect()
assert alive() is None
cascade.close()
assert np.abs(pixels_of(covered).astype(int) - portrait()).max() > 0
driver = ctypes.CDLL("libcuda.so.1")
before = driver.count_calls()
del covered
assert driver.count_calls() > before, "it is freed"

lost = open_cuda()
memory = lost.allocate(8)
driver.fail_after(1)
lost.close()  # and its context is made anew
before = driver.count_calls()
memory.close()
assert driver.count_calls() == before, "others may lie there now"
again = open_cuda().allocate(8)
before = driver.count_calls()
again.close()
assert driver.count_calls() > before
print("all of it")
"""


def fill(pointer: int, image: Image) -> None:
    ctypes.memmove(pointer, image.ctypes.data, image.nbytes)


def test_arrays_are_taken_and_given_by_cuda_core_too() -> None:
    pytest.importorskip("cuda.core", reason="cuda-core comes with unface[gpu]")
    from unface.gpu.program import compile_kernels

    folder = driver_folder()
    compile_kernels("sm_90")  # NVRTC dies of the simulated driver: it must find them compiled
    code = ON_THE_DRIVER.format(path=list(search_path()))
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "all of it\n"), done.stderr[-3000:]
    assert done.stderr == ""


def search_path() -> Iterator[str]:
    here = os.path.dirname(os.path.abspath(__file__))
    yield from (here, os.path.dirname(here))


def test_an_array_is_what_the_type_says() -> None:
    array: CudaArray = Array(SimulatedDevice(), portrait())
    assert array.__cuda_array_interface__["version"] == 3
