"""Detect, Anonymize and GetServerInfo through a real server."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from unface.anonymize import decode, encode
from unface.engines import prebuilt
from unface.mtcnn.options import PROFILES
from unface.server.status import REASON_KEY
from unface.v1 import unface_pb2 as pb
from unface.v1.unface_pb2_grpc import UnfaceStub
from unface.worker.messages import detect_options_from_message, raw_image_message

Image = NDArray[np.uint8]
FACE = (178, 64, 265, 173)  # the astronaut's, seen by eye


def reason_of(error: grpc.RpcError) -> str | None:
    return next((m.value for m in error.trailing_metadata() if m.key == REASON_KEY), None)


def overlap(a: pb.Box, b: tuple[float, ...]) -> float:
    """Return intersection over union."""
    width = min(a.x2, b[2]) - max(a.x1, b[0])
    height = min(a.y2, b[3]) - max(a.y1, b[1])
    both = max(0.0, width) * max(0.0, height)
    areas = (a.x2 - a.x1) * (a.y2 - a.y1) + (b[2] - b[0]) * (b[3] - b[1])
    return both / (areas - both)


def test_the_astronauts_face_is_found_with_its_landmarks(
    stub: UnfaceStub, astronaut: Image, backend: str
) -> None:
    answer = stub.Detect(pb.DetectRequest(image=pb.Image(encoded=encode(astronaut, "jpeg"))))
    face = answer.faces[0]  # of any others this is the best
    assert overlap(face.box, FACE) > 0.8
    assert face.score > 0.99
    points = face.landmarks
    assert points.left_eye.x < points.nose.x < points.right_eye.x
    assert points.left_eye.y < points.nose.y < points.mouth_left.y
    assert points.mouth_left.x < points.mouth_right.x
    assert (answer.width, answer.height) == (512, 512)
    assert (answer.backend, answer.precision) == (backend, "fp32")
    assert answer.timings.decode_ms > 0
    assert answer.timings.detect_ms > 0
    assert answer.timings.mask_ms == answer.timings.encode_ms == 0


def test_png_and_raw_give_the_same_faces(stub: UnfaceStub, astronaut: Image) -> None:
    png = stub.Detect(pb.DetectRequest(image=pb.Image(encoded=encode(astronaut, "png"))))
    raw = stub.Detect(pb.DetectRequest(image=raw_image_message(astronaut)))
    assert list(png.faces) == list(raw.faces)
    assert len(png.faces) == 1


def test_a_picture_without_faces_has_none(stub: UnfaceStub) -> None:
    answer = stub.Detect(pb.DetectRequest(image=raw_image_message(np.zeros((60, 80, 3), np.uint8))))
    assert len(answer.faces) == 0
    assert (answer.width, answer.height) == (80, 60)


def test_min_face_bounds_the_search(stub: UnfaceStub, astronaut: Image) -> None:
    request = pb.DetectRequest(image=raw_image_message(astronaut))
    request.detect_options.min_face = 300
    assert len(stub.Detect(request).faces) == 0


def test_anonymizing_covers_the_face_and_nothing_else(stub: UnfaceStub, astronaut: Image) -> None:
    request = pb.AnonymizeRequest(image=pb.Image(encoded=encode(astronaut, "png")))
    answer = stub.Anonymize(request)
    assert answer.format == pb.OUTPUT_FORMAT_PNG
    pixels = decode(answer.image.encoded).pixels
    changed = (pixels != astronaut).any(axis=2)
    x1, y1, x2, y2 = FACE
    assert changed[y1:y2, x1:x2].mean() > 0.95
    y, x = np.nonzero(changed)
    width, height = x2 - x1, y2 - y1
    assert x1 - width / 2 < x.min() < x.max() < x2 + width / 2
    assert y1 - height / 2 < y.min() < y.max() < y2 + height / 2
    again = stub.Detect(pb.DetectRequest(image=answer.image))
    assert not any(overlap(face.box, FACE) > 0.3 for face in again.faces)
    assert len(answer.faces) == 1
    assert (answer.width, answer.height) == (512, 512)
    assert answer.timings.mask_ms > 0
    assert answer.timings.encode_ms > 0


@pytest.mark.parametrize(
    ("sent", "asked", "expected"),
    [
        ("jpeg", pb.OUTPUT_FORMAT_UNSPECIFIED, "jpeg"),
        ("webp", pb.OUTPUT_FORMAT_UNSPECIFIED, "webp"),
        ("raw", pb.OUTPUT_FORMAT_UNSPECIFIED, "png"),
        ("png", pb.OUTPUT_FORMAT_WEBP, "webp"),
        ("raw", pb.OUTPUT_FORMAT_RAW, "raw"),
        ("jpeg", pb.OUTPUT_FORMAT_RAW, "raw"),
    ],
)
def test_a_picture_comes_back_as_it_came_or_as_asked(
    stub: UnfaceStub, astronaut: Image, sent: str, asked: Any, expected: str
) -> None:
    small = np.ascontiguousarray(astronaut[:256, 100:356])
    image = raw_image_message(small) if sent == "raw" else pb.Image(encoded=encode(small, sent))
    answer = stub.Anonymize(
        pb.AnonymizeRequest(image=image, anonymize_options=pb.AnonymizeOptions(format=asked))
    )
    assert pb.OutputFormat.Name(answer.format) == f"OUTPUT_FORMAT_{expected.upper()}"
    if expected == "raw":
        assert (answer.image.raw.width, answer.image.raw.height) == (256, 256)
        assert len(answer.image.raw.rgb) == 256 * 256 * 3
    else:
        picture = decode(answer.image.encoded)
        assert picture.format == expected
        assert picture.pixels.shape == (256, 256, 3)


def test_a_solid_mask_has_the_colour_asked_for(stub: UnfaceStub, astronaut: Image) -> None:
    options = pb.AnonymizeOptions(
        method=pb.MASK_METHOD_SOLID,
        shape=pb.MASK_SHAPE_RECTANGLE,
        color=pb.Color(red=1, green=2, blue=3),
        margin=0,
        format=pb.OUTPUT_FORMAT_RAW,
    )
    request = pb.AnonymizeRequest(image=raw_image_message(astronaut), anonymize_options=options)
    answer = stub.Anonymize(request)
    pixels = np.frombuffer(answer.image.raw.rgb, np.uint8).reshape(512, 512, 3)
    box = answer.faces[0].box
    inside = pixels[int(box.y1) + 1 : int(box.y2), int(box.x1) + 1 : int(box.x2)]
    assert (inside == (1, 2, 3)).all()


@pytest.mark.parametrize(
    ("detect", "anonymize", "message"),
    [
        (pb.DetectOptions(profile="best"), None, "profile is 'best'; there are"),
        (pb.DetectOptions(min_face=0), None, "min_face is 0"),
        (pb.DetectOptions(scale_factor=2), None, "scale_factor is 2"),
        (pb.DetectOptions(onet_threshold=0), None, "thresholds are"),
        (None, pb.AnonymizeOptions(method=99), "method is number 99"),  # type: ignore[arg-type]
        (None, pb.AnonymizeOptions(cells=0), "cells is 0"),
        (None, pb.AnonymizeOptions(margin=-1), "margin is -1"),
        (None, pb.AnonymizeOptions(kernel=9), "kernel is 9"),
        (None, pb.AnonymizeOptions(color=pb.Color(blue=300)), "color is"),
        (None, pb.AnonymizeOptions(quality=0), "quality is 0"),
    ],
)
def test_a_bad_option_is_refused_with_its_name_and_what_would_be_right(
    stub: UnfaceStub,
    astronaut: Image,
    detect: pb.DetectOptions | None,
    anonymize: pb.AnonymizeOptions | None,
    message: str,
) -> None:
    request = pb.AnonymizeRequest(
        image=raw_image_message(astronaut), detect_options=detect, anonymize_options=anonymize
    )
    with pytest.raises(grpc.RpcError, match=message) as caught:
        stub.Anonymize(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(caught.value) == "InvalidOption"


def test_a_result_larger_than_a_message_is_refused_with_advice(stub: UnfaceStub) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (5000, 5000, 3), np.uint8)
    options = pb.AnonymizeOptions(format=pb.OUTPUT_FORMAT_RAW)
    detect = pb.DetectOptions(min_face=2000)
    request = pb.AnonymizeRequest(
        image=pb.Image(encoded=encode(noise, "jpeg", quality=30)),
        detect_options=detect,
        anonymize_options=options,
    )
    with pytest.raises(grpc.RpcError, match=r"75000000 bytes as raw; .* ask for JPEG") as caught:
        stub.Anonymize(request)
    assert reason_of(caught.value) == "ImageTooLarge"


def test_the_server_tells_what_serves(stub: UnfaceStub, backend: str) -> None:
    info = stub.GetServerInfo(pb.GetServerInfoRequest())
    assert info.version == version("unface")
    assert (info.backend, info.precision) == (backend, "fp32")
    shipped = {
        (e.network, e.precision, e.sha256)
        for e in prebuilt()
        if e.runtime == backend and e.precision in ("fp32", "int8")
    }
    # The engines of the profiles: "fast" is served by INT8.
    assert {(e.name, e.precision, e.sha256) for e in info.engines} == shipped
    assert (info.limits.max_bytes, info.limits.max_pixels) == (64 * 1024 * 1024, 100_000_000)
    assert list(info.formats) == ["jpeg", "png", "webp"]
    told = {
        p.name: replace(detect_options_from_message(p.options), precision=p.precision or None)
        for p in info.profiles
    }
    assert told == PROFILES
    assert info.threads >= 1


def test_one_picture_after_another_leaves_no_trace(stub: UnfaceStub, astronaut: Image) -> None:
    a = pb.DetectRequest(image=raw_image_message(astronaut))
    b = pb.DetectRequest(image=raw_image_message(np.ascontiguousarray(astronaut[:300, 100:333])))
    first, other, second = (list(stub.Detect(request).faces) for request in (a, b, a))
    assert first == second
    assert other != first


def test_callers_at_the_same_time_get_what_callers_alone_get(
    stub: UnfaceStub, astronaut: Image
) -> None:
    requests = [
        pb.DetectRequest(image=raw_image_message(np.ascontiguousarray(astronaut[: 250 + 20 * n])))
        for n in range(8)
    ]
    alone = [list(stub.Detect(request).faces) for request in requests]
    with ThreadPoolExecutor(8) as pool:
        together = [list(answer.faces) for answer in pool.map(stub.Detect, requests * 2)]
    assert together == alone * 2
