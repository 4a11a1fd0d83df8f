"""EXIF: the orientation of a picture, and a copy of the block without what could show a face.

Source: CIPA DC-008 (EXIF 3.0), TIFF 6.0. Nothing here raises on a corrupt block: a picture whose
metadata is broken is still a picture.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

_ORIENTATION, _EXIF_POINTER, _GPS_POINTER = 0x0112, 0x8769, 0x8825
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 9: 4, 10: 8}
_SHORT, _LONG = 3, 4
_MAX_ENTRIES = 512
_MAX_VALUE_BYTES = 1024  # no preview fits; texts do

# Kept are only tags that the standard gives a meaning other than a picture, the place of the
# subject in the picture, or free bytes: no MakerNote, UserComment, XMP, preview or sub-picture.
_KEPT_IMAGE_TAGS = frozenset(
    (0x010E, 0x010F, 0x0110, 0x011A, 0x011B, 0x0128, 0x0131, 0x0132, 0x013B, 0x8298)
)  # description, make, model, resolution, software, date, artist, copyright
_KEPT_EXIF_TAGS = frozenset(
    (
        *(0x829A, 0x829D, 0x8822, 0x8824, 0x8827, 0x8830, 0x8831, 0x8832, 0x8833),  # exposure
        *(0x9000, 0x9003, 0x9004, 0x9010, 0x9011, 0x9012, 0x9290, 0x9291, 0x9292),  # dates
        *range(0x9201, 0x920B),  # shutter speed to focal length
        *(0xA20E, 0xA20F, 0xA210, 0xA215, 0xA217, 0xA300, 0xA301),  # sensor and source
        *(*range(0xA401, 0xA40B), 0xA40C, 0xA420),  # rendering, scene, unique id
        *range(0xA430, 0xA436),  # owner, body and lens
    )
)
_KEPT_GPS_TAGS = frozenset(range(0x20))


class _Entry(NamedTuple):
    tag: int
    type: int
    values: int  # how many
    data: bytes  # in the byte order of the block


def orientation(exif: bytes | None) -> int:
    """Return the EXIF orientation, 1 to 8, of a TIFF block; 1 when absent, corrupt or undefined."""
    if exif is None or (order := _byte_order(exif)) is None:
        return 1
    for entry in _entries(exif, order, _offset(exif, order)):
        if entry.tag == _ORIENTATION and entry.type in (_SHORT, _LONG) and entry.values == 1:
            code = "H" if entry.type == _SHORT else "I"
            value: int = struct.unpack(order + code, entry.data)[0]
            return value if 1 <= value <= 8 else 1
    return 1


def rebuild_exif(exif: bytes | None) -> bytes | None:
    """Return a new TIFF block with camera, exposure, date, author and place, and nothing else.

    The thumbnail, MakerNote, XMP, free comments and values over 1024 bytes are left out; the
    orientation is 1. None when the block is corrupt or has nothing to keep.
    """
    if exif is None or (order := _byte_order(exif)) is None:
        return None
    found = _entries(exif, order, _offset(exif, order))
    image = [entry for entry in found if entry.tag in _KEPT_IMAGE_TAGS]
    exif_tags = _sub_entries(exif, order, found, _EXIF_POINTER, _KEPT_EXIF_TAGS)
    gps_tags = _sub_entries(exif, order, found, _GPS_POINTER, _KEPT_GPS_TAGS)
    if not (image or exif_tags or gps_tags):
        return None
    image.append(_Entry(_ORIENTATION, _SHORT, 1, struct.pack(order + "H", 1)))
    return _write(order, image, exif_tags, gps_tags)


def _byte_order(exif: bytes) -> str | None:
    return {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])


def _offset(exif: bytes, order: str) -> int:
    return int(struct.unpack(order + "I", exif[4:8])[0]) if len(exif) >= 8 else len(exif)


def _entries(exif: bytes, order: str, offset: int) -> list[_Entry]:
    """Return the readable entries of the directory at an offset."""
    if offset + 2 > len(exif):
        return []
    entries = []
    (count,) = struct.unpack_from(order + "H", exif, offset)
    for start in range(offset + 2, offset + 2 + 12 * min(count, _MAX_ENTRIES), 12):
        if start + 12 > len(exif):
            break
        tag, kind, values, at = struct.unpack_from(order + "HHII", exif, start)
        size = _TYPE_BYTES.get(kind, 0) * values
        if not 0 < size <= _MAX_VALUE_BYTES:
            continue
        at = start + 8 if size <= 4 else at
        if at + size <= len(exif):
            entries.append(_Entry(tag, kind, values, exif[at : at + size]))
    return entries


def _sub_entries(
    exif: bytes, order: str, found: list[_Entry], pointer: int, kept: frozenset[int]
) -> list[_Entry]:
    for entry in found:
        if entry.tag == pointer and entry.type == _LONG and entry.values == 1:
            offset = struct.unpack(order + "I", entry.data)[0]
            return [entry for entry in _entries(exif, order, offset) if entry.tag in kept]
    return []


def _write(order: str, image: list[_Entry], exif_tags: list[_Entry], gps: list[_Entry]) -> bytes:
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    pointers = [
        (pointer, entries)
        for pointer, entries in ((_EXIF_POINTER, exif_tags), (_GPS_POINTER, gps))
        if entries
    ]
    # The place of a sub-directory does not change the size of the one that points to it.
    blank = [_Entry(pointer, _LONG, 1, bytes(4)) for pointer, _ in pointers]
    position = 8 + len(_directory(order, image + blank, 8))
    subs = b""
    for pointer, entries in pointers:
        image = [*image, _Entry(pointer, _LONG, 1, struct.pack(order + "I", position + len(subs)))]
        subs += _directory(order, entries, position + len(subs))
    return header + _directory(order, image, 8) + subs


def _directory(order: str, entries: list[_Entry], offset: int) -> bytes:
    """Return the bytes of a directory that starts at an offset, its long values behind it."""
    unique = {entry.tag: entry for entry in entries}
    table = struct.pack(order + "H", len(unique))
    values = b""
    values_at = offset + 2 + 12 * len(unique) + 4
    for tag in sorted(unique):
        _, kind, count, value = unique[tag]
        table += struct.pack(order + "HHI", tag, kind, count)
        if len(value) <= 4:
            table += value.ljust(4, b"\0")
        else:
            table += struct.pack(order + "I", values_at + len(values))
            values += value + b"\0" * (len(value) % 2)
    return table + bytes(4) + values  # no next directory: that is where a thumbnail would be
