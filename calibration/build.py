"""Build every engine from the weights and the calibration cache, judge them, write the manifest.

    python -m unface.calibration.build engines/prebuilt [--cache FOLDER] [--data DIR]

The same weights, cache and program give the same bytes. Engines whose bytes have not changed keep
the certificates they have; others are judged by the gate, on labelled pictures (`--data`) or on the
built-in scenes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from tqdm import tqdm

from unface.calibration.cache import Calibration, read_calibration
from unface.calibration.gate import BUILT_IN_LIMITS, Comparison, Verdict, compare, judge
from unface.calibration.labels import LabelledPicture, read_labels
from unface.calibration.native_writer import write_native
from unface.calibration.onnx_network import open_onnx
from unface.calibration.onnx_writer import write_onnx
from unface.calibration.rewrite import (
    FLOAT_COLUMNS,
    INT8_COLUMNS,
    INT8_FORMS,
    MERGED_HEADS_OF,
    Trained,
    merge_heads,
    read_trained,
    relu_graph,
    rewrite,
)
from unface.calibration.samples import SHAPES
from unface.calibration.scenes import labelled_scenes
from unface.calibration.tflite_writer import Weights, write_tflite
from unface.calibration.weights import hash_of, int8_weights, native_weights
from unface.engines.shelf import MANIFEST, NETWORKS, open_named
from unface.engines.tflite import MERGED_HEADS
from unface.errors import UnfaceError
from unface.kernels.library import LIMIT
from unface.mtcnn.network import Networks

TOOLS = ("ai-edge-litert", "numpy", "onnx", "torch")  # that the bytes, or the gate, depend on
TFLITE = ("fp32", "fp16", "dynamic", "int8", "mixed")
ONNX = NATIVE = ("fp32", "int8")
SUFFIXES = {"tflite": "tflite", "onnx": "onnx", "native": "npz"}
BUILT_IN = "built-in scenes"
KEPT_AS: dict[str, Weights] = {"fp32": "float32", "fp16": "float16", "dynamic": "int8"}


def shipped_cache() -> Path:
    """Return the folder of the calibration cache that ships."""
    return Path(str(files("unface.calibration") / "cache"))


def build_tflite(network: str, precision: str, calibration: Calibration, weights: Trained) -> bytes:
    """Return the TFLite engine of a network; `weights` are those that INT8 starts from."""
    height, width, _ = SHAPES[network]
    if precision in KEPT_AS:
        graph = rewrite(read_trained(network), {}, "prelu", FLOAT_COLUMNS[network])
        if network in MERGED_HEADS_OF:
            graph = merge_heads(graph)
        return write_tflite(graph, (height, width), weights=KEPT_AS[precision])
    calibration.check(weights)
    graph = rewrite(weights, INT8_FORMS[network], "maximum", INT8_COLUMNS[network])
    float_layers: set[str] = set()
    if network in MERGED_HEADS_OF:
        graph = merge_heads(graph)
    else:
        float_layers.update(head.name for head in graph.heads)
    if precision == "mixed":
        float_layers.update(calibration.float_layers)
        if network in MERGED_HEADS_OF and float_layers & {"logit", "box"}:
            float_layers.add(MERGED_HEADS)
    scales = calibration.engine_scales()
    return write_tflite(graph, (height, width), scales=scales, float_layers=float_layers)


def build_onnx(
    network: str, precision: str, calibration: Calibration, weights: Trained, *, even: bool = False
) -> bytes:
    """Return the ONNX engine of a network: PReLU in float, Conv and ReLU alone with Q/DQ.

    "fp16" and "mixed" are for TensorRT; "mixed" keeps the heads and what `float_layers` of the
    cache names in float16. `even`: as TensorRT for RTX fuses them, see `write_onnx`.
    """
    height, width, _ = SHAPES[network]
    float_layers: set[str] = set()
    if precision == "mixed":
        float_layers.update(calibration.float_layers, (head.name for head in weights.heads))
    if precision in ("fp32", "fp16") or float_layers == {conv.name for conv in weights.convs}:
        graph = rewrite(read_trained(network), {}, "prelu")
        return write_onnx(graph, (height, width), half=precision != "fp32")
    calibration.check(weights)
    return write_onnx(
        relu_graph(weights),
        (height, width),
        calibration.scales(),
        half=precision == "mixed",
        float_layers=float_layers,
        even=even,
    )


def build_native(network: str, precision: str, calibration: Calibration, weights: Trained) -> bytes:
    """Return the engine of a network for the compiled core, of its own weights."""
    if precision == "fp32":
        return write_native(read_trained(network))
    calibration.check(weights)
    return write_native(weights, calibration.spans(), calibration.logit_offset)


def build_all(folder: Path, cache: Path) -> list[dict[str, Any]]:
    """Write all engines into a folder; returns what the manifest says of each."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for network in NETWORKS:
        shared, (own, own_name) = int8_weights(network), native_weights(network)
        for runtime, precisions, build, weights, name in (
            ("tflite", TFLITE, build_tflite, shared, network),
            ("onnx", ONNX, build_onnx, shared, network),
            ("native", NATIVE, build_native, own, own_name),
        ):
            calibration = read_calibration(cache / f"{name}.json")
            for precision in precisions:
                data = build(network, precision, calibration, weights)
                path = folder / f"{network}.{precision}.{SUFFIXES[runtime]}"
                path.write_bytes(data)
                quantized = precision in ("int8", "mixed")
                entries.append(
                    {
                        "network": network,
                        "precision": precision,
                        "runtime": runtime,
                        "file": path.name,
                        "sha256": hashlib.sha256(data).hexdigest(),
                        "input": ["N", *SHAPES[network]],
                        "weights_sha256": hash_of(weights if quantized else read_trained(network)),
                        "calibration_sha256": _sha256(cache / f"{name}.json")
                        if quantized
                        else None,
                    }
                )
    return entries


def certify(
    folder: Path, entries: list[dict[str, Any]], pictures: list[LabelledPicture], data: str
) -> list[dict[str, Any]]:
    """Return a certificate for every set of three engines, old ones where no byte has changed."""
    earlier = _earlier_certificates(folder)
    certificates = []
    for runtime, precision in sorted({(e["runtime"], e["precision"]) for e in entries}):
        hashes = {
            e["network"]: e["sha256"]
            for e in entries
            if (e["runtime"], e["precision"]) == (runtime, precision)
        }
        same = [
            c
            for c in earlier
            if (c["runtime"], c["precision"], c["engines"]) == (runtime, precision, hashes)
        ]
        # The reference of all is FP32, and its own is PyTorch.
        with as_served(runtime):
            certificates.append(
                same[0]
                if same
                else _certificate(folder, runtime, precision, hashes, pictures, data)
            )
    return certificates


@contextmanager
def as_served(runtime: str) -> Iterator[None]:
    """Judge engines of other runtimes without the compiled core: they serve where there is none.

    Crops and levels of the core differ from OpenCV's by a grey level here and there, which moves
    single faces to either side of a threshold.
    """
    if runtime == "native":
        yield
        return
    before = os.environ.get(LIMIT)
    os.environ[LIMIT] = "none"
    try:
        yield
    finally:
        del os.environ[LIMIT]
        if before is not None:
            os.environ[LIMIT] = before


def _certificate(
    folder: Path,
    runtime: str,
    precision: str,
    hashes: dict[str, str],
    pictures: list[LabelledPicture],
    data: str,
) -> dict[str, Any]:
    if precision == "fp32":
        from unface.mtcnn.networks import torch_networks

        reference, of = torch_networks(), "torch fp32"
    else:
        reference, of = open_named(f"{folder}:fp32.tflite"), "fp32.tflite"
    candidate = _open(folder, runtime, precision)
    return {
        "precision": precision,
        "runtime": runtime,
        "engines": hashes,
        "reference": of,
        **judged(reference, candidate, f"{precision}.{runtime}", pictures, data),
    }


def judged(
    reference: Networks,
    candidate: Networks,
    name: str,
    pictures: list[LabelledPicture],
    data: str,
) -> dict[str, Any]:
    """Return what a certificate says of a candidate: verdict, reasons, figures."""
    with tqdm(total=len(pictures), desc=f"gate {name}", unit="picture", disable=None) as bar:
        comparison = compare(reference, candidate, pictures, bar.update)
    verdict = judge(comparison, BUILT_IN_LIMITS if data == BUILT_IN else None)
    print(f"{name}: {_line(comparison, verdict)}", file=sys.stderr)
    return {
        "data": data,
        "passed": verdict.passed,
        "reasons": list(verdict.reasons),
        **_figures(comparison),
    }


def _open(folder: Path, runtime: str, precision: str) -> Networks:
    if runtime == "onnx":
        return open_onnx(folder, precision, threads=2)
    return open_named(f"{folder}:{precision}.{runtime}")


def _figures(comparison: Comparison) -> dict[str, Any]:
    """Return what a certificate keeps: no times, which would differ from build to build."""

    def percent(found: int, faces: int) -> float | None:
        return round(100 * found / faces, 2) if faces else None

    marks = comparison.landmarks
    return {
        "pictures": comparison.pictures,
        "faces": comparison.overall.faces,
        "recall": {
            name: {
                "faces": r.faces,
                "reference": percent(r.reference, r.faces),
                "candidate": percent(r.candidate, r.faces),
            }
            for name, r in {"all": comparison.overall, **comparison.bands}.items()
        },
        "false_positives": list(comparison.false_positives),
        "landmark_error": None
        if marks is None
        else {"reference": round(marks.reference, 3), "candidate": round(marks.candidate, 3)},
    }


def _line(comparison: Comparison, verdict: Verdict) -> str:
    recall = comparison.overall
    text = "passed" if verdict.passed else f"FAILED ({'; '.join(verdict.reasons)})"
    return f"{text}, recall {recall.difference:+.2f} points of {recall.faces} faces"


def _earlier_certificates(folder: Path) -> list[dict[str, Any]]:
    try:
        return list(json.loads((folder / MANIFEST).read_text())["certificates"])
    except (OSError, ValueError, KeyError, TypeError):
        return []  # none, or of an earlier program: judged anew


def write_manifest(
    folder: Path, entries: list[dict[str, Any]], certificates: list[dict[str, Any]]
) -> None:
    """Write `manifest.json`: every engine, its hash, and what the gate said."""
    manifest = {
        "toolchain": {tool: version(tool).split("+")[0] for tool in TOOLS},
        "engines": entries,
        "certificates": certificates,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def build(folder: Path, cache: Path, data: Path | None) -> bool:
    """Build, judge, write the manifest; returns whether all passed the gate."""
    entries = build_all(folder, cache)
    # Engines open by manifest, also to be judged; until then without certificates.
    earlier = _earlier_certificates(folder)
    write_manifest(folder, entries, earlier)
    certificates = certify(folder, entries, *pictures_of(data))
    write_manifest(folder, entries, certificates)
    return all(c["passed"] for c in certificates)


def pictures_of(data: Path | None) -> tuple[list[LabelledPicture], str]:
    """Return the pictures to judge on, and their name: those of a folder, or the built-in ones."""
    if data is None:
        return labelled_scenes(), BUILT_IN
    pictures = read_labels(data)
    return pictures, ", ".join(sorted({picture.set for picture in pictures}))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> int:
    """Build the engines of a folder; the exit code says whether all passed the gate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", type=Path, default=None, help="default: the one that ships")
    parser.add_argument("--data", type=Path, help="labelled pictures for the gate")
    arguments = parser.parse_args()
    try:
        passed = build(arguments.folder, arguments.cache or shipped_cache(), arguments.data)
    except UnfaceError as error:
        print(f"make engines: {error}", file=sys.stderr)
        return 2
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
