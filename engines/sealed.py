"""Encrypting a folder of engines; `unface.engines.shelf` reads it with the key."""

from __future__ import annotations

from pathlib import Path

from unface.engines.shelf import MANIFEST, Shelf, seal_context
from unface.errors import InvalidOption
from unface.sealing import seal


def write_sealed(shelf: Shelf, folder: Path, key: bytes) -> list[str]:
    """Write a shelf's engines and its manifest encrypted into a new folder; returns their names.

    Raises `InvalidOption` for a folder that holds something or cannot be written, and what
    `Shelf.read` raises. The manifest comes last: half a folder is none.
    """
    # ONNX files serve nobody, and the package leaves them out.
    plain = {e.file: shelf.read(e) for e in shelf.engines if e.runtime != "onnx"}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise InvalidOption(f"{folder} is not empty; a new folder is needed")
        for name, data in {**plain, MANIFEST: shelf.manifest}.items():
            (folder / name).write_bytes(seal(data, key, seal_context(name)))
    except OSError as error:
        raise InvalidOption(f"{folder} cannot be written: {error.strerror}") from error
    return [*plain, MANIFEST]
