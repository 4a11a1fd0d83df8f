"""`unface engines`: what engines there are and what the gate said of them; building one's own."""

from __future__ import annotations

import argparse
from pathlib import Path

from unface.engines.shelf import Shelf, read_shelf
from unface.errors import EngineError


def list_engines(arguments: argparse.Namespace) -> int:
    """Print a line for each precision; returns the exit code."""
    shelf = read_shelf(arguments.folder)
    for precision in shelf.precisions:
        engines = shelf.of(precision)
        size = sum(len(shelf.read(engine)) for engine in engines.values())
        print(f"{precision:<8} {size / 1024:7.0f} KiB  {_certificate(shelf, precision)}")
        for name, engine in engines.items():
            print(f"  {name}  {engine.file}  {engine.sha256}")
    return 0


def build_engines(arguments: argparse.Namespace) -> int:
    """Build, judge, write the manifest; returns 0 when all passed the gate, else 1."""
    try:
        from unface.calibration.build import build, shipped_cache
    except ImportError as error:
        raise EngineError(
            f"building needs {error.name}, which is not installed: pip install 'unface[engines]'"
        ) from error
    folder: Path = arguments.folder
    passed = build(folder, arguments.cache or shipped_cache(), arguments.data)
    print(f"{folder}: built; use them with --engines {folder}")
    return 0 if passed else 1


def _certificate(shelf: Shelf, precision: str) -> str:
    try:
        shelf.check_certificate(precision)
    except EngineError as error:
        return f"NOT CERTIFIED: {error}"
    return "passed the gate"
