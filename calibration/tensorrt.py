"""Build TensorRT plans from the weights and the calibration cache, and judge what they are of.

    python -m unface.calibration.tensorrt [--data DIR]     # judges the models of what ships anew

A plan cannot run without its GPU. So the gate judges the ONNX model it is built from in ONNX
Runtime; the manifest says so (`judged_by`). Of float16 that shows the rounding of weights alone:
on a CPU what passes between nodes stays float32 (rounded too, logits differ by 0.01 more, a test
says). Plans whose model, library and compute capabilities have not changed are kept, and so are
verdicts: those on the models of the weights and the cache that ship lie in `verdicts.json`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

from tqdm import tqdm

from unface.calibration.build import (
    BUILT_IN,
    as_served,
    build_onnx,
    judged,
    pictures_of,
    shipped_cache,
)
from unface.calibration.cache import read_calibration
from unface.calibration.onnx_network import OnnxNetwork
from unface.calibration.rewrite import read_trained
from unface.calibration.samples import SHAPES
from unface.calibration.weights import hash_of, int8_weights
from unface.engines.layers import convolutions, layers_to_json
from unface.engines.plans import groups, layers_file, runtime_name
from unface.engines.shelf import MANIFEST, NETWORKS, open_named, read_shelf
from unface.engines.tensorrt import Batches, Library, build, device_capability, find_tensorrt
from unface.errors import EngineError, InvalidOption, UnfaceError
from unface.mtcnn.network import Networks

PRECISIONS = ("fp32", "fp16", "int8", "mixed")
CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0")  # Turing to Blackwell: what RTX supports
BATCHES = {
    "pnet": Batches(1, 32, 64),  # pages: 1080p makes 28; a context for 256 would take 0.7 to 1.6 GB
    "rnet": Batches(1, 128, 512),  # crops
    "onet": Batches(1, 64, 512),
}
TIMING_CACHE = "timing.cache"
VERDICTS = "verdicts.json"
TOOLS = ("numpy", "onnx", "onnxruntime")
Entry = dict[str, Any]


@dataclass(frozen=True)
class Order:
    """What to build: None stands for all precisions, and the compute capabilities as described.

    Those of `tensorrt_rtx` are `CAPABILITIES`, that of `tensorrt` is the GPU of this machine.
    """

    folder: Path
    precisions: Sequence[str] | None = None
    capabilities: Sequence[str] | None = None
    library: str | None = None
    cache: Path | None = None


def build_plans(order: Order, data: Path | None = None, *, gate: bool = True) -> bool:
    """Build, judge, write the manifest; returns whether all that was judged passed the gate.

    `data` are labelled pictures, else the built-in scenes judge; without `gate` only certificates
    of the same models are taken over. Raises `EngineError` when TensorRT is missing or cannot
    build, `InvalidOption` for a precision or compute capability there is not.
    """
    library = find_tensorrt(order.library)
    earlier = _earlier(order.folder)
    entries = write_plans(order, library, earlier["engines"])
    gates = {}
    for precision in dict.fromkeys(e["precision"] for e in entries):
        models = {n: (order.folder / f"{n}.{precision}.onnx").read_bytes() for n in NETWORKS}
        verdicts = [*_shipped_verdicts(), *earlier["certificates"]]
        found = _known(precision, models, verdicts, any_data=data is None)
        if found is None and gate:
            found = _judged(precision, models, data)
        if found is not None:
            gates[precision] = found
    certificates = [_certificate(gates[p], p, r, plans) for p, r, plans in _sets(entries, gates)]
    manifest = {
        "toolchain": {library.name: library.version, **{tool: version(tool) for tool in TOOLS}},
        "engines": entries,
        "certificates": certificates,
    }
    (order.folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    return all(certificate["passed"] for certificate in certificates)


def write_plans(order: Order, library: Library, earlier: Sequence[Entry] = ()) -> list[Entry]:
    """Write models, plans and what was fused into the folder; returns the manifest's engines.

    `earlier` are those of the folder's manifest: plans that would be the same are kept.
    """
    folder, cache = order.folder, order.cache or shipped_cache()
    folder.mkdir(parents=True, exist_ok=True)
    targets = groups(library.name, _capabilities(order, library))
    models = list(_models(order, library, cache))
    kept = {_identity(entry): entry for entry in earlier if _is_whole(folder, entry)}
    timing = folder / TIMING_CACHE
    timed = timing.read_bytes() if timing.exists() else b""
    entries = []
    with tqdm(total=len(models) * len(targets), desc="plans", unit="plan", disable=None) as bar:
        for entry, model in models:
            (folder / entry["onnx"]).write_bytes(model)
            for target in targets:
                described = _described(entry, library, target)
                if _identity(described) not in kept:
                    timed = _write_plan(folder, described, library, model, timed)
                    kept[_identity(described)] = described
                entries.append(kept[_identity(described)])
                bar.update()
    if timed:
        timing.write_bytes(timed)
    return entries


def _models(order: Order, library: Library, cache: Path) -> Iterator[tuple[Entry, bytes]]:
    precisions = order.precisions or PRECISIONS
    for precision in precisions:
        if precision not in PRECISIONS:
            raise InvalidOption(f"precision is {precision!r}; there are {', '.join(PRECISIONS)}")
    for network in NETWORKS:
        path, weights = cache / f"{network}.json", int8_weights(network)
        calibration = read_calibration(path)
        for precision in precisions:
            model = build_onnx(network, precision, calibration, weights, even=library.is_rtx)
            quantized = precision in ("int8", "mixed")
            yield (
                {
                    "network": network,
                    "precision": precision,
                    "input": ["N", *SHAPES[network]],
                    "batches": list(vars(BATCHES[network]).values()),
                    "onnx": f"{network}.{precision}.onnx",
                    "onnx_sha256": _sha256(model),
                    "weights_sha256": hash_of(weights if quantized else read_trained(network)),
                    "calibration_sha256": _sha256(path.read_bytes()) if quantized else None,
                },
                model,
            )


def _capabilities(order: Order, library: Library) -> Sequence[str]:
    if library.is_rtx:
        return tuple(dict.fromkeys(order.capabilities or CAPABILITIES))
    here = device_capability()
    if here is None:
        raise EngineError(
            f"{library.name} builds on the GPU that it builds for, and there is none here; "
            "tensorrt_rtx needs none"
        )
    if tuple(order.capabilities or (here,)) != (here,):
        raise InvalidOption(f"{library.name} builds for the GPU of this machine, {here}, alone")
    return (here,)


def _described(entry: Entry, library: Library, target: tuple[str, ...]) -> Entry:
    runtime = runtime_name(library.name, target)
    return {
        "network": entry["network"],
        "precision": entry["precision"],
        "runtime": runtime,
        "file": f"{entry['network']}.{entry['precision']}.{runtime}.plan",
        "library": library.name,
        "version": library.version,
        "compute_capabilities": list(target),
        **entry,
    }


def _write_plan(folder: Path, entry: Entry, library: Library, model: bytes, timed: bytes) -> bytes:
    """Build a plan and add its hash to its entry; returns what TensorRT timed so far."""
    capabilities = entry["compute_capabilities"] if library.is_rtx else ()
    built = build(library, model, BATCHES[entry["network"]], capabilities, timed)
    (folder / entry["file"]).write_bytes(built.plan)
    (folder / layers_file(entry["file"])).write_text(layers_to_json(built.layers))
    if entry["precision"] == "int8" and not any(x.is_int8 for x in convolutions(built.layers)):
        tqdm.write(
            f"{entry['file']}: {library.name} has no INT8 for it and computes in float; take fp16",
            file=sys.stderr,
        )
    entry["sha256"] = _sha256(built.plan)
    return built.timing_cache


def _identity(entry: Entry) -> tuple[Any, ...]:
    """Return what a plan follows from. Not its bytes: the same build gives other ones."""
    fields = ("file", "library", "version", "compute_capabilities", "batches", "onnx_sha256")
    return tuple(str(entry.get(field)) for field in fields)


def _is_whole(folder: Path, entry: Entry) -> bool:
    plan = folder / str(entry.get("file"))
    layers = folder / layers_file(plan.name)
    return plan.is_file() and layers.is_file() and _sha256(plan.read_bytes()) == entry["sha256"]


# --- gate -----------------------------------------------------------------------------------------


def judge_models(data: Path | None, earlier: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return verdicts on all models of the weights and the cache that ship, `earlier` ones kept.

    But for those that `engines/prebuilt` has certificates of.
    """
    verdicts: list[dict[str, Any]] = []
    for precision, even in product(PRECISIONS, (False, True)):
        models = {
            network: build_onnx(
                network,
                precision,
                read_calibration(shipped_cache() / f"{network}.json"),
                int8_weights(network),
                even=even,
            )
            for network in NETWORKS
        }
        if _known(precision, models, _shipped_certificates()) is None:
            known = _known(precision, models, [*earlier, *verdicts], any_data=data is None)
            verdict = known or _judged(precision, models, data)
            if verdict not in verdicts:  # float models are the same, even or not
                verdicts.append(verdict)
    return verdicts


def _judged(precision: str, models: dict[str, bytes], data: Path | None) -> dict[str, Any]:
    with as_served("onnx"):  # judged as the certificates of ONNX engines are
        pnet, rnet, onet = (OnnxNetwork(models[name], name, threads=2) for name in NETWORKS)
        candidate = Networks(pnet, rnet, onet, backend="onnxruntime", precision=precision)
        if precision == "fp32":
            from unface.mtcnn.networks import torch_networks

            reference, of = torch_networks(), "torch fp32"
        else:
            reference, of = open_named("fp32.tflite"), "fp32.tflite"
        said = judged(reference, candidate, f"{precision}.tensorrt", *pictures_of(data))
    hashes = {name: _sha256(model) for name, model in models.items()}
    about = {"precision": precision, "onnx": hashes, "judged_by": "onnxruntime", "reference": of}
    return {**about, **said}


def _known(
    precision: str,
    models: dict[str, bytes],
    verdicts: Sequence[dict[str, Any]],
    *,
    any_data: bool = True,
) -> dict[str, Any] | None:
    """Return the verdict on the same models, if there is one.

    Without `any_data`, one on the built-in scenes does not count: there are better pictures.
    """
    hashes = {name: _sha256(model) for name, model in models.items()}
    for verdict in verdicts:
        same = (verdict.get("precision"), verdict.get("onnx")) == (precision, hashes)
        if same and (any_data or verdict.get("data") != BUILT_IN):
            return {k: v for k, v in verdict.items() if k not in ("runtime", "engines")}
    return None


def _shipped_verdicts() -> list[dict[str, Any]]:
    path = files("unface.calibration") / VERDICTS
    own: list[dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else []
    return [*own, *_shipped_certificates()]


def _shipped_certificates() -> list[dict[str, Any]]:
    """Return the certificates of the ONNX engines that ship, as verdicts on models."""
    shipped = json.loads((read_shelf().folder / MANIFEST).read_text())["certificates"]
    return [
        {"precision": c["precision"], "onnx": c["engines"], "judged_by": "onnxruntime", **c}
        for c in shipped
        if c["runtime"] == "onnx"
    ]


def _sets(
    entries: Sequence[Entry], gates: dict[str, Any]
) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Give the precision, runtime and hashes by network of every three plans that were judged."""
    for precision, runtime in dict.fromkeys((e["precision"], e["runtime"]) for e in entries):
        if precision in gates:
            mine = [e for e in entries if (e["precision"], e["runtime"]) == (precision, runtime)]
            yield precision, runtime, {e["network"]: e["sha256"] for e in mine}


def _certificate(
    gate: dict[str, Any], precision: str, runtime: str, plans: dict[str, str]
) -> dict[str, Any]:
    return {**gate, "precision": precision, "runtime": runtime, "engines": plans}


def _earlier(folder: Path) -> dict[str, list[Any]]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        return {key: list(manifest[key]) for key in ("engines", "certificates")}
    except (OSError, ValueError, KeyError, TypeError):
        return {"engines": [], "certificates": []}  # none, or of an earlier program: built anew


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def main() -> int:
    """Judge the models of what ships; the exit code says whether all passed the gate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="labelled pictures for the gate")
    data: Path | None = parser.parse_args().data
    path = Path(str(files("unface.calibration") / VERDICTS))
    try:
        verdicts = judge_models(data, _shipped_verdicts())
    except UnfaceError as error:
        print(f"make engines: {error}", file=sys.stderr)
        return 2
    path.write_text(json.dumps(verdicts, indent=1) + "\n")
    return 0 if all(verdict["passed"] for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
