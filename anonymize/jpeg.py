"""The outer structure of JPEG files, after ITU-T T.81 annex B."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from unface.anonymize.containers import MAX_ICC_BYTES, MAX_PARTS, Container, damaged, truncated
from unface.anonymize.limits import Limits, check_size
from unface.errors import ImageTooLarge, InvalidImage

MAX_SIDE = 65500  # libjpeg's JPEG_MAX_DIMENSION; the format itself could say 65535
_MAX_SCANS = 100  # each costs a pass over all coefficients; encoders write about 10
# In entropy-coded data ff is followed by 00 (stuffing), ff (fill) or d0-d7 (restart).
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_SOI, _EOI, _SOS, _APP0, _APP1, _APP2, _APP14 = 0xD8, 0xD9, 0xDA, 0xE0, 0xE1, 0xE2, 0xEE
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


class Frame(NamedTuple):
    """Size and components of a JPEG."""

    width: int
    height: int
    components: int


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of every segment up to and with EOI; start is at the ff byte.

    A file without EOI is truncated: where it was cut cannot be told, and the decoder would need
    to invent pixels.
    """
    position = 2
    for _ in range(MAX_PARTS):
        found = _MARKER.search(data, position)
        if found is None:
            raise truncated("JPEG", "its end marker (EOI) is missing")
        marker, start = data[found.end() - 1], found.start()
        if marker == _EOI:
            yield marker, start, found.end()
            return
        if marker < 0xC0 or marker == _SOI:
            raise damaged("JPEG", f"unexpected marker ff{marker:02x} at byte {start}")
        length = int.from_bytes(data[start + 2 : start + 4], "big")
        position = start + 2 + length
        if start + 4 > len(data) or position > len(data):
            raise truncated("JPEG", f"segment ff{marker:02x} ends after the file does")
        if length < 2:
            raise damaged("JPEG", f"segment ff{marker:02x} at byte {start} has no length")
        yield marker, start, position
    raise damaged("JPEG", f"more than {MAX_PARTS} segments")


def is_frame(marker: int) -> bool:
    """Tell whether a segment is a frame header (SOFn)."""
    return marker in _SOF_DECODED or marker in _SOF_REFUSED


def read_frame(marker: int, payload: bytes) -> Frame:
    """Return what a frame header says; raises `InvalidImage` for what cannot be decoded."""
    if marker in _SOF_REFUSED:
        raise InvalidImage(
            f"JPEG is {_SOF_REFUSED[marker]}; send a baseline or progressive Huffman-coded JPEG"
        )
    if len(payload) < 6:
        raise damaged("JPEG", "its frame header is too short")
    bits, height, width, components = struct.unpack(">BHHB", payload[:6])
    if bits != 8:
        raise InvalidImage(f"JPEG has {bits} bits a sample; send one with 8 bits")
    if components not in (1, 3, 4):
        raise InvalidImage(f"JPEG has {components} components; send gray, RGB, YCbCr or CMYK")
    return Frame(width, height, components)


def read_jpeg(data: bytes, limits: Limits) -> Container:
    """Take a JPEG file apart.

    Raises `InvalidImage` (damaged, truncated, not accepted) or `ImageTooLarge`.
    """
    kept, frame, scans, first_scan, end = [data[:2]], None, 0, 0, 0
    from_scan = 0  # segments: the first scan's, EOI and whatever lies between
    exif: bytes | None = None
    icc_parts: dict[int, bytes] = {}
    for marker, start, end in _segments(data):
        payload = data[start + 4 : end]
        if is_frame(marker):
            if frame is not None:
                raise damaged("JPEG", "it has two frame headers")
            frame = read_frame(marker, payload)
            check_size(frame.width, frame.height, limits)
            if max(frame.width, frame.height) > MAX_SIDE:
                raise ImageTooLarge(
                    f"JPEG is {frame.width} x {frame.height}; at most {MAX_SIDE} pixels a side can "
                    "be read, send PNG"
                )
        elif marker == _SOS:
            first_scan = first_scan or start
            scans += 1
            if scans > _MAX_SCANS:
                raise damaged("JPEG", f"more than {_MAX_SCANS} scans")
        if first_scan:
            from_scan += 1
            continue
        if marker == _APP1 and payload.startswith(b"Exif\0\0"):
            exif = exif or payload[6:]
        elif marker == _APP2 and payload.startswith(b"ICC_PROFILE\0"):
            icc_parts[payload[12] if len(payload) > 13 else 0] = payload[14:]
        if _needed(marker, payload):
            kept.append(data[start:end])
    if frame is None or not first_scan:
        raise damaged("JPEG", "it holds no picture before its end marker")
    kept.append(data[first_scan:end])
    icc_profile = b"".join(icc_parts[i] for i in sorted(icc_parts))[:MAX_ICC_BYTES] or None
    return Container(
        "jpeg",
        frame.width,
        frame.height,
        b"".join(kept),
        exif,
        icc_profile,
        is_plain=from_scan == 2 and frame.components != 4,
    )


def _needed(marker: int, payload: bytes) -> bool:
    """Tell whether a segment is needed to decode; JFIF and Adobe segments say how colour is."""
    if marker == _APP0:
        return payload.startswith(b"JFIF\0")
    if marker == _APP14:
        return payload.startswith(b"Adobe")
    return marker < _APP0
