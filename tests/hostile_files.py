"""Picture files of known damage, the same for the same random numbers; see `hostile_inputs`."""

from __future__ import annotations

import random
import struct
import zlib
from functools import cache

import cv2
import numpy as np
from corpus import (
    bad_inputs,
    exif_with_orientation,
    odd_but_good_inputs,
    png_chunk,
    saved,
    with_jpeg_segment,
    with_png_chunk,
)
from PIL import Image
from scenes import HEAD, astronaut

Random = random.Random
# In bytes behind or beside the pixels of a picture: no answer may hold it.
CANARY = b"canary: this must not come back"
MOST_FILE = 200_000  # bytes that a file may grow to
SIDES = (0, 1, 2, 3, 11, 12, 37, 96, 1000, 16383, 16384, 30_000, 65_500, 65_535, 2**24, 2**31 - 1)


@cache
def good_files() -> tuple[bytes, ...]:
    """Return small pictures of a face in all forms that are read."""
    head = astronaut()[HEAD]
    small = cv2.resize(head, (90, 100), interpolation=cv2.INTER_AREA)
    alpha = np.dstack([small, np.full(small.shape[:2], 128, np.uint8)])
    exif = exif_with_orientation(6) + CANARY
    palette, cmyk = Image.fromarray(small).quantize(32), Image.fromarray(small).convert("CMYK")
    return (
        saved(head, "JPEG", quality=90),
        saved(small, "JPEG", quality=85, exif=b"Exif\0\0" + exif),
        saved(small, "JPEG", progressive=True),
        saved(small[..., 0], "JPEG"),
        saved(cmyk, "JPEG"),
        saved(small, "PNG"),
        saved(alpha, "PNG"),
        saved(palette, "PNG", transparency=3),
        with_png_chunk(saved(small, "PNG"), b"tEXt", b"Comment\0" + CANARY),
        saved(small, "WEBP", quality=80),
        saved(small, "WEBP", lossless=True),
        saved(alpha, "WEBP", exif=exif),
        *(good.data for good in odd_but_good_inputs() if len(good.data) < 20_000),
    )


def damaged_file(rng: Random) -> tuple[str, bytes]:
    """Return a file of a known kind of damage, and what was done to it."""
    if rng.random() < 0.1:
        bad = rng.choice(bad_inputs())
        return f"file, {bad.name}", bad.data
    file, done = rng.choice(good_files()), []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        mutate = rng.choice(FILE_MUTATIONS)
        file = mutate(rng, file)[:MOST_FILE]
        done.append(mutate.__name__)
    return f"file, {' + '.join(done)}", file


def flip_bits(rng: Random, data: bytes) -> bytes:
    """Change one to eight bits anywhere."""
    changed = bytearray(data or b"\0")
    for _ in range(rng.randrange(1, 9)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(rng: Random, data: bytes) -> bytes:
    """Keep the beginning."""
    return data[: rng.randrange(len(data) + 1)]


def overwrite(rng: Random, data: bytes) -> bytes:
    """Put noise, zeros or ones in the place of a stretch."""
    at, size = rng.randrange(len(data) + 1), rng.randrange(1, 65)
    new = rng.choice((rng.randbytes(size), bytes(size), b"\xff" * size))
    return data[:at] + new + data[at + size :]


def insert(rng: Random, data: bytes) -> bytes:
    """Put noise between two bytes."""
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.randrange(1, 300)) + data[at:]


def remove(rng: Random, data: bytes) -> bytes:
    """Take a stretch out."""
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at + rng.randrange(1, 300) :]


def repeat(rng: Random, data: bytes) -> bytes:
    """Say a stretch many times."""
    at = rng.randrange(len(data) + 1)
    piece = data[at : at + rng.randrange(1, 200)]
    return data[:at] + piece * rng.choice((2, 3, 100)) + data[at:]


def edge_number(rng: Random, data: bytes) -> bytes:
    """Write a number at the edge of its type, as a length or count might be."""
    at = rng.randrange(len(data) + 1)
    number = rng.choice((0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000))
    new = number.to_bytes(4, rng.choice(("big", "little")))[-rng.choice((1, 2, 4)) :]
    return data[:at] + new + data[at + len(new) :]


def append(rng: Random, data: bytes) -> bytes:
    """Hide something behind the picture: words, another picture, a script, an archive."""
    tails = (CANARY, rng.choice(good_files()), b"<script>", b"PK\x05\x06" + bytes(18), bytes(5000))
    return data + rng.choice(tails) + CANARY


def prepend(rng: Random, data: bytes) -> bytes:
    """Put something before the picture."""
    return rng.choice((b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF", b"\n", b"GIF89a")) + data


def polyglot(rng: Random, data: bytes) -> bytes:
    """Join the beginning of one file with the end of another."""
    other = rng.choice(good_files())
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other)) :]


def sides(rng: Random, data: bytes) -> bytes:
    """Claim other sides, up to bombs."""
    width, height = rng.choice(SIDES), rng.choice(SIDES)
    if data[:4] == b"\x89PNG" and len(data) > 33:
        return (
            data[:8]
            + png_chunk(b"IHDR", struct.pack(">II", width, height) + data[24:29])
            + data[33:]
        )
    if data[:2] == b"\xff\xd8":
        at = next((i for m in (b"\xff\xc0", b"\xff\xc2") if (i := data.find(m)) > 0), len(data))
        both = struct.pack(">HH", height & 0xFFFF, width & 0xFFFF)
        return data[: at + 5] + both + data[at + 9 :]
    both = struct.pack("<HH", width & 0xFFFF, height & 0xFFFF)
    return data[:26] + both + data[30:]


def chunks_at_random(rng: Random, data: bytes) -> bytes:
    """Leave out, double, swap or damage a chunk or segment; a PNG's checksum may be right again."""
    parts = split(data)
    if len(parts) < 3:
        return data
    at = rng.randrange(1, len(parts))
    what = rng.randrange(5)
    if what == 0:
        del parts[at]
    elif what == 1:
        parts[at:at] = [parts[at]] * rng.choice((1, 2, 200))
    elif what == 2:
        other = rng.randrange(1, len(parts))
        parts[at], parts[other] = parts[other], parts[at]
    elif what == 3:
        parts[at] = _mended(flip_bits(rng, parts[at]), data)
    else:
        parts[at] = rng.choice(parts) + parts[at]
    return b"".join(parts)


def exif_bomb(rng: Random, data: bytes) -> bytes:
    """Add an EXIF block whose directory is its own successor, or counts more than there is."""
    order = rng.choice("<>")
    entry = struct.pack(
        order + "HHII", rng.choice((0x0112, 0x8769, 0x0201, 0xFFFF)), rng.randrange(14),
        rng.choice((0, 1, 0xFFFFFFFF, 0x40000000)), rng.choice((0, 8, 0xFFFFFFF0)),
    )  # fmt: skip
    count = rng.choice((0, 1, 3, 65535))
    magic = b"II*\0" if order == "<" else b"MM\0*"
    block = magic + struct.pack(order + "IH", 8, count) + entry * min(count, 4)
    return _with_metadata(data, b"Exif\0\0", b"eXIf", block + struct.pack(order + "I", 8) + CANARY)


def profile_bomb(rng: Random, data: bytes) -> bytes:
    """Add a colour profile or a text that is small in the file and large when unpacked."""
    packed = zlib.compress(bytes(rng.choice((1_000, 1_000_000, 30_000_000))), 9)
    kind = rng.choice((b"iCCP", b"zTXt", b"iTXt"))
    return _with_metadata(data, b"ICC_PROFILE\0\1\1", kind, b"x\0\0" + packed)


def many_segments(rng: Random, data: bytes) -> bytes:
    """Add hundreds of segments that say nothing."""
    marker, kind = rng.choice(((0xE1, b"tEXt"), (0xFE, b"abCd"), (0xE2, b"zzZz")))
    for _ in range(rng.choice((3, 300))):
        data = _with_metadata(data, b"", kind, rng.randbytes(rng.randrange(6)), marker)
    return data


FILE_MUTATIONS = (
    flip_bits, truncate, overwrite, insert, remove, repeat, edge_number, append, prepend, polyglot,
    sides, chunks_at_random, chunks_at_random, chunks_at_random, exif_bomb, profile_bomb,
    many_segments,
)  # fmt: skip


def split(data: bytes) -> list[bytes]:
    """Return a file's signature and its chunks or segments; joined they are the file."""
    if data[:4] == b"\x89PNG":
        begin, lengths = 8, lambda at: 12 + int.from_bytes(data[at : at + 4], "big")
    elif data[:4] == b"RIFF":
        begin, lengths = 12, lambda at: 8 + _even(int.from_bytes(data[at + 4 : at + 8], "little"))
    else:
        begin, lengths = 2, lambda at: _jpeg_length(data, at)
    parts, at = [data[:begin]], begin
    while at < len(data):
        parts.append(data[at : at + lengths(at)])
        at += len(parts[-1])
    return parts


def _even(size: int) -> int:
    return size + size % 2


def _jpeg_length(data: bytes, at: int) -> int:
    """Return the bytes of a segment; what follows the start of a scan is one."""
    if data[at : at + 2] == b"\xff\xda" or data[at] != 0xFF:
        return len(data) - at
    return max(2, 2 + int.from_bytes(data[at + 2 : at + 4], "big"))


def _mended(chunk: bytes, data: bytes) -> bytes:
    """Give a PNG's chunk the checksum of what it now holds, so that the decoder looks at it."""
    if data[:4] != b"\x89PNG" or len(chunk) < 12:
        return chunk
    return chunk[:-4] + struct.pack(">I", zlib.crc32(chunk[4:-4]))


def _with_metadata(
    data: bytes, jpeg_name: bytes, png_kind: bytes, payload: bytes, marker: int = 0xE1
) -> bytes:
    if data[:4] == b"\x89PNG":
        return with_png_chunk(data, png_kind, payload)
    if data[:2] == b"\xff\xd8":
        marker = 0xE2 if jpeg_name.startswith(b"ICC") else marker
        return with_jpeg_segment(data, marker, (jpeg_name + payload)[:65_000])
    chunk = b"EXIF" + struct.pack("<I", len(payload)) + payload + b"\0" * (len(payload) % 2)
    return data + chunk
