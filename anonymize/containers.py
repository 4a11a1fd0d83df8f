"""The outer structure of JPEG, PNG and WebP files, read without decoding a pixel.

A file is walked segment by segment, refused when damaged or cut short, and given back as the
smallest file of the same format that holds the pixels. Pillow never sees the metadata, so neither
its text bombs nor its warnings about corrupt EXIF can happen, and what follows the picture's end
(the other pictures of an MPO, hidden data) is gone before decoding.

Sources: ITU-T T.81 annex B (JPEG), PNG third edition (W3C 2025), RFC 9649 (WebP).
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from unface.anonymize.formats import identify
from unface.anonymize.limits import Limits, check_bytes, check_size
from unface.errors import InvalidImage

_MAX_PARTS = 100_000  # segments or chunks: 64 MiB of empty ones would take seconds to walk
_MAX_SCANS = 100  # of a JPEG: each costs a pass over all coefficients; encoders write about 10
_MAX_ICC_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Container:
    """One picture's file taken apart.

    `pixels_file` is a file of the same format without metadata; `exif` is a TIFF block (no
    `Exif` prefix) and `icc_profile` a profile, both as found and not checked; `key_color` is
    the gray level or the R, G, B (0-255) that a PNG without alpha declares transparent.
    """

    format: str
    width: int
    height: int
    pixels_file: bytes
    exif: bytes | None = None
    icc_profile: bytes | None = None
    key_color: tuple[int, ...] | None = None


def read_container(data: bytes, limits: Limits) -> Container:
    """Take a JPEG, PNG or WebP file apart; the size is checked as soon as it is known.

    Raises `InvalidImage` (other format, damaged, truncated, animated) or `ImageTooLarge`.
    """
    check_bytes(len(data), limits)
    return {"jpeg": _read_jpeg, "png": _read_png, "webp": _read_webp}[identify(data)](data, limits)


def _truncated(kind: str, what: str) -> InvalidImage:
    return InvalidImage(f"{kind} is truncated: {what}; send the whole file")


def _damaged(kind: str, what: str) -> InvalidImage:
    return InvalidImage(f"{kind} is damaged: {what}; send an intact file")


def _animated(kind: str, frames: int) -> InvalidImage:
    return InvalidImage(
        f"{kind} is animated ({frames} frames); only still pictures are accepted, "
        "send the frames one by one"
    )


# JPEG ----------------------------------------------------------------------------------------

# In entropy-coded data ff is followed by 00 (stuffing), ff (fill) or d0-d7 (restart).
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_SOI, _EOI, _SOS, _APP0, _APP1, _APP2, _APP14, _COM = 0xD8, 0xD9, 0xDA, 0xE0, 0xE1, 0xE2, 0xEE, 0xFE
_SOF_DECODED = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive, all Huffman coded
_SOF_REFUSED = {
    0xC3: "lossless",
    0xC5: "hierarchical",
    0xC6: "hierarchical",
    0xC7: "hierarchical",
    0xC9: "arithmetic-coded",
    0xCA: "arithmetic-coded",
    0xCB: "arithmetic-coded",
    0xCD: "arithmetic-coded",
    0xCE: "arithmetic-coded",
    0xCF: "arithmetic-coded",
}


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of every segment up to and with EOI; start is at the ff byte.

    A file without EOI is truncated: where it was cut cannot be told, and the decoder would need
    to invent pixels.
    """
    position = 2
    for _ in range(_MAX_PARTS):
        found = _JPEG_MARKER.search(data, position)
        if found is None:
            raise _truncated("JPEG", "its end marker (EOI) is missing")
        marker, start = data[found.end() - 1], found.start()
        if marker == _EOI:
            yield marker, start, found.end()
            return
        if marker < 0xC0 or marker == _SOI:
            raise _damaged("JPEG", f"unexpected marker ff{marker:02x} at byte {start}")
        length = int.from_bytes(data[start + 2 : start + 4], "big")
        position = start + 2 + length
        if start + 4 > len(data) or position > len(data):
            raise _truncated("JPEG", f"segment ff{marker:02x} ends after the file does")
        if length < 2:
            raise _damaged("JPEG", f"segment ff{marker:02x} at byte {start} has no length")
        yield marker, start, position
    raise _damaged("JPEG", f"more than {_MAX_PARTS} segments")


def _jpeg_frame_size(marker: int, payload: bytes) -> tuple[int, int]:
    if marker in _SOF_REFUSED:
        raise InvalidImage(
            f"JPEG is {_SOF_REFUSED[marker]}; send a baseline or progressive Huffman-coded JPEG"
        )
    if len(payload) < 6:
        raise _damaged("JPEG", "its frame header is too short")
    bits, height, width, components = struct.unpack(">BHHB", payload[:6])
    if bits != 8:
        raise InvalidImage(f"JPEG has {bits} bits a sample; send one with 8 bits")
    if components not in (1, 3, 4):
        raise InvalidImage(f"JPEG has {components} components; send gray, RGB, YCbCr or CMYK")
    return width, height


def _read_jpeg(data: bytes, limits: Limits) -> Container:
    kept, size, scans, first_scan, end = [data[:2]], None, 0, 0, 0
    exif: bytes | None = None
    icc_parts: dict[int, bytes] = {}
    for marker, start, end in _jpeg_segments(data):
        payload = data[start + 4 : end]
        if marker in _SOF_DECODED or marker in _SOF_REFUSED:
            if size is not None:
                raise _damaged("JPEG", "it has two frame headers")
            size = _jpeg_frame_size(marker, payload)
            check_size(*size, limits)
        elif marker == _SOS:
            first_scan = first_scan or start
            scans += 1
            if scans > _MAX_SCANS:
                raise _damaged("JPEG", f"more than {_MAX_SCANS} scans")
        if first_scan:
            continue
        if marker == _APP1 and payload.startswith(b"Exif\0\0"):
            exif = exif or payload[6:]
        elif marker == _APP2 and payload.startswith(b"ICC_PROFILE\0"):
            icc_parts[payload[12] if len(payload) > 13 else 0] = payload[14:]
        if _jpeg_needs(marker, payload):
            kept.append(data[start:end])
    if size is None or not first_scan:
        raise _damaged("JPEG", "it holds no picture before its end marker")
    kept.append(data[first_scan:end])
    icc_profile = b"".join(icc_parts[i] for i in sorted(icc_parts))[:_MAX_ICC_BYTES] or None
    return Container("jpeg", *size, b"".join(kept), exif, icc_profile)


def _jpeg_needs(marker: int, payload: bytes) -> bool:
    """Tell whether a segment is needed to decode; JFIF and Adobe segments say how colour is."""
    if marker == _APP0:
        return payload.startswith(b"JFIF\0")
    if marker == _APP14:
        return payload.startswith(b"Adobe")
    return marker < _APP0


# PNG -----------------------------------------------------------------------------------------

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # a pixel, by colour type
_ADAM7 = (  # first column, first row, column step, row step of each pass (PNG section 8.2)
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)
_INFLATE_STEP = 1 << 20
_PNG_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_PALETTE = 3


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield type, start and end of every chunk up to and with IEND; start is at the length."""
    position = len(_PNG_SIGNATURE)
    for _ in range(_MAX_PARTS):
        if position + 12 > len(data):
            raise _truncated("PNG", "its end chunk (IEND) is missing")
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if not kind.isalpha():
            raise _damaged("PNG", f"no chunk at byte {position}")
        if end > len(data):
            raise _truncated("PNG", f"chunk {kind.decode()} ends after the file does")
        if kind in _PNG_CRITICAL or kind == b"tRNS":
            checksum = zlib.crc32(memoryview(data)[position + 4 : end - 4])
            if checksum != int.from_bytes(data[end - 4 : end], "big"):
                raise _damaged("PNG", f"checksum (CRC) of chunk {kind.decode()} is wrong")
        yield kind, position, end
        if kind == b"IEND":
            return
        position = end
    raise _damaged("PNG", f"more than {_MAX_PARTS} chunks")


def png_has_all_rows(file: bytes) -> bool:
    """Tell whether the coded data of a PNG that `read_container` passed is as long as its size says.

    Pillow takes data that ends after a whole row for complete and leaves the rest black.
    """
    inflate, inflated = zlib.decompressobj(), 0
    expected = 0
    for kind, start, end in _png_chunks(file):
        if kind == b"IHDR":
            expected = _png_inflated_bytes(file[start + 8 : end - 4])
        elif kind == b"IDAT":
            packed = file[start + 8 : end - 4]
            while packed and inflated < expected:
                inflated += len(inflate.decompress(packed, _INFLATE_STEP))
                packed = inflate.unconsumed_tail
    return inflated >= expected


def _png_inflated_bytes(header: bytes) -> int:
    """Return how many bytes the pixels and the filter byte of every row take, from an IHDR."""
    width, height, depth, color = _png_header(header)
    bits = depth * _PNG_SAMPLES[color]
    total = 0
    for x, y, step_x, step_y in _ADAM7 if header[12] else ((0, 0, 1, 1),):
        columns, rows = (width - x + step_x - 1) // step_x, (height - y + step_y - 1) // step_y
        total += rows * (1 + (columns * bits + 7) // 8) if columns > 0 else 0
    return total


def _png_header(payload: bytes) -> tuple[int, int, int, int]:
    """Return width, height, bit depth and colour type of an IHDR chunk."""
    if len(payload) != 13:
        raise _damaged("PNG", "its header chunk (IHDR) is not 13 bytes long")
    width, height, depth, color, compression, filtering, interlace = struct.unpack(
        ">IIBBBBB", payload
    )
    if depth not in _PNG_DEPTHS.get(color, ()):
        raise _damaged("PNG", f"no colour type {color} with {depth} bits exists")
    if compression or filtering or interlace > 1:
        raise _damaged("PNG", "unknown compression, filter or interlace method")
    return width, height, depth, color


def _read_png(data: bytes, limits: Limits) -> Container:
    header: tuple[int, int, int, int] | None = None
    kept, seen = [_PNG_SIGNATURE], set()
    exif: bytes | None = None
    icc_profile: bytes | None = None
    key_color: tuple[int, ...] | None = None
    for kind, start, end in _png_chunks(data):
        payload = memoryview(data)[start + 8 : end - 4]
        if header is None:
            if kind != b"IHDR":
                raise _damaged("PNG", "its first chunk is not IHDR")
            header = _png_header(bytes(payload))
            check_size(header[0], header[1], limits)
        elif kind == b"IHDR" or (kind == b"PLTE" and b"PLTE" in seen):
            raise _damaged("PNG", f"chunk {kind.decode()} comes twice")
        elif kind == b"acTL" and (frames := int.from_bytes(payload[:4], "big")) > 1:
            raise _animated("PNG", frames)
        elif kind == b"tRNS" and header[3] != _PALETTE:
            key_color = _png_key_color(bytes(payload), header[2], header[3])
        elif kind == b"eXIf":
            exif = bytes(payload)
        elif kind == b"iCCP":
            icc_profile = _png_icc_profile(bytes(payload))
        if kind in _PNG_CRITICAL or (kind == b"tRNS" and header[3] == _PALETTE):
            kept.append(data[start:end])
        seen.add(kind)
    if header is None or b"IDAT" not in seen:
        raise _damaged("PNG", "it holds no pixels (no IDAT chunk)")
    if header[3] == _PALETTE and b"PLTE" not in seen:
        raise _damaged("PNG", "its palette (PLTE chunk) is missing")
    return Container("png", header[0], header[1], b"".join(kept), exif, icc_profile, key_color)


def _png_key_color(payload: bytes, depth: int, color: int) -> tuple[int, ...] | None:
    """Return the transparent colour at 8 bits: 16-bit samples lose their low byte, as pixels do."""
    samples = {0: 1, 2: 3}.get(color, 0)
    if not samples or len(payload) < 2 * samples:
        return None
    values = struct.unpack(f">{samples}H", payload[: 2 * samples])
    if depth == 16:
        return tuple(value >> 8 for value in values)
    return tuple((value & (2**depth - 1)) * 255 // (2**depth - 1) for value in values)


def _png_icc_profile(payload: bytes) -> bytes | None:
    _, _, packed = payload.partition(b"\0")
    try:
        return zlib.decompressobj().decompress(packed[1:], _MAX_ICC_BYTES) or None
    except zlib.error:
        return None


# WebP ----------------------------------------------------------------------------------------

_WEBP_PIXELS = (b"VP8 ", b"VP8L", b"ANMF")
_WEBP_METADATA_FLAGS = 0x20 | 0x08 | 0x04  # of VP8X: ICC, EXIF, XMP


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield type, start and end (without padding) of every chunk; start is at the type."""
    riff_end = 8 + int.from_bytes(data[4:8], "little")
    if riff_end > len(data):
        raise _truncated("WebP", f"its header promises {riff_end} bytes, {len(data)} came")
    position = 12
    for _ in range(_MAX_PARTS):
        if position + 8 > riff_end:
            return
        kind, length = struct.unpack_from("<4sI", data, position)
        end = position + 8 + length
        if end > riff_end:
            raise _truncated("WebP", f"chunk {kind.decode('latin-1')!r} ends after the file does")
        yield kind, position, end
        position = end + length % 2
    raise _damaged("WebP", f"more than {_MAX_PARTS} chunks")


def _webp_size(kind: bytes, payload: bytes) -> tuple[int, int]:
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
    raise _damaged("WebP", "its first chunk is no VP8, VP8L or VP8X header")


def _read_webp(data: bytes, limits: Limits) -> Container:
    size: tuple[int, int] | None = None
    kept: list[bytes] = []
    found: dict[bytes, bytes] = {}
    frames = pictures = 0
    for kind, start, end in _webp_chunks(data):
        if size is None:
            size = _webp_size(kind, data[start + 8 : min(end, start + 18)])
            check_size(*size, limits)
        frames += kind == b"ANMF"
        pictures += kind in _WEBP_PIXELS
        if kind == b"VP8X":
            flags = data[start + 8] & ~_WEBP_METADATA_FLAGS
            kept.append(data[start : start + 8] + bytes([flags]) + data[start + 9 : end])
        elif kind in (b"ICCP", b"EXIF"):
            found.setdefault(kind, data[start + 8 : end])
        elif kind in (*_WEBP_PIXELS, b"ALPH", b"ANIM"):
            kept.append(data[start:end] + b"\0" * ((end - start) % 2))
    if frames > 1:
        raise _animated("WebP", frames)
    if size is None or not pictures:
        raise _damaged("WebP", "it holds no picture")
    body = b"".join(kept)
    file = b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body
    exif = found.get(b"EXIF", b"").removeprefix(b"Exif\0\0") or None
    return Container("webp", *size, file, exif, found.get(b"ICCP", b"")[:_MAX_ICC_BYTES] or None)
