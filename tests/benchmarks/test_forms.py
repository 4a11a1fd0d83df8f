from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import forms
from unface.calibration.build import build_tflite, shipped_cache
from unface.calibration.cache import read_calibration
from unface.calibration.weights import int8_weights
from unface.engines.shelf import NETWORKS
from unface.engines.tflite import TfliteNetwork


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("precision", forms.PRECISIONS)
def test_what_others_are_compared_with_is_what_ships(network: str, precision: str) -> None:
    calibration = read_calibration(shipped_cache() / f"{network}.json")
    built = build_tflite(network, precision, calibration, int8_weights(network))
    assert forms.engine(forms.shipped(network, precision)) == built


def test_broken_prelu_is_the_same_function() -> None:
    crops = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3), np.uint8)
    ships = forms.shipped("rnet", "fp32")
    whole, broken = (
        TfliteNetwork(forms.engine(choice), "rnet", (2,), 1)(crops)
        for choice in (ships, replace(ships, columns=1, broken=True))
    )
    for name, values in whole.items():
        np.testing.assert_allclose(broken[name], values, atol=1e-4)


def test_a_faster_form_is_taken_and_a_slower_one_is_not() -> None:
    def row(layer: str, instead: str, upper: float) -> forms.Row:
        figures = {"ratio": [upper - 0.1, upper - 0.05, upper]}
        return {"layer": layer, "instead": instead, "1": figures, "2": figures}

    ships = forms.shipped("pnet", "int8")
    rows = [row("conv2", "pair", 0.9), row("conv2", "halves", 0.8), row("conv3", "pair", 1.0)]
    best = forms.fastest(ships, rows)
    assert best == replace(ships, forms={**ships.forms, "conv2": "halves"})
