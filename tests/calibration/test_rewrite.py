from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="torch comes with unface[engines]")
onnx = pytest.importorskip("onnx", reason="onnx comes with unface[engines]")
pytest.importorskip("onnxruntime", reason="onnxruntime comes with unface[engines]")

from small_networks import (  # noqa: E402
    SLOPES,
    assert_equal,
    expected,
    images,
    in_onnx,
    in_tflite,
    networks,
    operators,
    small,
)

from unface.calibration.build import (  # noqa: E402
    ONNX,
    TFLITE,
    build_onnx,
    build_tflite,
    shipped_cache,
)
from unface.calibration.cache import read_calibration  # noqa: E402
from unface.calibration.graph import Conv, MaxPool, in_columns  # noqa: E402
from unface.calibration.rewrite import (  # noqa: E402
    INT8_FORMS,
    MERGED_HEADS_OF,
    Form,
    Trained,
    equalize,
    merge_heads,
    read_trained,
    relu_pair,
    rewrite,
    split_steep,
)
from unface.calibration.samples import SHAPES  # noqa: E402
from unface.calibration.scenes import picture  # noqa: E402
from unface.calibration.tflite_writer import write_tflite  # noqa: E402
from unface.calibration.weights import int8_weights  # noqa: E402
from unface.mtcnn.networks import TorchNetwork, load_network  # noqa: E402

NETWORKS = ("pnet", "rnet", "onet")
FORMS: tuple[Form, ...] = ("prelu", "maximum", "halves", "pair")
EXACT = 1e-4
FEW = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


def forms_of(trained: Trained, form: Form, runtime: str) -> dict[str, Form]:
    """Return the layers that cannot have a form, with one that they can have."""
    other: dict[str, Form] = {}
    for layer in trained.layers:
        if form == "pair" and layer.pool:
            other[layer.conv.name] = "maximum" if runtime == "tflite" else "halves"
        elif form == "halves" and runtime == "tflite" and layer.pool and layer.pool.ceil:
            other[layer.conv.name] = "maximum"
    return other


def natural(side: int) -> NDArray[np.uint8]:
    """Return parts of photographs, the face among them, and the extremes."""
    parts = [picture("astronaut")[y : y + side, x : x + side] for y in (0, 60) for x in (150, 190)]
    parts += [picture(name)[40 : 40 + side, 40 : 40 + side] for name in ("coffee", "hubble")]
    return np.stack([*parts, *(np.full((side, side, 3), v, np.uint8) for v in (0, 255))])


@pytest.fixture(scope="module")
def wanted() -> dict[str, tuple[NDArray[np.uint8], dict[str, NDArray[np.float32]]]]:
    """Inputs of each network, other ones each run, and what the PyTorch network gives for them."""
    rng = np.random.default_rng()
    found = {}
    for name in NETWORKS:
        side = SHAPES[name][0]
        noise = rng.integers(0, 256, (2, side, side, 3), dtype=np.uint8)
        pixels = np.concatenate([natural(side), noise])
        found[name] = (pixels, TorchNetwork(load_network(name))(pixels))
    return found


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_form_in_litert_gives_what_the_pytorch_network_does(
    name: str, form: Form, columns: int, wanted: dict[str, tuple]
) -> None:
    trained = read_trained(name)
    pixels, outputs = wanted[name]
    graph = rewrite(trained, forms_of(trained, form, "tflite"), form, columns)
    assert_equal(in_tflite(graph, pixels), outputs, EXACT)


@pytest.mark.parametrize("form", ["prelu", "halves", "pair"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_form_in_onnx_runtime_gives_what_the_pytorch_network_does(
    name: str, form: Form, wanted: dict[str, tuple]
) -> None:
    trained = read_trained(name)
    pixels, outputs = wanted[name]
    graph = rewrite(trained, forms_of(trained, form, "onnx"), form)
    assert_equal(in_onnx(graph, pixels), outputs, EXACT)


@pytest.mark.parametrize("form", FORMS)
@given(trained=networks())
@FEW
def test_every_form_of_any_network_is_exact(form: Form, trained: Trained) -> None:
    pixels = images(4, np.random.default_rng(1))
    outputs = expected(trained, pixels)
    lite = rewrite(trained, forms_of(trained, form, "tflite"), form)
    assert_equal(in_tflite(lite, pixels), outputs, EXACT)
    if form != "maximum":
        graph = rewrite(trained, forms_of(trained, form, "onnx"), form)
        assert_equal(in_onnx(graph, pixels), outputs, EXACT)


@given(trained=networks())
@FEW
def test_two_heads_in_one_give_what_they_give_apart(trained: Trained) -> None:
    pixels = images(3, np.random.default_rng(2))
    graph = merge_heads(rewrite(trained, {}, "prelu"))
    assert len(graph.heads) == 1
    assert_equal(in_tflite(graph, pixels), expected(trained, pixels), EXACT)


def test_p_net_with_its_heads_in_one_is_exact(wanted: dict[str, tuple]) -> None:
    pixels, outputs = wanted["pnet"]
    for columns in (1, 2):
        graph = merge_heads(rewrite(read_trained("pnet"), {}, "prelu", columns))
        assert_equal(in_tflite(graph, pixels), outputs, EXACT)


@given(trained=networks(), form=st.sampled_from(FORMS))
@FEW
def test_two_columns_at_once_give_the_same_or_are_refused(trained: Trained, form: Form) -> None:
    pixels = images(3, np.random.default_rng(2))
    graph = rewrite(trained, forms_of(trained, form, "tflite"), form, columns=2)
    if trained.layers[0].pool is None and form != "halves":
        with pytest.raises(ValueError, match="columns come apart in pooling"):
            in_tflite(graph, pixels)
    else:
        assert_equal(in_tflite(graph, pixels), expected(trained, pixels), EXACT)


@pytest.mark.parametrize("columns", [1, 2, 4])
def test_a_convolution_of_columns_gives_the_columns_side_by_side(columns: int) -> None:
    rng = np.random.default_rng(3)
    weight = rng.normal(size=(5, 3, 3, columns + 1)).astype(np.float32)
    node = Conv("conv1", weight, rng.normal(size=5).astype(np.float32), relu=True)
    wide = in_columns(node, columns)
    assert wide.relu
    x = rng.normal(size=(7, 4 * columns, 3)).astype(np.float32)
    packed = x.reshape(7, 4, columns * 3)
    run = torch.nn.functional.conv2d
    plain, together = (
        run(torch.from_numpy(a).permute(2, 0, 1)[None], *map(torch.from_numpy, (c.weight, c.bias)))
        for a, c in ((x, node), (packed, wide))
    )
    apart = together[0].permute(1, 2, 0).reshape(5, -1, 5)
    np.testing.assert_allclose(apart, plain[0].permute(1, 2, 0), atol=1e-5)


@given(trained=networks())
@FEW
def test_no_slope_is_above_one_after_splitting_and_the_function_is_the_same(
    trained: Trained,
) -> None:
    for layer in trained.layers:
        split, mix = split_steep(layer)
        assert split.slopes.max() <= 1
        steep = int((layer.slopes > 1).sum())
        assert mix.shape == (len(layer.slopes), len(layer.slopes) + steep)
        x = np.random.default_rng().normal(0, 5, (len(layer.slopes), 50))
        spread = np.concatenate([x, x[layer.slopes > 1]])
        restored = mix @ np.where(spread > 0, spread, split.slopes[:, None] * spread)
        wanted = np.where(x > 0, x, layer.slopes[:, None] * x)
        np.testing.assert_allclose(restored, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("slope", SLOPES)
def test_relu_pairs_give_back_the_prelu(slope: float) -> None:
    trained = small(np.random.default_rng(4), [[slope, slope, 0.5]], [None])
    paired, mix = relu_pair(trained.layers[0])
    assert paired.conv.relu
    assert paired.conv.outputs == 6
    x = np.linspace(-4, 4, 33)
    pair = np.concatenate([np.maximum(np.tile(x, (3, 1)), 0), np.maximum(-np.tile(x, (3, 1)), 0)])
    np.testing.assert_allclose((mix @ pair)[0], np.where(x > 0, x, np.float32(slope) * x))


@given(trained=networks(), data=st.data())
@FEW
def test_equalized_networks_compute_the_same(trained: Trained, data: st.DataObject) -> None:
    magnitude = st.floats(0, 1e4) | st.just(0.0)
    limits = {
        layer.conv.name: np.array([data.draw(magnitude) for _ in layer.slopes])
        for layer in trained.layers
    }
    even = equalize(trained, limits)
    pixels = images(3, np.random.default_rng(5))
    assert_equal(expected(even, pixels), expected(trained, pixels), EXACT)


def test_equalizing_brings_uneven_channels_nearer_together() -> None:
    trained = small(np.random.default_rng(6), [[0.1] * 4, [0.2] * 3], [None, None])
    conv = trained.layers[0].conv
    uneven = np.array([100, 1, 10, 0.1], np.float32)
    weight = conv.weight * uneven[:, None, None, None]
    layer = replace(trained.layers[0], conv=replace(conv, weight=weight, bias=conv.bias * uneven))
    trained = replace(trained, layers=(layer, trained.layers[1]))

    def spread(conv: Conv) -> float:
        magnitudes = np.abs(conv.weight).max((1, 2, 3))
        return float(magnitudes.max() / magnitudes.min())

    even = equalize(trained, {"conv1": uneven, "conv2": np.ones(3)})
    assert spread(even.layers[0].conv) < 0.2 * spread(layer.conv)
    assert_equal(expected(even, PIXELS), expected(trained, PIXELS), EXACT)
    undone = replace(even, layers=(layer, even.layers[1]))  # the tolerance would see it
    with pytest.raises(AssertionError):
        assert_equal(expected(undone, PIXELS), expected(trained, PIXELS), EXACT)


PIXELS = images(2, np.random.default_rng(7))


def test_a_form_that_is_not_exact_would_be_seen() -> None:
    """A maximum without splitting is no PReLU for slopes above 1."""
    trained = small(np.random.default_rng(8), [[1.3, 0.2]], [MaxPool(2, 2)])
    flat = replace(trained, layers=(replace(trained.layers[0], slopes=np.float32([1.0, 0.2])),))
    given = in_tflite(rewrite(flat, {}, "halves"), PIXELS)
    with pytest.raises(AssertionError):
        assert_equal(given, expected(trained, PIXELS), EXACT)


def test_relu_pairs_are_refused_before_pooling() -> None:
    trained = small(np.random.default_rng(9), [[-0.5]], [MaxPool(2, 2)])
    with pytest.raises(ValueError, match="conv1 is pooled"):
        rewrite(trained, {}, "pair")


def test_halves_are_not_pooled_over_an_edge_in_tflite() -> None:
    trained = small(np.random.default_rng(10), [[-0.5, 0.2]], [MaxPool(3, 2, ceil=True)])
    graph = rewrite(trained, {}, "halves")
    with pytest.raises(ValueError, match="pad halves on both sides"):
        write_tflite(graph, (20, 20))
    assert_equal(in_onnx(graph, PIXELS), expected(trained, PIXELS), EXACT)


def test_a_size_at_which_tflite_would_pad_in_front_is_refused() -> None:
    trained = small(np.random.default_rng(11), [[0.5]], [MaxPool(3, 2, ceil=True)])
    for form in ("prelu", "maximum"):
        with pytest.raises(ValueError, match="on both sides"):
            write_tflite(rewrite(trained, {}, form), (21, 20))


def test_columns_that_the_width_does_not_hold_are_refused() -> None:
    trained = small(np.random.default_rng(12), [[0.5]], [MaxPool(2, 2)])
    for columns, width in ((2, 21), (4, 20)):
        with pytest.raises(ValueError, match="do not come out"):
            write_tflite(rewrite(trained, {}, "prelu", columns), (20, width))


def test_integers_have_no_prelu_and_onnx_no_maximum_with_slopes() -> None:
    trained = small(np.random.default_rng(13), [[0.5]], [None])
    scales = {"conv1": 0.1, "logit": 0.1, "box": 0.1}
    with pytest.raises(ValueError, match="no fast integer PReLU"):
        write_tflite(rewrite(trained, {}, "prelu"), (20, 20), scales=scales)
    with pytest.raises(ValueError, match="TFLite's form"):
        in_onnx(rewrite(trained, {}, "maximum"), PIXELS)


@pytest.mark.parametrize("precision", TFLITE)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_tflite_engine_holds_only_the_operators_that_are_meant(name: str, precision: str) -> None:
    calibration = read_calibration(shipped_cache() / f"{name}.json")
    found = operators(build_tflite(name, precision, calibration, int8_weights(name)))
    floating = {"fp32": set(), "fp16": {"DEQUANTIZE"}, "dynamic": set()}
    allowed = {"CONV_2D", "MAX_POOL_2D", "RESHAPE"}
    if precision in floating:
        assert set(found) <= allowed | {"PRELU"} | floating[precision]
        return
    allowed |= {"DEPTHWISE_CONV_2D", "MAXIMUM"}
    layers = int8_weights(name)
    maxima = len(layers.layers) - list(INT8_FORMS[name].values()).count("halves")
    assert found.count("MAXIMUM") == found.count("DEPTHWISE_CONV_2D") == maxima
    heads = 1 if name in MERGED_HEADS_OF else len(layers.heads)
    assert found.count("CONV_2D") == len(layers.layers) + heads
    assert "PRELU" not in found
    if precision == "mixed" and calibration.float_layers:
        assert set(found) <= allowed | {"QUANTIZE", "DEQUANTIZE"}
    elif name == "pnet":
        assert set(found) <= allowed
    else:
        assert set(found) <= allowed | {"DEQUANTIZE"}
        first = found.index("DEQUANTIZE")
        assert first >= len(found) - 2 * len(layers.heads)  # only before heads


@pytest.mark.parametrize("precision", ONNX)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_quantized_onnx_engine_has_no_prelu_and_a_float_one_no_quantization(
    name: str, precision: str
) -> None:
    calibration = read_calibration(shipped_cache() / f"{name}.json")
    model = onnx.load_from_string(build_onnx(name, precision, calibration, int8_weights(name)))
    kinds = [node.op_type for node in model.graph.node]
    trained = read_trained(name)
    convolutions = len(trained.layers) + len(trained.heads)
    assert kinds.count("Conv") == convolutions
    if precision == "fp32":
        assert kinds.count("PRelu") == len(trained.layers)
        assert "QuantizeLinear" not in kinds
        return
    pooled = sum(layer.pool is not None for layer in trained.layers)
    assert "PRelu" not in kinds
    assert kinds.count("Relu") == len(trained.layers) - pooled
    assert kinds.count("Max") == kinds.count("MaxPool") == pooled
    # What every layer takes, once, and the heads' common input.
    assert kinds.count("QuantizeLinear") == len(trained.layers) + 1
