from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from scenes import astronaut, compose, crowd

from unface.calibration.ranges import Ranges, file_hash, read_ranges, write_ranges
from unface.calibration.samples import PER_IMAGE, harvest, read_images
from unface.errors import EngineError, InvalidImage
from unface.mtcnn import Cascade, Network, Networks
from unface.mtcnn.canvas import plan_pages
from unface.mtcnn.network import FloatArray, UInt8Array
from unface.mtcnn.pyramid import pyramid_levels

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


class _Spy:
    """A network that remembers what it was shown."""

    def __init__(self, network: Network) -> None:
        self.network, self.max_batch = network, network.max_batch
        self.shown: list[UInt8Array] = []

    def __call__(self, images: UInt8Array) -> dict[str, FloatArray]:
        self.shown += list(images.copy())
        return self.network(images)

    def close(self) -> None:
        pass


def test_samples_are_byte_for_byte_what_a_detection_shows_the_networks(cascade: Cascade) -> None:
    image = compose(700, 500, [(10, 10, 26), (200, 10, 60), (380, 10, 150)]).image
    networks = cascade.networks
    spies = {name: _Spy(getattr(networks, name)) for name in NETWORKS}
    Cascade(Networks(**spies, backend="tflite", precision="fp32")).detect(image)
    samples = harvest([image], networks)
    for name in ("rnet", "onet"):
        shown = {crop.tobytes() for crop in spies[name].shown}
        assert {crop.tobytes() for crop in getattr(samples, name)} <= shown
    # Between its tiles, where no cell counts, a page of a detection has what an earlier one left.
    pages = list(zip(tiled_pages(700, 500), spies["pnet"].shown, strict=True))
    for sample in samples.pnet:
        assert any(
            all((sample[part] == page[part]).all() for part in parts) for parts, page in pages
        )


def tiled_pages(width: int, height: int) -> list[list[tuple[slice, slice]]]:
    """Return the rows and columns of the tiles of each page."""
    return [
        [(slice(t.page_y, t.page_y + t.height), slice(t.page_x, t.page_x + t.width)) for t in tiles]
        for tiles in plan_pages(tuple(pyramid_levels(width, height, 20, 0.709)))
    ]


def test_pictures_of_a_folder_are_read_as_rgb_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    red, blue = (np.full((8, 9, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    cv2.imwrite(str(tmp_path / "more" / "b.png"), red[..., ::-1])
    cv2.imwrite(str(tmp_path / "a.png"), blue[..., ::-1])
    (tmp_path / "notes.txt").write_text("no picture")
    first, second = read_images(tmp_path)
    assert (first == blue).all()
    assert (second == red).all()


def test_the_seed_decides_which_samples_are_kept(cascade: Cascade) -> None:
    image = crowd(8, 6, 30).image
    one, two = (harvest([image], cascade.networks, seed) for seed in (1, 2))
    assert one.rnet.shape == two.rnet.shape == (PER_IMAGE["rnet"], 24, 24, 3)
    assert (one.rnet != two.rnet).any()


def test_an_engine_is_not_quantized_with_the_ranges_of_another(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_quantizer", reason="it comes with unface[engines]")
    from unface.calibration.quantize import quantize

    changed = tmp_path / "rnet.fp32.tflite"
    changed.write_bytes((ROOT / "engines/prebuilt/rnet.fp32.tflite").read_bytes() + b"\0")
    with pytest.raises(EngineError, match="calibration is stale: rnet"):
        quantize(changed, read_ranges(ROOT / "calibration/cache/rnet.json"), tmp_path / "int8")
    assert not (tmp_path / "int8").exists()


def test_the_range_of_a_tensor_is_its_extremes_over_all_samples(cascade: Cascade) -> None:
    """An average of the samples' ranges would cut off the scores of the clearest faces."""
    pytest.importorskip("ai_edge_quantizer", reason="it comes with unface[engines]")
    from unface.calibration.quantize import calibrate

    crops = harvest([astronaut(), crowd(4, 3, 40).image], cascade.networks).rnet
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the build tool warns of itself
        ranges = calibrate(ROOT / "engines" / "prebuilt" / "rnet.fp32.tflite", crops)
    assert ranges.tensors["serving_default_args_0"] == (0.0, 255.0)
    logits = cascade.networks.rnet(crops)["logit"]
    low, high = next(r for name, r in ranges.tensors.items() if "logit" in name)
    assert low <= logits.min() + 1e-3
    assert high >= logits.max() - 1e-3
