"""The whole cascade on the simulated GPU finds what the CPU finds, whatever comes in between."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from deferred import LateDevice
from scenes import astronaut, compose, crowd, iou
from simulated import SimulatedDevice
from workbench import (
    Image,
    assert_nearly_the_same,
    checkerboard,
    cpu_engines,
    needs_simulator,
    noise,
    same,
    weights,
)

from unface.engines.shelf import open_named
from unface.errors import EngineError, InvalidImage
from unface.gpu import lane as lane_module
from unface.gpu.cascade import GpuCascade, to_faces
from unface.gpu.lane import Lane
from unface.gpu.networks import KernelNetworks
from unface.gpu.plan import BeyondDevice, plan_frame
from unface.mtcnn import Cascade, DetectOptions, Faces

pytestmark = needs_simulator

SCENES: dict[str, tuple[Callable[[], Image], DetectOptions]] = {
    "portrait": (astronaut, DetectOptions(min_face=40)),
    "a large minimum face": (astronaut, DetectOptions(min_face=100)),
    "odd size": (lambda: astronaut()[3:300, 5:350], DetectOptions(min_face=30)),
    "several sizes": (
        lambda: compose(600, 330, [(10, 10, 30), (90, 30, 45), (330, 10, 110)]).image,
        DetectOptions(min_face=24),
    ),
    "across the border": (
        lambda: compose(500, 300, [(-60, 20, 100), (380, 160, 90)]).image,
        DetectOptions(),
    ),
    "crowd": (lambda: crowd(3, 2, 30).image, DetectOptions()),
    "close levels": (lambda: crowd(2, 2, 30).image, DetectOptions(24, scale_factor=0.9)),
    "no face": (lambda: compose(300, 260, []).image, DetectOptions()),
    "low thresholds": (
        lambda: compose(300, 260, [(20, 20, 60)]).image,
        DetectOptions(thresholds=(0.5, 0.6, 0.5)),
    ),
}
OPTIONS = DetectOptions(min_face=40)


def portrait(step: int = 2) -> Image:
    """One face, 100 x 100 pixels or fewer."""
    return np.ascontiguousarray(astronaut()[20:220:step, 120:320:step])


def picture(scene: str) -> Image:
    return np.ascontiguousarray(SCENES[scene][0]())


def gpu(device: SimulatedDevice | None = None, lanes: int = 2) -> GpuCascade:
    device = device or SimulatedDevice()
    return GpuCascade(device, KernelNetworks(device, weights()), lanes)


@pytest.fixture(scope="module")
def cascade() -> GpuCascade:
    return gpu(SimulatedDevice(seed=11))


@pytest.fixture(scope="module")
def cpu() -> Iterator[Cascade]:
    opened = Cascade(open_named("fp32", threads=1))
    yield opened
    opened.close()


@pytest.mark.parametrize("scene", SCENES)
def test_the_gpu_finds_what_the_cpu_finds(scene: str, cascade: GpuCascade, cpu: Cascade) -> None:
    options = SCENES[scene][1]
    faces, expected = (c.detect(picture(scene), options) for c in (cascade, cpu))
    assert_nearly_the_same(faces, expected)
    assert len(expected) or scene == "no face"
    assert (np.diff(faces.scores) <= 0).all(), "best first"
    assert (faces.backend, faces.precision) == ("cuda", "fp16")
    assert (faces.width, faces.height) == (expected.width, expected.height)
    assert faces.boxes.dtype == faces.scores.dtype == faces.landmarks.dtype == np.float32
    assert (faces.boxes >= 0).all()
    assert (faces.boxes <= [faces.width, faces.height] * 2).all()


@pytest.mark.slow
@pytest.mark.parametrize("scene", SCENES)
def test_the_gpu_finds_what_the_reference_finds(scene: str, cascade: GpuCascade) -> None:
    pytest.importorskip("torch", reason="torch comes with unface[engines]")
    from unface.mtcnn import reference
    from unface.mtcnn.networks import torch_networks

    options = SCENES[scene][1]
    expected = reference.detect(picture(scene), torch_networks(), options)
    assert_nearly_the_same(cascade.detect(picture(scene), options), expected)


@pytest.mark.parametrize("scene", ["several sizes", "close levels"])
def test_no_order_of_threads_and_blocks_changes_a_bit(scene: str) -> None:
    """Our check for races: what two threads do without agreeing on it would differ."""
    options = SCENES[scene][1]
    found = [gpu(SimulatedDevice(seed)).detect(picture(scene), options) for seed in (0, 1)]
    assert len(found[0]) > 2
    assert all(same(found[0], other) for other in found[1:])


def test_nothing_of_one_picture_is_left_for_the_next(cascade: GpuCascade) -> None:
    first, second = portrait(), crowd(3, 2, 34).image
    once, other, twice = (cascade.detect(image, OPTIONS) for image in (first, second, first))
    assert same(once, twice)
    again = gpu().detect(first, OPTIONS)
    assert same(once, again)
    assert len(other) != len(once)


def mixed() -> list[Image]:
    tall = compose(90, 170, [(10, 40, 42)]).image
    return [portrait(), noise(150, 60), tall, portrait(3), noise(5, 5), crowd(2, 1, 40).image]


@pytest.mark.parametrize(
    ("lanes", "device"), [(1, SimulatedDevice), (2, LateDevice), (6, LateDevice)]
)
def test_a_batch_gives_what_its_pictures_give_alone_in_any_order(
    lanes: int, device: type[SimulatedDevice]
) -> None:
    images = mixed()
    alone = [gpu().detect(image, OPTIONS) for image in images]
    cascade = gpu(device(seed=4), lanes)
    for order in (range(6), (5, 1, 0, 4, 2, 3, 0, 0)):
        together = cascade.detect_all([images[n] for n in order], OPTIONS)
        assert all(same(faces, alone[n]) for faces, n in zip(together, order, strict=True))
    assert cascade.detect_all([], OPTIONS) == []
    assert sum(map(len, alone)) > 3


def test_an_urgent_picture_gets_its_own_faces_while_others_are_under_way() -> None:
    cascade = gpu(LateDevice(), lanes=2)
    images = mixed()
    expected = [gpu().detect(image, OPTIONS) for image in images]
    under_way = cascade._stream(images, OPTIONS, cascade._faces)
    for wanted in expected:
        assert same(next(under_way), wanted)
        assert same(cascade.detect(images[0], OPTIONS), expected[0])


def test_a_device_that_is_late_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is staged for a copy may not change before the copy is done, nor be freed."""
    monkeypatch.setattr("unface.gpu.lane.FIRST_HITS", 4)
    monkeypatch.setattr("unface.gpu.lane.FIRST_CANDIDATES", 32)
    cascade = gpu(LateDevice())
    for name in ("close levels", "odd size", "close levels"):
        options = SCENES[name][1]
        assert same(cascade.detect(picture(name), options), eager(name)), name
    cascade.close()


@cache
def eager(scene: str) -> Faces:
    return gpu().detect(picture(scene), SCENES[scene][1])


@pytest.mark.parametrize("device", [SimulatedDevice, LateDevice])
def test_the_picture_may_change_once_it_is_submitted(device: type[SimulatedDevice]) -> None:
    opened = device()
    networks = KernelNetworks(opened, weights())
    lane = Lane(opened, networks, urgent=True)
    image = portrait()
    plan = plan_frame(100, 100, OPTIONS)
    lane.submit(image, plan)
    image[:] = 0
    assert same(to_faces(lane.collect(), plan, networks), gpu().detect(portrait(), OPTIONS))


def test_a_picture_whose_rows_are_not_contiguous_is_taken_as_it_looks(
    cascade: GpuCascade,
) -> None:
    view = astronaut()[20:220:2, 120:320:2]
    assert same(cascade.detect(view, OPTIONS), cascade.detect(portrait(), OPTIONS))
    mirrored = portrait()[:, ::-1]
    assert same(cascade.detect(mirrored, OPTIONS), cascade.detect(mirrored.copy(), OPTIONS))


def test_lists_that_are_too_short_grow_and_nothing_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = "close levels"  # all lists are used
    monkeypatch.setattr("unface.gpu.lane.FIRST_HITS", 4)
    monkeypatch.setattr("unface.gpu.lane.FIRST_CANDIDATES", 32)
    cascade = gpu(SimulatedDevice(seed=6))
    options = SCENES[scene][1]
    assert (cascade.urgent.sizes.hits, cascade.urgent.sizes.candidates) == (4, 32)
    assert same(cascade.detect(picture(scene), options), eager(scene))
    assert cascade.urgent.sizes.hits >= 256
    assert cascade.urgent.sizes.candidates >= 128
    before = cascade.device.calls
    assert same(cascade.detect(picture(scene), options), eager(scene))
    assert cascade.device.calls - before < 30, "it is not done again once there is room"
    both = [picture(scene), portrait()]
    assert same(cascade.detect_all(both, options)[0], eager(scene))


def test_more_faces_than_come_down_at_once_all_come(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = eager("crowd")
    assert len(expected) == 6
    for at_once in (1, 5):
        size = lane_module.COUNTERS.itemsize + at_once * lane_module.FACE.itemsize
        monkeypatch.setattr(lane_module, "FACES_AT_ONCE", at_once)
        monkeypatch.setattr(lane_module, "RESULT_BYTES", size)
        assert same(gpu(LateDevice()).detect(picture("crowd")), expected), at_once


def test_a_picture_that_the_gpu_does_not_take_is_beyond_it_and_the_next_is_not() -> None:
    cascade = gpu()
    expected = cascade.detect(portrait(), OPTIONS)
    for shape in ((1, 65536), (65536, 1), (12, 70000)):
        with pytest.raises(BeyondDevice, match="65535 a side"):
            cascade.detect(np.zeros((*shape, 3), np.uint8))
    assert same(cascade.detect(portrait(), OPTIONS), expected)
    with pytest.raises(BeyondDevice):
        cascade.detect_all([portrait(), np.zeros((1, 65536, 3), np.uint8), portrait()], OPTIONS)
    assert all(same(faces, expected) for faces in cascade.detect_all([portrait()] * 3, OPTIONS))


def test_places_in_the_largest_pyramid_fit_32_bits() -> None:
    with pytest.raises(BeyondDevice, match="too large"):
        plan_frame(65535, 65535, DetectOptions())
    plan = plan_frame(65535, 30000, DetectOptions())
    last = plan.levels[-1]
    assert last["first_cell"] + last["rows"] * last["columns"] == plan.cells < 1 << 31
    assert (plan.tiles["offset"] >= 0).all()
    assert plan.canvas_pixels < 1 << 31


def test_more_candidates_than_a_list_holds_are_beyond_the_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("unface.gpu.lane.FIRST_HITS", 32)
    monkeypatch.setattr("unface.gpu.lane.FIRST_CANDIDATES", 32)
    monkeypatch.setattr(lane_module, "MOST_CANDIDATES", 64)
    cascade = gpu()
    for _ in range(2):
        with pytest.raises(BeyondDevice, match="candidates"):
            cascade.detect(picture("crowd"), SCENES["crowd"][1])
        assert len(cascade.detect(portrait(), OPTIONS)) == 1


@pytest.mark.parametrize("network", ["pnet", "rnet", "onet"])
def test_a_network_that_gives_no_numbers_is_an_error_and_never_zero_faces(network: str) -> None:
    names = [name for name in weights()[network] if name.endswith("bias")]
    for name in (names[0], names[-1], "logit.bias"):
        broken = {n: dict(arrays) for n, arrays in weights().items()}
        broken[network][name] = broken[network][name] * np.float32("nan")
        device = SimulatedDevice()
        with pytest.raises(EngineError, match="no numbers"):
            GpuCascade(device, KernelNetworks(device, broken)).detect(portrait(), OPTIONS)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_weights_that_halves_do_not_hold_are_refused(value: float) -> None:
    broken = {n: dict(arrays) for n, arrays in weights().items()}
    broken["rnet"]["conv2.weight"] = broken["rnet"]["conv2.weight"].copy()
    broken["rnet"]["conv2.weight"][3, 2, 1, 0] = value
    with pytest.raises(EngineError, match="half precision"):
        KernelNetworks(SimulatedDevice(), broken)


@pytest.mark.parametrize("network", [0, 1, 2], ids=["pnet", "rnet", "onet"])
def test_a_weight_that_turns_into_no_number_is_an_error_unless_nothing_uses_it(
    network: int,
) -> None:
    cascade = gpu()
    expected = cascade.detect(portrait(3), OPTIONS)
    assert len(expected) == 1
    halves = cascade.networks._memory[network].array.view("<u2")
    rng = np.random.default_rng(network)
    errors = 0
    for place in rng.integers(0, len(halves) // 2, 12):
        before, halves[place] = halves[place], 0x7E00
        try:
            assert same(cascade.detect(portrait(3), OPTIONS), expected)
        except EngineError:
            errors += 1
        halves[place] = before
    assert errors > 6
    assert same(cascade.detect(portrait(3), OPTIONS), expected)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((40, 40), np.uint8),
        np.zeros((40, 40, 4), np.uint8),
        np.zeros((40, 40, 3), np.float32),
        np.zeros((0, 40, 3), np.uint8),
        np.zeros((1, 40, 40, 3), np.uint8),
        [[0, 0, 0]],
        None,
    ],
    ids=str,
)
def test_what_is_not_rgb_uint8_is_refused(cascade: GpuCascade, image: Any) -> None:
    calls = cascade.device.calls
    with pytest.raises(InvalidImage, match=r"uint8|shape"):
        cascade.detect(image)
    with pytest.raises(InvalidImage, match=r"uint8|shape"):
        cascade.detect_all([portrait(), image])
    assert cascade.device.calls == calls, "nothing was begun"


@pytest.mark.parametrize("shape", [(1, 1), (1, 20000), (20000, 1), (39, 500), (12, 12), (11, 40)])
def test_a_picture_smaller_than_the_minimum_face_has_no_faces(
    cascade: GpuCascade, shape: tuple[int, int]
) -> None:
    faces = cascade.detect(np.full((*shape, 3), 128, np.uint8), OPTIONS)
    assert len(faces) == 0
    assert faces.boxes.shape == (0, 4)
    assert faces.landmarks.shape == (0, 5, 2)
    assert (faces.height, faces.width) == shape


HOSTILE: dict[str, tuple[Image, DetectOptions]] = {
    "noise": (noise(120, 90), DetectOptions(thresholds=(0.02, 0.05, 0.05))),
    "checkerboard": (checkerboard(120, 100, 3), DetectOptions(thresholds=(1e-3, 1e-3, 1e-3))),
    "black": (np.zeros((40, 40, 3), np.uint8), DetectOptions(thresholds=(1e-4, 1e-4, 1e-4))),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_picture_that_fires_many_cells_is_no_more_than_work(
    name: str, cpu: Cascade, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unface.gpu.lane.FIRST_HITS", 8)
    monkeypatch.setattr("unface.gpu.lane.FIRST_CANDIDATES", 32)
    image, options = HOSTILE[name]
    faces, again = (gpu(SimulatedDevice(seed)).detect(image, options) for seed in (0, 9))
    assert same(faces, again)
    # Of neighbours with nearly the same logit in noise the other one may win; faces do not do that.
    expected = cpu.detect(image, options)
    alike = (iou(expected.boxes, faces.boxes) > 0.9).any(axis=1)
    assert alike.sum() >= 0.75 * max(len(expected), len(faces))


@pytest.mark.parametrize("device", [SimulatedDevice, LateDevice])
def test_a_picture_on_the_device_has_the_faces_of_one_that_is_sent(
    device: type[SimulatedDevice],
) -> None:
    opened = device()
    networks = KernelNetworks(opened, weights())
    lane = Lane(opened, networks, urgent=False)
    for image in (portrait(), compose(173, 91, [(20, 5, 44)]).image, portrait()):
        memory = opened.allocate(image.size)
        memory.array[:] = image.ravel()
        height, width = image.shape[:2]
        plan = plan_frame(width, height, OPTIONS)
        lane.submit_resident(memory.pointer, plan)
        assert lane.resident == memory.pointer
        faces = to_faces(lane.collect(), plan, networks)
        assert same(faces, gpu().detect(image, OPTIONS))
        assert (memory.array == image.ravel()).all(), "it is only read"
        lane.submit(image, plan)
        assert same(to_faces(lane.collect(), plan, networks), faces)
        assert lane.resident != memory.pointer


@pytest.mark.parametrize("scene", ["several sizes", "close levels", "no face"])
def test_engines_in_the_graph_give_what_the_cpu_gives(
    scene: str, cpu: Cascade, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same networks, in float32: only the kernels around them differ."""
    monkeypatch.setattr("unface.gpu.lane.FIRST_HITS", 64)
    monkeypatch.setattr("unface.gpu.lane.FIRST_CANDIDATES", 32)
    device = SimulatedDevice(seed=2)
    cascade = GpuCascade(device, cpu_engines(device, cpu.networks))
    options = SCENES[scene][1]
    faces = cascade.detect(picture(scene), options)
    assert_nearly_the_same(faces, cpu.detect(picture(scene), options), at_least=0.98)
    assert (faces.backend, faces.precision) == ("tensorrt", "fp32")
    assert all(len(cascade.detect(image, options)) == 0 for image in (noise(9, 9), noise(300, 1)))


def test_every_size_around_a_bucket_gives_what_a_fresh_lane_gives(cascade: GpuCascade) -> None:
    """Memory is taken in powers of two, and stays as another picture left it."""
    for width, height in itertools.product((63, 64, 65), (40, 47)):
        image = np.ascontiguousarray(portrait()[:height, :width])
        assert same(cascade.detect(image, OPTIONS), gpu().detect(image, OPTIONS))
