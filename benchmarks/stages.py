"""Where a detection's time goes, by instruction set of the compiled core and without it (LiteRT).

    python -m benchmarks.stages [--threads 1]

Each backend has a process of its own; they take turns. The stages are those of `Faces.timings_ms`:
the pyramid is in P-Net's, crops and suppression are in R- and O-Net's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe
from benchmarks.pictures import KINDS, draw
from unface.detector import Detector
from unface.kernels.library import ISAS, LIMIT, instruction_set

ROUNDS, WARM_UP = 9, 2
PROFILES = ("fast", "accurate")  # INT8, FP32
STAGES = ("pnet", "rnet", "onet", "all")
Times = dict[str, list[float]]


class Backend:
    """A process that detects with one instruction set at most."""

    def __init__(self, isa: str, profile: str, threads: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.stages", "--serve", profile, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, LIMIT: isa},
            cwd=Path(__file__).parent.parent,
        )

    def detect(self, kind: str) -> dict[str, float]:
        """Return the milliseconds of each stage, and the faces found, for a kind of picture."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(kind, file=self._process.stdin, flush=True)
        return dict(json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def serve(profile: str, threads: int) -> None:
    """Answer the names of pictures on stdin with stages on stdout, as JSON."""
    pictures = {kind: np.ascontiguousarray(draw("1080p", kind).image) for kind in KINDS}
    detector = Detector(profile, threads=threads)
    for line in sys.stdin:
        faces = detector.detect(pictures[line.strip()])
        stages = faces.timings_ms
        print(json.dumps({**stages, "all": sum(stages.values()), "faces": len(faces)}), flush=True)


def measure(profile: str, threads: int) -> dict[str, dict[str, dict[str, float]]]:
    """Return, by backend and kind of picture, the median of each stage."""
    best = ISAS.index(instruction_set())
    backends = {isa: Backend(isa, profile, threads) for isa in ISAS[: best + 1]}
    medians: dict[str, dict[str, dict[str, float]]] = {isa: {} for isa in backends}
    try:
        for kind in KINDS:
            taken: dict[str, list[dict[str, float]]] = {isa: [] for isa in backends}
            for _ in range(WARM_UP + ROUNDS):
                for isa, backend in backends.items():
                    taken[isa].append(backend.detect(kind))
            for isa, runs in taken.items():
                counted = runs[WARM_UP:]
                medians[isa][kind] = {
                    name: statistics.median(run[name] for run in counted) for name in counted[0]
                }
    finally:
        for backend in backends.values():
            backend.close()
    return medians


def show(profile: str, threads: int, medians: dict[str, Any]) -> None:
    """Print a Markdown table."""
    print(f"\n{profile}, {threads} thread{'s' if threads > 1 else ''}, 1080p, minimum face 20\n")
    print("| backend | picture | P-Net | R-Net | O-Net | all | of LiteRT's | faces |")
    print("|---|---|---|---|---|---|---|---|")
    for isa, kinds in medians.items():
        for kind, row in kinds.items():
            cells = " | ".join(f"{row[stage]:.1f} ms" for stage in STAGES)
            ratio = medians["none"][kind]["all"] / row["all"]
            name = "LiteRT" if isa == "none" else isa
            print(f"| {name} | {kind} | {cells} | {ratio:.1f}x | {row['faces']:.0f} |")


def main() -> None:
    """Print a table for each profile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--serve", nargs=2, metavar=("PROFILE", "THREADS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve[0], int(arguments.serve[1]))
        return
    print(", ".join(describe().values()))
    for profile in PROFILES:
        show(profile, arguments.threads, measure(profile, arguments.threads))


if __name__ == "__main__":
    main()
