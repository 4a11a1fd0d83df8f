"""Folders of engines and their manifests: what ships in `prebuilt/`, or what a user built."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unface.engines.native import NativeNetwork, NativePNet
from unface.engines.tflite import TfliteNetwork
from unface.errors import EngineError, InvalidOption
from unface.kernels.library import instruction_set
from unface.mtcnn.network import Network, Networks
from unface.mtcnn.team import MAX_THREADS, Team, cores

if TYPE_CHECKING:  # Python 3.10 has it elsewhere than 3.11
    from importlib.abc import Traversable

NETWORKS = ("pnet", "rnet", "onet")
BATCHES = {"pnet": (1,), "rnet": (4, 32), "onet": (1, 8)}  # measured: docs/performance.md
MANIFEST = "manifest.json"
NATIVE, TFLITE = RUNTIMES = ("native", "tflite")  # the compiled core, LiteRT

log = logging.getLogger("unface.engines")


@dataclass(frozen=True)
class Engine:
    """One engine file: its network ("pnet"), precision ("fp32"), file name, SHA-256, runtime."""

    network: str
    precision: str
    file: str
    sha256: str
    runtime: str = "tflite"


@dataclass(frozen=True)
class Certificate:
    """That three engines passed the gate (`unface.calibration.gate`), or why they did not."""

    precision: str
    runtime: str
    engines: Mapping[str, str]  # SHA-256 by network
    passed: bool
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shelf:
    """A folder of engines; see `read_shelf`."""

    folder: Traversable
    engines: tuple[Engine, ...]
    certificates: tuple[Certificate, ...]
    shipped: bool = False

    @property
    def precisions(self) -> list[str]:
        """The precisions for which there are all three TFLite engines."""
        return [precision for precision, runtime in self.sets if runtime == TFLITE]

    @property
    def sets(self) -> list[tuple[str, str]]:
        """The precisions and runtimes that can serve, by name."""
        pairs = sorted({(e.precision, e.runtime) for e in self.engines})
        return [pair for pair in pairs if pair[1] in RUNTIMES and len(self.of(*pair)) == 3]

    def of(self, precision: str, runtime: str) -> dict[str, Engine]:
        """Return the engines of a precision for a runtime, by network."""
        return {
            e.network: e for e in self.engines if (e.precision, e.runtime) == (precision, runtime)
        }

    def fastest(self, precision: str) -> str:
        """Return the runtime that serves a precision on this machine."""
        native = instruction_set() != "none" and (precision, NATIVE) in self.sets
        return NATIVE if native else TFLITE

    def read(self, engine: Engine) -> bytes:
        """Return an engine's bytes; raises `EngineError` when it is missing or altered."""
        try:
            data = (self.folder / engine.file).read_bytes()
        except (OSError, ValueError) as error:  # ValueError: no name that a file can have
            raise EngineError(f"engine {engine.file} is missing: {self._remedy}") from error
        if hashlib.sha256(data).hexdigest() != engine.sha256:
            raise EngineError(f"engine {engine.file} is damaged (its hash differs): {self._remedy}")
        return data

    def check_certificate(self, precision: str, runtime: str) -> None:
        """Raise `EngineError` unless these engines passed the gate, as they are."""
        hashes = {network: e.sha256 for network, e in self.of(precision, runtime).items()}
        found = [
            c
            for c in self.certificates
            if (c.precision, c.runtime, dict(c.engines)) == (precision, runtime, hashes)
        ]
        if any(c.passed for c in found):
            return
        why = f"failed the gate: {'; '.join(found[0].reasons)}" if found else "have no certificate"
        raise EngineError(
            f"the {precision} engines ({runtime}) {why}; build them again, choose another "
            "precision, or allow uncertified engines (--allow-uncertified), which may miss faces"
        )

    @property
    def _remedy(self) -> str:
        return "reinstall unface" if self.shipped else "build the engines again"


def read_shelf(folder: Path | None = None) -> Shelf:
    """Return the engines of a folder, by its manifest; None: those that ship.

    Raises `EngineError` when there is no manifest or it cannot be read.
    """
    if folder is None:
        return _prebuilt()
    if not folder.is_dir():
        raise EngineError(f"{folder} is no folder of engines")
    return _read(folder, shipped=False)


def prebuilt() -> tuple[Engine, ...]:
    """Return the engines that ship."""
    return _prebuilt().engines


def open_networks(
    precision: str = "fp32",
    threads: int | None = None,
    folder: Path | None = None,
    *,
    allow_uncertified: bool = False,
) -> Networks:
    """Load the three engines of a precision, to run on so many CPU threads.

    Those for the compiled core where it serves this machine, else those for LiteRT. `threads` None
    takes all cores this process may use; `folder` None takes the engines that ship.
    Raises `InvalidOption` for a precision that is not there and `EngineError` when an engine is
    missing, damaged, cannot be loaded or, unless `allow_uncertified`, has not passed the gate.
    """
    shelf = read_shelf(folder)
    runtime = shelf.fastest(precision)
    networks = _load(shelf, precision, runtime, threads)
    try:
        shelf.check_certificate(precision, runtime)
    except EngineError as error:
        if not allow_uncertified:
            raise
        log.warning("UNCERTIFIED ENGINES IN USE, faces may be missed: %s", error)
    return networks


def open_named(spec: str, threads: int | None = None) -> Networks:
    """Load engines, certified or not, by what `parse_spec` takes."""
    folder, precision, runtime = parse_spec(spec)
    shelf = read_shelf(folder)
    return _load(shelf, precision, runtime or shelf.fastest(precision), threads)


def named_files(spec: str) -> dict[str, bytes]:
    """Return the bytes of the engines that `open_named` would load, by network."""
    folder, precision, runtime = parse_spec(spec)
    shelf = read_shelf(folder)
    engines = shelf.of(precision, runtime or shelf.fastest(precision))
    return {name: shelf.read(engine) for name, engine in engines.items()}


def parse_spec(spec: str) -> tuple[Path | None, str, str | None]:
    """Return folder, precision and runtime of "int8", "int8.tflite" or "FOLDER:int8.native".

    No folder: what ships. No runtime: the fastest on this machine.
    """
    folder, _, engines = spec.rpartition(":")
    precision, _, runtime = engines.partition(".")
    return (Path(folder) if folder else None), precision, runtime or None


def _load(shelf: Shelf, precision: str, runtime: str, threads: int | None) -> Networks:
    if precision not in shelf.precisions:
        there = ", ".join(shelf.precisions)
        raise InvalidOption(f"precision is {precision!r}; there are {there}")
    chosen = shelf.of(precision, runtime)
    if len(chosen) != 3 or runtime not in RUNTIMES:
        raise InvalidOption(f"there are no {precision} engines for {runtime!r}")
    if runtime == NATIVE and instruction_set() == "none":
        raise EngineError("the compiled core does not run here; LiteRT does (runtime tflite)")
    threads = cores() if threads is None else threads
    if not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
        raise InvalidOption(f"threads is {threads}; it must be 1 to {MAX_THREADS}, a whole number")
    team = Team(threads)

    def load(name: str) -> Network:
        data, file = shelf.read(chosen[name]), chosen[name].file
        if runtime == TFLITE:
            return TfliteNetwork(data, file, BATCHES[name], threads)
        return NativePNet(data, file) if name == "pnet" else NativeNetwork(data, file, name, team)

    pnet, rnet, onet = (load(name) for name in NETWORKS)
    return Networks(pnet, rnet, onet, backend=runtime, precision=precision, team=team)


@cache
def _prebuilt() -> Shelf:
    return _read(files("unface.engines") / "prebuilt", shipped=True)


def _read(folder: Traversable, *, shipped: bool) -> Shelf:
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        fields = ("network", "precision", "file", "sha256", "runtime")
        engines = tuple(Engine(*(e[field] for field in fields)) for e in manifest["engines"])
        certificates = tuple(
            Certificate(
                c["precision"],
                c["runtime"],
                dict(c["engines"]),
                c["passed"] is True,
                tuple(map(str, c["reasons"])),
            )
            for c in manifest["certificates"]
        )
        if not all(isinstance(value, str) for e in engines for value in vars(e).values()):
            raise ValueError("an engine is not described by words")
        if any(Path(engine.file).name != engine.file for engine in engines):
            raise ValueError("an engine lies outside its folder")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        remedy = "reinstall unface" if shipped else "build the engines again"
        raise EngineError(f"the manifest of the engines cannot be read: {remedy}") from error
    return Shelf(folder, engines, certificates, shipped)
