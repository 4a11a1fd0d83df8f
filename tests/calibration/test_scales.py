from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

pytest.importorskip("torch", reason="torch comes with unface[engines]")
onnx = pytest.importorskip("onnx", reason="onnx comes with unface[engines]")
pytest.importorskip("onnxruntime", reason="onnxruntime comes with unface[engines]")

from small_networks import conv, images, operators, parse  # noqa: E402

from unface.calibration.cache import Calibration, read_calibration  # noqa: E402
from unface.calibration.graph import Graph  # noqa: E402
from unface.calibration.onnx_network import OnnxNetwork, open_onnx  # noqa: E402
from unface.calibration.onnx_writer import write_onnx  # noqa: E402
from unface.calibration.rewrite import MERGED_HEADS_OF  # noqa: E402
from unface.calibration.samples import Samples, harvest  # noqa: E402
from unface.calibration.scales import INPUT_SCALE, quantize_weight  # noqa: E402
from unface.calibration.scenes import labelled_scenes  # noqa: E402
from unface.calibration.tflite_writer import write_tflite  # noqa: E402
from unface.engines.shelf import open_named  # noqa: E402
from unface.engines.tflite import MERGED_HEADS, TfliteNetwork  # noqa: E402
from unface.mtcnn import Network  # noqa: E402

ROOT = Path(__file__).parents[2]
PREBUILT, CACHE = ROOT / "engines" / "prebuilt", ROOT / "calibration" / "cache"
NETWORKS = ("pnet", "rnet", "onet")
HEADS = {"logit", "box", "landmarks"}
WEIGHT = arrays.arrays(
    np.float32, arrays.array_shapes(min_dims=2, max_dims=4, max_side=5), elements=st.floats(
        -1e4, 1e4, width=32, allow_subnormal=False
    )
)  # fmt: skip


def tflite_tensors(name: str, precision: str = "int8") -> dict[str, Any]:
    """Return the tensors of a committed engine by name, as the schema has them."""
    model = parse((PREBUILT / f"{name}.{precision}.tflite").read_bytes())
    return {tensor.name.decode(): tensor for tensor in model.subgraphs[0].tensors}


def onnx_constants(name: str) -> dict[str, NDArray[Any]]:
    model = onnx.load(PREBUILT / f"{name}.int8.onnx")
    return {c.name: onnx.numpy_helper.to_array(c) for c in model.graph.initializer}


def layers_of(name: str) -> Calibration:
    return read_calibration(CACHE / f"{name}.json")


@pytest.mark.parametrize("name", NETWORKS)
def test_both_runtimes_carry_the_scales_of_the_cache_layer_by_layer(name: str) -> None:
    scales = layers_of(name).engine_scales()
    tflite, constants = tflite_tensors(name), onnx_constants(name)
    hidden = scales.keys() - {*HEADS, MERGED_HEADS}
    assert hidden
    for layer in {*hidden, *({MERGED_HEADS} if name in MERGED_HEADS_OF else ())}:
        assert tflite[layer].quantization.scale.tolist() == [np.float32(scales[layer])]
        assert tflite[layer].quantization.zeroPoint.tolist() == [0]
    for head in tflite.keys() & HEADS:  # of the small networks: they stay in float
        assert tflite[head].type == 0  # FLOAT32
    for layer in hidden:
        # What each convolution takes is quantized; heads' results stay float32 in ONNX.
        assert constants[f"{layer}/scale"] == np.float32(scales[layer])
        assert constants[f"{layer}/zero"] == 0
        assert constants[f"{layer}/zero"].dtype == np.int8
    carried = {key.removesuffix("/scale") for key in constants if key.endswith("/scale")}
    assert carried == {*hidden, "pixels"}


@pytest.mark.parametrize("name", NETWORKS)
def test_what_prelu_and_pooling_give_has_the_scale_of_their_layer(name: str) -> None:
    scales = layers_of(name).scales()
    derived = 0
    for tensor_name, tensor in tflite_tensors(name).items():
        layer, _, part = tensor_name.partition("/")
        if layer in scales and part.split("/")[-1] in ("prelu", "scaled", "pool", "reshape"):
            assert tensor.quantization.scale.tolist() == [scales[layer]], tensor_name
            derived += 1
    assert derived >= len(scales) - 2


@pytest.mark.parametrize("name", NETWORKS)
def test_pixels_are_the_256_values_of_int8_in_both_runtimes(name: str) -> None:
    pixels = tflite_tensors(name)["pixels"].quantization
    assert (pixels.scale.tolist(), pixels.zeroPoint.tolist()) == ([1.0], [-128])
    constants = onnx_constants(name)
    assert constants["pixels/scale"] == INPUT_SCALE == 1
    assert constants["input/middle"] == 128


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_are_symmetric_per_output_channel_and_the_same_in_both(name: str) -> None:
    tflite, constants = tflite_tensors(name), onnx_constants(name)
    model = parse((PREBUILT / f"{name}.int8.tflite").read_bytes())
    for layer, values in list(constants.items()):
        if not layer.endswith("/weight_int8"):
            continue
        layer = layer.removesuffix("/weight_int8")
        assert values.dtype == np.int8
        assert (np.abs(values.astype(int)).reshape(len(values), -1).max(1) <= 127).all()
        assert constants[f"{layer}/weight_scale"].shape == (len(values),)
        assert not constants[f"{layer}/weight_zero"].any()
        assert constants[f"{layer}/bias"].dtype == np.float32
        if layer in HEADS:  # merged, or in float
            continue
        weight = tflite[f"{layer}/weight"]
        quantization = weight.quantization
        assert quantization.quantizedDimension == 0
        assert not np.any(quantization.zeroPoint)
        assert len(quantization.scale) == weight.shape[0]
        data = model.buffers[weight.buffer].data.view(np.int8).reshape(weight.shape)
        assert data.min() >= -127
        # Forms differ (halves, pairs, columns), but what is one channel in both has one scale.
        shared = np.isclose(
            quantization.scale[:, None], constants[f"{layer}/weight_scale"][None], rtol=1e-6
        )
        assert shared.any()


@pytest.mark.parametrize("name", NETWORKS)
def test_biases_of_int8_convolutions_are_int32_at_the_product_of_the_scales(name: str) -> None:
    model = parse((PREBUILT / f"{name}.int8.tflite").read_bytes())
    graph = model.subgraphs[0]
    kinds = operators((PREBUILT / f"{name}.int8.tflite").read_bytes())
    checked = 0
    for kind, operator in zip(kinds, graph.operators, strict=True):
        if kind not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            continue
        x, weight, bias = (graph.tensors[index].quantization for index in operator.inputs)
        if x is None or x.scale is None:
            assert graph.tensors[operator.outputs[0]].name.decode() in HEADS
            continue
        np.testing.assert_allclose(bias.scale, x.scale[0] * weight.scale, rtol=1e-6)
        assert graph.tensors[operator.inputs[2]].type == 2  # INT32
        checked += 1
    assert checked >= 4


@pytest.fixture(scope="module")
def natural() -> Samples:
    """What the networks see in some of the pictures that ship."""
    pictures = [picture.load() for picture in labelled_scenes()[4:24:6]]
    return harvest(pictures, open_named("fp32.tflite", threads=2))


@pytest.mark.parametrize("name", NETWORKS)
def test_both_int8_engines_give_nearly_the_same_and_nearly_what_fp32_does(
    name: str, natural: Samples
) -> None:
    inputs = getattr(natural, name)
    assert len(inputs) >= 6
    scales = layers_of(name).scales()
    lite: Network = getattr(open_named("int8.tflite", threads=2), name)
    fp32: Network = getattr(open_named("fp32.tflite", threads=2), name)
    ours, theirs, float_ = lite(inputs), getattr(open_onnx(PREBUILT, "int8"), name)(inputs), fp32(
        inputs
    )  # fmt: skip
    for output, values in ours.items():
        a, b, c = values.ravel(), theirs[output].ravel(), float_[output].ravel()
        assert np.corrcoef(a, b)[0, 1] > 0.99, output
        assert min(np.corrcoef(a, c)[0, 1], np.corrcoef(b, c)[0, 1]) > 0.97, output
        steps = np.abs(a - b) / scales[output]
        assert np.quantile(steps, 0.5) < 3, output
        assert np.quantile(steps, 0.99) < 12, output


def test_one_quantized_layer_is_within_a_step_of_exact_in_both_runtimes() -> None:
    """With nothing to accumulate the two may only differ where they round."""
    rng = np.random.default_rng()
    pixels = images(3, rng)
    heads = (conv("logit", rng, (1, 3, 3, 3)), conv("box", rng, (4, 3, 3, 3)))
    graph = Graph("small", (), heads)
    exact = OnnxNetwork(write_onnx(graph, (20, 20)), "small")(pixels)
    scales = {name: float(np.abs(values).max()) / 127 for name, values in exact.items()}
    weights = {h.name: quantize_weight(h.weight, 0)[1].max() for h in heads}
    lite = TfliteNetwork(write_tflite(graph, (20, 20), scales=scales), "small", (3,), 1)(pixels)
    ort = OnnxNetwork(write_onnx(graph, (20, 20), scales), "small")(pixels)
    for name, values in exact.items():
        # A weight is off by half its step at most, for each of 27 pixels.
        weight_error = weights[name] / 2 * 27 * 255
        assert np.abs(ort[name] - values).max() <= weight_error
        assert np.abs(lite[name] - values).max() <= weight_error + scales[name]
        # What rounded weights push past the largest value is clipped by the one that stores int8.
        stored = np.clip(ort[name], -128 * scales[name], 127 * scales[name])
        assert np.abs(lite[name] - stored).max() <= 0.51 * scales[name] + 1e-3
        assert len(np.unique(lite[name])) > 20


@given(WEIGHT, st.data())
@settings(max_examples=100, deadline=None)
def test_quantized_weights_are_half_a_step_away_at_most(
    weight: NDArray[np.float32], data: st.DataObject
) -> None:
    axis = data.draw(st.integers(0, weight.ndim - 1))
    values, scale = quantize_weight(weight, axis)
    assert values.dtype == np.int8
    assert scale.dtype == np.float32
    assert scale.shape == (weight.shape[axis],)
    assert (scale > 0).all()
    steps = np.moveaxis(values, axis, 0).reshape(len(scale), -1).astype(np.float64)
    exact = np.moveaxis(weight, axis, 0).reshape(len(scale), -1).astype(np.float64)
    assert np.abs(steps).max() <= 127
    error = np.abs(steps * scale[:, None] - exact)
    assert (error <= 0.5 * scale[:, None] * (1 + 1e-3)).all()
    for channel, row in zip(exact, steps, strict=True):
        assert np.abs(row).max() == (127 if np.abs(channel).max() > 0 else 0)
        if np.abs(channel).max() > 0:
            assert np.sign(row[np.abs(row) > 0]).tolist() == np.sign(channel[row != 0]).tolist()


@given(st.integers(-8, 8))
def test_a_channel_times_a_factor_keeps_its_int8_values(exponent: int) -> None:
    weight = np.random.default_rng(3).normal(size=(4, 3, 3, 3)).astype(np.float32)
    power = np.float32(2.0**exponent)
    one, two = quantize_weight(weight, 0), quantize_weight(weight * power, 0)
    assert (one[0] == two[0]).all()
    np.testing.assert_allclose(two[1], one[1] * power, rtol=1e-6)


def test_a_dead_channel_is_zero_and_no_nan() -> None:
    weight = np.zeros((2, 3, 1, 1), np.float32)
    weight[1] = 0.5
    values, scale = quantize_weight(weight, 0)
    assert not values[0].any()
    assert (values[1] == 127).all()
    assert np.isfinite(scale).all()
