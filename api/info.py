"""`unface info`: what does the work here, or at a server."""

from __future__ import annotations

import argparse
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = ("ai-edge-litert", "numpy", "opencv-python-headless", "pillow", "grpcio", "protobuf")


def print_info(arguments: argparse.Namespace) -> int:
    """Print backend, engines, limits and versions; returns the exit code."""
    facts = _server_facts(arguments) if arguments.server else _local_facts(arguments)
    if arguments.json:
        print(json.dumps(facts))
        return 0
    width = max(map(len, facts))
    for name, value in facts.items():
        if isinstance(value, dict):
            value = "\n".join(
                f"{'' if i == 0 else ' ' * (width + 2)}{k}  {v}"
                for i, (k, v) in enumerate(value.items())
            )
        print(f"{name:<{width}}  {value}")
    return 0


def _local_facts(arguments: argparse.Namespace) -> dict[str, Any]:
    from unface.anonymize import FORMATS, Limits
    from unface.batch import engine_choices
    from unface.detector import Detector
    from unface.engines.shelf import read_engine_key, read_shelf
    from unface.kernels.library import instruction_set
    from unface.mtcnn.team import cores

    detector = Detector(**engine_choices(arguments))
    folder = Path(arguments.engines) if arguments.engines else None
    shelf = read_shelf(folder, read_engine_key(arguments.key_file) if folder else None)
    facts = {
        "unface": version("unface"),
        "backend": detector.backend,
        "precision": detector.precision,
        **_device(detector.device, detector.device_reason),
        "kernels": instruction_set(),
        "threads": arguments.threads or cores(),
        "engines": {e.file: e.sha256 for s in shelf.sets for e in shelf.of(*s).values()},
        "formats": ", ".join(FORMATS),
        "limits": _limits(Limits().max_bytes, Limits().max_pixels),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in LIBRARIES},
    }
    detector.close()
    return facts


def _server_facts(arguments: argparse.Namespace) -> dict[str, Any]:
    from unface.client import Client
    from unface.connection import connection_choices

    choices = connection_choices(arguments)
    with Client(arguments.server, timeout=arguments.timeout, **choices) as client:
        if arguments.wait is not None:
            client.wait_until_serving(arguments.wait)
        info = client.info()
    return {
        "server": arguments.server,
        "unface": info.version,
        "backend": info.backend,
        "precision": info.precision,
        **_device(info.device, info.device_reason),
        "threads": info.threads,
        "engines": info.engines,
        "formats": ", ".join(info.formats),
        "limits": _limits(info.max_bytes, info.max_pixels),
    }


def _device(name: str, reason: str) -> dict[str, str]:
    """Return the GPU that computes, or that the CPU does, and why."""
    return {"device": name or "CPU", **({"device_reason": reason} if reason else {})}


def _limits(max_bytes: int, max_pixels: int) -> str:
    return f"{max_bytes / 2**20:g} MiB, {max_pixels / 1e6:g} megapixels a picture"


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"
