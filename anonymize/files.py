"""Taking picture files apart, whatever their format: limits first, and no pixel decoded."""

from __future__ import annotations

from unface.anonymize.containers import Container
from unface.anonymize.formats import identify
from unface.anonymize.jpeg import read_jpeg
from unface.anonymize.limits import Limits, check_bytes
from unface.anonymize.png import read_png
from unface.anonymize.webp import read_webp

_READERS = {"jpeg": read_jpeg, "png": read_png, "webp": read_webp}


def take_apart(data: bytes, limits: Limits) -> Container:
    """Return the parts of a JPEG, PNG or WebP file; raises `InvalidImage` and `ImageTooLarge`."""
    check_bytes(len(data), limits)
    return _READERS[identify(data)](data, limits)
