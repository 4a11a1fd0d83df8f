"""The gate of `unface.calibration.gate` for the GPU cascade, beside FP32 on the CPU.

python -m benchmarks.gpu_gate --data FOLDER [--simulated] [--out gpu/certificate.json]

`--simulated` runs the kernels on the CPU (`tests/gpu`), half a second a picture, in as many
processes as there are cores; else they run on the GPU.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from unface.calibration.gate import Answers, Comparison, Recall, Verdict, judge, look, score
from unface.calibration.labels import LabelledPicture, read_labels
from unface.engines.native import read_arrays
from unface.engines.shelf import NETWORKS, named_files, open_named
from unface.gpu.cascade import GpuCascade
from unface.gpu.device import Device
from unface.gpu.networks import KernelNetworks
from unface.gpu.source import kernels_hash
from unface.mtcnn.cascade import Cascade

REFERENCE = "fp32.native"


@cache
def cascades(simulated: bool) -> tuple[Cascade, GpuCascade]:
    """Return the reference and the GPU cascade, opened once a process."""
    files = named_files(REFERENCE)
    arrays = {name: read_arrays(files[name], name, name) for name in NETWORKS}
    device = _device(simulated)
    gpu = GpuCascade(device, KernelNetworks(device, arrays))
    return Cascade(open_named(REFERENCE, threads=1)), gpu


def _device(simulated: bool) -> Device:
    if not simulated:
        from unface.gpu.cuda import open_cuda

        return open_cuda()
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "gpu"))
    device: Device = import_module("simulated").SimulatedDevice()
    return device


def look_twice(picture: LabelledPicture, simulated: bool) -> tuple[Answers, Answers]:
    """Return what reference and GPU find in a picture."""
    reference, gpu = cascades(simulated)
    pixels = picture.load()
    return look(reference, pixels, picture), look(gpu, pixels, picture)


def compare(pictures: Sequence[LabelledPicture], simulated: bool) -> Comparison:
    """Compare on labelled pictures, saying how far it is."""
    processes = len(os.sched_getaffinity(0)) if simulated else 1
    with ProcessPoolExecutor(processes) as pool:
        # Whatever takes long is spread over the whole run.
        order = random.Random(0).sample(range(len(pictures)), len(pictures))  # noqa: S311
        futures = {n: pool.submit(look_twice, pictures[n], simulated) for n in order}
        answers = {}
        for done, n in enumerate(order):
            answers[n] = futures[n].result()
            if done % 50 == 49:
                part = sorted(answers)
                print(
                    _line(score([pictures[k] for k in part], [answers[k] for k in part])),
                    flush=True,
                )
    return score(pictures, [answers[n] for n in range(len(pictures))])


def _line(comparison: Comparison) -> str:
    recall, overlap = comparison.overall, comparison.overlap
    before, after = (100 * found / recall.faces for found in (recall.reference, recall.candidate))
    boxes = f", IoU median {overlap.median:.3f}, 5% {overlap.low:.3f}" if overlap else ""
    return (
        f"{comparison.pictures} pictures, {recall.faces} faces: recall {before:.2f}% on the CPU, "
        f"{after:.2f}% here ({recall.difference:+.2f}); false positives "
        f"{comparison.false_positives}{boxes}"
    )


def certificate(comparison: Comparison, verdict: Verdict, *, simulated: bool) -> dict[str, Any]:
    """Return what is kept of a run: `gpu/certificate.json`."""
    files = named_files(REFERENCE)
    return {
        "passed": verdict.passed,
        "reasons": verdict.reasons,
        "engines": {name: hashlib.sha256(files[name]).hexdigest() for name in NETWORKS},
        "kernels": kernels_hash(),
        "simulated": simulated,
        "machine": describe(),
        "figures": _line(comparison),
        "bands": {name: _recall(band) for name, band in comparison.bands.items()},
        "landmarks": vars(comparison.landmarks) if comparison.landmarks else None,
    }


def _recall(recall: Recall) -> str:
    percent = 100 * recall.candidate / recall.faces if recall.faces else 0.0
    return f"{percent:.2f} ({recall.difference:+.2f})"


def main() -> int:
    """Compare, print, keep; the exit code says whether the gate was passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--simulated", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    comparison = compare(read_labels(arguments.data), arguments.simulated)
    verdict = judge(comparison)
    print(_line(comparison))
    print("passed" if verdict.passed else "; ".join(verdict.reasons))
    if arguments.out:
        fields = certificate(comparison, verdict, simulated=arguments.simulated)
        arguments.out.write_text(json.dumps(fields, indent=1) + "\n")
    return 0 if verdict.passed else 1


if __name__ == "__main__":
    sys.exit(main())
