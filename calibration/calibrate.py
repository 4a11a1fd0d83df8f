"""Measure a calibration: what each layer of the networks gives over samples."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from unface.calibration.cache import Calibration, LayerRange, Method
from unface.calibration.native_writer import write_native
from unface.calibration.ranges import histograms, spans, threshold
from unface.calibration.rewrite import Trained
from unface.calibration.weights import hashes_of
from unface.engines.native import NativeNetwork, NativePNet
from unface.engines.shelf import NETWORKS
from unface.kernels.library import instruction_set
from unface.mtcnn.network import Network, UInt8Array, run
from unface.mtcnn.networks import TorchNetwork, load_network
from unface.mtcnn.options import DetectOptions
from unface.mtcnn.proposals import logit_from_probability
from unface.mtcnn.team import ALONE

DEFAULT_METHOD: Method = "percentile"  # least loss of the four: docs/engines.md
BATCH = 32  # samples a call
DIGITS = 6  # significant: more would be noise, and the file is there to be read


def calibrate(
    weights: Trained, samples: UInt8Array, method: Method = DEFAULT_METHOD
) -> Calibration:
    """Return the calibration of a network over samples, uint8 `[n, H, W, 3]`."""
    stored = spans(weights, samples)
    layers = {
        name: LayerRange(
            _short(threshold(largest, counts, method)),
            _short(largest),
            method,
            *(_short(end) for end in stored[name]),
        )
        for name, (largest, counts) in histograms(weights, samples).items()
    }
    digest = hashlib.sha256(samples.tobytes()).hexdigest()
    measured = Calibration(weights.network, len(samples), digest, hashes_of(weights), layers)
    return replace(measured, logit_offset=offset(weights, measured, samples))


def offset(weights: Trained, calibration: Calibration, samples: UInt8Array) -> float:
    """Return what to add to INT8 logits so that as many of the samples pass as in float.

    Rounding shifts the scores of what is just about a face a little to one side (P-Net: a tenth
    down), which would move the cascade's thresholds. Measured with the compiled core; 0 where it
    does not run.
    """
    if instruction_set() == "none":
        return 0.0
    network = weights.network
    least = logit_from_probability(DetectOptions().thresholds[NETWORKS.index(network)])
    exact, rounded = (
        np.concatenate([run(n, samples[i : i + BATCH])["logit"].ravel() for i in _begins(samples)])
        for n in (TorchNetwork(load_network(network)), _integers(weights, calibration))
    )
    passed = int((exact >= least).sum())
    if not 0 < passed < len(exact):
        return 0.0
    last = np.partition(rounded, -passed)[-passed]
    next_below = rounded[rounded < last].max(initial=-np.inf)
    between = (last + next_below) / 2 if np.isfinite(next_below) else last
    return _short(least - float(between))


def _integers(weights: Trained, calibration: Calibration) -> Network:
    model = write_native(weights, calibration.spans())
    if weights.network == "pnet":
        return NativePNet(model, "pnet")
    return NativeNetwork(model, weights.network, weights.network, ALONE)


def _begins(samples: UInt8Array) -> range:
    return range(0, len(samples), BATCH)


def _short(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")
