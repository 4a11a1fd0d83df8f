"""Folders of TensorRT plans: what `make engines TARGET=tensorrt` wrote, and what fits here.

The manifest is that of any folder of engines (`unface.engines.shelf`), where `runtime` says library
and compute capabilities ("tensorrt_rtx-sm86"), with the fields below for each engine.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unface.engines.layers import Layer, layers_from_json
from unface.engines.refusals import ON_CPU, REMEDY
from unface.engines.shelf import NETWORKS, Engine, Shelf, read_shelf
from unface.engines.tensorrt import RTX, DeviceEngine, Library, device_capability, find_tensorrt
from unface.errors import EngineError, InvalidOption

LAYERS_SUFFIX = ".layers.json"  # after the plan's name: what was fused, as known when it was built

log = logging.getLogger("unface.engines")


@dataclass(frozen=True)
class Plan:
    """One plan: its engine on the shelf, and what built it for which GPUs ("8.6")."""

    engine: Engine
    library: str
    version: str
    capabilities: tuple[str, ...]
    onnx_sha256: str


@dataclass(frozen=True)
class Plans:
    """A folder of plans; see `read_plans`."""

    folder: Path
    shelf: Shelf
    plans: tuple[Plan, ...]

    def of(self, precision: str, runtime: str) -> dict[str, Plan]:
        """Return the plans of a precision for a runtime ("tensorrt_rtx-sm86"), by network."""
        pair = (precision, runtime)
        return {
            p.engine.network: p
            for p in self.plans
            if (p.engine.precision, p.engine.runtime) == pair
        }

    def fitting(
        self, precision: str, library: str, version: str, capability: str
    ) -> dict[str, Plan]:
        """Return the three plans of a precision that fit a library and a GPU, by network.

        Raises `InvalidOption` for a precision that is not there at all, else `EngineError` that
        says what the plans are for, what there is, and what to do.
        """
        there = [plan for plan in self.plans if plan.engine.precision == precision]
        if not there:
            precisions = sorted({plan.engine.precision for plan in self.plans})
            raise InvalidOption(f"precision is {precision!r}; there are {', '.join(precisions)}")
        wanted = (library, version)
        for runtime in dict.fromkeys(plan.engine.runtime for plan in there):
            found = self.of(precision, runtime)
            if len(found) == len(NETWORKS) and all(
                (plan.library, plan.version) == wanted and capability in plan.capabilities
                for plan in found.values()
            ):
                return found
        made = dict.fromkeys(
            f"{p.library} {p.version}, compute capability {' '.join(p.capabilities)}" for p in there
        )
        raise EngineError(
            f"the {precision} plans of {self.folder} are of {'; '.join(made)}; here are {library} "
            f"{version}, compute capability {capability}: {REMEDY}"
        )

    def kept_layers(self, plan: Plan) -> tuple[Layer, ...]:
        """Return what was fused, as known when the plan was built; `EngineError` if not kept."""
        try:
            return layers_from_json((self.folder / layers_file(plan.engine.file)).read_text())
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EngineError(f"the layers of {plan.engine.file} were not kept: {error}") from error


def layers_file(plan: str) -> str:
    """Return the name of the file beside a plan that says what was fused."""
    return plan.removesuffix(".plan") + LAYERS_SUFFIX


def read_plans(folder: Path, key: bytes | None = None) -> Plans:
    """Return the plans of a folder, by its manifest; raises `EngineError` when it has none."""
    shelf = read_shelf(folder, key)
    try:
        entries: Sequence[dict[str, Any]] = json.loads(shelf.manifest)["engines"]
        plans = tuple(
            Plan(
                engine,
                str(entry["library"]),
                str(entry["version"]),
                tuple(map(str, entry["compute_capabilities"])),
                str(entry["onnx_sha256"]),
            )
            for engine, entry in zip(shelf.engines, entries, strict=True)
        )
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(
            f"{folder} holds no TensorRT plans: make engines TARGET=tensorrt"
        ) from error
    return Plans(folder, shelf, plans)


def open_plans(
    folder: Path,
    precision: str,
    library: Library | None = None,
    *,
    allow_uncertified: bool = False,
    key: bytes | None = None,
) -> dict[str, DeviceEngine]:
    """Load the three plans of a precision that fit the GPU of this machine, by network.

    `library` None takes what is installed; for `key` see `read_shelf`. Raises as `Plans.fitting`,
    `Shelf.read`, `Shelf.check_certificate` and `DeviceEngine` do, `EngineError` when there is no
    GPU.
    """
    library = find_tensorrt() if library is None else library
    capability = device_capability()
    if capability is None:
        raise EngineError(f"there is no NVIDIA GPU with a driver here; {ON_CPU}")
    plans = read_plans(folder, key)
    found = plans.fitting(precision, library.name, library.version, capability)
    runtime = found[NETWORKS[0]].engine.runtime
    try:
        plans.shelf.check_certificate(precision, runtime)
    except EngineError as error:
        if not allow_uncertified:
            raise
        log.warning("UNCERTIFIED ENGINES IN USE, faces may be missed: %s", error)
    return {
        name: DeviceEngine(plans.shelf.read(found[name].engine), found[name].engine.file, library)
        for name in NETWORKS
    }


def runtime_name(library: str, capabilities: Sequence[str]) -> str:
    """Return a library and compute capabilities as one word: "tensorrt_rtx-sm80-86"."""
    numbers = "-".join(capability.replace(".", "") for capability in capabilities)
    return f"{library}-sm{numbers}"


def groups(library: str, capabilities: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the compute capabilities that one plan serves together.

    A plan of RTX for several is as large as for one, but does only what all of them can: with 7.5,
    for which it has no INT8, every convolution becomes float. So 7.5 goes alone.
    """
    if library != RTX:
        return [(capability,) for capability in capabilities]
    turing = tuple(c for c in capabilities if float(c) < 8)
    later = tuple(c for c in capabilities if float(c) >= 8)
    return [*((c,) for c in turing), *([later] if later else [])]
