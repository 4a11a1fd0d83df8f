"""Pixels of plain JPEGs as OpenCV reads and writes them, and with them most photographs.

OpenCV and Pillow both carry libjpeg-turbo and give the same pixels and the same coded data.
Pillow holds four bytes a pixel inside and is copied out of and into, which takes as long again as
a third of the decoding.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from unface.anonymize.containers import Container
from unface.errors import InvalidImage

_READ = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
_MAX_PAYLOAD = 65533  # of a segment, whose 16-bit length counts itself
_EXIF, _ICC = b"Exif\0\0", b"ICC_PROFILE\0"


def read_pixels(container: Container) -> NDArray[np.uint8] | None:
    """Return uint8 `[H, W, 3]` as stored, before orientation; None: ask Pillow, which says why not.

    The container must be plain. Pillow refuses errors in what follows the first scan, which
    OpenCV passes over; in a plain file nothing does. libjpeg's warning of damage that it filled
    in goes to the standard error stream: OpenCV does not catch it.
    """
    data = np.frombuffer(container.pixels_file, np.uint8)
    try:
        pixels = cv2.imdecode(data, _READ)
    except cv2.error:  # not enough memory, or larger than OpenCV's own limits
        return None
    if pixels is None or pixels.shape != (container.height, container.width, 3):
        return None
    return pixels.astype(np.uint8, copy=False)


def write(
    pixels: NDArray[np.uint8], quality: int, icc_profile: bytes | None, exif: bytes | None
) -> bytes:
    """Return a JPEG file of uint8 `[H, W, 3]` pixels, C-contiguous; `exif` is a TIFF block.

    Raises `InvalidImage` for an EXIF block that a JPEG cannot hold.
    """
    sampling = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420)
    options = (cv2.IMWRITE_JPEG_QUALITY, quality, *sampling)
    _, array = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)
    file = array.tobytes()
    metadata = b"".join(_segments(icc_profile, exif))
    if not metadata:
        return file
    behind_jfif = 4 + int.from_bytes(file[4:6], "big")  # the first segment behind SOI
    return b"".join((file[:behind_jfif], metadata, memoryview(file)[behind_jfif:]))


def _segments(icc_profile: bytes | None, exif: bytes | None) -> Iterator[bytes]:
    """Yield what holds the metadata: EXIF in APP1, the profile in one or more APP2 (ICC.1 B.4)."""
    if exif is not None:
        if len(_EXIF) + len(exif) > _MAX_PAYLOAD:
            raise InvalidImage(
                f"EXIF data has {len(exif)} bytes; a JPEG holds {_MAX_PAYLOAD - len(_EXIF)}, "
                "leave it out or use PNG or WebP"
            )
        yield _segment(0xE1, _EXIF + exif)
    if icc_profile is not None:
        room = _MAX_PAYLOAD - len(_ICC) - 2
        if len(icc_profile) > 255 * room:
            raise InvalidImage(
                f"ICC profile has {len(icc_profile)} bytes; a JPEG holds {255 * room}, leave it out"
            )
        parts = [icc_profile[i : i + room] for i in range(0, len(icc_profile), room)]
        for number, part in enumerate(parts, start=1):
            yield _segment(0xE2, _ICC + bytes((number, len(parts))) + part)


def _segment(marker: int, payload: bytes) -> bytes:
    return bytes((0xFF, marker)) + (2 + len(payload)).to_bytes(2, "big") + payload
