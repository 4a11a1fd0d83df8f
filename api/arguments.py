"""What `Client` and `Local` take and give, so that one can stand in for the other."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypedDict, TypeGuard, TypeVar

from unface.anonymize.limits import Limits, check_bytes
from unface.errors import InvalidImage
from unface.mtcnn.faces import Faces
from unface.mtcnn.network import UInt8Array

File = bytes | str | os.PathLike[str]  # a picture file: its bytes, or where it lies
Image = UInt8Array | File  # an array is RGB uint8 [H, W, 3]
AnyImage = TypeVar("AnyImage")


class DetectArguments(TypedDict, total=False):
    """Which faces; see `unface.DetectOptions`. What is left out, or None, is the default."""

    profile: str | None
    min_face: float | None
    scale_factor: float | None
    thresholds: tuple[float, float, float] | None


class AnonymizeArguments(DetectArguments, total=False):
    """How faces are covered, see `unface.anonymize.MaskOptions`, and how the picture returns.

    `format` is "jpeg", "png" or "webp" (default: as the file that was sent), `quality` 1-100 for
    JPEG and WebP, `keep_exif` keeps EXIF data without its thumbnail. None of the three applies to
    arrays.
    """

    method: str | None
    shape: str | None
    margin: float | None
    cells: int | None
    kernel: float | None
    color: tuple[int, int, int] | None
    format: str | None
    quality: int | None
    keep_exif: bool | None


OUTPUT_ARGUMENTS = ("format", "quality", "keep_exif")


@dataclass(frozen=True)
class Anonymized(Generic[AnyImage]):
    """A picture whose faces are covered, and those faces."""

    image: AnyImage  # an array for an array, on the GPU for one there; bytes of a file for a file
    faces: Faces


def is_file(image: object) -> TypeGuard[File]:
    """Return whether a picture is a file (bytes or path) and not an array."""
    return isinstance(image, (bytes, bytearray, memoryview, str, os.PathLike))


def read_file(path: str | os.PathLike[str], limits: Limits) -> bytes:
    """Return a file's bytes, reading no more than the limit; raises `InvalidImage`."""
    try:
        check_bytes(Path(path).stat().st_size, limits)
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidImage(f"{os.fspath(path)} cannot be read: {error.strerror}") from error


def split_arguments(
    arguments: AnonymizeArguments,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return what was said (not None) of detection, of masks and of the file that returns."""
    said = {name: value for name, value in arguments.items() if value is not None}
    detect = {name: said.pop(name) for name in DetectArguments.__annotations__ if name in said}
    output = {name: said.pop(name) for name in OUTPUT_ARGUMENTS if name in said}
    return detect, said, output
