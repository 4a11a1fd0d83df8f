"""What a picture file is taken apart into, read without decoding a pixel.

`jpeg`, `png` and `webp` walk a file segment by segment, refuse it when damaged or cut short, and
give it back as the smallest file of the same format that holds the pixels. The decoders never see
the metadata, so neither text bombs nor warnings about corrupt EXIF can happen, and what follows
the picture's end (the other pictures of an MPO, hidden data) is gone before decoding.
"""

from __future__ import annotations

from dataclasses import dataclass

from unface.errors import InvalidImage

MAX_PARTS = 100_000  # segments or chunks: 64 MiB of empty ones would take seconds to walk
MAX_ICC_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Container:
    """One picture's file taken apart.

    `pixels_file` is a file of the same format without metadata; `exif` is a TIFF block (no
    `Exif` prefix) and `icc_profile` a profile, both as found and not checked; `key_color` is
    the gray level or the R, G, B (0-255) that a PNG without alpha declares transparent. `is_plain`
    tells of a JPEG that it is gray, RGB or YCbCr and has one scan, with nothing behind it.
    """

    format: str
    width: int
    height: int
    pixels_file: bytes
    exif: bytes | None = None
    icc_profile: bytes | None = None
    key_color: tuple[int, ...] | None = None
    is_plain: bool = False


def truncated(kind: str, what: str) -> InvalidImage:
    """Return the error for a file that ends too early."""
    return InvalidImage(f"{kind} is truncated: {what}; send the whole file")


def damaged(kind: str, what: str) -> InvalidImage:
    """Return the error for a file that breaks its format's rules."""
    return InvalidImage(f"{kind} is damaged: {what}; send an intact file")


def animated(kind: str, frames: int) -> InvalidImage:
    """Return the error for a file of several frames."""
    return InvalidImage(
        f"{kind} is animated ({frames} frames); only still pictures are accepted, "
        "send the frames one by one"
    )
