"""Which engine files gave an answer, and which certificates they have."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from unface.audit import json_sha256
from unface.engines.device import PLANS_PRECISION, SOURCE, check_certificate
from unface.engines.shelf import NATIVE, NETWORKS, Engine, Shelf
from unface.errors import EngineError

if TYPE_CHECKING:
    from unface.engines.plans import Plans

KERNELS, HALF = "cuda", "fp16"  # backend and precision of the GPU's own kernels


@dataclass(frozen=True)
class Provenance:
    """The engines of an answer, P-Net's first, and the ids of the certificates that they have.

    Without a certificate the engines are not certified, and an operator allowed them all the same.
    """

    engines: tuple[Engine, ...]
    certificates: tuple[str, ...]


def of_engines(shelf: Shelf, precision: str, runtime: str) -> Provenance:
    """Return the provenance of what engines of a shelf for a runtime computed."""
    engines = shelf.of(precision, runtime)
    passed = tuple(c.id for c in shelf.certificates_of(precision, runtime) if c.passed)
    return Provenance(tuple(engines[name] for name in NETWORKS), passed)


def of_kernels(shelf: Shelf) -> Provenance:
    """Return the provenance of what the GPU's own kernels computed with weights of a shelf.

    They have the engines' certificate on the CPU and that of half precision, or none.
    """
    source = of_engines(shelf, SOURCE, NATIVE)
    engines = tuple(replace(engine, precision=HALF) for engine in source.engines)
    try:
        check_certificate(shelf)
    except EngineError:  # not certified: they were allowed, or would not serve
        return Provenance(engines, ())
    certificate = json.loads((files("unface.gpu") / "certificate.json").read_text())
    return Provenance(engines, (*source.certificates, json_sha256(certificate)))


def of_plans(spec: str, key: bytes | None = None) -> Provenance:
    """Return the provenance of what TensorRT computes here with "FOLDER" or "FOLDER:PRECISION".

    Raises `EngineError` where no plans of the folder fit this machine.
    """
    from unface.engines.plans import read_plans  # as the device has it: where plans serve
    from unface.engines.tensorrt import device_capability, find_tensorrt

    folder, _, precision = spec.rpartition(":")
    if not folder:
        folder, precision = spec, PLANS_PRECISION
    library = find_tensorrt()
    capability = device_capability() or "unknown"
    plans = read_plans(Path(folder), key)
    return of_fitting(plans, precision, library.name, library.version, capability)


def of_fitting(
    plans: Plans, precision: str, library: str, version: str, capability: str
) -> Provenance:
    """Return the provenance of the plans that fit a library and a GPU; see `Plans.fitting`."""
    found = plans.fitting(precision, library, version, capability)
    return of_engines(plans.shelf, precision, found[NETWORKS[0]].engine.runtime)
