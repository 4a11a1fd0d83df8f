"""Measure a calibration: what each layer of the networks gives over samples."""

from __future__ import annotations

import hashlib

from unface.calibration.cache import Calibration, LayerRange
from unface.calibration.ranges import Method, channel_limits, histograms, threshold
from unface.calibration.rewrite import Trained, equalize
from unface.calibration.weights import hashes_of
from unface.mtcnn.network import UInt8Array

DEFAULT_METHOD: Method = "percentile"  # least loss of the four: docs/engines.md
DIGITS = 6  # significant: more would be noise, and the file is there to be read


def calibrate(
    weights: Trained, samples: UInt8Array, method: Method = DEFAULT_METHOD, *, even: bool = True
) -> Calibration:
    """Return the calibration of a network over samples, uint8 `[n, H, W, 3]`.

    `even` says whether channels are equalized; tuned weights are left as they are.
    """
    limits = {}
    deployed = weights
    if even and not weights.tuned:
        limits = {
            name: tuple(_short(float(value)) for value in values)
            for name, values in channel_limits(weights, samples).items()
        }
        hidden = {layer.conv.name for layer in weights.layers}
        limits = {name: values for name, values in limits.items() if name in hidden}
        deployed = equalize(weights, limits)
    layers = {
        name: LayerRange(
            limit=_short(threshold(largest, counts, method)),
            largest=_short(largest),
            method=method,
            channels=limits.get(name, ()),
        )
        for name, (largest, counts) in histograms(deployed, samples).items()
    }
    digest = hashlib.sha256(samples.tobytes()).hexdigest()
    return Calibration(weights.network, len(samples), digest, hashes_of(weights), layers)


def _short(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")
