"""Hostile and odd picture files, all made here from code: no file is stored, none is large.

`bad_inputs` must be refused with a message that matches; `odd_but_good_inputs` must decode to
the size given, which is that of the upright picture.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WIDTH, HEIGHT = 40, 24  # of the small picture in most of the files
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class BadInput(NamedTuple):
    name: str
    data: bytes
    message: str  # regular expression


class GoodInput(NamedTuple):
    name: str
    data: bytes
    width: int
    height: int


@cache
def bad_inputs() -> list[BadInput]:
    """Return files that must be refused, with what the refusal must say."""
    return [*_not_pictures(), *_cut_short(), *_bad_jpegs(), *_bad_pngs(), *_bad_webps()]


@cache
def odd_but_good_inputs() -> list[GoodInput]:
    """Return files that are rare but right."""
    return [*_odd_sizes(), *_odd_jpegs(), *_odd_pngs(), *_odd_webps(), *_oriented()]


# Building blocks -----------------------------------------------------------------------------


def photo(width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """Return a smooth picture, uint8 `[H, W, 3]`, whose four corners all differ."""
    x = np.linspace(0, 1, width)[None, :]
    y = np.linspace(0, 1, height)[:, None]
    red, green, blue = x + 0 * y, y + 0 * x, (x + y) / 2
    return np.rint(255 * np.stack([red, green, blue], axis=2)).astype(np.uint8)


def saved(image: Image.Image | NDArray[Any], format: str, **options: Any) -> bytes:
    """Return the bytes of a picture file that Pillow writes."""
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png_chunk(kind: bytes, payload: bytes) -> bytes:
    return (
        struct.pack(">I", len(payload))
        + kind
        + payload
        + struct.pack(">I", zlib.crc32(kind + payload))
    )


def png_header(width: int, height: int, depth: int = 8, color: int = 2) -> bytes:
    return png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))


def png(header: bytes, *chunks: bytes) -> bytes:
    return PNG_SIGNATURE + header + b"".join(chunks) + png_chunk(b"IEND", b"")


def png_pixels(rows: NDArray[Any]) -> bytes:
    """Return an IDAT chunk from bytes `[H, bytes a row]`, without filters."""
    unfiltered = np.zeros((len(rows), 1), np.uint8)
    data = np.hstack([unfiltered, rows.reshape(len(rows), -1).view(np.uint8)])
    return png_chunk(b"IDAT", zlib.compress(data.tobytes()))


def jpeg_segment(marker: int, payload: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload


def with_jpeg_segment(jpeg: bytes, marker: int, payload: bytes) -> bytes:
    """Return a JPEG with one more segment, right behind its first marker."""
    return jpeg[:2] + jpeg_segment(marker, payload) + jpeg[2:]


def with_png_chunk(file: bytes, kind: bytes, payload: bytes) -> bytes:
    """Return a PNG with one more chunk, right behind its header."""
    return file[:33] + png_chunk(kind, payload) + file[33:]


def webp_chunk(kind: bytes, payload: bytes) -> bytes:
    return kind + struct.pack("<I", len(payload)) + payload + b"\0" * (len(payload) % 2)


def webp(*chunks: bytes) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_canvas(width: int, height: int, flags: int = 0) -> bytes:
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return webp_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + sides)


def exif_with_orientation(value: int, order: str = "<") -> bytes:
    """Return a TIFF block that holds an orientation and nothing else."""
    magic = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, value, 0)
    return magic + struct.pack(order + "IH", 8, 1) + entry + bytes(4)


def _edited(data: bytes, offset: int, new: bytes) -> bytes:
    return data[:offset] + new + data[offset + len(new) :]


# Refused -------------------------------------------------------------------------------------


def _not_pictures() -> Iterator[BadInput]:
    random = np.random.default_rng(1).bytes(4096)
    small = photo()
    yield BadInput("empty", b"", r"empty \(0 bytes\)")
    yield BadInput("one byte", b"\xff", "not accepted.*JPEG, PNG or WebP")
    yield BadInput("random bytes", random, "not accepted.*JPEG, PNG or WebP")
    yield BadInput("zero bytes", bytes(4096), "zero bytes only")
    yield BadInput("GIF", saved(small, "GIF"), "a GIF.*send JPEG, PNG or WebP")
    yield BadInput("BMP", saved(small, "BMP"), "a BMP")
    yield BadInput("TIFF", saved(small, "TIFF"), "a TIFF")
    yield BadInput("big-endian TIFF", b"MM\0*" + bytes(64), "a TIFF")
    yield BadInput("ICO", saved(small, "ICO"), "an icon")
    yield BadInput("HEIC", b"\0\0\0\x18ftypheic" + bytes(64), "a HEIC")
    yield BadInput("AVIF", b"\0\0\0\x1cftypavif" + bytes(64), "an AVIF")
    yield BadInput("MP4", b"\0\0\0\x18ftypisom" + bytes(64), "a video")
    yield BadInput("WebM", b"\x1aE\xdf\xa3" + bytes(64), "a video")
    yield BadInput("AVI", b"RIFF\x40\0\0\0AVI " + bytes(64), "a video")
    yield BadInput("JPEG XL", b"\xff\x0a" + bytes(64), "a JPEG XL")
    yield BadInput("JPEG 2000", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(64), "a JPEG 2000")
    yield BadInput("PDF", b"%PDF-1.7\n" + bytes(64), "a PDF")
    yield BadInput("SVG", b'<?xml version="1.0"?>\n<svg width="9" height="9"/>', "an SVG")
    yield BadInput("HTML", b"\n<!DOCTYPE html><html></html>", "an HTML page")
    yield BadInput("text", b"this is no picture\n", "a text")
    yield BadInput("base64", b"/9j/4AAQSkZJRgABAQ==", "base64")
    yield BadInput("data URL", b"data:image/png;base64,iVBORw0KGgo=", "data: URL")
    yield BadInput("ZIP", b"PK\x03\x04" + bytes(64), "a ZIP archive")
    yield BadInput("PNG first bytes, JPEG inside", PNG_SIGNATURE + saved(small, "JPEG"), "PNG is")
    yield BadInput("JPEG first bytes, PNG inside", b"\xff\xd8\xff" + saved(small, "PNG"), "JPEG is")


def _cut_short() -> Iterator[BadInput]:
    small = photo()
    files = {
        "JPEG": saved(small, "JPEG"),
        "progressive JPEG": saved(small, "JPEG", progressive=True),
        "PNG": saved(small, "PNG"),
        "WebP": saved(small, "WEBP"),
        "lossless WebP": saved(small, "WEBP", lossless=True),
    }
    for name, file in files.items():
        # "cut off": where so little is left that the format itself cannot be told
        message = f"({name.split()[-1]} is truncated|cut off)"
        for kept in (3, 12, 20, len(file) // 2, len(file) * 9 // 10, len(file) - 2, len(file) - 1):
            yield BadInput(f"{name} cut to {kept} of {len(file)} bytes", file[:kept], message)


def _bad_jpegs() -> Iterator[BadInput]:
    jpeg = saved(photo(), "JPEG")
    frame = jpeg.index(b"\xff\xc0")
    scan = jpeg.index(b"\xff\xda")
    huge = _edited(jpeg, frame + 5, b"\xff\xff\xff\xff")
    yield BadInput("JPEG bomb", huge, r"65535 x 65535 \(4295 MP\); the limit is 100 MP.*max_pixels")
    wide = _edited(jpeg, frame + 5, b"\0\1\xff\xff")
    yield BadInput("JPEG wider than libjpeg reads", wide, "65535 x 1; at most 65500 pixels a side")
    yield BadInput("JPEG 0 wide", _edited(jpeg, frame + 7, bytes(2)), "0 x 24 pixels")
    yield BadInput("JPEG 0 high", _edited(jpeg, frame + 5, bytes(2)), "40 x 0 pixels")
    yield BadInput("12-bit JPEG", _edited(jpeg, frame + 4, b"\x0c"), "12 bits a sample")
    for marker, kind in ((0xC3, "lossless"), (0xC7, "hierarchical"), (0xC9, "arithmetic-coded")):
        yield BadInput(f"{kind} JPEG", _edited(jpeg, frame + 1, bytes([marker])), f"JPEG is {kind}")
    yield BadInput("JPEG of 2 components", _edited(jpeg, frame + 9, b"\2"), "2 components")
    yield BadInput("JPEG of two frames", jpeg[:frame] + jpeg[frame:scan] * 2 + jpeg[scan:], "two")
    yield BadInput("JPEG without picture", jpeg[:frame] + b"\xff\xd9", "holds no picture")
    yield BadInput(
        "JPEG without tables", jpeg[:20] + jpeg[frame : frame + 19] + jpeg[scan:], "JPEG"
    )
    yield BadInput("JPEG segment of length 0", b"\xff\xd8\xff\xe0\0\0" + jpeg[20:], "no length")
    yield BadInput("JPEG of reserved markers", jpeg[:2] + b"\xff\x05" + jpeg[2:], "marker ff05")
    bomb = jpeg[:scan] + jpeg_segment(0xDA, b"\1\1\0\0\0\0") * 200 + b"\xff\xd9"
    yield BadInput("JPEG of 200 scans", bomb, "scans")


def _bad_pngs() -> Iterator[BadInput]:
    file = saved(photo(), "PNG")
    header, end = png_header(WIDTH, HEIGHT), png_chunk(b"IEND", b"")
    pixels = png_pixels(photo())
    bomb = png(png_header(50_000, 50_000), pixels)
    yield BadInput("PNG bomb", bomb, r"50000 x 50000 \(2500 MP\); the limit is 100 MP")
    yield BadInput("PNG of most pixels", png(png_header(2**31 - 1, 2**31 - 1), pixels), "limit")
    yield BadInput("PNG 0 wide", png(png_header(0, 5), pixels), "0 x 5 pixels")
    yield BadInput("PNG 0 high", png(png_header(5, 0), pixels), "5 x 0 pixels")
    at = file.index(b"IDAT") + 12
    changed = _edited(file, at, bytes([file[at] ^ 0x55]))
    yield BadInput("PNG with a changed pixel byte", changed, r"checksum \(CRC\) of chunk IDAT")
    yield BadInput("PNG with a wrong header checksum", _edited(file, 29, b"\0" * 4), "chunk IHDR")
    yield BadInput("PNG without IDAT", png(header), "no IDAT")
    yield BadInput("PNG with empty IDAT", png(header, png_chunk(b"IDAT", b"")), "PNG is damaged")
    garbage = png(header, png_chunk(b"IDAT", b"no zlib stream"))
    yield BadInput("PNG with garbage for zlib", garbage, "PNG is damaged")
    few_rows = png(header, png_pixels(photo()[:10]))
    yield BadInput("PNG with too few rows", few_rows, "PNG is damaged or truncated")
    end_black = png(header, png_pixels(np.zeros((HEIGHT - 1, WIDTH * 3), np.uint8)))
    yield BadInput("black PNG without its last row", end_black, "PNG is damaged or truncated")
    few_passes = _interlaced_png(passes=6)
    yield BadInput("interlaced PNG without its last pass", few_passes, "PNG is damaged")
    yield BadInput("PNG without palette", png(png_header(WIDTH, HEIGHT, 8, 3), pixels), "palette")
    yield BadInput("PNG of 3 bits", png(png_header(WIDTH, HEIGHT, 3, 0), pixels), "with 3 bits")
    yield BadInput("PNG of colour type 5", png(png_header(WIDTH, HEIGHT, 8, 5), pixels), "type 5")
    yield BadInput("PNG without header", PNG_SIGNATURE + pixels + end, "not IHDR")
    short_header = png_chunk(b"IHDR", bytes(5))
    yield BadInput("PNG with a short header", PNG_SIGNATURE + short_header + end, "13 bytes")
    yield BadInput("PNG of many chunks", file[:33] + png_chunk(b"abCd", b"") * 100_001, "chunks")
    frames = [Image.fromarray(np.roll(photo(), i, axis=1)) for i in range(3)]
    apng = saved(frames[0], "PNG", save_all=True, append_images=frames[1:])
    yield BadInput("APNG", apng, r"animated \(3 frames\).*one by one")


def _bad_webps() -> Iterator[BadInput]:
    file = saved(photo(), "WEBP")
    picture = file[12:]
    bomb = webp(webp_canvas(1 << 24, 1 << 24), picture)
    yield BadInput("WebP bomb", bomb, r"16777216 x 16777216.*the limit is 100 MP")
    other = webp(webp_canvas(WIDTH + 1, HEIGHT), picture)
    yield BadInput("WebP of two sizes", other, "WebP is damaged")
    yield BadInput("WebP 0 wide", _edited(file, 26, bytes(2)), "0 x 24 pixels")
    yield BadInput("WebP without picture", webp(webp_canvas(WIDTH, HEIGHT)), "holds no picture")
    yield BadInput("WebP of unknown chunks", webp(webp_chunk(b"ABCD", bytes(20))), "first chunk")
    yield BadInput("WebP without chunks", webp(), "holds no picture")
    lossless = saved(photo(), "WEBP", lossless=True)
    garbage = lossless[:25] + np.random.default_rng(2).bytes(len(lossless) - 25)
    yield BadInput("WebP with garbage for pixels", garbage, "WebP is damaged")
    frames = [Image.fromarray(np.roll(photo(), i, axis=1)) for i in range(3)]
    animated = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    yield BadInput("animated WebP", animated, r"animated \(3 frames\).*one by one")


# Accepted ------------------------------------------------------------------------------------


def _odd_sizes() -> Iterator[GoodInput]:
    for format in ("JPEG", "PNG", "WEBP"):
        yield GoodInput(f"{format} of one pixel", saved(photo(1, 1), format), 1, 1)
    for format in ("JPEG", "PNG"):
        yield GoodInput(f"{format} 20000 wide", saved(photo(20_000, 1), format), 20_000, 1)
        yield GoodInput(f"{format} 20000 high", saved(photo(1, 20_000), format), 1, 20_000)


def _odd_jpegs() -> Iterator[GoodInput]:
    small = Image.fromarray(photo())
    jpeg = saved(small, "JPEG")
    files = {
        "progressive JPEG": saved(small, "JPEG", progressive=True),
        "gray JPEG": saved(small.convert("L"), "JPEG"),
        "CMYK JPEG": saved(small.convert("CMYK"), "JPEG"),
        "JPEG without chroma subsampling": saved(small, "JPEG", subsampling=0),
        "JPEG with restart markers": saved(small, "JPEG", restart_marker_blocks=1),
        "JPEG with trailing garbage": jpeg + b"trailing" * 100,
        "JPEG with a broken ICC profile": saved(small, "JPEG", icc_profile=b"no profile" * 30),
        "JPEG with a comment": saved(small, "JPEG", comment=b"comment"),
        "JPEG with fill bytes": jpeg[:2] + b"\xff\xff\xff" + jpeg[2:],
        "MPO": saved(small, "MPO", save_all=True, append_images=[small.rotate(180)]),
    }
    for name, exif in {
        "empty": b"",
        "cut": exif_with_orientation(6)[:12],
        "garbage": b"garbage" * 9,
        "with a far offset": b"II*\0" + b"\xff" * 8,
        "with orientation 0": exif_with_orientation(0),
        "with orientation 9": exif_with_orientation(9),
        "that loops": b"II*\0\x08\0\0\0" + b"\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0" + bytes(4),
    }.items():
        files[f"JPEG with EXIF {name}"] = with_jpeg_segment(jpeg, 0xE1, b"Exif\0\0" + exif)
    for name, file in files.items():
        yield GoodInput(name, file, WIDTH, HEIGHT)


def _odd_pngs() -> Iterator[GoodInput]:
    small = Image.fromarray(photo())
    file = saved(small, "PNG")
    palette = small.quantize(16)
    bomb = b"key\0\0" + zlib.compress(bytes(20_000_000))
    files = {
        "1-bit PNG": saved(small.convert("1"), "PNG"),
        "gray PNG": saved(small.convert("L"), "PNG"),
        "16-bit gray PNG": saved(photo()[:, :, 0].astype(np.uint16) * 257, "PNG"),
        "16-bit RGB PNG": png(png_header(WIDTH, HEIGHT, 16, 2), png_pixels(photo().astype(">u2"))),
        "16-bit RGBA PNG": png(
            png_header(WIDTH, HEIGHT, 16, 6),
            png_pixels(np.full((HEIGHT, WIDTH * 4), 0x8000, ">u2")),
        ),
        "gray and alpha PNG": saved(small.convert("LA"), "PNG"),
        "RGBA PNG": saved(small.convert("RGBA"), "PNG"),
        "palette PNG": saved(palette, "PNG"),
        "palette PNG with one transparent colour": saved(palette, "PNG", transparency=3),
        "palette PNG with alpha": saved(palette, "PNG", transparency=bytes(range(0, 256, 16))),
        "RGB PNG with a transparent colour": saved(small, "PNG", transparency=(0, 0, 0)),
        "interlaced PNG": _interlaced_png(),
        "PNG with a text bomb": with_png_chunk(file, b"zTXt", bomb),
        "PNG with a huge text": with_png_chunk(file, b"tEXt", b"key\0" + b"x" * 2_000_000),
        "PNG with a broken ICC profile": with_png_chunk(file, b"iCCP", b"name\0\0no zlib"),
        "PNG with corrupt EXIF": with_png_chunk(file, b"eXIf", b"garbage"),
        "PNG with an invalid animation": with_png_chunk(file, b"acTL", bytes(8)),
        "PNG with trailing garbage": file + b"trailing" * 100,
        "PNG in many IDAT chunks": _split_png(),
    }
    for name, data in files.items():
        yield GoodInput(name, data, WIDTH, HEIGHT)


def _interlaced_png(passes: int = 7) -> bytes:
    """Return a PNG in the seven passes of Adam7, which Pillow cannot write, or the first ones."""
    grid = (  # first column, first row, column step, row step
        *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
        *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
    )
    rows = b""
    for x, y, step_x, step_y in grid[:passes]:
        rows += b"".join(b"\0" + row.tobytes() for row in photo()[y::step_y, x::step_x])
    fields = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 1)
    return png(png_chunk(b"IHDR", fields), png_chunk(b"IDAT", zlib.compress(rows)))


def _split_png() -> bytes:
    pixels = png_pixels(photo())[8:-4]
    return png(png_header(WIDTH, HEIGHT), *(png_chunk(b"IDAT", bytes([b])) for b in pixels))


def _odd_webps() -> Iterator[GoodInput]:
    small = Image.fromarray(photo())
    translucent = small.convert("RGBA")
    translucent.putalpha(100)
    file = saved(small, "WEBP")
    files = {
        "lossless WebP": saved(small, "WEBP", lossless=True),
        "WebP with alpha": saved(translucent, "WEBP"),
        "lossless WebP with alpha": saved(translucent, "WEBP", lossless=True),
        "WebP with corrupt EXIF": saved(small, "WEBP", exif=b"garbage"),
        "WebP with a broken ICC profile": saved(small, "WEBP", icc_profile=b"no profile" * 30),
        "WebP with an unknown chunk": webp(file[12:], webp_chunk(b"ABCD", b"unknown")),
        "WebP with trailing garbage": file + b"trailing" * 100,
    }
    for name, data in files.items():
        yield GoodInput(name, data, WIDTH, HEIGHT)


def _oriented() -> Iterator[GoodInput]:
    for value in range(1, 9):
        size = (HEIGHT, WIDTH) if value >= 5 else (WIDTH, HEIGHT)
        for name, data in oriented_files(value).items():
            yield GoodInput(f"{name} with orientation {value}", data, *size)


def oriented_files(value: int) -> dict[str, bytes]:
    """Return `photo()` in each format, stored as it is with an EXIF orientation beside it."""
    exif = exif_with_orientation(value, "><"[value % 2])
    return {
        "JPEG": with_jpeg_segment(
            saved(photo(), "JPEG", quality=95, subsampling=0), 0xE1, b"Exif\0\0" + exif
        ),
        "PNG": with_png_chunk(saved(photo(), "PNG"), b"eXIf", exif),
        "WebP": saved(photo(), "WEBP", lossless=True, exif=exif),
    }
