from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="torch comes with unface[engines]")

from safetensors.numpy import load_file, save_file
from small_networks import small

from unface.calibration import weights as weights_module
from unface.calibration.cache import (
    METHODS,
    VERSION,
    Calibration,
    LayerRange,
    read_calibration,
    write_calibration,
)
from unface.calibration.rewrite import Trained, read_trained
from unface.calibration.weights import (
    hash_of,
    hashes_of,
    int8_weights,
    native_weights,
    read_tuned,
    tensors_of,
    write_tuned,
)
from unface.engines.tflite import BOX_GAIN, MERGED_HEADS
from unface.errors import EngineError

CACHE = Path(__file__).parents[2] / "calibration" / "cache"
NETWORKS = ("pnet", "rnet", "onet")
CACHES = (*NETWORKS, "pnet.native")  # P-Net has weights of its own for the compiled core


def tiny(seed: int = 1) -> Trained:
    return small(np.random.default_rng(seed), [[0.1, -0.2]], [None])


def calibration_of(trained: Trained) -> Calibration:
    layer = LayerRange(1.5, 2.25, "percentile", -0.75, 2.0)
    layers = dict.fromkeys(("conv1", "logit", "box"), layer)
    return Calibration(trained.network, 7, "ab" * 32, hashes_of(trained), layers, ("box",), 0.125)


def weights_of(cache: str) -> Trained:
    """Return the weights that a committed cache is of."""
    network, _, native = cache.partition(".")
    return native_weights(network)[0] if native else int8_weights(network)


@pytest.mark.parametrize("name", CACHES)
def test_the_committed_cache_is_that_of_the_committed_weights(name: str) -> None:
    calibration = read_calibration(CACHE / f"{name}.json")
    weights = weights_of(name)
    calibration.check(weights)
    assert calibration.samples > 500
    layers = {
        *(layer.conv.name for layer in weights.layers),
        *(head.name for head in weights.heads),
    }
    assert calibration.scales().keys() == calibration.spans().keys() == layers
    assert 0 < abs(calibration.logit_offset) < 1


def test_every_network_has_the_calibration_of_what_is_quantized_for_the_core() -> None:
    assert {path.stem for path in CACHE.glob("*.json")} == set(CACHES)
    for network in NETWORKS:
        weights, name = native_weights(network)
        assert name == ("pnet.native" if network == "pnet" else network)
        read_calibration(CACHE / f"{name}.json").check(weights)
    with pytest.raises(EngineError, match="pnet is stale"):  # LiteRT's weights are others
        read_calibration(CACHE / "pnet.json").check(native_weights("pnet")[0])


@pytest.mark.parametrize("name", CACHES)
def test_the_committed_cache_is_as_the_program_writes_it(name: str, tmp_path: Path) -> None:
    committed = CACHE / f"{name}.json"
    again = write_calibration(read_calibration(committed), tmp_path, name)
    assert again.name == committed.name
    assert again.read_text() == committed.read_text()


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=8)


@st.composite
def layer_ranges(draw: st.DrawFn) -> LayerRange:
    largest = draw(st.floats(1e-6, 1e6))
    low, high = draw(st.floats(-1e6, 0)), draw(st.floats(0, 1e6))
    assume(low < high)
    limit, method = draw(st.floats(1e-7, largest)), draw(st.sampled_from(METHODS))
    return LayerRange(limit, largest, method, low, high)


@given(st.dictionaries(NAMES, layer_ranges(), min_size=1, max_size=6), st.data())
@settings(max_examples=30, deadline=None)
def test_a_calibration_survives_the_file(
    tmp_path_factory: pytest.TempPathFactory, layers: dict[str, LayerRange], data: st.DataObject
) -> None:
    floating = tuple(data.draw(st.lists(st.sampled_from(sorted(layers)), unique=True)))
    weights, offset = {"conv1.weight": "1" * 64}, data.draw(st.floats(-9, 9))
    made = Calibration("rnet", 3, "0" * 64, weights, layers, floating, offset)
    folder = tmp_path_factory.mktemp("cache") / "new"
    path = write_calibration(made, folder)
    assert path == folder / "rnet.json"
    assert read_calibration(path) == made
    assert write_calibration(made, folder).read_bytes() == path.read_bytes()


def test_a_calibration_is_readable_one_fact_a_line(tmp_path: Path) -> None:
    lines = write_calibration(calibration_of(tiny()), tmp_path).read_text().splitlines()
    for line in (
        *(' "network": "small",', ' "samples": 7,', '   "limit": 1.5,', '   "low": -0.75,'),
        ' "logit_offset": 0.125',
    ):
        assert line in lines
    assert max(map(len, lines)) < 100
    assert json.loads("\n".join(lines))["version"] == VERSION


def test_scales_are_what_float32_holds(tmp_path: Path) -> None:
    scales = calibration_of(tiny()).scales()
    assert set(scales.values()) == {float(np.float32(1.5 / 127))}


def test_spans_are_what_the_core_stores_of_each_layer() -> None:
    assert set(calibration_of(tiny()).spans().values()) == {(-0.75, 2.0)}


@pytest.mark.parametrize(("low", "high"), [(-3.0, 0.0), (0.0, 3.0)])
def test_a_layer_may_give_values_of_one_sign_alone(tmp_path: Path, low: float, high: float) -> None:
    """What P-Net gives of pictures with few faces: no logit above zero."""
    made = calibration_of(tiny())
    layer = replace(made.layers["logit"], low=low, high=high)
    made = replace(made, layers={**made.layers, "logit": layer})
    assert read_calibration(write_calibration(made, tmp_path)) == made


@pytest.mark.parametrize(("logit", "box"), [(10.0, 0.1), (10.0, 1.0), (1.0, 5.0)])
def test_the_scale_of_two_heads_in_one_clips_neither(logit: float, box: float) -> None:
    layers = {n: LayerRange(v, v, "min-max") for n, v in (("logit", logit), ("box", box))}
    calibration = replace(calibration_of(tiny()), layers=layers, float_layers=())
    scales = calibration.engine_scales()
    assert scales.items() >= calibration.scales().items()
    largest = max(logit, box * BOX_GAIN)
    assert 127 * scales[MERGED_HEADS] == pytest.approx(largest, rel=1e-6)


@pytest.mark.parametrize("tensor", ["conv1.weight", "conv1.bias", "conv1.slopes", "box.bias"])
def test_one_changed_weight_makes_a_calibration_stale_and_is_named(tensor: str) -> None:
    trained = tiny()
    calibration = calibration_of(trained)
    calibration.check(trained)
    changed = tensors_of(trained)[tensor]
    changed.flat[0] = np.nextafter(changed.flat[0], np.float32(9))
    with pytest.raises(EngineError, match=rf"small is stale: {tensor} changed.*calibrate again"):
        calibration.check(trained)


def test_a_network_of_another_shape_is_stale_even_with_the_same_bytes() -> None:
    trained = tiny()
    calibration = calibration_of(trained)
    conv = trained.layers[0].conv
    other = replace(conv, weight=conv.weight.reshape(2, 3, 9, 1))
    layers = (replace(trained.layers[0], conv=other),)
    with pytest.raises(EngineError, match=r"stale: conv1\.weight changed"):
        calibration.check(replace(trained, layers=layers))
    with pytest.raises(EngineError, match=r"conv1\.bias, conv1\.slopes, conv1\.weight changed"):
        calibration.check(replace(trained, layers=()))


def test_the_calibration_of_another_network_is_refused() -> None:
    trained = tiny()
    foreign = replace(calibration_of(trained), network="onet")
    with pytest.raises(EngineError, match="is of onet, not of small"):
        foreign.check(trained)


def test_a_calibration_without_a_layer_is_refused_and_the_layer_named() -> None:
    trained = tiny()
    whole = calibration_of(trained)
    layers = {"conv1": whole.layers["conv1"]}
    with pytest.raises(EngineError, match="lacks box, logit; calibrate again"):
        replace(whole, layers=layers).check(trained)


def with_layer(**changed: Any) -> Callable[[dict[str, Any]], None]:
    return lambda fields: fields["layers"]["conv1"].update(changed)


DAMAGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "an older version": lambda f: f.update(version=VERSION - 1),
    "a newer version": lambda f: f.update(version=VERSION + 1),
    "no version": lambda f: f.pop("version"),
    "a version that is no number": lambda f: f.update(version="2.0"),
    "no layers": lambda f: f.pop("layers"),
    "layers in a list": lambda f: f.update(layers=[1]),
    "a layer that is a number": lambda f: f["layers"].update(conv1=1.5),
    "a layer without a limit": lambda f: f["layers"]["conv1"].pop("limit"),
    "a layer of an earlier program": with_layer(channels=[1.0]),
    "a layer without a span": lambda f: [f["layers"]["conv1"].pop(n) for n in ("low", "high")],
    "a span that ends below zero": with_layer(high=-0.1),
    "a span that begins above zero": with_layer(low=0.1),
    "a span of nothing": with_layer(low=0.0, high=0.0),
    "a span that is NaN": with_layer(low=float("nan")),
    "a span of infinity": with_layer(high=float("inf")),
    "a span in words": with_layer(low="-1"),
    "a span that is true": with_layer(high=True),
    "no offset": lambda f: f.pop("logit_offset"),
    "an offset that is NaN": lambda f: f.update(logit_offset=float("nan")),
    "an offset of infinity": lambda f: f.update(logit_offset=float("inf")),
    "an offset in words": lambda f: f.update(logit_offset="0.1"),
    "an offset that is true": lambda f: f.update(logit_offset=True),
    "an offset that is nothing": lambda f: f.update(logit_offset=None),
    "a limit that is NaN": with_layer(limit=float("nan")),
    "a limit of infinity": with_layer(limit=float("inf"), largest=float("inf")),
    "a negative limit": with_layer(limit=-1.0),
    "a limit of nothing": with_layer(limit=0.0),
    "a limit above the largest": with_layer(limit=2.3),
    "a limit in words": with_layer(limit="1.5"),
    "a limit that is true": with_layer(limit=True),
    "no limit at all": with_layer(limit=None),
    "a largest that is NaN": with_layer(largest=float("nan")),
    "a method nobody knows": with_layer(method="guess"),
    "a method in a list": with_layer(method=["percentile"]),
    "no weights": lambda f: f.pop("weights"),
    "weights in a list": lambda f: f.update(weights=[]),
    "no samples": lambda f: f.pop("samples"),
    "no float layers": lambda f: f.pop("float_layers"),
    "a float layer that is none": lambda f: f.update(float_layers=["conv9"]),
    "a float layer in a list": lambda f: f.update(float_layers=[["conv1"]]),
    "float layers by number": lambda f: f.update(float_layers=3),
    "a field nobody knows": lambda f: f.update(colour="red"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_calibration_is_an_error_that_names_the_file(tmp_path: Path, damage: str) -> None:
    path = write_calibration(calibration_of(tiny()), tmp_path)
    fields = json.loads(path.read_text())
    DAMAGES[damage](fields)
    path.write_text(json.dumps(fields))
    with pytest.raises(EngineError, match=r"small\.json.*(unface calibrate|calibrate again)"):
        read_calibration(path)


@pytest.mark.parametrize(
    "content", [None, b"", b"{}", b"[]", b"3", b"null", b"{", b"\xff\xfe", b"[" * 100_000]
)
def test_what_is_no_calibration_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "pnet.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EngineError, match=r"pnet\.json"):
        read_calibration(path)
    with pytest.raises(EngineError, match="unface calibrate"):
        read_calibration(tmp_path)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_cut_calibration_is_never_read(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    text = (CACHE / "rnet.json").read_text().rstrip()
    path = tmp_path_factory.mktemp("cut") / "rnet.json"
    path.write_text(text[: data.draw(st.integers(0, len(text) - 1))])
    with pytest.raises(EngineError, match="unface calibrate"):
        read_calibration(path)


# --- tuned weights --------------------------------------------------------------------------------


def tuned(trained: Trained) -> Trained:
    layer = trained.layers[0]
    weight = layer.conv.weight + np.float32(0.25)
    layers = (replace(layer, conv=replace(layer.conv, weight=weight)), *trained.layers[1:])
    return replace(trained, layers=layers)


def test_tuned_weights_survive_the_file_as_finely_as_half_precision(tmp_path: Path) -> None:
    trained = tiny()
    made = tuned(trained)
    path = tmp_path / "new" / "small.safetensors"
    write_tuned(made, hash_of(trained), path)
    again = read_tuned(trained, path)
    for name, tensor in tensors_of(made).items():
        read = tensors_of(again)[name]
        assert read.dtype == np.float32
        np.testing.assert_allclose(read, tensor, rtol=1e-3, atol=1e-6)
    assert hash_of(again) != hash_of(trained)
    assert again.layers[0].pool == trained.layers[0].pool
    write_tuned(again, hash_of(trained), path)  # a second time nothing is lost
    assert hash_of(read_tuned(trained, path)) == hash_of(again)


def test_weights_tuned_from_others_are_stale(tmp_path: Path) -> None:
    trained = tiny()
    path = tmp_path / "small.safetensors"
    write_tuned(tuned(trained), hash_of(trained), path)
    with pytest.raises(EngineError, match=r"small\.safetensors is stale.*tune again"):
        read_tuned(tiny(seed=2), path)


@pytest.mark.parametrize("part", ["missing", "renamed", "reshaped", "NaN", "infinite"])
def test_tuned_weights_that_do_not_fit_are_refused(tmp_path: Path, part: str) -> None:
    trained = tiny()
    path = tmp_path / "small.safetensors"
    write_tuned(tuned(trained), hash_of(trained), path)
    tensors = load_file(path)
    weight = tensors.pop("conv1.weight")
    if part == "renamed":
        tensors["conv2.weight"] = weight
    elif part == "reshaped":
        tensors["conv1.weight"] = np.ascontiguousarray(weight.transpose(1, 0, 2, 3))
    elif part in ("NaN", "infinite"):
        weight[0] = np.nan if part == "NaN" else np.inf
        tensors["conv1.weight"] = weight
    save_file(tensors, path, {"trained_sha256": hash_of(trained)})
    with pytest.raises(EngineError, match=r"small\.safetensors.*tune again"):
        read_tuned(trained, path)


@pytest.mark.parametrize("damage", ["empty", "cut", "noise", "no metadata", "a folder"])
def test_a_damaged_file_of_tuned_weights_is_refused(tmp_path: Path, damage: str) -> None:
    trained = tiny()
    path = tmp_path / "small.safetensors"
    write_tuned(tuned(trained), hash_of(trained), path)
    data = path.read_bytes()
    if damage == "no metadata":
        save_file(load_file(path), path)
    elif damage == "a folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes({"empty": b"", "cut": data[:-9], "noise": b"\xff" * 99}[damage])
    with pytest.raises(EngineError, match=r"small\.safetensors.*tune again"):
        read_tuned(trained, path)


def test_without_tuned_weights_the_trained_ones_are_quantized(tmp_path: Path) -> None:
    trained = read_trained("pnet")
    assert hash_of(int8_weights("pnet", tmp_path)) == hash_of(trained)
    write_tuned(tuned(trained), hash_of(trained), tmp_path / "pnet.safetensors")
    assert hash_of(int8_weights("pnet", tmp_path)) != hash_of(trained)
    (tmp_path / "pnet.safetensors").write_bytes(b"")
    with pytest.raises(EngineError, match="tune again"):  # never silently the others
        int8_weights("pnet", tmp_path)


def test_the_core_quantizes_the_weights_of_all_where_it_has_none_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights_module, "files", lambda _: tmp_path)
    trained = read_trained("pnet")
    weights, name = native_weights("pnet")
    assert (hash_of(weights), name) == (hash_of(trained), "pnet")
    write_tuned(tuned(trained), hash_of(trained), tmp_path / "tuned" / "pnet.native.safetensors")
    weights, name = native_weights("pnet")
    assert name == "pnet.native"
    assert hash_of(weights) != hash_of(trained) == hash_of(int8_weights("pnet"))
    (tmp_path / "tuned" / "pnet.native.safetensors").write_bytes(b"")
    with pytest.raises(EngineError, match=r"pnet\.native\.safetensors.*tune again"):
        native_weights("pnet")  # never silently the others
