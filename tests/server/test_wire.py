"""`split` against protobuf's own parser: the same, whatever comes."""

from __future__ import annotations

import random
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from unface.errors import InvalidOption
from unface.server.wire import Parts, parsed, split
from unface.v1 import unface_pb2 as pb

UINT32 = st.integers(0, 2**32 - 1)
IMAGES = st.one_of(
    st.builds(pb.Image),
    st.builds(pb.Image, encoded=st.binary(max_size=300)),
    st.builds(
        pb.Image,
        raw=st.builds(pb.RawImage, width=UINT32, height=UINT32, rgb=st.binary(max_size=300)),
    ),
)
DETECT = st.builds(
    pb.DetectRequest,
    image=st.none() | IMAGES,
    detect_options=st.none() | st.builds(pb.DetectOptions, profile=st.text(), min_face=st.floats()),
    frame_id=st.none() | st.integers(0, 2**64 - 1),
    priority=st.integers(0, 5),
)
ANONYMIZE = st.builds(
    pb.AnonymizeRequest,
    image=st.none() | IMAGES,
    anonymize_options=st.none() | st.builds(pb.AnonymizeOptions, quality=UINT32),
)


def held_to_protobuf(kind: Any, data: bytes) -> None:
    parts = split(kind, data)
    try:
        whole = kind.FromString(data)
    except DecodeError:
        assert isinstance(parts, InvalidOption)
        return
    assert isinstance(parts, Parts)
    source = whole.image.WhichOneof("source")
    if source == "raw":
        raw = whole.image.raw
        assert parts.raw_size == (raw.width, raw.height)
        assert bytes(parts.image or b"") == raw.rgb
    elif source == "encoded":
        assert parts.raw_size is None
        assert parts.image is not None
        assert bytes(parts.image) == whole.image.encoded
    else:
        assert (parts.image, parts.raw_size) == (None, None)
    whole.ClearField("image")
    assert parts.request.SerializeToString(deterministic=True) == whole.SerializeToString(
        deterministic=True
    )


@settings(max_examples=300)
@given(DETECT)
def test_a_detect_request_is_split_as_protobuf_reads_it(request: pb.DetectRequest) -> None:
    held_to_protobuf(pb.DetectRequest, request.SerializeToString())


@settings(max_examples=200)
@given(ANONYMIZE)
def test_an_anonymize_request_is_split_as_protobuf_reads_it(request: pb.AnonymizeRequest) -> None:
    held_to_protobuf(pb.AnonymizeRequest, request.SerializeToString())


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_any_bytes_are_taken_or_refused_as_protobuf_does(data: bytes) -> None:
    held_to_protobuf(pb.DetectRequest, data)


@settings(max_examples=200)
@given(st.lists(DETECT, min_size=2, max_size=3))
def test_messages_one_after_another_are_merged_as_protobuf_merges_them(
    requests: list[pb.DetectRequest],
) -> None:
    held_to_protobuf(pb.DetectRequest, b"".join(r.SerializeToString() for r in requests))


def test_flipped_bytes_of_real_requests_are_read_as_protobuf_reads_them() -> None:
    chance = random.Random(3)  # noqa: S311 - the same every time
    for image in (
        pb.Image(encoded=bytes(range(200))),
        pb.Image(raw=pb.RawImage(width=300, height=7, rgb=bytes(range(210)))),
    ):
        request = pb.DetectRequest(image=image, frame_id=77)
        request.detect_options.profile = "fast"
        data = bytearray(request.SerializeToString())
        for _ in range(20_000):
            damaged = data.copy()
            for _ in range(chance.randint(1, 3)):
                damaged[chance.choice((*range(12), -chance.randint(1, 20)))] = chance.randrange(256)
            held_to_protobuf(pb.DetectRequest, bytes(damaged))


@pytest.mark.parametrize("size", [(1920, 1080), (2**32 - 1, 1)])
def test_a_usual_picture_is_a_view_and_no_copy(size: tuple[int, int]) -> None:
    request = pb.DetectRequest()
    request.image.raw.width, request.image.raw.height = size
    request.image.raw.rgb = bytes(1000)
    data = request.SerializeToString()
    parts = split(pb.DetectRequest, data)
    assert isinstance(parts, Parts)
    assert parts.image is not None
    assert parts.image.obj is data
    assert parts.raw_size == size


def test_a_message_that_is_none_is_named() -> None:
    error = parsed(pb.ReportRequest, b"\xff\xff")
    assert isinstance(error, InvalidOption)
    assert str(error) == ("the request is no ReportRequest message of unface.v1, or a damaged one")
    assert parsed(pb.GetServerInfoRequest, b"") == pb.GetServerInfoRequest()
