"""`unface engines`: what engines there are and what the gate said of them; building one's own."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unface.engines.shelf import Shelf, read_shelf
from unface.errors import EngineError


def list_engines(arguments: argparse.Namespace) -> int:
    """Print a line for each precision; returns the exit code."""
    shelf = read_shelf(arguments.folder)
    for precision, runtime in shelf.sets:
        engines = shelf.of(precision, runtime)
        size = sum(len(shelf.read(engine)) for engine in engines.values())
        verdict = _certificate(shelf, precision, runtime)
        print(f"{precision:<8} {runtime:<7} {size / 1024:7.0f} KiB  {verdict}")
        for name, engine in engines.items():
            print(f"  {name}  {engine.file}  {engine.sha256}")
    return 0


def build_engines(arguments: argparse.Namespace) -> int:
    """Build, judge, write the manifest; returns 0 when all passed the gate, else 1."""
    with needing_the_extra("building"):
        from unface.calibration.build import build, shipped_cache
    folder: Path = arguments.folder
    passed = build(folder, arguments.cache or shipped_cache(), arguments.data)
    print(f"{folder}: built; use them with --engines {folder}")
    return 0 if passed else 1


@contextmanager
def needing_the_extra(what: str) -> Iterator[None]:
    """Say, of imports that fail inside, that `what` needs `unface[engines]`: `EngineError`."""
    try:
        yield
    except ImportError as error:
        raise EngineError(
            f"{what} needs {error.name}, which is not installed: pip install 'unface[engines]'"
        ) from error


def _certificate(shelf: Shelf, precision: str, runtime: str) -> str:
    try:
        shelf.check_certificate(precision, runtime)
    except EngineError as error:
        return f"NOT CERTIFIED: {error}"
    return "passed the gate"
