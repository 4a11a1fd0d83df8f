from typing import Any

import numpy as np
import pytest

from unface.anonymize import FORMATS, METHODS, SHAPES, Limits, MaskOptions, encode
from unface.errors import ImageTooLarge, InvalidImage, InvalidOption
from unface.mtcnn.faces import LANDMARK_NAMES, Faces
from unface.mtcnn.options import PROFILES, DetectOptions
from unface.requests import anonymize_options_message, detect_options_message
from unface.v1 import unface_pb2 as pb
from unface.worker import messages
from unface.worker.pipeline import describe


def test_no_fields_mean_the_defaults() -> None:
    assert messages.detect_options_from_message(pb.DetectOptions()) == DetectOptions()
    assert messages.mask_options_from_message(pb.AnonymizeOptions()) == MaskOptions()
    output = messages.output_options_from_message(pb.AnonymizeOptions())
    assert output == messages.OutputOptions(None, 95, False)


def test_a_field_that_is_set_overrides_the_profile_and_no_other() -> None:
    message = pb.DetectOptions(profile="privacy", rnet_threshold=0.9)
    pnet, _, onet = PROFILES["privacy"].thresholds
    assert messages.detect_options_from_message(message).thresholds == (pnet, 0.9, onet)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("min_face", 0, "min_face is 0.0; it must be 12"),
        ("min_face", float("nan"), "min_face is nan"),
        ("min_face", float("inf"), "min_face is inf"),
        ("scale_factor", 0, "scale_factor is 0.0; it must be 0.3 to 0.95"),
        ("scale_factor", 1, "scale_factor is 1.0"),
        ("pnet_threshold", 0, "thresholds are .*0.0"),
        ("rnet_threshold", 1, "thresholds are .*1.0"),
        ("onet_threshold", -1, "thresholds are .*-1.0"),
        ("profile", "", "profile is ''; there are accurate, fast, privacy"),
        ("profile", "best", "profile is 'best'; there are accurate, fast, privacy"),
    ],
)
def test_a_bad_detect_option_is_named_with_its_value(field: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        messages.detect_options_from_message(pb.DetectOptions(**{field: value}))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("method", 99, r"method is number 99; there are 1 \(mosaic\), 2 \(solid\)"),
        ("shape", 99, r"shape is number 99; there are 1 \(ellipse\)"),
        ("margin", -0.1, "margin is -0.1; it must be"),
        ("margin", float("nan"), "margin is nan"),
        ("cells", 0, "cells is 0; it must be a whole number from 2 to 16"),
        ("kernel", 0, "kernel is 0.0; it must be"),
        ("color", pb.Color(red=256), "color is .*256.* from 0 to 255"),
    ],
)
def test_a_bad_mask_option_is_named_with_its_value(field: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        messages.mask_options_from_message(pb.AnonymizeOptions(**{field: value}))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("format", 99, r"format is number 99; there are 1 \(jpeg\)"),
        ("quality", 0, "quality is 0; it must be a whole number from 1 to 100"),
        ("quality", 101, "quality is 101"),
    ],
)
def test_a_bad_output_option_is_named_with_its_value(field: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        messages.output_options_from_message(pb.AnonymizeOptions(**{field: value}))


def test_a_present_zero_that_is_allowed_is_kept() -> None:
    message = pb.AnonymizeOptions(margin=0, color=pb.Color())
    assert messages.mask_options_from_message(message).margin == 0


def test_every_name_has_a_number_and_every_number_a_name() -> None:
    assert tuple(messages.METHODS.values()) == METHODS
    assert tuple(messages.SHAPES.values()) == SHAPES
    assert tuple(messages.OUTPUT_FORMATS.values()) == (*FORMATS, messages.RAW)
    for names, enum in (
        (messages.METHODS, pb.MaskMethod),
        (messages.SHAPES, pb.MaskShape),
        (messages.OUTPUT_FORMATS, pb.OutputFormat),
    ):
        assert {0, *names} == set(enum.values())


def test_what_a_client_says_is_what_the_server_hears() -> None:
    detect = detect_options_message(
        profile="privacy", min_face=33, scale_factor=0.8, thresholds=(0.1, 0.2, 0.3)
    )
    expected = DetectOptions(33, 0.8, (0.1, 0.2, 0.3))
    assert messages.detect_options_from_message(detect) == expected
    anonymize = anonymize_options_message(
        method="solid",
        shape="rectangle",
        margin=0,
        cells=7,
        kernel=1,
        color=(1, 2, 3),
        format="webp",
        quality=7,
        keep_exif=True,
    )
    masks = messages.mask_options_from_message(anonymize)
    assert masks == MaskOptions("solid", "rectangle", 0, 7, 1, (1, 2, 3))
    output = messages.output_options_from_message(anonymize)
    assert output == messages.OutputOptions("webp", 7, True)


def test_black_said_is_not_black_left_out() -> None:
    assert anonymize_options_message(color=(0, 0, 0)).HasField("color")


@pytest.mark.parametrize(
    "options",
    [
        {"cells": -1},
        {"cells": 2.5},
        {"margin": "much"},
        {"method": "pixelate"},
        {"shape": "star"},
        {"format": "gif"},
        {"color": (1, 2)},
        {"color": (-1, 0, 0)},
        {"quality": 1 << 40},
    ],
)
def test_what_a_message_cannot_say_is_an_invalid_option(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(options))):
        anonymize_options_message(**options)


@pytest.mark.parametrize(
    "options", [{"thresholds": (0.5, 0.5)}, {"min_face": "small"}, {"profile": 3}]
)
def test_detect_options_that_cannot_be_said_are_invalid(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption):
        detect_options_message(**options)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_faces_survive_the_wire_exactly(count: int) -> None:
    random = np.random.default_rng(count)
    faces = Faces(
        boxes=random.random((count, 4), np.float32) * 100,
        scores=random.random(count, np.float32),
        landmarks=random.random((count, 5, 2), np.float32) * 100 - 20,
        width=640,
        height=480,
        backend="tflite",
        precision="fp32",
    )
    answer = pb.DetectResponse()
    describe(answer, faces, {"queue": 1, "detect": 2})
    sent = answer.SerializeToString()
    got = messages.faces_from_message(pb.DetectResponse.FromString(sent))
    assert np.array_equal(got.boxes, faces.boxes)
    assert np.array_equal(got.scores, faces.scores)
    assert np.array_equal(got.landmarks, faces.landmarks)
    assert (got.width, got.height, got.backend, got.precision) == (640, 480, "tflite", "fp32")
    assert {step: ms for step, ms in got.timings_ms.items() if ms} == {"queue": 1, "detect": 2}
    assert got.boxes.shape == (count, 4)
    assert got.landmarks.shape == (count, 5, 2)


def test_landmarks_go_by_their_names() -> None:
    landmarks = np.arange(10, dtype=np.float32).reshape(1, 5, 2)
    faces = Faces(np.zeros((1, 4), np.float32), np.ones(1, np.float32), landmarks, 9, 9)
    message = messages.faces_to_message(faces)[0].landmarks
    for index, name in enumerate(LANDMARK_NAMES):
        point = getattr(message, name)
        assert (point.x, point.y) == (2 * index, 2 * index + 1)


def test_an_encoded_and_a_raw_picture_give_the_same_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 11, 3), np.uint8)
    raw = messages.picture_from_message(messages.raw_image_message(pixels), Limits())
    encoded = pb.Image(encoded=encode(pixels, "png"))
    png = messages.picture_from_message(encoded, Limits())
    assert np.array_equal(raw.pixels, pixels)
    assert np.array_equal(png.pixels, pixels)
    assert (raw.format, png.format) == (messages.RAW, "png")
    assert np.array_equal(messages.pixels_from_message(messages.raw_image_message(pixels)), pixels)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (pb.Image(), InvalidImage, "image is missing; set encoded"),
        (pb.Image(encoded=b""), InvalidImage, "empty"),
        (pb.Image(raw=pb.RawImage()), InvalidImage, "empty"),
        (pb.Image(raw=pb.RawImage(width=2, height=2, rgb=bytes(11))), InvalidImage, "needs 12"),
        (pb.Image(raw=pb.RawImage(width=0, height=2, rgb=bytes(6))), InvalidImage, "0 x 2"),
        (
            pb.Image(raw=pb.RawImage(width=2**32 - 1, height=2**32 - 1, rgb=b"1")),
            ImageTooLarge,
            "MP",
        ),
    ],
)
def test_a_bad_picture_is_refused(image: pb.Image, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        messages.picture_from_message(image, Limits())
