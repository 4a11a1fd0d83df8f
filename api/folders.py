"""Pictures in files and folders: finding them, naming what comes out, writing it safely."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from unface.errors import InvalidOption, UnfaceError

READABLE = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp")
# Pictures we cannot read: named and counted as failures, since they may show faces.
UNREADABLE = (".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jxl", ".jp2", ".dng")
FORMATS = {**dict.fromkeys(READABLE[:4], "jpeg"), ".png": "png", ".webp": "webp"}
SUFFIXES = {"jpeg": ".jpg", "png": ".png", "webp": ".webp"}


@dataclass(frozen=True)
class Found:
    """A picture to work on, and where it lies below the path that was given."""

    path: Path
    relative: Path


class NotWritten(UnfaceError):
    """A result could not be, or must not be, written where it belongs."""


def find_pictures(paths: Iterable[Path], skip: Path | None = None) -> Iterator[Found]:
    """Yield the pictures among files and below folders, in order of their names.

    A file is taken as it is; in folders, files are told by their suffix, and links to folders are
    not followed. With several paths a folder's pictures keep the folder's name. `skip` is a folder
    to leave out: the output's. Raises `InvalidOption` when a path does not exist.
    """
    given = list(paths)
    for path in given:
        if not path.exists():
            raise InvalidOption(f"{path} does not exist")
    for path in given:
        if not path.is_dir():
            yield Found(path, Path(path.name))
            continue
        top = Path(path.resolve().name) if len(given) > 1 else Path()
        for file in _files_below(path, skip.resolve() if skip else None):
            yield Found(file, top / file.relative_to(path))


def output_path(found: Found, out: Path, single: bool, output_format: str | None) -> Path:
    """Return where a picture's result belongs.

    `out` is a folder, or with `single` (one file given) and a picture's suffix, the file itself.
    """
    if single and not out.is_dir() and out.suffix.lower() in READABLE:
        return out
    target = out / found.relative
    return target.with_suffix(SUFFIXES[output_format]) if output_format else target


def named_format(out: Path) -> str | None:
    """Return the format that the name of a single output says; None for a folder.

    Raises `InvalidOption` for the name of a picture of a kind that is not written.
    """
    suffix = out.suffix.lower()
    if out.is_dir():
        return None
    if suffix in UNREADABLE:
        raise InvalidOption(f"{out} is no name for what is written: JPEG, PNG or WebP")
    return FORMATS.get(suffix)


def check_target(target: Path, source: Path, *, force: bool, in_place: bool) -> None:
    """Raise `NotWritten` when writing `target` would overwrite what must stay.

    The input is overwritten only `in_place`, any other file only with `force`.
    """
    if not target.exists():
        return
    if target.samefile(source):
        if not in_place:
            raise NotWritten(f"{target} is the input itself; choose another output or --in-place")
    elif not force:
        raise NotWritten(f"{target} exists already; --force overwrites it")


def write_whole(data: bytes, target: Path) -> None:
    """Write a file whole or not at all: under a hidden name first, then renamed.

    Raises `NotWritten`, and leaves nothing behind, when the disk is full or may not be written.
    """
    # Named before it is made: wherever Ctrl-C falls, what is there is known and removed.
    temporary = target.parent / f".unface-{secrets.token_hex(8)}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        mode = target.stat().st_mode & 0o777 if target.exists() else None
        with temporary.open("xb") as file:
            if mode is not None:  # before there is anything in it to read
                os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        raise NotWritten(f"{target} cannot be written: {error.strerror}") from error
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    """Remove a file if it is there; one whose name or folder cannot be is not."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _files_below(folder: Path, skip: Path | None) -> Iterator[Path]:
    for current, folders, files in os.walk(folder):
        here = Path(current)
        folders[:] = sorted(f for f in folders if skip is None or (here / f).resolve() != skip)
        for name in sorted(files):
            file = here / name
            # Pipes and devices would be waited for; a broken link is named as unreadable.
            regular = file.is_file() or not file.exists()
            if regular and file.suffix.lower() in READABLE + UNREADABLE:
                yield file
