"""Requests as they come over the wire: the picture is found in them and never copied.

protobuf copies a picture when it parses a message, and once more when the field is read: at 1080p
as long as half a detection. So the outer fields of a request are walked here, after
https://protobuf.dev/programming-guides/encoding, and protobuf is given the rest. Whatever is not
as every client writes it is left to protobuf as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import DecodeError

from unface.errors import InvalidOption
from unface.v1 import unface_pb2 as pb

Request = TypeVar("Request", pb.DetectRequest, pb.AnonymizeRequest)
Message = TypeVar("Message")

# Numbers of fields in unface.proto.
_IMAGE = 1  # of DetectRequest and AnonymizeRequest
_ENCODED, _RAW = 1, 2  # of Image
_WIDTH, _HEIGHT, _RGB = 1, 2, 3  # of RawImage
_VARINT, _LENGTH = 0, 2  # wire types
_FIXED = {1: 8, 5: 4}  # wire type to bytes
_MOST_FIELDS = 64  # looked at; requests have a dozen


class _Unusual(Exception):
    """A message that is left to protobuf."""


@dataclass(frozen=True)
class Parts(Generic[Request]):
    """A request without its picture, and the picture: a file, or raw pixels of `raw_size`."""

    request: Request
    image: memoryview | None
    raw_size: tuple[int, int] | None = None


@dataclass(frozen=True)
class _Field:
    number: int
    kind: int  # wire type
    start: int  # of its tag
    value: int  # the number itself for a varint, else where the bytes begin
    end: int


def split(kind: type[Request], data: bytes) -> Parts[Request] | InvalidOption:
    """Return the parts of a serialized request, or the error for what is none.

    The picture is a view of `data`.
    """
    try:
        return _split(kind, data)
    except (_Unusual, IndexError):
        pass
    try:
        request = kind.FromString(data)
    except DecodeError:
        return _no_message(kind)
    image, size = request.image, None
    source = image.WhichOneof("source")
    picture = None
    if source == "raw":
        picture, size = memoryview(image.raw.rgb), (image.raw.width, image.raw.height)
    elif source == "encoded":
        picture = memoryview(image.encoded)
    request.ClearField("image")
    return Parts(request, picture, size)


def parsed(kind: type[Message], data: bytes) -> Message | InvalidOption:
    """Return a message, or the error for bytes that are none."""
    try:
        message: Message = kind.FromString(data)  # type: ignore[attr-defined]
    except DecodeError:
        return _no_message(kind)
    return message


def _no_message(kind: type) -> InvalidOption:
    return InvalidOption(
        f"the request is no {kind.__name__} message of unface.v1, or a damaged one"
    )


def _split(kind: type[Request], data: bytes) -> Parts[Request]:
    fields = list(_fields(data, 0, len(data)))
    images = [field for field in fields if field.number == _IMAGE]
    if len(images) != 1 or images[0].kind != _LENGTH:
        raise _Unusual
    (image,) = images
    view = memoryview(data)
    try:
        request = kind.FromString(bytes(view[: image.start]) + bytes(view[image.end :]))
    except DecodeError:
        raise _Unusual from None
    inner = list(_fields(data, image.value, image.end))
    if len(inner) != 1 or inner[0].kind != _LENGTH:
        raise _Unusual
    (source,) = inner
    if source.number == _ENCODED:
        return Parts(request, view[source.value : source.end])
    if source.number != _RAW:
        raise _Unusual
    return Parts(request, *_raw(data, source))


def _raw(data: bytes, source: _Field) -> tuple[memoryview, tuple[int, int]]:
    fields = {field.number: field for field in _fields(data, source.value, source.end)}
    wanted = {_WIDTH: _VARINT, _HEIGHT: _VARINT, _RGB: _LENGTH}
    if {number: field.kind for number, field in fields.items()} != wanted:
        raise _Unusual  # also where one is missing: then it is 0, or empty
    width, height, rgb = fields[_WIDTH].value, fields[_HEIGHT].value, fields[_RGB]
    if max(width, height) >= 1 << 32:
        raise _Unusual  # protobuf cuts it to 32 bits
    return memoryview(data)[rgb.value : rgb.end], (width, height)


def _fields(data: bytes, start: int, end: int) -> Iterator[_Field]:
    """Yield the fields of a message that lies in `data[start:end]`; raises `_Unusual`."""
    seen = set()
    for _ in range(_MOST_FIELDS):
        if start == end:
            return
        tag, value = _varint(data, start)
        number, kind = tag >> 3, tag & 7
        if number in seen or number == 0:
            raise _Unusual
        seen.add(number)
        if kind == _LENGTH:
            length, value = _varint(data, value)
            after = value + length
        elif kind == _VARINT:
            value, after = _varint(data, value)
        elif kind in _FIXED:
            after = value + _FIXED[kind]
        else:
            raise _Unusual
        if after > end:
            raise _Unusual
        yield _Field(number, kind, start, value, after)
        start = after
    raise _Unusual


def _varint(data: bytes, start: int) -> tuple[int, int]:
    """Return a number and where it ends."""
    value = 0
    for index in range(10):
        byte = data[start + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, start + index + 1
    raise _Unusual
