from __future__ import annotations

from dataclasses import replace

import pytest

from unface.calibration.build import shipped_cache
from unface.calibration.cache import Calibration, read_calibration
from unface.calibration.mixed import Sensitivity, rank, search
from unface.calibration.rewrite import Trained
from unface.calibration.samples import Samples, harvest
from unface.calibration.scenes import calibration_images, labelled_scenes
from unface.calibration.weights import int8_weights
from unface.engines.shelf import open_named

NETWORKS = ("pnet", "rnet", "onet")


@pytest.fixture(scope="module")
def samples() -> Samples:
    return harvest(calibration_images()[:4], open_named("fp32"))


@pytest.fixture(scope="module")
def weights() -> dict[str, Trained]:
    return {name: int8_weights(name) for name in NETWORKS}


@pytest.fixture(scope="module")
def calibrations() -> dict[str, Calibration]:
    return {name: read_calibration(shipped_cache() / f"{name}.json") for name in NETWORKS}


def test_layers_are_ranked_by_what_int8_does_to_the_logit(
    calibrations: dict[str, Calibration], weights: dict[str, Trained], samples: Samples
) -> None:
    ranking = rank(calibrations, weights, samples)
    assert len(ranking) == 3 + 4 + 5
    errors = [s.logit_error for s in ranking]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] > 0


def test_a_layer_with_a_coarse_scale_is_ranked_first(
    calibrations: dict[str, Calibration], weights: dict[str, Trained], samples: Samples
) -> None:
    rnet = calibrations["rnet"]
    coarse = replace(rnet.layers["conv3"], limit=500.0, largest=500.0)
    spoilt = replace(rnet, layers={**rnet.layers, "conv3": coarse})
    ranking = rank({**calibrations, "rnet": spoilt}, weights, samples)
    # conv3 writes with that scale and dense4 reads with it.
    assert {(s.network, s.layer) for s in ranking[:2]} == {("rnet", "conv3"), ("rnet", "dense4")}


def test_the_search_stops_at_the_first_set_that_passes(
    calibrations: dict[str, Calibration],
    weights: dict[str, Trained],
    capsys: pytest.CaptureFixture[str],
) -> None:
    ranking = [Sensitivity("rnet", "conv2", 0.2), Sensitivity("onet", "conv1", 0.1)]
    pictures = labelled_scenes()[:2]
    chosen, verdict = search(ranking, calibrations, weights, pictures)
    assert verdict.passed
    assert chosen == {"pnet": (), "rnet": (), "onet": ()}
    chosen, _ = search(ranking, calibrations, weights, pictures, first=1)
    assert chosen == {"pnet": (), "rnet": ("conv2",), "onet": ()}
    assert "float layers: rnet conv2: passes" in capsys.readouterr().out


def test_the_search_goes_on_until_a_spoilt_scale_is_out_of_use(
    calibrations: dict[str, Calibration],
    weights: dict[str, Trained],
    capsys: pytest.CaptureFixture[str],
) -> None:
    onet = calibrations["onet"]
    coarse = replace(onet.layers["conv2"], limit=5000.0, largest=5000.0)
    spoilt = replace(onet, layers={**onet.layers, "conv2": coarse})
    ranking = [Sensitivity("onet", name, 1.0) for name in ("conv2", "conv3", "conv1")]
    pictures = labelled_scenes()[:2]
    chosen, _ = search(ranking, {**calibrations, "onet": spoilt}, weights, pictures)
    assert chosen["onet"][:2] == ("conv2", "conv3")
    none, one, two = capsys.readouterr().out.splitlines()[:3]
    assert "(0 of " in none
    assert "(0 of " in one
    assert "(0 of " not in two
