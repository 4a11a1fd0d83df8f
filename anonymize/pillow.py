"""Pixels of files as Pillow reads and writes them: PNG, WebP, and the JPEGs that are not plain."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from unface.anonymize.containers import Container
from unface.anonymize.formats import NAMES
from unface.anonymize.png import has_all_rows
from unface.errors import ImageTooLarge, InvalidImage

# The plugin classes, not Image.open: no other format can be reached, and Pillow's process-wide
# pixel limit, which warns, stays out of the way of ours.
_PLUGINS: dict[str, type[ImageFile]] = {
    "jpeg": JpegImageFile,
    "png": PngImageFile,
    "webp": WebPImageFile,
}
_DECODE_ERRORS = (  # what Pillow's plugins raise on files whose pixel data is broken
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    struct.error,
    zlib.error,
)
# Converted at a time: whole copies would be most of a decode's memory. A strip that fits into a
# core's cache is copied out of Pillow four times as fast as one of a megapixel.
_STRIP_PIXELS = 1 << 17
_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "png": {"compress_level": 3},  # half the time of 6 for a sixth more bytes
    "webp": {"method": 2},  # a third of the time of 4 for the same bytes
}


def read_pixels(container: Container) -> NDArray[np.uint8]:
    """Return uint8 `[H, W, 3]` as stored, before orientation.

    Raises `InvalidImage` and `ImageTooLarge`.
    """
    try:
        return _rgb_pixels(container)
    except Image.DecompressionBombError as error:  # WebP beyond Pillow's own limit
        raise ImageTooLarge(f"image is {container.width} x {container.height}: {error}") from error
    except _DECODE_ERRORS as error:
        raise InvalidImage(
            f"{NAMES[container.format]} is damaged or truncated: {error}; send an intact file"
        ) from error
    except MemoryError as error:
        raise ImageTooLarge(
            f"image is {container.width} x {container.height}; there is not enough memory for it"
        ) from error


def write(
    pixels: NDArray[np.uint8],
    format: str,
    quality: int,
    icc_profile: bytes | None,
    exif: bytes | None,
) -> bytes:
    """Return a PNG or WebP file of uint8 `[H, W, 3]` pixels, C-contiguous; `exif` is TIFF."""
    options = dict(_SAVE_OPTIONS[format])
    if format != "png":
        options["quality"] = quality
    if icc_profile is not None:
        options["icc_profile"] = icc_profile
    if exif is not None:
        options["exif"] = b"Exif\0\0" + exif
    file = BytesIO()
    Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


def _rgb_pixels(container: Container) -> NDArray[np.uint8]:
    with _PLUGINS[container.format](BytesIO(container.pixels_file)) as image:
        if image.size != (container.width, container.height):
            raise ValueError("two different sizes are declared")
        image.load()
        if _may_lack_rows(image) and not has_all_rows(container.pixels_file):
            raise ValueError("its coded data ends before its last row")
        pixels = np.empty((container.height, container.width, 3), np.uint8)
        rows = max(_STRIP_PIXELS // container.width, 1)
        for top in range(0, container.height, rows):
            strip: Image.Image = (
                image  # cropped only where need be: crop has Pillow's own pixel limit
            )
            if rows < image.height:
                strip = image.crop((0, top, image.width, min(top + rows, image.height)))
            pixels[top : top + rows] = _gray16(strip) if strip.mode == "I;16" else _to_rgb(strip)
    if container.key_color is not None:
        pixels[(pixels == np.array(container.key_color, np.uint8)).all(axis=2)] = 255
    return pixels


def _may_lack_rows(image: Image.Image) -> bool:
    """Tell whether a PNG must be counted through: Pillow leaves rows that never came at 0."""
    if image.format != "PNG":
        return False
    last_row = image.crop((0, image.height - 1, image.width, image.height))
    return "interlace" in image.info or not any(last_row.tobytes())


def _gray16(image: Image.Image) -> NDArray[np.uint8]:
    """Return uint8 `[H, W, 1]` of a 16-bit gray picture."""
    return (np.asarray(image) >> 8).astype(np.uint8)[:, :, None]


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Return uint8 `[H, W, 3]` of a picture in any other mode, flattened onto white."""
    if image.mode == "LA" or (image.mode == "P" and "transparency" in image.info):
        image = image.convert("RGBA")
    if image.mode != "RGBA":
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    alpha = image.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return np.asarray(image.convert("RGB"))
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(image, mask=alpha)
    return np.asarray(white)
