"""Faces covered by kernels, on the simulator, held to what `apply_masks` gives on the CPU."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from corpus import photo
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import astronaut
from simulated import SimulatedDevice
from workbench import needs_simulator, weights

from unface.anonymize import SHAPES, MaskOptions, apply_masks, plan_masks
from unface.anonymize.plans import MASK as PLANNED
from unface.errors import EngineError, InvalidImage
from unface.gpu.cascade import GpuCascade
from unface.gpu.device import DeviceFailure
from unface.gpu.masks import Coverer, Masks, plan_runs
from unface.gpu.networks import KernelNetworks
from unface.gpu.plan import BeyondDevice
from unface.gpu.tables import COVERING, MASK
from unface.mtcnn.faces import Faces
from unface.mtcnn.options import DetectOptions
from unface.mtcnn.team import Team

pytestmark = needs_simulator

COVERING_METHODS = ("mosaic", "solid", "blur")
TOLERANCE = {"mosaic": 0, "solid": 0, "blur": 2}
WIDTH, HEIGHT = 60, 50
Box = tuple[float, float, float, float]
Image = np.ndarray[Any, np.dtype[np.uint8]]


def noise(height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def boxes_of(*boxes: Box) -> np.ndarray[Any, Any]:
    return np.array(boxes, np.float32).reshape(-1, 4)


def a_box() -> st.SearchStrategy[Box]:
    place = st.floats(-40, 90, width=32)
    side = st.one_of(st.just(0.0), st.floats(0.125, 80, width=32))
    return st.builds(lambda x, y, w, h: (x, y, x + w, y + h), place, place, side, side)


def some_options(method: str) -> st.SearchStrategy[MaskOptions]:
    level = st.integers(0, 255)
    return st.builds(
        MaskOptions,
        method=st.just(method),
        shape=st.sampled_from(SHAPES),
        margin=st.floats(0, 2),
        cells=st.integers(2, 16),
        kernel=st.floats(0.3, 2),
        color=st.tuples(level, level, level),
    )


def on_device(
    image: Image,
    boxes: np.ndarray[Any, Any],
    options: MaskOptions,
    device: SimulatedDevice | None = None,
) -> Image:
    """Cover a copy of the image on a device, with memory around it that must stay as it is."""
    device = device or SimulatedDevice()
    height, width = image.shape[:2]
    around = 64
    frame = device.allocate(image.size + 2 * around)
    frame.array[around:-around] = image.ravel()
    coverer = Coverer(device, device.stream(urgent=False))
    masks = plan_masks(width, height, boxes, options)
    coverer.cover(frame.pointer + around, width, height, masks)
    covered = coverer.download(frame.pointer + around, width, height)
    assert (frame.array[:around] == 0xFF).all()
    assert (frame.array[-around:] == 0xFF).all()
    coverer.close()
    return covered


def assert_as_on_the_cpu(image: Image, boxes: np.ndarray[Any, Any], options: MaskOptions) -> None:
    wanted = apply_masks(image, boxes, options).astype(int)
    difference = np.abs(on_device(image, boxes, options) - wanted)
    assert difference.max() <= TOLERANCE[options.method]


# Pixels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", COVERING_METHODS)
@settings(max_examples=60, deadline=None)
@given(drawn=st.data(), boxes=st.lists(a_box(), min_size=1, max_size=5))
def test_every_box_is_covered_as_on_the_cpu(
    method: str, drawn: st.DataObject, boxes: list[Box]
) -> None:
    assert_as_on_the_cpu(noise(), boxes_of(*boxes), drawn.draw(some_options(method)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", COVERING_METHODS)
def test_a_large_face_is_covered_as_on_the_cpu(method: str, shape: str) -> None:
    image = photo(220, 260)
    boxes = boxes_of((31.3, 20.7, 190.2, 205.1), (150, -30, 300, 90))
    assert_as_on_the_cpu(image, boxes, MaskOptions(method=method, shape=shape))


@pytest.mark.parametrize("width", [1, 2, 3, 61])
@pytest.mark.parametrize("method", COVERING_METHODS)
def test_a_picture_of_a_few_pixels_is_covered_as_on_the_cpu(method: str, width: int) -> None:
    options = MaskOptions(method=method)
    for height in (1, 2, 7):
        assert_as_on_the_cpu(noise(height, width), boxes_of((0, 0, width, height)), options)


def test_a_mean_between_two_levels_goes_to_the_even_one() -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    image[::2] = (1, 3, 254)
    image[1::2] = (2, 2, 255)
    options = MaskOptions(shape="rectangle", margin=0, cells=4)
    covered = on_device(image, boxes_of((0, 0, 16, 16)), options)
    assert (covered == (2, 2, 254)).all()
    assert_as_on_the_cpu(image, boxes_of((0, 0, 16, 16)), options)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", COVERING_METHODS)
@pytest.mark.parametrize(
    "box",
    [
        (-50, -50, -40, -40),
        (500, 3, 510, 9),
        (7.5, 8.5, 7.5, 8.5),
        (59.99, 49.99, 60, 50),
        (-1e9, -1e9, 1e9, 1e9),
        (-1e30, 10, 1e30, 10.5),
        (1e9, 1e9, 2e9, 2e9),
    ],
)
def test_hostile_boxes_do_as_on_the_cpu(method: str, shape: str, box: Box) -> None:
    assert_as_on_the_cpu(noise(), boxes_of(box), MaskOptions(method=method, shape=shape))


@pytest.mark.parametrize("method", COVERING_METHODS)
def test_thousands_of_faces_are_all_covered(method: str) -> None:
    rng = np.random.default_rng(3)
    corners = rng.uniform(0, 240, (2000, 2))
    boxes = np.hstack([corners, corners + 3]).astype(np.float32)
    image, options = noise(256, 256), MaskOptions(method=method, margin=0)
    wanted = apply_masks(image, boxes, options).astype(int)
    difference = np.abs(on_device(image, boxes, options) - wanted)
    # Where many blurred faces lie on each other, what each rounds otherwise adds up.
    assert difference.max() <= 4 * TOLERANCE[method]
    assert (difference > TOLERANCE[method]).mean() < 0.001


@pytest.mark.parametrize("method", COVERING_METHODS)
def test_no_box_leaves_the_picture_as_it_was(method: str) -> None:
    asked: list[str] = []
    device = SimulatedDevice(fail=lambda _, what: asked.append(what))
    image = noise()
    assert np.array_equal(on_device(image, boxes_of(), MaskOptions(method=method), device), image)
    assert set(asked) == {"stream", "allocate", "allocate_host", "copy", "synchronize"}


# Order ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", COVERING_METHODS)
def test_the_order_of_threads_and_blocks_does_not_matter(method: str) -> None:
    boxes = boxes_of((5, 5, 30, 30), (20, 10, 45, 44), (-5, 30, 12, 60), (44, 2, 70, 20))
    options = MaskOptions(method=method)
    first = on_device(noise(), boxes, options)
    for seed in range(1, 9):
        device = SimulatedDevice(seed=seed)
        assert np.array_equal(on_device(noise(), boxes, options, device), first)


@settings(max_examples=100, deadline=None)
@given(boxes=st.lists(a_box(), min_size=1, max_size=12), at_once=st.sampled_from([0, 5000, 10**9]))
def test_of_two_faces_that_overlap_the_first_comes_in_an_earlier_launch(
    boxes: list[Box], at_once: int
) -> None:
    masks = plan_masks(WIDTH, HEIGHT, boxes_of(*boxes), MaskOptions(method="blur"))
    masks["color"] = np.arange(len(masks))  # blur has no use for it: it says which one it was
    if not len(masks):
        return
    ordered, runs, scratch = plan_runs(masks, WIDTH, HEIGHT, scratch_at_once=at_once)
    assert sorted(ordered["color"].tolist()) == list(range(len(masks)))
    assert [n for first, count in runs for n in range(first, first + count)] == list(
        range(len(masks))
    )
    run_of = {}
    for number, (first, count) in enumerate(runs):
        run_of.update({int(n): number for n in ordered["color"][first : first + count]})
        needs = ordered[first : first + count]
        assert at_once == 10**9 or count == 1 or needs["scratch"].max() < at_once
        assert scratch >= (needs["scratch"] + needs["small"].prod(axis=1) * 15).max()
    for one, other in itertools.combinations(range(len(masks)), 2):
        if share_a_pixel(masks[one], masks[other]):
            assert run_of[one] < run_of[other]


def share_a_pixel(one: np.void, other: np.void) -> bool:
    return all(
        one[place] < other[place] + other[size] and other[place] < one[place] + one[size]
        for place, size in (("left", "width"), ("top", "height"))
    )


def test_faces_apart_go_together() -> None:
    boxes = boxes_of((2, 2, 10, 10), (40, 30, 50, 42), (40, 2, 50, 10))
    masks = plan_masks(WIDTH, HEIGHT, boxes, MaskOptions())
    assert plan_runs(masks, WIDTH, HEIGHT)[1] == [(0, 3)]


def test_blur_that_needs_more_scratch_at_once_gives_the_same() -> None:
    boxes = boxes_of((2, 2, 10, 10), (40, 30, 50, 42), (40, 2, 50, 10))
    masks = plan_masks(WIDTH, HEIGHT, boxes, MaskOptions(method="blur"))
    ordered, runs, scratch = plan_runs(masks, WIDTH, HEIGHT, scratch_at_once=1)
    assert runs == [(0, 1), (1, 1), (2, 1)]
    assert (ordered["scratch"] == 0).all()
    assert scratch >= 15 * masks["small"].prod(axis=1).max()


# Memory --------------------------------------------------------------------------------------


def test_masks_are_planned_as_the_kernels_read_them() -> None:
    assert MASK == PLANNED


def test_a_picture_that_is_kept_is_a_copy() -> None:
    device, image = SimulatedDevice(), noise()
    frame = device.allocate(image.size)
    frame.array[:] = image.ravel()
    coverer = Coverer(device, device.stream(urgent=False))
    boxes = boxes_of((10, 10, 30, 40))
    masks = plan_masks(WIDTH, HEIGHT, boxes, MaskOptions())
    copy = coverer.keep(frame.pointer, WIDTH, HEIGHT)
    coverer.cover(copy, WIDTH, HEIGHT, masks)
    pixels = coverer.download(copy, WIDTH, HEIGHT)
    assert np.array_equal(frame.array, image.ravel())
    assert np.array_equal(pixels, apply_masks(image, boxes, MaskOptions()))


def test_pixels_that_were_given_out_stay_when_another_picture_is_covered() -> None:
    device, image = SimulatedDevice(), noise()
    coverer = Coverer(device, device.stream(urgent=False))
    frame = device.allocate(image.size)
    masks = plan_masks(WIDTH, HEIGHT, boxes_of((10, 10, 30, 40)), MaskOptions())
    given: list[Image] = []
    for seed in range(3):
        frame.array[:] = noise(seed=seed).ravel()
        coverer.cover(frame.pointer, WIDTH, HEIGHT, masks)
        given.append(coverer.download(frame.pointer, WIDTH, HEIGHT))
    for seed, pixels in enumerate(given):
        assert np.array_equal(
            pixels, apply_masks(noise(seed=seed), boxes_of((10, 10, 30, 40)), MaskOptions())
        )


def test_a_large_picture_comes_down_whole_by_several_threads() -> None:
    device, image, team = SimulatedDevice(), noise(700, 600), Team(3)
    frame = device.allocate(image.size)
    frame.array[:] = image.ravel()
    coverer = Coverer(device, device.stream(urgent=False), team)
    assert np.array_equal(coverer.download(frame.pointer, 600, 700), image)
    team.close()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("left", -1), ("top", -1), ("width", 0), ("height", 0), ("width", WIDTH)),
        *(("height", 2**31 - 1), ("left", 2**31 - 1), ("method", 3), ("method", 1)),
        *(("parts", 0), ("parts", 26), ("small", 0), ("small", 5000), ("radius", 16)),
        *(("radius", -1), ("half", 0), ("half", np.nan), ("center", np.inf)),
    ],
)
def test_a_mask_that_would_write_beside_the_picture_is_refused(field: str, value: float) -> None:
    device, image = SimulatedDevice(), noise()
    frame = device.allocate(image.size)
    frame.array[:] = image.ravel()
    options = MaskOptions(method="blur", shape="rectangle", margin=0)
    masks = plan_masks(WIDTH, HEIGHT, boxes_of((0, 0, 9, 9), (10, 10, 34, 34)), options)
    masks[field][1] = value
    coverer = Coverer(device, device.stream(urgent=False))
    with pytest.raises(EngineError, match="mask 1 does not fit"):
        coverer.cover(frame.pointer, WIDTH, HEIGHT, masks)
    assert np.array_equal(frame.array, image.ravel())


def test_what_is_no_table_of_masks_is_refused() -> None:
    coverer = Coverer(device := SimulatedDevice(), device.stream(urgent=False))
    with pytest.raises(EngineError, match="plan_masks"):
        coverer.cover(0, WIDTH, HEIGHT, np.zeros(3, COVERING))


def test_a_picture_of_more_pixels_than_32_bits_count_is_left_to_the_cpu() -> None:
    coverer = Coverer(device := SimulatedDevice(), device.stream(urgent=False))
    with pytest.raises(BeyondDevice, match="too large"):
        coverer.cover(0, 65535, 32769, np.zeros(0, MASK))


# Failures ------------------------------------------------------------------------------------


def fail_at(call: int) -> Callable[[int, str], None]:
    def fail(number: int, what: str) -> None:
        if number == call:
            raise DeviceFailure(f"{what} failed")

    return fail


def assert_every_failure_is_passed_on(
    work: Callable[[SimulatedDevice], object], calls_before: int = 0
) -> None:
    """Let each call of the device fail in turn: `work` must raise, and so return nothing."""
    counted = SimulatedDevice()
    work(counted)
    assert counted.calls > calls_before
    for call in range(calls_before + 1, counted.calls + 1):
        with pytest.raises(DeviceFailure, match="failed"):
            work(SimulatedDevice(fail=fail_at(call)))


@pytest.mark.parametrize("method", COVERING_METHODS)
def test_no_pixels_come_out_when_any_call_of_the_device_fails(method: str) -> None:
    boxes = boxes_of((5, 5, 30, 30), (20, 10, 45, 44))
    assert_every_failure_is_passed_on(
        lambda device: on_device(noise(), boxes, MaskOptions(method=method), device)
    )


class Blind:
    """Networks that see nothing: the masks say where faces are, and it takes milliseconds."""

    backend, precision, pages = "blind", "none", False
    weights = (0, 0, 0)

    def lane_memory(self, canvas_pixels: int, candidates: int) -> dict[str, int]:
        return {}

    def open_lane(self, *arguments: object) -> None:
        pass

    def close_lane(self, state: None) -> None:
        pass

    def propose(self, *arguments: object) -> None:
        pass

    refine = finish = propose

    def close(self) -> None:
        pass


SOMEWHERE = boxes_of((5, 5, 30, 30), (20, 10, 45, 44))


def somewhere(faces: Faces) -> Masks:
    return plan_masks(faces.width, faces.height, SOMEWHERE, MaskOptions())


def covered_somewhere(image: Image) -> Image:
    return apply_masks(image, SOMEWHERE, MaskOptions())


def blind_cascade(device: SimulatedDevice, lanes: int = 2) -> GpuCascade:
    return GpuCascade(device, Blind(), lanes=lanes)


def test_the_cascade_gives_out_no_pixels_when_any_call_of_the_device_fails() -> None:
    assert_every_failure_is_passed_on(
        lambda device: blind_cascade(device).anonymize(noise(), None, somewhere)
    )


def test_the_cascade_covers_nothing_in_part_when_masks_cannot_be_planned() -> None:
    def fail(faces: Faces) -> Masks:
        raise ValueError("no plan")

    cascade = blind_cascade(SimulatedDevice())
    with pytest.raises(ValueError, match="no plan"):
        cascade.anonymize(noise(), None, fail)
    covered, _ = cascade.anonymize(noise(), None, somewhere)
    assert np.array_equal(covered, covered_somewhere(noise()))
    cascade.close()


def collect(device: SimulatedDevice, images: list[Image], out: list[Image]) -> None:
    cascade = blind_cascade(device)
    for covered, _ in cascade.anonymize_all(images, None, somewhere):
        out.append(covered)


def test_of_several_pictures_all_that_come_out_are_covered_when_a_call_fails() -> None:
    counted = SimulatedDevice()
    images = [noise(seed=seed) for seed in range(4)]
    list(blind_cascade(counted).anonymize_all(images, None, somewhere))
    for call in range(1, counted.calls + 1):
        out: list[Image] = []
        with pytest.raises(DeviceFailure):
            collect(SimulatedDevice(fail=fail_at(call)), images, out)
        assert len(out) < len(images)
        for image, covered in zip(images, out, strict=False):
            assert np.array_equal(covered, covered_somewhere(image))


# The cascade ---------------------------------------------------------------------------------


def seeing_cascade(device: SimulatedDevice) -> GpuCascade:
    return GpuCascade(device, KernelNetworks(device, weights()), lanes=2)


def a_face() -> Image:
    photo = np.ascontiguousarray(astronaut()[:256, 100:356])
    return cv2.resize(photo, (96, 96), interpolation=cv2.INTER_AREA).astype(np.uint8)


def test_a_face_that_is_found_is_covered_where_it_lies() -> None:
    cascade, image = seeing_cascade(SimulatedDevice()), a_face()
    before = image.copy()
    options = MaskOptions()

    def plan(faces: Faces) -> Masks:
        return plan_masks(faces.width, faces.height, faces.boxes, options)

    covered, faces = cascade.anonymize(image, DetectOptions(min_face=24), plan)
    assert len(faces) == 1
    assert np.array_equal(covered, apply_masks(image, faces.boxes, options))
    assert not np.array_equal(covered, image)
    assert np.array_equal(image, before)
    cascade.close()


def test_pictures_of_all_sizes_come_out_in_order() -> None:
    cascade = blind_cascade(SimulatedDevice())
    images = [noise(40 + 7 * n, 90 - 9 * n, seed=n) for n in range(5)]
    results = list(cascade.anonymize_all(iter(images), None, somewhere))
    assert [faces.width for _, faces in results] == [image.shape[1] for image in images]
    for image, (covered, _) in zip(images, results, strict=True):
        assert np.array_equal(covered, covered_somewhere(image))
    cascade.close()


def test_pictures_are_read_as_the_lanes_get_free() -> None:
    read: list[int] = []

    def pictures() -> Iterator[Image]:
        for seed in range(6):
            read.append(seed)
            yield noise(seed=seed)

    cascade = blind_cascade(SimulatedDevice(), lanes=2)
    results = cascade.anonymize_all(pictures(), None, somewhere)
    assert read == []
    next(results)
    assert read == [0, 1, 2]
    next(results)
    assert read == [0, 1, 2, 3]


def test_a_bad_picture_ends_it_and_the_next_pictures_are_not_mixed_up() -> None:
    cascade = blind_cascade(SimulatedDevice())
    bad: Any = np.zeros((4, 4), np.uint8)
    results = cascade.anonymize_all([noise(), noise(seed=1), bad], None, somewhere)
    with pytest.raises(InvalidImage):
        next(results)
    covered = [c for c, _ in cascade.anonymize_all([noise(seed=2)], None, somewhere)]
    assert np.array_equal(covered[0], covered_somewhere(noise(seed=2)))


def test_who_wants_no_more_pictures_may_stop() -> None:
    device = SimulatedDevice()
    cascade = blind_cascade(device)
    results = cascade.anonymize_all(
        (noise(seed=seed) for seed in itertools.count()), None, somewhere
    )
    next(results)
    results.close()  # type: ignore[attr-defined]
    faces = cascade.detect_all([noise(), noise()])
    assert [len(found) for found in faces] == [0, 0]


@pytest.mark.parametrize("in_place", [False, True])
def test_a_picture_on_the_device_is_covered_in_a_copy_or_in_place(in_place: bool) -> None:
    device, image = SimulatedDevice(), noise()
    frame = device.allocate(image.size)
    frame.array[:] = image.ravel()
    cascade = blind_cascade(device)
    at, faces = cascade.anonymize_resident(
        frame.pointer, WIDTH, HEIGHT, None, somewhere, in_place=in_place
    )
    wanted = covered_somewhere(image)
    pixels = Coverer(device, device.stream(urgent=False)).download(at, WIDTH, HEIGHT)
    assert np.array_equal(pixels, wanted)
    assert np.array_equal(frame.array, (wanted if in_place else image).ravel())
    assert (faces.width, faces.height) == (WIDTH, HEIGHT)


def test_a_picture_that_changes_meanwhile_is_covered_as_it_was_searched() -> None:
    device, image = SimulatedDevice(), noise()
    frame = device.allocate(image.size)
    frame.array[:] = image.ravel()

    def change(faces: Faces) -> Masks:
        frame.array[:] = 0
        return somewhere(faces)

    cascade = blind_cascade(device)
    at, _ = cascade.anonymize_resident(frame.pointer, WIDTH, HEIGHT, None, change)
    pixels = Coverer(device, device.stream(urgent=False)).download(at, WIDTH, HEIGHT)
    assert np.array_equal(pixels, covered_somewhere(image))


def test_a_picture_on_the_device_is_never_touched_when_a_call_fails() -> None:
    image = noise()

    def work(device: SimulatedDevice) -> None:
        frame = np.frombuffer(bytearray(image.tobytes()), np.uint8)
        try:
            blind_cascade(device).anonymize_resident(
                frame.ctypes.data, WIDTH, HEIGHT, None, somewhere
            )
        finally:
            assert np.array_equal(frame, image.ravel())

    assert_every_failure_is_passed_on(work)
