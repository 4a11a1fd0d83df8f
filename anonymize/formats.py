"""Which picture format bytes are in, told by their first bytes and never by a name."""

from __future__ import annotations

from unface.errors import InvalidImage

FORMATS = ("jpeg", "png", "webp")
NAMES = {"jpeg": "JPEG", "png": "PNG", "webp": "WebP"}

_ACCEPTED = "send JPEG, PNG or WebP"

_OTHERS: tuple[tuple[int, bytes, str], ...] = (  # offset, first bytes, what it looks like
    (0, b"GIF8", "a GIF"),
    (0, b"BM", "a BMP"),
    (0, b"II*\0", "a TIFF or camera raw file"),
    (0, b"MM\0*", "a TIFF or camera raw file"),
    (0, b"II+\0", "a BigTIFF"),
    (0, b"MM\0+", "a BigTIFF"),
    (0, b"\0\0\x01\0", "an icon (ICO)"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"\xff\x0a", "a JPEG XL"),
    (4, b"JXL \r\n", "a JPEG XL"),
    (4, b"jP  \r\n", "a JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000"),
    (4, b"ftypavi", "an AVIF"),
    (4, b"ftyphei", "a HEIC"),
    (4, b"ftyphev", "a HEIC"),
    (4, b"ftypmif", "a HEIC"),
    (4, b"ftypmsf", "a HEIC"),
    (4, b"ftypcr", "a camera raw file"),
    (4, b"ftyp", "a video (MP4 or MOV)"),
    (0, b"\x1aE\xdf\xa3", "a video (WebM or Matroska)"),
    (8, b"AVI ", "a video (AVI)"),
    (0, b"\0\0\x01\xb3", "a video (MPEG)"),
    (0, b"\0\0\x01\xba", "a video (MPEG)"),
    (0, b"\x8aMNG", "an MNG animation"),
    (0, b"%PDF", "a PDF"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "gzip data"),
    (0, b"/9j/", "a base64 text of a JPEG: decode it before sending"),
    (0, b"iVBORw0KGgo", "a base64 text of a PNG: decode it before sending"),
    (0, b"UklGR", "a base64 text of a WebP: decode it before sending"),
    (0, b"data:", "a data: URL: send the decoded bytes"),
    (0, b"http", "a URL: send the picture itself"),
)


def identify(data: bytes) -> str:
    """Return the format of the bytes, one of `FORMATS`.

    Raises `InvalidImage` for anything else, naming what it looks like where that is known.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    raise InvalidImage(f"image format is not accepted: it looks like {_guess(data)}; {_ACCEPTED}")


def _guess(data: bytes) -> str:
    for offset, magic, name in _OTHERS:
        if data.startswith(magic, offset):
            return name
    if data[:3] in (b"\xff\xd8", b"\x89PN", b"RIF"):
        return "a picture cut off or damaged in its first bytes"
    text = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in text:
        return "an SVG drawing"
    if text.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    if text.startswith(b"<?xml"):
        return "an XML text"
    if not any(data[:1024]):
        return "zero bytes only"
    if text and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in text):
        return "a text"
    return "no picture format known here"
