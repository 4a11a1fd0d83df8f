"""Folders of engines and their manifests: what ships in `prebuilt/`, or what a user built.

A folder may be encrypted (`unface.engines.sealed`). With a key every file of it must be, the
manifest too: whoever can write to the folder but lacks the key can neither swap engines nor make a
certificate, nor put a plain folder in its place.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unface.audit import json_sha256
from unface.engines.native import NativeNetwork, NativePNet
from unface.engines.tflite import TfliteNetwork
from unface.errors import EngineError, InvalidOption, SealError
from unface.kernels.library import instruction_set
from unface.mtcnn.network import Network, Networks
from unface.mtcnn.team import MAX_THREADS, Team, cores
from unface.sealing import is_sealed, read_key, unseal

if TYPE_CHECKING:  # Python 3.10 has it elsewhere than 3.11
    from importlib.abc import Traversable

NETWORKS = ("pnet", "rnet", "onet")
BATCHES = {"pnet": (1,), "rnet": (4, 32), "onet": (1, 8)}  # measured: docs/performance.md
MANIFEST = "manifest.json"
KEY_VARIABLE = "UNFACE_ENGINE_KEY"  # environment: the key of encrypted engines, in hex or base64
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
    id: str = ""  # SHA-256 of its entry in the manifest, all fields, as canonical JSON


@dataclass(frozen=True)
class Shelf:
    """A folder of engines; see `read_shelf`."""

    folder: Traversable
    engines: tuple[Engine, ...]
    certificates: tuple[Certificate, ...]
    shipped: bool = False
    manifest: bytes = field(default=b"", repr=False)  # as read; JSON
    key: bytes | None = field(default=None, repr=False)  # the files are encrypted with it

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
        if self.key is not None:
            try:
                data = unseal(data, self.key, seal_context(engine.file))
            except SealError as error:
                raise EngineError(
                    f"engine {engine.file} is damaged (the key is right, but {error}): encrypt the "
                    "engines again"
                ) from error
        if hashlib.sha256(data).hexdigest() != engine.sha256:
            raise EngineError(f"engine {engine.file} is damaged (its hash differs): {self._remedy}")
        return data

    def certificates_of(self, precision: str, runtime: str) -> list[Certificate]:
        """Return the certificates of these engines as they are, passed or not."""
        hashes = {network: e.sha256 for network, e in self.of(precision, runtime).items()}
        return [
            c
            for c in self.certificates
            if (c.precision, c.runtime, dict(c.engines)) == (precision, runtime, hashes)
        ]

    def check_certificate(self, precision: str, runtime: str) -> None:
        """Raise `EngineError` unless these engines passed the gate, as they are."""
        found = self.certificates_of(precision, runtime)
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


def read_shelf(folder: Path | None = None, key: bytes | None = None) -> Shelf:
    """Return the engines of a folder, by its manifest; None: those that ship, without a key.

    Raises `EngineError` when there is no manifest or it cannot be read, when the folder is
    encrypted and the key is missing or another one, and when it is not and there is a key.
    """
    if folder is None:
        return _prebuilt()
    if not folder.is_dir():
        raise EngineError(f"{folder} is no folder of engines")
    return _read(folder, shipped=False, key=key)


def read_engine_key(file: str | os.PathLike[str] | None) -> bytes | None:
    """Return the key in a file or in `UNFACE_ENGINE_KEY`; see `unface.sealing.read_key`."""
    return read_key(file, KEY_VARIABLE)


def seal_context(file: str) -> bytes:
    """Return what an encrypted file of a folder of engines is sealed for: itself alone."""
    return b"engine:" + os.fsencode(file)


def prebuilt() -> tuple[Engine, ...]:
    """Return the engines that ship."""
    return _prebuilt().engines


def open_networks(
    precision: str = "fp32",
    threads: int | None = None,
    folder: Path | None = None,
    *,
    allow_uncertified: bool = False,
    key: bytes | None = None,
) -> Networks:
    """Load the three engines of a precision, to run on so many CPU threads.

    Those for the compiled core where it serves this machine, else those for LiteRT. `threads` None
    takes all cores this process may use; `folder` None takes the engines that ship; `key` is that
    of an encrypted folder.
    Raises `InvalidOption` for a precision that is not there and `EngineError` when an engine is
    missing, damaged, cannot be loaded or, unless `allow_uncertified`, has not passed the gate; for
    the key see `read_shelf`.
    """
    shelf = read_shelf(folder, key)
    return open_from(shelf, precision, threads, allow_uncertified=allow_uncertified)


def open_from(
    shelf: Shelf, precision: str, threads: int | None = None, *, allow_uncertified: bool = False
) -> Networks:
    """Load the three engines of a precision from a shelf, as `open_networks` does."""
    runtime = shelf.fastest(precision)
    networks = _load(shelf, precision, runtime, threads)
    try:
        shelf.check_certificate(precision, runtime)
    except EngineError as error:
        if not allow_uncertified:
            raise
        log.warning("UNCERTIFIED ENGINES IN USE, faces may be missed: %s", error)
    return networks


def open_named(spec: str, threads: int | None = None, key: bytes | None = None) -> Networks:
    """Load engines, certified or not, by what `parse_spec` takes; for `key` see `read_shelf`."""
    folder, precision, runtime = parse_spec(spec)
    shelf = read_shelf(folder, key)
    return _load(shelf, precision, runtime or shelf.fastest(precision), threads)


def named_files(spec: str, key: bytes | None = None) -> dict[str, bytes]:
    """Return the bytes of the engines that `open_named` would load, by network."""
    folder, precision, runtime = parse_spec(spec)
    shelf = read_shelf(folder, key)
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


def _read(folder: Traversable, *, shipped: bool, key: bytes | None = None) -> Shelf:
    try:
        data = _plain(folder, (folder / MANIFEST).read_bytes(), key)
        manifest: dict[str, Any] = json.loads(data)
        fields = ("network", "precision", "file", "sha256", "runtime")
        engines = tuple(Engine(*(e[field] for field in fields)) for e in manifest["engines"])
        certificates = tuple(
            Certificate(
                c["precision"],
                c["runtime"],
                dict(c["engines"]),
                c["passed"] is True,
                tuple(map(str, c["reasons"])),
                json_sha256(c),
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
    return Shelf(folder, engines, certificates, shipped, data, key)


def _plain(folder: Traversable, manifest: bytes, key: bytes | None) -> bytes:
    """Return a folder's manifest, decrypted when there is a key."""
    sealed = is_sealed(manifest)
    if key is None and sealed:
        raise EngineError(
            f"the engines of {folder} are encrypted: their key is needed, in the file that "
            f"--engine-key-file names or in {KEY_VARIABLE}"
        )
    if key is not None and not sealed:
        raise EngineError(
            f"the engines of {folder} are not encrypted, but there is a key: encrypt them "
            "(unface engines encrypt) or leave out the key"
        )
    try:
        return manifest if key is None else unseal(manifest, key, seal_context(MANIFEST))
    except SealError as error:
        raise EngineError(f"the engines of {folder} cannot be decrypted: {error}") from error
