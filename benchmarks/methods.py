"""What each way to choose INT8 ranges loses, network by network.

    python -m benchmarks.methods --samples samples.npz

Samples come from `unface calibrate --save-samples`. Errors are those of the INT8 engine beside the
float one, over every sample whose float logit is above -2; further down it is background whatever
happens.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from benchmarks.machine import describe
from unface.calibration.build import build_tflite
from unface.calibration.cache import METHODS
from unface.calibration.calibrate import calibrate
from unface.calibration.rewrite import Trained, read_trained
from unface.calibration.samples import Samples, read_samples
from unface.calibration.weights import int8_weights
from unface.engines.shelf import BATCHES, NETWORKS, open_networks
from unface.engines.tflite import TfliteNetwork
from unface.mtcnn.network import FloatArray
from unface.mtcnn.team import cores

RESULTS = Path(__file__).parent / "results" / "methods.json"
NEAR = -2.0
MOST = {"pnet": 100, "rnet": 2000, "onet": 1000}


def measure(samples: Samples) -> dict[str, dict[str, float]]:
    """Return the logit's root mean square error by network and method, tuned and untuned."""
    float_networks = open_networks("fp32")
    rows: dict[str, dict[str, float]] = {}
    for network in NETWORKS:
        images = getattr(samples, network)
        shown = images[:: -(-len(images) // MOST[network])]
        wanted = getattr(float_networks, network)(shown)["logit"]
        for name, weights in weights_of(network).items():
            rows[f"{network}, {name}"] = {}
            for method in METHODS:
                calibration = calibrate(weights, images, method)
                model = build_tflite(network, "int8", calibration, weights)
                engine = TfliteNetwork(model, network, BATCHES[network], cores())
                rows[f"{network}, {name}"][method] = error(engine(shown)["logit"], wanted)
    return rows


def weights_of(network: str) -> dict[str, Trained]:
    """Return the weights compared: trained where their form can be written, and tuned."""
    return {"trained": read_trained(network), "tuned": int8_weights(network)}


def error(given: FloatArray, wanted: FloatArray) -> float:
    """Return the root mean square difference where `wanted` is above `NEAR`."""
    near = wanted > NEAR
    return float(np.sqrt(((given - wanted)[near] ** 2).mean()))


def main() -> None:
    """Measure, print a table, write `results/methods.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=Path, required=True)
    rows = measure(read_samples(parser.parse_args().samples))
    print("| network, weights | " + " | ".join(METHODS) + " |\n|---|" + "---|" * len(METHODS))
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(f"{row[method]:.3f}" for method in METHODS) + " |")
    RESULTS.write_text(json.dumps({**describe(), "logit_error": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
