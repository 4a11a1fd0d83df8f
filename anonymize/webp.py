"""The outer structure of WebP files, after RFC 9649."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from unface.anonymize.containers import (
    MAX_ICC_BYTES,
    MAX_PARTS,
    Container,
    animated,
    damaged,
    truncated,
)
from unface.anonymize.limits import Limits, check_size

_PIXELS = (b"VP8 ", b"VP8L", b"ANMF")
_METADATA_FLAGS = 0x20 | 0x08 | 0x04  # of VP8X: ICC, EXIF, XMP


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield type, start and end (without padding) of every chunk; start is at the type."""
    riff_end = 8 + int.from_bytes(data[4:8], "little")
    if riff_end > len(data):
        raise truncated("WebP", f"its header promises {riff_end} bytes, {len(data)} came")
    position = 12
    for _ in range(MAX_PARTS):
        if position + 8 > riff_end:
            return
        kind, length = struct.unpack_from("<4sI", data, position)
        end = position + 8 + length
        if end > riff_end:
            raise truncated("WebP", f"chunk {kind.decode('latin-1')!r} ends after the file does")
        yield kind, position, end
        position = end + length % 2
    raise damaged("WebP", f"more than {MAX_PARTS} chunks")


def read_canvas(kind: bytes, payload: bytes) -> tuple[int, int]:
    """Return the canvas size that a file's first chunk declares."""
    if kind == b"VP8X" and len(payload) >= 10:
        width, height = payload[4:7], payload[7:10]
        return int.from_bytes(width, "little") + 1, int.from_bytes(height, "little") + 1
    if kind == b"VP8L" and len(payload) >= 5 and payload[0] == 0x2F:
        bits = int.from_bytes(payload[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and len(payload) >= 10 and payload[3:6] == b"\x9d\x01\x2a":
        width_field, height_field = struct.unpack("<HH", payload[6:10])
        return width_field & 0x3FFF, height_field & 0x3FFF
    raise damaged("WebP", "its first chunk is no VP8, VP8L or VP8X header")


def read_webp(data: bytes, limits: Limits) -> Container:
    """Take a WebP file apart.

    Raises `InvalidImage` (damaged, truncated, not accepted) or `ImageTooLarge`.
    """
    size: tuple[int, int] | None = None
    kept: list[bytes] = []
    found: dict[bytes, bytes] = {}
    frames = pictures = 0
    for kind, start, end in _chunks(data):
        if size is None:
            size = read_canvas(kind, data[start + 8 : min(end, start + 18)])
            check_size(*size, limits)
        frames += kind == b"ANMF"
        pictures += kind in _PIXELS
        if kind == b"VP8X":
            flags = data[start + 8] & ~_METADATA_FLAGS
            kept.append(data[start : start + 8] + bytes([flags]) + data[start + 9 : end])
        elif kind in (b"ICCP", b"EXIF"):
            found.setdefault(kind, data[start + 8 : end])
        elif kind in (*_PIXELS, b"ALPH", b"ANIM"):
            kept.append(data[start:end] + b"\0" * ((end - start) % 2))
    if frames > 1:
        raise animated("WebP", frames)
    if size is None or not pictures:
        raise damaged("WebP", "it holds no picture")
    body = b"".join(kept)
    file = b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body
    exif = found.get(b"EXIF", b"").removeprefix(b"Exif\0\0") or None
    return Container("webp", *size, file, exif, found.get(b"ICCP", b"")[:MAX_ICC_BYTES] or None)
