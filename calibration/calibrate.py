"""Measure a calibration: what each layer of the networks gives over samples."""

from __future__ import annotations

import hashlib

from unface.calibration.cache import Calibration, LayerRange, Method
from unface.calibration.ranges import histograms, threshold
from unface.calibration.rewrite import Trained
from unface.calibration.weights import hashes_of
from unface.mtcnn.network import UInt8Array

DEFAULT_METHOD: Method = "percentile"  # least loss of the four: docs/engines.md
DIGITS = 6  # significant: more would be noise, and the file is there to be read


def calibrate(
    weights: Trained, samples: UInt8Array, method: Method = DEFAULT_METHOD
) -> Calibration:
    """Return the calibration of a network over samples, uint8 `[n, H, W, 3]`."""
    layers = {
        name: LayerRange(_short(threshold(largest, counts, method)), _short(largest), method)
        for name, (largest, counts) in histograms(weights, samples).items()
    }
    digest = hashlib.sha256(samples.tobytes()).hexdigest()
    return Calibration(weights.network, len(samples), digest, hashes_of(weights), layers)


def _short(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")
