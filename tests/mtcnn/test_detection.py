"""Whole detections with the engines that ship: odd arrays, odd sizes, textures, the front door."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scenes import TEXTURES, Image, Scene, astronaut, background, compose, crowd, found

import unface
from unface.engines.native import NativeNetwork, NativePNet
from unface.engines.shelf import open_named
from unface.errors import EngineError, InvalidImage, InvalidOption
from unface.mtcnn import Cascade, DetectOptions, Faces, Networks

PREBUILT = Path(__file__).parents[2] / "engines" / "prebuilt"


def same(a: Faces, b: Faces) -> bool:
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("boxes", "scores", "landmarks")
    )


@pytest.mark.parametrize("texture", TEXTURES)
def test_pictures_without_a_face_give_none(cascade: Cascade, texture: str) -> None:
    assert len(cascade.detect(background(640, 480, texture))) == 0


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("texture", TEXTURES)
def test_faces_are_found_on_any_background_and_nothing_else(
    cascade: Cascade, texture: str, mirrored: bool
) -> None:
    places = [(10, 10, 26), (90, 20, 40), (210, 10, 80), (420, 30, 120), (12, 260, 33)]
    scene = compose(700, 400, places, texture, mirrored)
    boxes = cascade.detect(scene.image).boxes
    assert found(scene, boxes, 0.6) == len(boxes) == len(places)


@pytest.mark.parametrize(
    "place",
    [(-62, 40, 90), (283, 40, 90), (120, -71, 90), (120, 183, 90), (-53, -60, 90)],
    ids=["left", "right", "top", "bottom", "corner"],
)
def test_a_face_at_each_border_is_found(cascade: Cascade, place: tuple[int, int, int]) -> None:
    """A fifth of the face is cut off; in the corner, a tenth on both sides."""
    scene = compose(400, 320, [place], "gravel")
    faces = cascade.detect(scene.image)
    visible = np.clip(scene.faces, 0, [400, 320, 400, 320])
    assert found(Scene(scene.image, visible), faces.boxes, 0.6) == 1
    assert (faces.boxes >= 0).all()
    assert (faces.boxes <= [400, 320, 400, 320]).all()


def test_a_face_at_the_far_end_of_a_strip_wider_than_opencv_can_sample(cascade: Cascade) -> None:
    scene = compose(40_000, 90, [(20, 2, 36), (20_000, 2, 36), (39_900, 2, 36)], "brick")
    assert found(scene, cascade.detect(scene.image).boxes) == 3
    upright = np.ascontiguousarray(np.rot90(compose(40_000, 90, [], "brick").image))
    upright[39_000:39_090, :90] = scene.image[:, 20_000:20_090]
    (face,) = cascade.detect(upright)
    assert 39_000 < face.box[1] < face.box[3] < 39_090


def test_views_and_read_only_arrays_are_taken_as_they_are_and_left_unchanged(
    cascade: Cascade,
) -> None:
    image = compose(500, 300, [(10, 10, 40), (200, 20, 90)]).image
    expected = cascade.detect(image)
    wide = np.zeros((300, 1000, 3), np.uint8)
    wide[:, ::2] = image
    flipped = np.ascontiguousarray(image[::-1, ::-1, ::-1])
    planes = np.ascontiguousarray(image.transpose(2, 0, 1))
    readonly = image.copy()
    readonly.flags.writeable = False
    views = (wide[:, ::2], flipped[::-1, ::-1, ::-1], planes.transpose(1, 2, 0), readonly)
    for view in views:
        assert same(cascade.detect(view), expected)
    assert (readonly == image).all()


@pytest.mark.parametrize("image", [np.zeros((40, 40, 3)), np.zeros((40, 40, 3), bool)])
def test_other_kinds_of_pixels_are_refused_and_named(cascade: Cascade, image: Image) -> None:
    with pytest.raises(InvalidImage, match=f"image is {image.dtype}; RGB uint8"):
        cascade.detect(image)


def test_an_array_of_four_dimensions_is_no_batch() -> None:
    with unface.Detector(threads=1) as detector, pytest.raises(InvalidImage, match="shape"):
        detector.detect(np.stack([astronaut()] * 2))
    with pytest.raises(InvalidImage, match=r"\[2, 64, 64, 3\]"), unface.Detector() as detector:
        detector.detect(np.zeros((2, 64, 64, 3), np.uint8))


class _NoNumber:
    """A network of which a single answer is no number."""

    max_batch = 64

    def __init__(self, network: object, output: str, value: float) -> None:
        self.network, self.output, self.value = network, output, value

    def __call__(self, images: Image) -> dict[str, np.ndarray]:
        outputs = self.network(images)  # type: ignore[operator]
        outputs[self.output] = outputs[self.output].copy()
        outputs[self.output].flat[-1] = self.value
        return dict(outputs)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    ("stage", "output"),
    [("pnet", "logit"), ("pnet", "box"), ("rnet", "box"), ("onet", "logit"), ("onet", "landmarks")],
)
def test_a_single_answer_that_is_no_number_is_an_error(
    cascade: Cascade, stage: str, output: str, value: float
) -> None:
    networks = {name: getattr(cascade.networks, name) for name in ("pnet", "rnet", "onet")}
    networks[stage] = _NoNumber(networks[stage], output, value)
    broken = Cascade(Networks(**networks, backend="broken", precision="fp32"))
    with pytest.raises(EngineError, match=output):
        broken.detect(astronaut())


@pytest.mark.usefixtures("core")
@pytest.mark.parametrize("weights", ["conv2.weight", "logit.weight", "box.weight"])
@pytest.mark.parametrize("name", ["pnet", "rnet", "onet"])
def test_answers_of_the_core_that_are_no_numbers_are_an_error_too(name: str, weights: str) -> None:
    """The core itself leaves out what is below the threshold, and NaN is below and above none."""
    with np.load(PREBUILT / f"{name}.fp32.npz") as file:
        arrays = dict(file)
    signs = np.random.default_rng(0).choice([-1, 1], arrays[weights].shape)
    arrays[weights] = (3e38 * signs).astype(np.float32)  # finite, but not what they add up to
    model = io.BytesIO()
    np.savez(model, **arrays)  # type: ignore[arg-type]
    networks = open_named("fp32.native", threads=2)
    broken = (
        NativePNet(model.getvalue(), name)
        if name == "pnet"
        else NativeNetwork(model.getvalue(), name, name, networks.team)
    )
    with pytest.raises(EngineError, match="no numbers"):
        Cascade(replace(networks, **{name: broken})).detect(astronaut())


def test_a_detector_says_what_serves_it_and_closes_with_its_block(runtime: str) -> None:
    with unface.Detector(threads=1) as detector:
        faces = detector.detect(astronaut())
        assert (detector.backend, detector.precision) == (faces.backend, faces.precision)
        assert (faces.backend, faces.precision) == (runtime, "fp32")
        assert (faces.width, faces.height) == (512, 512)
        assert set(faces.timings_ms) == {"pnet", "rnet", "onet"}


def test_a_list_or_tuple_gives_a_list_and_an_empty_one_an_empty_one() -> None:
    with unface.Detector(threads=1) as detector:
        assert detector.detect([]) == []
        answers = detector.detect((astronaut(), background(60, 50)))
        assert [len(faces) for faces in answers] == [1, 0]
        with pytest.raises(InvalidImage, match="float32"):
            detector.detect([astronaut(), np.zeros((40, 40, 3), np.float32)])


def test_options_of_a_call_replace_those_of_the_detector() -> None:
    scene = compose(500, 300, [(5, 5, 26), (150, 5, 100)])
    with unface.Detector(min_face=70, threads=1) as detector:
        assert len(detector.detect(scene.image)) == 1
        assert len(detector.detect(scene.image, DetectOptions())) == 2
        assert [len(f) for f in detector.detect([scene.image], DetectOptions())] == [2]
        assert len(detector.detect(scene.image)) == 1


def test_a_detector_takes_its_options_by_name() -> None:
    thresholds = (0.5, 0.6, 0.9)
    with unface.Detector(
        "privacy", 30, 1, scale_factor=0.8, thresholds=thresholds, precision="int8"
    ) as detector:
        assert detector.options == DetectOptions(30, 0.8, thresholds, "int8")
        assert detector.precision == "int8"
    with unface.Detector("privacy", threads=1) as detector:
        assert detector.options == DetectOptions(20, 0.709, (0.5, 0.6, 0.5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"profile": "paranoid"}, "profile is 'paranoid'; there are accurate, fast, privacy"),
        ({"precision": "fp8"}, "precision is 'fp8'; there are dynamic, fp16, fp32"),
        ({"threads": 0}, "threads is 0; it must be 1 to 64"),
        ({"threads": -1}, "threads is -1; it must be 1 to 64"),
        ({"min_face": 5}, "min_face is 5; it must be 12 pixels or more"),
        ({"scale_factor": 0.29}, "scale_factor is 0.29; it must be 0.3 to 0.95"),
        ({"scale_factor": float("inf")}, "scale_factor is inf"),
        ({"thresholds": (0.6, 0.7, float("nan"))}, "three numbers between 0 and 1"),
        ({"thresholds": (0.6, 0.7, float("-inf"))}, "three numbers between 0 and 1"),
        ({"thresholds": (0.6, 0.7, 0.7, 0.7)}, "three numbers between 0 and 1"),
    ],
)
def test_a_detector_refuses_bad_options_by_name(options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        unface.Detector(**options)  # type: ignore[arg-type]


def test_faces_can_be_counted_indexed_and_walked(cascade: Cascade) -> None:
    faces = cascade.detect(crowd(3, 2, 40).image)
    assert len(faces) == len(list(faces)) == 6
    assert faces[0].score == max(face.score for face in faces)
    assert faces[-1].box == tuple(faces.boxes[-1].tolist())
    with pytest.raises(IndexError):
        faces[6]


def test_mixed_sizes_in_any_order_do_not_disturb_each_other(cascade: Cascade) -> None:
    """The same page again with less on it: what an earlier picture left there is not seen."""
    rng = np.random.default_rng(4)
    sizes = [(240, 300), (60, 70), (500, 90), (33, 47), (300, 240), (21, 21), (160, 161)]
    images = [crowd(3, 2, 36).image[:h, :w] for h, w in sizes] + [
        np.full((50, 50, 3), 255, np.uint8)
    ]
    expected = [cascade.detect(image) for image in images]
    for index in rng.permutation(len(images) * 2) % len(images):
        assert same(cascade.detect(images[index]), expected[index])
