"""Whatever a GPU does wrong, and whenever: the CPU answers, the answer says so, nothing is lost."""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from failing_gpus import Simulated, Socket, eventually, needs_the_simulator
from scenes import astronaut

import unface
from unface.anonymize import MaskOptions, plan_masks
from unface.engines import cascades as cascades_module
from unface.engines.cascades import Cascades
from unface.engines.device import check_picture, read_weights
from unface.engines.fallback import PAUSES, Gpu
from unface.engines.shelf import read_shelf
from unface.errors import EngineError, InvalidImage, InvalidOption
from unface.gpu.cascade import GpuCascade
from unface.gpu.device import Device, DeviceFailure
from unface.gpu.networks import KernelNetworks
from unface.mtcnn.faces import Faces
from unface.mtcnn.options import DetectOptions

FACE = np.ascontiguousarray(astronaut()[20:220:2, 120:320:2])  # 100 x 100
BLANK = np.full((60, 70, 3), 99, np.uint8)
WIDE = np.zeros((12, 65536, 3), np.uint8)  # more than a GPU takes a side
OPTIONS = DetectOptions(min_face=40)
NEVER = (3600.0,)  # pauses before a GPU is tried again
AT_ONCE = (0.0,)


@pytest.fixture(autouse=True)
def logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "unface.engines")


@pytest.fixture
def socket() -> Socket:
    needs_the_simulator()
    return Socket()


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the look at a picture, which most of a simulated GPU's opening goes into."""
    weights = read_weights(read_shelf(), allow_uncertified=False)

    def open_cascade(device: Device, **folder: Any) -> GpuCascade:
        return GpuCascade(device, KernelNetworks(device, weights))

    monkeypatch.setattr(cascades_module, "open_cascade", open_cascade)


@pytest.fixture(scope="module")
def on_cpu() -> Iterator[Cascades]:
    opened = Cascades(threads=2)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def expected(on_cpu: Cascades) -> Faces:
    faces = on_cpu.detect(FACE, OPTIONS)
    assert len(faces) == 1
    return faces


def with_gpu(socket: Socket, device: str = "gpu", **others: Any) -> Cascades:
    return Cascades(threads=2, device=device, open_device=socket.open, **{"pauses": NEVER} | others)


def same(found: Faces, expected: Faces) -> bool:
    """Whether all is as expected; a GPU's box within a pixel."""
    if (found.width, found.height, len(found)) != (expected.width, expected.height, len(expected)):
        return False
    exact = found.backend == expected.backend
    return np.allclose(found.boxes, expected.boxes, atol=0 if exact else 1)


def errors(caplog: pytest.LogCaptureFixture, level: int = logging.ERROR) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == level]


def test_a_gpu_serves_and_every_answer_names_it(socket: Socket, expected: Faces) -> None:
    opened = with_gpu(socket, "auto")
    assert opened.serving == ("cuda", "fp16", "simulator", "")
    for precision in (None, "fp32", "fp16", "int8"):
        faces = opened.detect(FACE, DetectOptions(min_face=40, precision=precision))
        assert (faces.backend, faces.precision) == ("cuda", "fp16")
        assert same(faces, expected)
    opened.close()
    assert socket.devices[0].closed == 1


def test_engines_that_only_the_cpu_has_stay_there(socket: Socket) -> None:
    opened = with_gpu(socket)
    faces = opened.detect(FACE, DetectOptions(min_face=40, precision="mixed"))
    several = opened.detect_all([FACE, BLANK], DetectOptions(min_face=40, precision="mixed"))
    assert {(f.backend, f.precision) for f in (faces, *several)} == {("tflite", "mixed")}
    with pytest.raises(InvalidOption, match="there are"):
        opened.detect(FACE, DetectOptions(precision="int4"))
    assert opened.serving.device  # all the same
    opened.close()


@pytest.mark.usefixtures("unchecked")
def test_whatever_call_of_a_detection_fails_the_cpu_answers(
    socket: Socket, expected: Faces, caplog: pytest.LogCaptureFixture
) -> None:
    opened = with_gpu(socket)
    opening = len(socket.calls)
    opened.detect(FACE, OPTIONS)
    calls = list(socket.calls)
    assert {"allocate", "copy", "record", "replay", "pnet", "synchronize"} <= {*calls[opening:]}
    for number in range(opening + 1, len(calls) + 1):
        socket.fail_at = number
        caplog.clear()
        failing = with_gpu(socket)
        assert failing.serving.device
        faces = failing.detect(FACE, OPTIONS)
        assert faces.backend == expected.backend
        assert same(faces, expected)
        assert failing.serving[:3] == (expected.backend, "fp32", "")
        assert f"call {number} ({calls[number - 1]}) failed" in failing.serving.device_reason
        assert len(errors(caplog)) == 1
        assert failing.serving.device_reason in errors(caplog)[0]
        assert same(failing.detect(FACE, OPTIONS), expected)
        assert len(errors(caplog)) == 1  # said once
        failing.close()
        eventually(lambda: socket.devices[-1].closed > 0)


def test_whatever_call_fails_while_it_is_opened_the_cpu_serves(
    socket: Socket, expected: Faces
) -> None:
    opened = with_gpu(socket)
    calls = list(socket.calls)
    assert {"stream", "allocate_host", "record", "onet_dense"} <= {*calls}
    assert calls[-1] == "synchronize"
    opened.close()
    for number, name in enumerate(calls, 1):
        socket.fail_at = number
        opened = with_gpu(socket)
        assert opened.serving == (
            *(expected.backend, "fp32", ""),
            f"call {number} ({name}) failed",
        )
        assert socket.devices[-1].closed > 0
        opened.close()
    assert same(opened.detect(FACE, OPTIONS), expected)


@pytest.mark.usefixtures("unchecked")
def test_a_list_is_answered_whole_and_in_order_whatever_call_fails(
    socket: Socket, on_cpu: Cascades
) -> None:
    mirrored = np.ascontiguousarray(FACE[:, ::-1])
    pictures = [FACE, BLANK, FACE[:90], BLANK[:50], mirrored, BLANK, BLANK, FACE]  # and 6 lanes
    expected = on_cpu.detect_all(pictures, OPTIONS)
    opened = with_gpu(socket)
    opening = len(socket.calls)
    answers = opened.detect_all(pictures, OPTIONS)
    assert {faces.backend for faces in answers} == {"cuda"}
    assert all(map(same, answers, expected))
    last = len(socket.calls)
    opened.close()
    for number in (*range(opening + 1, last, 37), last):
        socket.fail_at = number
        failing = with_gpu(socket)
        answers = failing.detect_all(pictures, OPTIONS)
        assert [faces.backend for faces in answers] == [expected[0].backend] * len(pictures)
        assert all(map(same, answers, expected)), number
        failing.close()


@pytest.mark.parametrize("raised", [RuntimeError, MemoryError, OSError, EngineError, KeyError])
def test_the_cpu_answers_whatever_is_raised(
    socket: Socket, expected: Faces, raised: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    opened = with_gpu(socket)
    socket.error, socket.lost = raised, True
    assert same(opened.detect(FACE, OPTIONS), expected)
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert (record.exc_info is None) is (raised is EngineError)  # a defect shows where it was
    opened.close()


def test_values_that_are_no_numbers_are_a_failure_and_never_no_faces(
    socket: Socket, expected: Faces
) -> None:
    opened = with_gpu(socket)
    assert opened.detect(FACE, OPTIONS).backend == "cuda"
    for block in socket.devices[0].blocks[:3]:  # the weights
        block.array[:] = 0xFF
    faces = opened.detect(FACE, OPTIONS)
    assert faces.backend == expected.backend
    assert same(faces, expected)
    assert "no numbers" in opened.serving.device_reason
    opened.close()


def test_it_comes_back_and_serves_from_the_next_call(
    socket: Socket, expected: Faces, caplog: pytest.LogCaptureFixture
) -> None:
    opened = with_gpu(socket, pauses=AT_ONCE)
    changes: list[str] = []
    opened.watch(lambda: changes.append(opened.serving.backend))
    socket.lost = True
    assert opened.detect(FACE, OPTIONS).backend == expected.backend
    eventually(lambda: socket.attempts > 5)
    assert opened.detect(FACE, OPTIONS).backend == expected.backend
    assert "no GPU answers" in opened.serving.device_reason
    socket.lost = False
    eventually(lambda: bool(opened.serving.device))
    faces = opened.detect(FACE, OPTIONS)
    assert (faces.backend, faces.precision) == ("cuda", "fp16")
    assert same(faces, expected)
    eventually(lambda: len(changes) == 2)
    assert changes == [expected.backend, "cuda"]
    assert len(errors(caplog)) == 1
    assert [m for m in errors(caplog, logging.WARNING) if "BACK" in m] == [
        "THE GPU IS BACK and serves: simulator"
    ]
    opened.close()
    assert [device.closed for device in socket.devices] == [1] * len(socket.devices)


def test_a_gpu_that_cannot_be_closed_in_order_is_let_go_and_comes_back(socket: Socket) -> None:
    opened = with_gpu(socket, pauses=AT_ONCE)
    opened.detect(FACE, OPTIONS)
    socket.devices[0].fails_to_close = True
    socket.lost = True
    opened.detect(FACE, OPTIONS)
    eventually(lambda: socket.devices[0].closed > 0)  # though its lanes could not be closed
    socket.lost = False
    eventually(lambda: bool(opened.serving.device))
    socket.devices[-1].fails_to_close = True
    opened.close()


@pytest.mark.parametrize("weights", [0, 1, 2], ids=["pnet", "rnet", "onet"])
def test_a_gpu_that_computes_wrongly_is_never_used(
    socket: Socket, expected: Faces, weights: int, caplog: pytest.LogCaptureFixture
) -> None:
    def forgetful() -> Any:
        device = cast(Simulated, socket.open())
        device.fail = lambda number, name: forget(device, name)
        return device

    def forget(device: Simulated, name: str) -> None:
        if name == "replay":  # half of the weights, once they are all there
            block = device.blocks[weights].array
            block[len(block) // 4 : -len(block) // 4] = 0

    opened = Cascades(threads=2, device="auto", open_device=forgetful, pauses=NEVER)
    assert opened.serving.device == ""
    assert "the GPU gives other faces than the CPU" in opened.serving.device_reason
    assert "other faces" in errors(caplog, logging.WARNING)[0]  # loud: there is a GPU
    assert same(opened.detect(FACE, OPTIONS), expected)
    opened.close()


def test_a_picture_beyond_the_gpu_goes_to_the_cpu_and_the_gpu_stays(
    socket: Socket, expected: Faces, caplog: pytest.LogCaptureFixture
) -> None:
    opened = with_gpu(socket)
    assert opened.detect(WIDE, OPTIONS).backend == expected.backend
    assert opened.detect(FACE, OPTIONS).backend == "cuda"
    answers = opened.detect_all([FACE, BLANK, WIDE, FACE], OPTIONS)
    assert [f.backend for f in answers] == ["cuda", "cuda", expected.backend, "cuda"]
    assert [f.width for f in answers] == [100, 70, 65536, 100]
    assert same(answers[3], expected)
    assert opened.serving.device
    assert not errors(caplog)
    opened.close()


def test_what_is_no_picture_is_refused_and_the_gpu_stays(socket: Socket) -> None:
    opened = with_gpu(socket)
    with pytest.raises(InvalidImage):
        opened.detect(FACE.astype(np.float32), OPTIONS)  # type: ignore[arg-type]
    with pytest.raises(InvalidImage):
        opened.detect_all([FACE, FACE[0]], OPTIONS)
    assert opened.serving.device
    assert opened.detect_all([], OPTIONS) == []
    opened.close()


class Array:
    """As CuPy's: a picture on the simulated GPU."""

    def __init__(self, image: Any) -> None:
        self.memory = image.copy()
        self.__cuda_array_interface__ = self.memory.__array_interface__


def plan(faces: Faces) -> Any:
    return plan_masks(faces.width, faces.height, faces.boxes, MaskOptions())


def test_arrays_on_the_gpu_are_answered_by_it(socket: Socket, expected: Faces) -> None:
    opened = with_gpu(socket)
    array = Array(FACE)
    faces = opened.detect(array, OPTIONS)
    assert faces.backend == "cuda"
    assert same(faces, expected)
    answers = opened.detect_all([array, BLANK, FACE, Array(BLANK)], OPTIONS)
    assert [(f.backend, len(f)) for f in answers] == [("cuda", n) for n in (1, 0, 1, 0)]
    covered, found = opened.anonymize(array, OPTIONS, plan)
    assert same(found, expected)
    assert covered.shape == FACE.shape
    assert (array.memory == FACE).all()
    with pytest.raises(InvalidImage, match="shape"):
        opened.detect(Array(FACE[0]), OPTIONS)
    assert opened.serving.device
    opened.close()


def resident_calls(opened: Cascades) -> list[Callable[[], object]]:
    """Return the calls that a GPU alone can answer."""
    array = Array(FACE)
    return [
        lambda: opened.detect(array, OPTIONS),
        lambda: opened.detect_all([array], OPTIONS),
        lambda: opened.detect_all([FACE, BLANK, array], OPTIONS),
        lambda: opened.anonymize(array, OPTIONS, plan),
    ]


@pytest.mark.parametrize("call", range(4))
def test_an_array_on_a_gpu_that_fails_is_an_error_that_says_why(
    socket: Socket, expected: Faces, call: int, caplog: pytest.LogCaptureFixture
) -> None:
    opened = with_gpu(socket, pauses=AT_ONCE)
    socket.lost = True
    for _ in range(3):
        with pytest.raises(EngineError, match=r"lies on a GPU, and none serves: .*; for"):
            resident_calls(opened)[call]()
    assert len(errors(caplog)) == 1
    assert same(opened.detect(FACE, OPTIONS), expected)
    socket.lost = False
    eventually(lambda: bool(opened.serving.device))
    resident_calls(opened)[call]()
    opened.close()
    with pytest.raises(EngineError, match="none serves"):
        resident_calls(opened)[call]()


@pytest.mark.usefixtures("unchecked")
def test_whatever_call_fails_an_array_on_the_gpu_is_never_answered_by_halves(
    socket: Socket, expected: Faces
) -> None:
    array = Array(FACE)
    opened = with_gpu(socket)
    opening = len(socket.calls)
    opened.anonymize(array, OPTIONS, plan)
    calls = list(socket.calls)
    for number in range(opening + 1, len(calls) + 1, 3):
        socket.fail_at = number
        failing = with_gpu(socket)
        with pytest.raises(EngineError, match=rf"call {number} \({calls[number - 1]}\) failed"):
            failing.anonymize(array, OPTIONS, plan)
        assert same(failing.detect(FACE, OPTIONS), expected)
        failing.close()
    assert (array.memory == FACE).all()


def test_an_array_on_a_gpu_where_only_the_cpu_serves_is_an_error(on_cpu: Cascades) -> None:
    for call in resident_calls(on_cpu):
        with pytest.raises(EngineError, match="none serves: device is cpu"):
            call()


def test_an_array_on_a_gpu_for_engines_that_only_the_cpu_has_is_an_error(socket: Socket) -> None:
    opened, array = with_gpu(socket), Array(FACE)
    mixed = DetectOptions(precision="mixed")
    with pytest.raises(EngineError, match="mixed engines run on the CPU alone"):
        opened.detect(array, mixed)
    with pytest.raises(EngineError, match="mixed engines run on the CPU alone"):
        opened.anonymize(array, mixed, plan)
    assert opened.serving.device
    opened.close()


def test_an_array_beyond_the_gpu_is_an_error_and_the_gpu_stays(
    socket: Socket, caplog: pytest.LogCaptureFixture
) -> None:
    opened, wide = with_gpu(socket), Array(WIDE)
    for call in (
        lambda: opened.detect(wide, OPTIONS),
        lambda: opened.detect_all([FACE, wide], OPTIONS),
        lambda: opened.anonymize(wide, OPTIONS, plan),
    ):
        with pytest.raises(EngineError, match="65535 a side"):
            call()
    assert opened.serving.device
    assert not errors(caplog)
    opened.close()


def test_auto_is_quiet_where_there_is_no_gpu_and_does_not_wait_for_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    socket = Socket()
    socket.lost = True
    before = threading.active_count()
    opened = with_gpu(socket, "auto", pauses=AT_ONCE)
    assert opened.serving.device_reason == "no GPU answers"
    assert [(r.levelname, r.message) for r in caplog.records] == [
        ("INFO", "the CPU serves: no GPU answers")
    ]
    assert threading.active_count() == before
    assert socket.attempts == 1
    opened.close()


def test_a_gpu_that_was_asked_for_is_missed_loudly_and_waited_for(
    socket: Socket, caplog: pytest.LogCaptureFixture
) -> None:
    socket.lost = True
    opened = with_gpu(socket, "gpu", pauses=AT_ONCE)
    assert errors(caplog, logging.WARNING) == ["NO GPU IN USE, the CPU serves: no GPU answers"]
    assert opened.detect(FACE, OPTIONS).backend == opened.serving.backend
    socket.lost = False
    eventually(lambda: bool(opened.serving.device))
    opened.close()


def test_cpu_leaves_the_gpu_alone_and_other_names_are_refused() -> None:
    socket = Socket()
    opened = with_gpu(socket, "cpu")
    assert (opened.serving.device, opened.serving.device_reason) == ("", "device is cpu")
    assert socket.attempts == 0
    opened.close()
    for name in ("tpu", "", "GPU"):
        with pytest.raises(InvalidOption, match=r"device is '.*'; there are auto, cpu, gpu"):
            with_gpu(socket, name)
        with pytest.raises(InvalidOption, match="there are auto, cpu, gpu"):
            unface.Detector(device=name)


def test_closing_does_not_wait_for_a_gpu_that_is_being_opened(
    socket: Socket, caplog: pytest.LogCaptureFixture
) -> None:
    opened = with_gpu(socket, pauses=AT_ONCE)
    entered, go_on = threading.Event(), threading.Event()
    honest = socket.open

    def slow() -> Any:
        entered.set()
        assert go_on.wait(20)
        return honest()

    opened._gpu._open_device = slow  # type: ignore[union-attr]
    socket.lost = True
    opened.detect(FACE, OPTIONS)
    assert entered.wait(20)
    begin = time.monotonic()
    opened.close()
    assert time.monotonic() - begin < 5
    socket.lost = False
    go_on.set()  # and now it opens, for nobody
    eventually(lambda: len(socket.devices) == 2 and socket.devices[1].closed == 1)
    assert not opened.serving.device
    assert not [m for m in errors(caplog, logging.WARNING) if "BACK" in m]


def folder_of(tmp_path: Path, runtimes: tuple[str, ...], **changes: Any) -> Path:
    """Write a folder of engines of a user: some of those that ship."""
    source = Path(unface.__file__).parent.parent / "engines" / "prebuilt"
    manifest = json.loads((source / "manifest.json").read_text())
    manifest["engines"] = [e for e in manifest["engines"] if e["runtime"] in runtimes]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | changes))
    for engine in manifest["engines"]:
        (tmp_path / engine["file"]).write_bytes((source / engine["file"]).read_bytes())
    return tmp_path


def test_a_folder_of_engines_serves_from_the_gpu_too(socket: Socket, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, ("native", "tflite"))
    opened = with_gpu(socket, folder=folder)
    assert opened.serving.device
    opened.close()


def test_a_folder_without_weights_for_a_gpu_serves_from_the_cpu(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    socket, folder = Socket(), folder_of(tmp_path, ("tflite",))
    opened = with_gpu(socket, folder=folder)
    assert (opened.serving.backend, opened.serving.precision) == ("tflite", "fp32")
    assert "no fp32 engines of the compiled core" in opened.serving.device_reason
    assert opened.serving.device_reason in errors(caplog, logging.WARNING)[0]
    assert socket.attempts == 0
    opened.close()


def test_engines_that_may_not_serve_do_not_serve_from_a_gpu_either(
    socket: Socket, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path, ("native", "tflite"))
    (folder / "onet.fp32.npz").write_bytes(b"damaged")
    opened = with_gpu(socket, precision="int8", folder=folder)
    assert "onet.fp32.npz is damaged" in opened.serving.device_reason
    assert socket.devices[-1].closed == 1
    opened.close()
    folder = folder_of(tmp_path, ("native", "tflite"), certificates=[])
    with pytest.raises(EngineError, match="no certificate"):
        with_gpu(socket, folder=folder)
    opened = with_gpu(socket, folder=folder, allow_uncertified=True)
    assert opened.serving.device
    opened.close()


def test_a_detector_says_which_device_serves_it(
    socket: Socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unface.gpu.cuda.open_cuda", socket.open)
    with unface.Detector(min_face=40, threads=2) as detector:
        assert (detector.backend, detector.precision) == ("cuda", "fp16")
        assert (detector.device, detector.device_reason) == ("simulator", "")
        assert [f.backend for f in detector.detect([FACE, BLANK])] == ["cuda", "cuda"]
        socket.lost = True
        answers = detector.detect([FACE, BLANK])
        assert [len(faces) for faces in answers] == [1, 0]
        assert {faces.backend for faces in answers} == {detector.backend} != {"cuda"}
        assert (detector.precision, detector.device) == ("fp32", "")
        assert "failed" in detector.device_reason
    with unface.Detector(threads=2, device="cpu") as detector:
        assert detector.device == ""


class FakeCascade:
    """Stands for a GPU's cascade where only its life is looked at."""

    def __init__(self, device: Any) -> None:
        self.device, self.closed = device, False

    def close(self) -> None:
        assert not self.closed
        self.closed = True


def test_pauses_grow_and_begin_anew_after_it_has_served_well() -> None:
    assert PAUSES == (5, 10, 20, 40, 80, 160, 300)

    class Asked(list[float]):
        places: list[int] = []  # noqa: RUF012

        def __getitem__(self, place: Any) -> Any:
            if place >= 0:
                self.places.append(place)
            return super().__getitem__(place)

    now, answers = 1000.0, iter([True, False, False, False, True, True, True])

    def opened(device: Any) -> Any:
        if not next(answers):
            raise DeviceFailure("not yet")
        return FakeCascade(device)

    def fail(gpu: Any) -> None:
        raise DeviceFailure("lost")

    device = type("D", (), {"name": "fake"})()
    asked = Asked([0, 0, 0])
    gpu = Gpu(lambda: device, opened, wanted=True, pauses=asked, clock=lambda: now)  # type: ignore[arg-type]
    for later, places in ((1000, [0, 1, 2, 2]), (0, [2]), (1, [0])):
        asked.places.clear()
        now += later
        gpu.run(fail)
        eventually(lambda: gpu.cascade is not None)
        assert asked.places == places
    gpu.close()


def test_callers_lose_nothing_while_it_goes_and_comes() -> None:
    """A GPU that fails at random and comes back at once; every call is answered by one of both."""
    fakes: list[FakeCascade] = []
    chance = random.Random(7)  # noqa: S311 - for a test

    def opened(device: Any) -> Any:
        if chance.random() < 0.3:
            raise DeviceFailure("not now")
        fakes.append(FakeCascade(device))
        return fakes[-1]

    def work(cascade: Any) -> int:
        assert not cascade.closed
        if chance.random() < 0.2:
            raise DeviceFailure("lost")
        return 1

    device = type("D", (), {"name": "fake"})()
    gpu = Gpu(lambda: device, opened, wanted=True, pauses=AT_ONCE)
    answers = []
    for _ in range(3000):
        answers.append(gpu.run(work))
        if answers[-1] is None:
            time.sleep(0.0005)
    gpu.close()
    assert {*answers} == {1, None}
    assert len(fakes) > 20
    eventually(lambda: all(fake.closed for fake in fakes))


def test_the_picture_for_the_check_holds_two_faces(on_cpu: Cascades) -> None:
    assert check_picture().shape == (100, 150, 3)
    assert len(on_cpu.detect(check_picture(), DetectOptions())) == 2
