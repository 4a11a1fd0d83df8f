from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scenes import astronaut, compose, crowd

from unface.calibration.ranges import Ranges, file_hash, read_ranges, write_ranges
from unface.calibration.samples import PER_IMAGE, harvest
from unface.errors import EngineError, InvalidImage
from unface.mtcnn import Cascade

ROOT = Path(__file__).parents[2]
NETWORKS = ("pnet", "rnet", "onet")


@pytest.mark.parametrize("name", NETWORKS)
def test_the_committed_ranges_are_those_of_the_committed_engine(name: str) -> None:
    ranges = read_ranges(ROOT / "calibration" / "cache" / f"{name}.json")
    ranges.check(ROOT / "engines" / "prebuilt" / f"{name}.fp32.tflite")
    assert ranges.samples > 500
    assert all(low <= high for low, high in ranges.tensors.values())
    assert ranges.tensors["serving_default_args_0"] == (0.0, 255.0)  # so pixels stay exact


def test_ranges_of_another_engine_are_stale(tmp_path: Path) -> None:
    engine = tmp_path / "pnet.fp32.tflite"
    shutil.copy(ROOT / "engines" / "prebuilt" / engine.name, engine)
    ranges = Ranges(file_hash(engine), 3, "0", "min-max", {"x": (0.0, 1.0)})
    ranges.check(engine)
    engine.write_bytes(engine.read_bytes() + b"\0")
    with pytest.raises(EngineError, match=r"pnet\.fp32\.tflite has changed"):
        ranges.check(engine)


def test_ranges_survive_the_file(tmp_path: Path) -> None:
    ranges = Ranges("a", 3, "b", "min-max", {"x": (-0.25, 1.5), "y": (0.0, 255.0)})
    write_ranges(ranges, tmp_path / "new" / "pnet.json")
    assert read_ranges(tmp_path / "new" / "pnet.json") == ranges


@pytest.mark.parametrize("content", [None, "", "{}", '{"tensors": 3}', "[]"])
def test_ranges_that_cannot_be_read_are_an_error(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "pnet.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(EngineError, match=r"pnet\.json"):
        read_ranges(path)


def test_samples_are_what_the_networks_are_given(cascade: Cascade) -> None:
    images = [astronaut(), crowd(6, 4, 30).image, np.zeros((8, 8, 3), np.uint8)]
    samples = harvest(images, cascade.networks)
    for name, side in (("pnet", 256), ("rnet", 24), ("onet", 48)):
        array = getattr(samples, name)
        assert array.dtype == np.uint8
        assert array.shape[1:] == (side, side, 3)
        assert 2 <= len(array) <= 2 * PER_IMAGE[name]
    again = harvest(images, cascade.networks)
    assert all((getattr(samples, n) == getattr(again, n)).all() for n in NETWORKS)


def test_pictures_without_faces_cannot_calibrate(cascade: Cascade) -> None:
    with pytest.raises(InvalidImage, match="no face"):
        harvest([np.zeros((60, 60, 3), np.uint8)], cascade.networks)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the build tools warn of themselves
def test_an_int8_engine_can_be_made_from_pictures_of_ones_own(
    tmp_path: Path, cascade: Cascade
) -> None:
    pytest.importorskip("ai_edge_quantizer", reason="it comes with unface[engines]")
    from unface.calibration.quantize import calibrate, quantize
    from unface.engines.tflite import TfliteNetwork

    images = [astronaut(), compose(500, 300, [(10, 10, 40), (200, 10, 80)]).image]
    crops = harvest(images, cascade.networks).rnet
    fp32 = ROOT / "engines" / "prebuilt" / "rnet.fp32.tflite"
    ranges = calibrate(fp32, crops)
    write_ranges(ranges, tmp_path / "rnet.json")
    assert json.loads((tmp_path / "rnet.json").read_text())["samples"] == len(crops)
    quantize(fp32, read_ranges(tmp_path / "rnet.json"), tmp_path / "rnet.int8.tflite")
    made = TfliteNetwork((tmp_path / "rnet.int8.tflite").read_bytes(), "rnet", (1, 8), 1)
    expected = cascade.networks.rnet(crops)["logit"]
    assert np.corrcoef(made(crops)["logit"], expected)[0, 1] > 0.98
