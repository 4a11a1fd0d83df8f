from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unface.v1 import unface_pb2 as pb
from unface.web.answers import POINTS, to_faces, to_info, to_report, with_image


def face(score: float = 0.5) -> pb.Face:
    points = {name: pb.Point(x=n, y=n + 0.5) for n, name in enumerate(POINTS)}
    return pb.Face(
        box=pb.Box(x1=0.1, y1=1 / 3, x2=1000.1234, y2=-0.0),
        score=score,
        landmarks=pb.Landmarks(**points),
    )


def test_a_face_is_in_thousandths_of_a_pixel() -> None:
    (found,) = to_faces([face()])
    assert found["box"] == [0.1, 0.333, 1000.123, 0.0]
    assert found["landmarks"]["left_eye"] == [0, 0.5]
    assert list(found["landmarks"]) == list(pb.Landmarks.DESCRIPTOR.fields_by_name)


def test_a_report_has_everything_but_the_picture() -> None:
    answer = pb.AnonymizeResponse(
        image=pb.Image(encoded=b"x"),
        format=pb.OUTPUT_FORMAT_WEBP,
        faces=[face()],
        kept=[face(), face()],
        width=3,
        height=4,
        verification=pb.Verification(clean=False, residual=[face()], rounds=2, covered=[face()]),
        audit_record='{"record": {}}',
    )
    report = to_report(answer)
    told = {"width", "height", "faces", "kept", "backend", "precision", "profile", "request_id"}
    assert report.keys() == told | {"format", "verification", "audit", "timings_ms"}
    assert report["format"] == "webp"
    assert len(report["kept"]) == 2
    assert report["verification"]["rounds"] == 2
    assert report["audit"] == {"record": {}}
    json.dumps(report)


def test_what_was_not_asked_for_is_null() -> None:
    report = to_report(pb.AnonymizeResponse(format=pb.OUTPUT_FORMAT_PNG))
    assert (report["verification"], report["audit"], report["faces"]) == (None, None, [])


@given(st.binary(max_size=1000), st.sampled_from([0, 1, 196_607, 196_608, 196_609, 600_000]))
def test_json_with_a_picture_has_the_length_it_says(start: bytes, size: int) -> None:
    image = start.ljust(size, b"\xff")
    length, pieces = with_image({"name": "é", "n": 1}, image)
    whole = b"".join(pieces)
    assert len(whole) == length
    found = json.loads(whole)
    assert (found["name"], found["n"]) == ("é", 1)
    assert base64.b64decode(found["image"], validate=True) == image


def test_limits_are_numbers() -> None:
    """protobuf's own JSON makes text of 64 bits."""
    limits = pb.Limits(max_bytes=1 << 40, max_pixels=5)
    info = to_info(pb.GetServerInfoResponse(limits=limits, device_reason="none"))
    assert info["limits"] == {"max_bytes": 1 << 40, "max_pixels": 5}
    assert info.keys() == set(pb.GetServerInfoResponse.DESCRIPTOR.fields_by_name)


def test_numbers_that_are_none_are_no_json() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        with_image({"n": float("nan")}, b"")
