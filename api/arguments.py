"""What `Client` and `Local` take and give, so that one can stand in for the other."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypedDict, TypeGuard, TypeVar

from unface.anonymize.limits import Limits, check_bytes
from unface.errors import InvalidImage, InvalidOption
from unface.mtcnn.faces import Faces
from unface.mtcnn.network import UInt8Array

if TYPE_CHECKING:
    from unface.worker.covering import Verification

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

    `keep` leaves faces clear, `cover` covers boxes whatever is found there, and `cover_only` finds
    nothing; see `unface.anonymize.Regions`. `verify` has the result searched again: True, or how
    often what is left is covered more strongly, see `unface.anonymize.Verify`. `audit` asks for a
    record of what was done, for files.
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
    keep: Sequence[Sequence[float]] | None
    cover: Sequence[Sequence[float]] | None
    cover_only: bool | None
    verify: bool | int | None
    audit: bool | None


DEFAULT_ROUNDS = 2  # of `unface.anonymize.Verify`, which needs OpenCV
OUTPUT_ARGUMENTS = ("format", "quality", "keep_exif")
REGION_ARGUMENTS = ("keep", "cover", "cover_only")


@dataclass(frozen=True)
class Anonymized(Generic[AnyImage]):
    """A picture whose faces are covered, and those faces."""

    # An array for an array, on the GPU for one there; bytes of a file for a file.
    image: AnyImage = field(repr=False)
    faces: Faces  # that were covered
    kept: Faces  # that were left clear, as `keep` said
    verification: Verification | None = None  # what a search of the result found, if there was one
    audit_record: str = ""  # JSON, if it was asked for


class Said(NamedTuple):
    """What a caller said (not None), by what it is about."""

    detect: dict[str, Any]
    mask: dict[str, Any]
    output: dict[str, Any]
    regions: dict[str, Any]
    rounds: int | None  # of `Verify`; None: the result is not searched
    audit: bool


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


def split_arguments(arguments: AnonymizeArguments) -> Said:
    """Return the arguments by what they are about."""
    said = {name: value for name, value in arguments.items() if value is not None}

    def take(names: Iterable[str]) -> dict[str, Any]:
        return {name: said.pop(name) for name in names if name in said}

    detect, output, regions = map(
        take, (DetectArguments.__annotations__, OUTPUT_ARGUMENTS, REGION_ARGUMENTS)
    )
    verify, audit = said.pop("verify", False), bool(said.pop("audit", False))
    rounds = (DEFAULT_ROUNDS if verify else None) if isinstance(verify, bool) else verify
    return Said(detect, said, output, regions, rounds, audit)  # type: ignore[arg-type]


def check_for_array(said: Said) -> None:
    """Raise `InvalidOption` for what only files can have."""
    if names := " and ".join([*said.output, *["audit"] * said.audit]):
        raise InvalidOption(f"{names} is for files; an array was given and one comes back")
