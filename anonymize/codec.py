"""Picture files to pixels and back: limits first, upright RGB, no metadata unless asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from unface.anonymize import jpeg, plain_jpeg
from unface.anonymize.containers import Container
from unface.anonymize.exif import orientation, rebuild_exif
from unface.anonymize.files import take_apart
from unface.anonymize.formats import FORMATS, NAMES
from unface.anonymize.limits import Limits, check_bytes, check_rgb_image, check_size
from unface.errors import InvalidImage, InvalidOption

__all__ = ["FORMATS", "Limits", "Picture", "decode", "encode", "raw_rgb"]

Pixels = NDArray[np.uint8]

_MAX_SIDE = {"jpeg": jpeg.MAX_SIDE, "webp": 16383}  # RFC 9649: 14 bits
_UPRIGHT: dict[int, Callable[[Pixels], Any]] = {  # a fifth of the time of a copied NumPy view
    2: lambda pixels: cv2.flip(pixels, 1),
    3: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_180),
    4: lambda pixels: cv2.flip(pixels, 0),
    5: cv2.transpose,
    6: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE),
    7: lambda pixels: cv2.rotate(cv2.transpose(pixels), cv2.ROTATE_180),
    8: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    `pixels` is uint8 `[H, W, 3]`, RGB, upright and C-contiguous. `format` is that of the file, one
    of `FORMATS`. `icc_profile` says what the RGB values mean, None for sRGB. `exif` is a TIFF
    block rebuilt without thumbnail (see `rebuild_exif`), None unless asked for.
    """

    pixels: Pixels
    format: str
    icc_profile: bytes | None = None
    exif: bytes | None = None


def decode(data: bytes, limits: Limits = Limits(), *, keep_exif: bool = False) -> Picture:  # noqa: B008
    """Decode a JPEG, PNG or WebP file into upright RGB pixels.

    The format is told by the first bytes, and the size checked against the limits before a pixel
    is decoded. Whatever the file's mode, pixels come out as 8-bit RGB: 16-bit samples lose their
    low byte, CMYK is converted as Adobe writes it (inverted), and transparency is flattened onto
    white, so that nothing stays hidden beneath it. EXIF orientation is applied. Of a JPEG with
    several pictures (MPO) the main one is taken. Metadata is dropped, except an ICC profile for
    RGB and, with `keep_exif`, a rebuilt EXIF block.

    A file cut short anywhere is refused, a JPEG without its end marker (EOI) too. Damage inside a
    JPEG's coded data may go unseen: the format has no checksum, and decoders fill in.

    Safe to call from several threads. Raises `InvalidImage` and `ImageTooLarge`.
    """
    container = take_apart(data, limits)
    pixels = _pixels(container)
    return Picture(
        pixels=_upright(pixels, orientation(container.exif)),
        format=container.format,
        icc_profile=_rgb_profile(container.icc_profile),
        exif=rebuild_exif(container.exif) if keep_exif else None,
    )


def _pixels(container: Container) -> Pixels:
    """Return uint8 `[H, W, 3]` as stored, before orientation."""
    if container.is_plain and (pixels := plain_jpeg.read_pixels(container)) is not None:
        return pixels
    from unface.anonymize import pillow  # most pictures do without: importing it takes 30 ms

    return pillow.read_pixels(container)


def _upright(pixels: Pixels, code: int) -> Pixels:
    """Turn and mirror as EXIF orientation 1-8 says (CIPA DC-008 figure 2)."""
    return _UPRIGHT[code](pixels) if code in _UPRIGHT else pixels


def _rgb_profile(profile: bytes | None) -> bytes | None:
    """Return an ICC profile if it is whole and describes RGB: others would show wrong colours."""
    if profile is None or len(profile) < 132:
        return None
    is_rgb = profile[16:20] == b"RGB " and profile[36:40] == b"acsp"
    return profile if is_rgb and int.from_bytes(profile[:4], "big") == len(profile) else None


def raw_rgb(width: int, height: int, data: bytes | memoryview, limits: Limits = Limits()) -> Pixels:  # noqa: B008
    """Return raw bytes (R, G, B, row by row, no padding) as uint8 `[height, width, 3]`, read-only.

    The array shares the memory of `data`. Raises `InvalidImage` when the sizes do not fit and
    `ImageTooLarge` beyond the limits.
    """
    check_bytes(len(data), limits)
    check_size(width, height, limits)
    if len(data) != width * height * 3:
        raise InvalidImage(
            f"raw RGB of {width} x {height} needs {width * height * 3} bytes "
            f"(width x height x 3), got {len(data)}"
        )
    return np.frombuffer(data, np.uint8).reshape(height, width, 3)


def encode(
    pixels: Pixels,
    format: str,
    *,
    quality: int = 95,
    icc_profile: bytes | None = None,
    exif: bytes | None = None,
) -> bytes:
    """Encode uint8 `[H, W, 3]` RGB pixels as a JPEG, PNG or WebP file.

    `quality` is 1-100 for JPEG and (lossy) WebP; PNG is lossless. The file carries no metadata but
    what is given: `icc_profile`, and `exif`, a TIFF block such as `Picture.exif`, which is rebuilt
    once more so that a thumbnail can never pass.

    Raises `InvalidOption` for a format or quality that does not exist and `InvalidImage` for
    pixels that are not such an array or too large for the format.
    """
    if format not in FORMATS:
        raise InvalidOption(f"format is {format!r}; there are {', '.join(FORMATS)}")
    if not isinstance(quality, int) or isinstance(quality, bool) or not 1 <= quality <= 100:
        raise InvalidOption(f"quality is {quality!r}; it must be a whole number from 1 to 100")
    check_rgb_image(pixels)
    height, width = pixels.shape[:2]
    if max(width, height) > _MAX_SIDE.get(format, max(width, height)):
        others = "PNG" if max(width, height) > _MAX_SIDE["jpeg"] else "JPEG or PNG"
        raise InvalidImage(
            f"image is {width} x {height}; {NAMES[format]} holds at most {_MAX_SIDE[format]} "
            f"pixels a side, use {others}"
        )
    pixels, exif = np.ascontiguousarray(pixels), rebuild_exif(exif)
    if format == "jpeg":
        return plain_jpeg.write(pixels, quality, icc_profile, exif)
    from unface.anonymize import pillow

    return pillow.write(pixels, format, quality, icc_profile, exif)
