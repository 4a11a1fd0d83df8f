"""The size that a picture file declares, from its first bytes: what a request will cost."""

from __future__ import annotations

from unface.anonymize import jpeg, png, webp
from unface.anonymize.formats import identify

_SEGMENTS = 1000  # looked at; photographs have some twenty before their frame header


def declared_size(data: bytes) -> tuple[str, int, int]:
    """Return format, width and height; width and height are 0 where they are not found at once.

    Much cheaper than taking the file apart, and no substitute for it: the rest of the file is not
    looked at. Raises `InvalidImage` for what is no picture of a format that is accepted.
    """
    format = identify(data)
    return format, *_SIZES[format](data)


def _jpeg_size(data: bytes) -> tuple[int, int]:
    position = 2
    for _ in range(_SEGMENTS):
        if position + 4 > len(data) or data[position] != 0xFF:
            break
        marker = data[position + 1]
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if jpeg.is_frame(marker):
            frame = jpeg.read_frame(marker, data[position + 4 : position + 2 + length])
            return frame.width, frame.height
        position += 2 + length
    return 0, 0


def _png_size(data: bytes) -> tuple[int, int]:
    if data[8:16] != b"\0\0\0\x0dIHDR" or len(data) < 29:
        return 0, 0
    return png.read_header(data[16:29])[:2]


def _webp_size(data: bytes) -> tuple[int, int]:
    return webp.read_canvas(data[12:16], data[20:30]) if len(data) >= 30 else (0, 0)


_SIZES = {"jpeg": _jpeg_size, "png": _png_size, "webp": _webp_size}
