"""Find which layers to keep in float: the mixed engines.

    python -m unface.calibration.mixed --samples samples.npz [--data DIR] [--write FOLDER]

Each layer is quantized alone and ranked by what that does to the face logit. Then the most
sensitive layers stay in float, one more at a time over all networks, until the gate passes: the
smallest such set is printed, and written into the calibration cache.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from unface.calibration.build import build_tflite, shipped_cache
from unface.calibration.cache import Calibration, read_calibration, write_calibration
from unface.calibration.gate import BUILT_IN_LIMITS, Limits, Verdict, compare, judge
from unface.calibration.labels import LabelledPicture, read_labels
from unface.calibration.rewrite import Trained
from unface.calibration.samples import Samples, read_samples
from unface.calibration.scenes import labelled_scenes
from unface.calibration.weights import int8_weights
from unface.engines.shelf import BATCHES, NETWORKS, open_named
from unface.engines.tflite import TfliteNetwork
from unface.errors import UnfaceError
from unface.mtcnn.network import Networks, UInt8Array
from unface.mtcnn.team import cores

NEAR = -2.0  # logits below are background whatever INT8 does to them
SAMPLES = {"pnet": 60, "rnet": 1500, "onet": 600}


@dataclass(frozen=True)
class Sensitivity:
    """How far the face logits move (root mean square) when one layer alone is INT8."""

    network: str
    layer: str
    logit_error: float


def rank(
    calibrations: Mapping[str, Calibration], weights: Mapping[str, Trained], samples: Samples
) -> list[Sensitivity]:
    """Return the hidden layers of all networks, the most sensitive first."""
    found = []
    for network in NETWORKS:
        images = _evenly(getattr(samples, network), SAMPLES[network])
        layers = tuple(layer.conv.name for layer in weights[network].layers)
        exact = _logits(calibrations[network], weights[network], images, layers)
        near = exact > NEAR
        for layer in layers:
            others = tuple(name for name in layers if name != layer)
            moved = _logits(calibrations[network], weights[network], images, others) - exact
            error = float(np.sqrt((moved[near] ** 2).mean())) if near.any() else 0.0
            found.append(Sensitivity(network, layer, error))
    return sorted(found, key=lambda s: -s.logit_error)


def search(
    ranking: Sequence[Sensitivity],
    calibrations: Mapping[str, Calibration],
    weights: Mapping[str, Trained],
    pictures: list[LabelledPicture],
    first: int = 0,
    limits: Limits | None = None,
) -> tuple[dict[str, tuple[str, ...]], Verdict]:
    """Return the float layers by network that pass the gate, beginning with `first` of the ranking.

    With all layers in float the last verdict stands, whatever it is.
    """
    reference = open_named("fp32")
    for count in range(first, len(ranking) + 1):
        chosen = {
            network: tuple(s.layer for s in ranking[:count] if s.network == network)
            for network in NETWORKS
        }
        verdict = judge(compare(reference, _open(calibrations, weights, chosen), pictures), limits)
        named = ", ".join(f"{s.network} {s.layer}" for s in ranking[:count]) or "none"
        print(f"float layers: {named}: {'passes' if verdict.passed else verdict.reasons[0]}")
        if verdict.passed:
            break
    return chosen, verdict


def _open(
    calibrations: Mapping[str, Calibration],
    weights: Mapping[str, Trained],
    chosen: Mapping[str, tuple[str, ...]],
) -> Networks:
    def opened(network: str) -> TfliteNetwork:
        calibration = replace(calibrations[network], float_layers=chosen[network])
        model = build_tflite(network, "mixed", calibration, weights[network])
        return TfliteNetwork(model, f"{network}.mixed", BATCHES[network], cores())

    pnet, rnet, onet = (opened(network) for network in NETWORKS)
    return Networks(pnet, rnet, onet, backend="tflite", precision="mixed")


def _logits(
    calibration: Calibration, weights: Trained, images: UInt8Array, float_layers: tuple[str, ...]
) -> np.ndarray:
    network = calibration.network
    model = build_tflite(network, "mixed", replace(calibration, float_layers=float_layers), weights)
    return TfliteNetwork(model, network, BATCHES[network], cores())(images)["logit"]


def _evenly(images: UInt8Array, most: int) -> UInt8Array:
    return images[:: -(-len(images) // most)]


def main() -> int:
    """Print the ranking and the smallest passing set; the exit code says whether one passes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=Path, required=True, help="of unface calibrate")
    parser.add_argument("--data", type=Path, help="labelled pictures for the gate")
    parser.add_argument("--first", type=int, default=0, help="begin with so many float layers")
    parser.add_argument("--cache", type=Path, default=None, help="default: the one that ships")
    parser.add_argument("--write", action="store_true", help="write the set into the cache")
    arguments = parser.parse_args()
    cache = arguments.cache or shipped_cache()
    try:
        calibrations = {name: read_calibration(cache / f"{name}.json") for name in NETWORKS}
        weights = {name: int8_weights(name) for name in NETWORKS}
        ranking = rank(calibrations, weights, read_samples(arguments.samples))
        print("network  layer   logit moves by (rms) when it alone is INT8")
        for s in ranking:
            print(f"{s.network:<8} {s.layer:<7} {s.logit_error:.3f}")
        pictures = labelled_scenes() if arguments.data is None else read_labels(arguments.data)
        limits = BUILT_IN_LIMITS if arguments.data is None else None
        chosen, verdict = search(ranking, calibrations, weights, pictures, arguments.first, limits)
        if arguments.write:
            for name in NETWORKS:
                write_calibration(replace(calibrations[name], float_layers=chosen[name]), cache)
    except UnfaceError as error:
        print(f"mixed: {error}", file=sys.stderr)
        return 2
    return 0 if verdict.passed else 1


if __name__ == "__main__":
    sys.exit(main())
