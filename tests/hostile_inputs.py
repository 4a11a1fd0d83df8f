"""Hostile requests without end, the same for the same seed: damaged files, odd numbers, bad bytes.

`hostile_inputs` mixes three kinds: picture files that one or more mutations have damaged, in a
message that is right; messages whose fields hold what no honest client sends; and bytes that are
no message, or a message with wrong types, unknown fields and depths.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

from google.protobuf.message import DecodeError, Message
from hostile_files import MOST_FILE, SIDES, damaged_file, flip_bits, good_files, truncate

from unface.v1 import unface_pb2 as pb

Random = random.Random
METHODS = {
    "Detect": pb.DetectRequest,
    "Anonymize": pb.AnonymizeRequest,
    "DetectStream": pb.DetectRequest,
    "AnonymizeStream": pb.AnonymizeRequest,
    "Report": pb.ReportRequest,
}
NUMBERS = (
    0.0, -0.0, -1.0, 1.0, 5e-324, 1e-9, 0.3, 0.5, 0.709, 0.95, 0.9999, 11.999, 12.0, 20.0, 40.0,
    500.0, 1e9, 1e308, float("inf"), float("-inf"), float("nan"),
)  # fmt: skip
WHOLE = (0, 1, 2, 5, 16, 17, 100, 101, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)
WORDS = (
    "", "accurate", "fast", "privacy", "Accurate", "fast\0", "../../etc/passwd", "ü" * 300,
    "\u202e", "%s%n{0}", "a\r\nb: c", "fast " * 200,
)  # fmt: skip


class Hostile(NamedTuple):
    """A call: what it is, which RPC, and the messages as bytes (several for a stream)."""

    name: str
    method: str
    messages: tuple[bytes, ...]

    @property
    def are_messages(self) -> bool:
        """Whether all can be parsed; if not, gRPC itself refuses the call."""
        return all(parsed(self.method, message) is not None for message in self.messages)


def parsed(method: str, message: bytes) -> Message | None:
    """Return the request that bytes are; None when they are none."""
    try:
        return METHODS[method].FromString(message)
    except DecodeError:
        return None


def hostile_inputs(count: int, seed: int = 0) -> Iterator[Hostile]:
    """Yield so many hostile calls; the n-th is the same whatever the count."""
    for number in range(count):
        rng = Random(f"{seed} {number}")
        (kind,) = rng.choices((file_call, option_call, raw_call, wire_call), (60, 15, 10, 15))
        made = kind(rng)
        yield made._replace(name=f"{number}: {made.name}")


# Calls -------------------------------------------------------------------------------------------


def file_call(rng: Random) -> Hostile:
    """A damaged file in a message that is right."""
    name, file = damaged_file(rng)
    return _call(rng, name, lambda request: _set_file(request, file))


def option_call(rng: Random) -> Hostile:
    """A picture that is right, with options that are not, or are odd."""
    file = rng.choice(good_files())

    def fill(request: Message) -> None:
        _set_file(request, file)
        for name in ("detect_options", "anonymize_options"):
            if name in request.DESCRIPTOR.fields_by_name:
                for _ in range(rng.randrange(1, 4)):
                    _set_any(rng, getattr(request, name))
        _set_any(rng, request, without="image")

    return _call(rng, "options", fill)


def raw_call(rng: Random) -> Hostile:
    """Raw pixels: noise that is right, sides that do not fit their bytes, lines of one pixel."""
    width, height = rng.choice(SIDES), rng.choice(SIDES)
    fits = width * height * 3 <= MOST_FILE
    size = width * height * 3 if fits else rng.randrange(MOST_FILE)
    if rng.random() < 0.4:
        size = max(0, size + rng.choice((-3, -1, 1, 3, 1000)))
    pixels = rng.randbytes(size)

    def fill(request: Message) -> None:
        raw = pb.RawImage(width=min(width, 2**32 - 1), height=height, rgb=pixels)
        request.image.raw.CopyFrom(raw)  # type: ignore[attr-defined]
        if "anonymize_options" in request.DESCRIPTOR.fields_by_name and rng.random() < 0.5:
            _set_any(rng, request.anonymize_options)  # type: ignore[attr-defined]

    return _call(rng, f"raw {width} x {height} in {size} bytes", fill)


def wire_call(rng: Random) -> Hostile:
    """Bytes that are no message, or one that no library would write."""
    method = rng.choice(tuple(METHODS))
    request = METHODS[method]()
    _set_file(request, rng.choice(good_files()))
    mutate = rng.choice(WIRE_MUTATIONS)
    messages = tuple(mutate(rng, request.SerializeToString()) for _ in range(_frames(rng, method)))
    return Hostile(f"wire, {mutate.__name__}", method, messages)


def _call(rng: Random, name: str, fill: Callable[[Message], None]) -> Hostile:
    (method,) = rng.choices(tuple(METHODS), (40, 40, 8, 8, 4))
    messages = []
    for _ in range(_frames(rng, method)):
        request = METHODS[method]()
        fill(request)
        messages.append(request.SerializeToString())
    return Hostile(name, method, tuple(messages))


def _frames(rng: Random, method: str) -> int:
    return rng.randrange(4) if method.endswith("Stream") else 1


def _set_file(request: Message, file: bytes) -> None:
    request.image.encoded = file  # type: ignore[attr-defined]


def _set_any(rng: Random, message: Message, without: str = "") -> None:
    """Set one field of a message to a value that is odd for it."""
    field = rng.choice([f for f in message.DESCRIPTOR.fields if f.name != without])
    if field.message_type is not None:
        if not field.is_repeated:
            _set_any(rng, getattr(message, field.name))
        return
    kinds = {
        field.CPPTYPE_DOUBLE: NUMBERS,
        field.CPPTYPE_FLOAT: NUMBERS,
        field.CPPTYPE_STRING: WORDS,
        field.CPPTYPE_BOOL: (True, False),
        field.CPPTYPE_ENUM: (0, 1, 2, 3, 4, 5, 99, -1, 2**31 - 1),
        field.CPPTYPE_UINT64: (*WHOLE, 2**64 - 1),
    }
    setattr(message, field.name, rng.choice(kinds.get(field.cpp_type, WHOLE)))


# Messages ----------------------------------------------------------------------------------------


def varint(number: int) -> bytes:
    """Return a number as protobuf writes it."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def tag(field: int, wire_type: int) -> bytes:
    """Return the bytes before a field's value."""
    return varint(field << 3 | wire_type)


def noise(rng: Random, message: bytes) -> bytes:
    """Be no message at all."""
    return rng.randbytes(rng.randrange(400))


def cut_short(rng: Random, message: bytes) -> bytes:
    """End anywhere."""
    return truncate(rng, message)


def flipped(rng: Random, message: bytes) -> bytes:
    """Change bits near the beginning, where tags and lengths are."""
    return flip_bits(rng, message[:24]) + message[24:]


def wrong_types(rng: Random, message: bytes) -> bytes:
    """Give a field that is known a wire type that is not its own."""
    value = {0: varint(rng.choice(WHOLE)), 1: rng.randbytes(8), 5: rng.randbytes(4)}
    wire_type = rng.choice(tuple(value))
    return message + tag(rng.randrange(1, 7), wire_type) + value[wire_type]


def unknown_fields(rng: Random, message: bytes) -> bytes:
    """Add fields that nobody knows, some of them large."""
    field, size = rng.choice((15, 99, 19_999, 2**29 - 1)), rng.choice((0, 10, 50_000))
    return message + (tag(field, 2) + varint(size) + rng.randbytes(size)) * rng.choice((1, 3))


def deep(rng: Random, message: bytes) -> bytes:
    """Nest unknown groups, closed or not."""
    depth = rng.choice((10, 99, 101, 5_000))
    ends = tag(99, 4) * rng.choice((depth, depth, depth - 1, 0))
    return message + tag(99, 3) * depth + ends


def nested(rng: Random, message: bytes) -> bytes:
    """Put the message into its own first field again and again."""
    for _ in range(rng.choice((1, 5, 120))):
        message = tag(1, 2) + varint(len(message)) + message
    return message


def both_sources(rng: Random, message: bytes) -> bytes:
    """Send a picture as file and as pixels: the last one counts, in either order."""
    raw = pb.DetectRequest(image=pb.Image(raw=pb.RawImage(width=4, height=4, rgb=bytes(48))))
    pieces = [message, raw.SerializeToString()] * rng.choice((1, 20))
    rng.shuffle(pieces)
    return b"".join(pieces)


def bad_lengths(rng: Random, message: bytes) -> bytes:
    """Promise more bytes than there are, or a number that never ends."""
    length = rng.choice((varint(2**31 - 1), varint(2**63), b"\xff" * 11, varint(len(message) + 1)))
    return tag(1, 2) + length + message


def bad_text(rng: Random, message: bytes) -> bytes:
    """Name a profile in bytes that are no UTF-8."""
    options = tag(1, 2) + varint(3) + b"\xff\xfe\xc0"
    return message + tag(2, 2) + varint(len(options)) + options


def field_zero(rng: Random, message: bytes) -> bytes:
    """Use the number that no field may have, and wire types that do not exist."""
    return message + rng.choice((b"\0\0", tag(3, 6), tag(3, 7), tag(1, 4)))


WIRE_MUTATIONS = (
    noise, cut_short, flipped, wrong_types, unknown_fields, deep, nested, both_sources,
    bad_lengths, bad_text, field_zero,
)  # fmt: skip
