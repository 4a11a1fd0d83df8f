"""The engines that ship with unface: `prebuilt/*.tflite` and their manifest."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from unface.engines.tflite import TfliteNetwork
from unface.errors import EngineError, InvalidOption
from unface.mtcnn.network import Networks

NETWORKS = ("pnet", "rnet", "onet")
BATCHES = {"pnet": (1,), "rnet": (4, 32), "onet": (1, 8)}  # measured: docs/performance.md
MAX_THREADS = 64


@dataclass(frozen=True)
class Engine:
    """One engine file: its network ("pnet"), precision ("fp32"), file name and SHA-256."""

    network: str
    precision: str
    file: str
    sha256: str

    def read(self) -> bytes:
        """Return the file's bytes; raises `EngineError` when it is missing or altered."""
        try:
            data = (files("unface.engines") / "prebuilt" / self.file).read_bytes()
        except OSError as error:
            raise EngineError(f"engine {self.file} is missing: reinstall unface") from error
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise EngineError(f"engine {self.file} is damaged (its hash differs): reinstall unface")
        return data


@cache
def prebuilt() -> tuple[Engine, ...]:
    """Return the engines that ship, from `prebuilt/manifest.json`."""
    try:
        manifest = json.loads((files("unface.engines") / "prebuilt" / "manifest.json").read_text())
        return tuple(
            Engine(e["network"], e["precision"], e["file"], e["sha256"])
            for e in manifest["engines"]
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EngineError("the manifest of the engines cannot be read: reinstall unface") from error


def precisions() -> list[str]:
    """Return the precisions for which all three networks ship."""
    return sorted({e.precision for e in prebuilt()})


def open_networks(precision: str = "fp32", threads: int | None = None) -> Networks:
    """Load the three TFLite engines of a precision, to run on so many CPU threads.

    `threads` None takes all cores this process may use. Raises `InvalidOption` for a precision
    that does not ship and `EngineError` when an engine is missing, damaged or cannot be loaded.
    """
    if precision not in precisions():
        raise InvalidOption(f"precision is {precision!r}; there are {', '.join(precisions())}")
    threads = cores() if threads is None else threads
    if not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
        raise InvalidOption(f"threads is {threads}; it must be 1 to {MAX_THREADS}, a whole number")
    chosen = {e.network: e for e in prebuilt() if e.precision == precision}
    pnet, rnet, onet = (
        TfliteNetwork(chosen[name].read(), chosen[name].file, BATCHES[name], threads)
        for name in NETWORKS
    )
    return Networks(pnet, rnet, onet, backend="tflite", precision=precision)


def cores() -> int:
    """Return how many CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), MAX_THREADS)
    return min(os.cpu_count() or 1, MAX_THREADS)
