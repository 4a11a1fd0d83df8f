"""Picture files to pixels and back: limits first, upright RGB, no metadata unless asked for."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from unface.anonymize import jpeg
from unface.anonymize.containers import Container
from unface.anonymize.exif import orientation, rebuild_exif
from unface.anonymize.formats import FORMATS, identify
from unface.anonymize.limits import Limits, check_bytes, check_rgb_image, check_size
from unface.anonymize.png import has_all_rows, read_png
from unface.anonymize.webp import read_webp
from unface.errors import ImageTooLarge, InvalidImage, InvalidOption

__all__ = ["FORMATS", "Limits", "Picture", "decode", "encode", "raw_rgb"]

_READERS = {"jpeg": jpeg.read_jpeg, "png": read_png, "webp": read_webp}
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
_NAMES = {"jpeg": "JPEG", "png": "PNG", "webp": "WebP"}
_MAX_SIDE = {"jpeg": jpeg.MAX_SIDE, "webp": 16383}  # RFC 9649: 14 bits
_STRIP_PIXELS = 1 << 20  # converted at a time: whole copies would be most of a decode's memory
_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "jpeg": {},
    "png": {"compress_level": 3},  # half the time of 6 for a sixth more bytes
    "webp": {"method": 2},  # a third of the time of 4 for the same bytes
}


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    `pixels` is uint8 `[H, W, 3]`, RGB, upright and C-contiguous. `format` is that of the file, one
    of `FORMATS`. `icc_profile` says what the RGB values mean, None for sRGB. `exif` is a TIFF
    block rebuilt without thumbnail (see `rebuild_exif`), None unless asked for.
    """

    pixels: NDArray[np.uint8]
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
    check_bytes(len(data), limits)
    container = _READERS[identify(data)](data, limits)
    try:
        pixels = _rgb_pixels(container)
    except Image.DecompressionBombError as error:  # WebP beyond Pillow's own limit
        raise ImageTooLarge(f"image is {container.width} x {container.height}: {error}") from error
    except _DECODE_ERRORS as error:
        raise InvalidImage(
            f"{_NAMES[container.format]} is damaged or truncated: {error}; send an intact file"
        ) from error
    except MemoryError as error:
        raise ImageTooLarge(
            f"image is {container.width} x {container.height}; there is not enough memory for it"
        ) from error
    return Picture(
        pixels=_upright(pixels, orientation(container.exif)),
        format=container.format,
        icc_profile=_rgb_profile(container.icc_profile),
        exif=rebuild_exif(container.exif) if keep_exif else None,
    )


def _rgb_pixels(container: Container) -> NDArray[np.uint8]:
    """Return uint8 `[H, W, 3]` as stored, before orientation."""
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


def _upright(pixels: NDArray[np.uint8], code: int) -> NDArray[np.uint8]:
    """Turn and mirror as EXIF orientation 1-8 says (CIPA DC-008 figure 2)."""
    if code >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if code in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if code in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _rgb_profile(profile: bytes | None) -> bytes | None:
    """Return an ICC profile if it is whole and describes RGB: others would show wrong colours."""
    if profile is None or len(profile) < 132:
        return None
    is_rgb = profile[16:20] == b"RGB " and profile[36:40] == b"acsp"
    return profile if is_rgb and int.from_bytes(profile[:4], "big") == len(profile) else None


def raw_rgb(width: int, height: int, data: bytes, limits: Limits = Limits()) -> NDArray[np.uint8]:  # noqa: B008
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
    pixels: NDArray[np.uint8],
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
            f"image is {width} x {height}; {_NAMES[format]} holds at most {_MAX_SIDE[format]} "
            f"pixels a side, use {others}"
        )
    options = dict(_SAVE_OPTIONS[format])
    if format != "png":
        options["quality"] = quality
    if icc_profile is not None:
        options["icc_profile"] = icc_profile
    if (safe_exif := rebuild_exif(exif)) is not None:
        options["exif"] = b"Exif\0\0" + safe_exif
    file = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, format, **options)
    return file.getvalue()
