"""The outer structure of PNG files, after the PNG specification, third edition (W3C 2025)."""

from __future__ import annotations

import struct
import zlib
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

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # a pixel, by colour type
_ADAM7 = (  # first column, first row, column step, row step of each pass (PNG section 8.2)
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)
_INFLATE_STEP = 1 << 20
_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_PALETTE = 3


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield type, start and end of every chunk up to and with IEND; start is at the length."""
    position = len(_SIGNATURE)
    for _ in range(MAX_PARTS):
        if position + 12 > len(data):
            raise truncated("PNG", "its end chunk (IEND) is missing")
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if not kind.isalpha():
            raise damaged("PNG", f"no chunk at byte {position}")
        if end > len(data):
            raise truncated("PNG", f"chunk {kind.decode()} ends after the file does")
        if kind in _CRITICAL or kind == b"tRNS":
            checksum = zlib.crc32(memoryview(data)[position + 4 : end - 4])
            if checksum != int.from_bytes(data[end - 4 : end], "big"):
                raise damaged("PNG", f"checksum (CRC) of chunk {kind.decode()} is wrong")
        yield kind, position, end
        if kind == b"IEND":
            return
        position = end
    raise damaged("PNG", f"more than {MAX_PARTS} chunks")


def has_all_rows(file: bytes) -> bool:
    """Tell whether the coded data of a PNG (`Container.pixels_file`) is as long as its size says.

    Pillow takes data that ends after a whole row for complete and leaves the rest black.
    """
    inflate, inflated = zlib.decompressobj(), 0
    expected = 0
    for kind, start, end in _chunks(file):
        if kind == b"IHDR":
            expected = _inflated_bytes(file[start + 8 : end - 4])
        elif kind == b"IDAT":
            packed = file[start + 8 : end - 4]
            while packed and inflated < expected:
                inflated += len(inflate.decompress(packed, _INFLATE_STEP))
                packed = inflate.unconsumed_tail
    return inflated >= expected


def _inflated_bytes(header: bytes) -> int:
    """Return how many bytes the pixels and the filter byte of every row take, from an IHDR."""
    width, height, depth, color = read_header(header)
    bits = depth * _SAMPLES[color]
    total = 0
    for x, y, step_x, step_y in _ADAM7 if header[12] else ((0, 0, 1, 1),):
        columns, rows = (width - x + step_x - 1) // step_x, (height - y + step_y - 1) // step_y
        total += rows * (1 + (columns * bits + 7) // 8) if columns > 0 else 0
    return total


def read_header(payload: bytes) -> tuple[int, int, int, int]:
    """Return width, height, bit depth and colour type of an IHDR chunk."""
    if len(payload) != 13:
        raise damaged("PNG", "its header chunk (IHDR) is not 13 bytes long")
    width, height, depth, color, compression, filtering, interlace = struct.unpack(
        ">IIBBBBB", payload
    )
    if depth not in _DEPTHS.get(color, ()):
        raise damaged("PNG", f"no colour type {color} with {depth} bits exists")
    if compression or filtering or interlace > 1:
        raise damaged("PNG", "unknown compression, filter or interlace method")
    return width, height, depth, color


def read_png(data: bytes, limits: Limits) -> Container:
    """Take a PNG file apart.

    Raises `InvalidImage` (damaged, truncated, not accepted) or `ImageTooLarge`.
    """
    header: tuple[int, int, int, int] | None = None
    kept, seen = [_SIGNATURE], set()
    exif: bytes | None = None
    icc_profile: bytes | None = None
    key_color: tuple[int, ...] | None = None
    for kind, start, end in _chunks(data):
        payload = memoryview(data)[start + 8 : end - 4]
        if header is None:
            if kind != b"IHDR":
                raise damaged("PNG", "its first chunk is not IHDR")
            header = read_header(bytes(payload))
            check_size(header[0], header[1], limits)
        elif kind == b"IHDR" or (kind == b"PLTE" and b"PLTE" in seen):
            raise damaged("PNG", f"chunk {kind.decode()} comes twice")
        elif kind == b"acTL" and (frames := int.from_bytes(payload[:4], "big")) > 1:
            raise animated("PNG", frames)
        elif kind == b"tRNS" and header[3] != _PALETTE:
            key_color = _key_color(bytes(payload), header[2], header[3])
        elif kind == b"eXIf":
            exif = bytes(payload)
        elif kind == b"iCCP":
            icc_profile = _icc_profile(bytes(payload))
        if kind in _CRITICAL or (kind == b"tRNS" and header[3] == _PALETTE):
            kept.append(data[start:end])
        seen.add(kind)
    if header is None or b"IDAT" not in seen:
        raise damaged("PNG", "it holds no pixels (no IDAT chunk)")
    if header[3] == _PALETTE and b"PLTE" not in seen:
        raise damaged("PNG", "its palette (PLTE chunk) is missing")
    return Container("png", header[0], header[1], b"".join(kept), exif, icc_profile, key_color)


def _key_color(payload: bytes, depth: int, color: int) -> tuple[int, ...] | None:
    """Return the transparent colour at 8 bits: 16-bit samples lose their low byte, as pixels do."""
    samples = {0: 1, 2: 3}.get(color, 0)
    if not samples or len(payload) < 2 * samples:
        return None
    values = struct.unpack(f">{samples}H", payload[: 2 * samples])
    if depth == 16:
        return tuple(value >> 8 for value in values)
    return tuple((value & (2**depth - 1)) * 255 // (2**depth - 1) for value in values)


def _icc_profile(payload: bytes) -> bytes | None:
    _, _, packed = payload.partition(b"\0")
    try:
        return zlib.decompressobj().decompress(packed[1:], MAX_ICC_BYTES) or None
    except zlib.error:
        return None
