"""Engines for the compiled core: what is written, and that the core computes just that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="torch comes with unface[engines]")

from small_networks import expected, small  # noqa: E402
from torch.nn.functional import conv2d, max_pool2d, prelu  # noqa: E402

from unface.calibration.cache import read_calibration  # noqa: E402
from unface.calibration.native_writer import LEVELS, write_native  # noqa: E402
from unface.calibration.ranges import spans  # noqa: E402
from unface.calibration.rewrite import Trained, read_trained  # noqa: E402
from unface.calibration.scales import quantize_weight  # noqa: E402
from unface.calibration.scenes import picture  # noqa: E402
from unface.calibration.weights import (  # noqa: E402
    native_weights,
    tensors_of,
    with_tensors,
)
from unface.engines.native import (  # noqa: E402
    HEADS,
    LAYERS,
    NativeNetwork,
    NativePNet,
    read_arrays,
)
from unface.mtcnn.team import ALONE  # noqa: E402

CACHE = Path(__file__).parents[2] / "calibration" / "cache"
NETWORKS = ("pnet", "rnet", "onet")
SIDES = {"pnet": 30, "rnet": 24, "onet": 48}
Pixels = NDArray[np.uint8]
Spans = dict[str, tuple[float, float]]
Outputs = dict[str, NDArray[np.float32]]


def noise(name: str, count: int = 6, seed: int = 1) -> Pixels:
    side, rng = SIDES[name], np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    pixels[0], pixels[-1] = 0, 255
    return pixels


def photographs(name: str) -> Pixels:
    side, photo = SIDES[name], picture("astronaut")
    places = [(y, x) for y in (0, 50, 90) for x in range(90, 300, 20)]
    return np.stack([photo[y : y + side, x : x + side] for y, x in places])


def made_up(name: str, seed: int) -> Trained:
    """Return a network of random weights that keep magnitudes, one channel of each layer dead."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for key, tensor in tensors_of(read_trained(name)).items():
        fan_in = np.prod(tensor.shape[1:]) if key.endswith(".weight") else 4
        values = rng.normal(0, 1.2 / np.sqrt(fan_in), tensor.shape)
        if key == "conv1.weight":  # pixels reach 255
            values /= 128
        if key.endswith(".weight") and len(tensor) > 4:
            values[rng.integers(len(tensor))] = 0
        tensors[key] = values.astype(np.float32)
    return with_tensors(read_trained(name), tensors)


def in_core(model: bytes, name: str, pixels: Pixels) -> Outputs:
    """Return what the core gives for an engine, `[n, cells, C]` by head."""
    network = NativePNet(model, name) if name == "pnet" else NativeNetwork(model, name, name, ALONE)
    outputs = network(pixels)
    return {k: v.reshape(len(pixels), -1, HEADS[name][k]) for k, v in outputs.items()}


def literally(trained: Trained, measured: Spans, offset: float, pixels: Pixels) -> Outputs:
    """Return what INT8 is said to be, in double precision, rule by rule.

    Weights are whole steps, 127 the largest of an output channel; a hidden layer's output is
    rounded to one of 256 values from `low` to `high`, of which one is zero. All else is real.
    """
    heads = [head.name for head in trained.heads]
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).double()
    for layer in trained.layers:
        x = conv2d(x, steps(layer.conv.weight), torch.from_numpy(layer.conv.bias).double())
        x = prelu(x, torch.from_numpy(layer.slopes).double())
        low, high = measured[layer.conv.name]
        step = float(np.float32((high - low) / 255))
        zero = round(-low / step)
        x = ((x / step).round() + zero).clamp(0, 255)
        x = (x - zero) * step
        if layer.pool:
            x = max_pool2d(x, layer.pool.size, layer.pool.stride, ceil_mode=layer.pool.ceil)
    outputs = {}
    for name, head in zip(heads, trained.heads, strict=True):
        exact = torch.from_numpy(head.weight).double()
        weight = steps(head.weight) if trained.network == "pnet" else exact
        y = conv2d(x, weight, torch.from_numpy(head.bias).double())
        y = y + offset if name == "logit" else y
        outputs[name] = y.movedim(1, -1).reshape(len(pixels), -1, head.outputs).numpy()
    return outputs


def steps(weight: NDArray[np.float32]) -> torch.Tensor:
    """Return weights rounded to int8 steps, one size an output channel."""
    largest = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    size = np.float32(np.where(largest > 0, largest, 1) / 127).astype(np.float64)
    return torch.from_numpy(np.clip(np.rint(weight / size), -127, 127) * size)


# --- what the core computes -----------------------------------------------------------------------


@pytest.fixture(params=["avx2", "avxvnni", "avx512"])
def instructions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each instruction set there is a core for; the best of the machine where it is less."""
    monkeypatch.setenv("UNFACE_KERNELS", request.param)
    return str(request.param)


@pytest.mark.usefixtures("core", "instructions")
@pytest.mark.parametrize("seed", [3, 4])
@pytest.mark.parametrize("name", NETWORKS)
def test_int8_of_random_weights_and_noise_is_what_the_rules_say(name: str, seed: int) -> None:
    trained, pixels = made_up(name, seed), noise(name, seed=seed)
    measured = spans(trained, pixels)
    given = in_core(write_native(trained, measured, 0.375), name, pixels)
    wanted = literally(trained, measured, 0.375, pixels)
    exact = expected(trained, pixels)
    assert given.keys() == wanted.keys()
    for head, values in wanted.items():
        apart = np.abs(given[head] - values)
        lost = np.abs(values - exact[head].reshape(values.shape) - 0.375 * (head == "logit"))
        assert np.quantile(apart, 0.8) < 1e-5 * np.abs(values).max(), head
        # Single precision puts a value between two steps now and then into the other.
        assert apart.mean() < 0.01 * lost.mean(), head


@pytest.mark.usefixtures("core", "instructions")
@pytest.mark.parametrize("name", NETWORKS)
def test_int8_of_what_ships_is_what_the_rules_say_of_photographs(name: str) -> None:
    (trained, cache), pixels = native_weights(name), photographs(name)
    calibration = read_calibration(CACHE / f"{cache}.json")
    offset = calibration.logit_offset
    given = in_core(write_native(trained, calibration.spans(), offset), name, pixels)
    wanted = literally(trained, calibration.spans(), offset, pixels)
    float_ = expected(read_trained(name), pixels)
    for head, values in wanted.items():
        apart = np.abs(given[head] - values)
        lost = np.abs(values - float_[head].reshape(values.shape))
        # A value of O-Net is the sum of thousands that were rounded.
        assert apart.mean() < {"pnet": 1e-3, "rnet": 0.1, "onet": 0.2}[name] * lost.mean(), head


@pytest.mark.usefixtures("core", "instructions")
@pytest.mark.parametrize("name", NETWORKS)
def test_fp32_is_the_network_itself(name: str) -> None:
    for trained, pixels in (
        (made_up(name, 5), noise(name)),
        (read_trained(name), photographs(name)),
    ):
        given = in_core(write_native(trained), name, pixels)
        for head, values in expected(trained, pixels).items():
            largest = max(1.0, np.abs(values).max())
            np.testing.assert_allclose(
                given[head], values.reshape(given[head].shape), rtol=0, atol=2e-5 * largest
            )


# --- what is written ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_arguments_give_the_same_bytes_and_others_give_others(name: str) -> None:
    trained = read_trained(name)
    measured = dict.fromkeys((layer.conv.name for layer in trained.layers), (-0.5, 2.0))
    kinds = [
        (trained,),
        (trained, measured),
        (trained, measured, 0.5),
        (trained, {**measured, "conv2": (-0.5, 2.1)}),
        (made_up(name, 1), measured),
    ]
    once, again = ([write_native(*kind) for kind in kinds] for _ in range(2))
    assert once == again
    assert len(set(once)) == len(kinds)


@pytest.mark.parametrize("name", NETWORKS)
def test_an_int8_engine_holds_int8_weights_and_what_its_outputs_mean(name: str) -> None:
    trained = made_up(name, 2)
    ends = {
        layer.conv.name: (-0.1 * index, 1.0 + index) for index, layer in enumerate(trained.layers)
    }
    arrays = read_arrays(write_native(trained, ends, -0.25), name, name)
    hidden = {layer for layer, _, _ in LAYERS[name]}
    for conv in trained.convs:
        weight = arrays[f"{conv.name}.weight"]
        bias = conv.bias - np.float32(0.25 if conv.name == "logit" else 0)
        np.testing.assert_array_equal(arrays[f"{conv.name}.bias"], bias)
        if conv.name in hidden or name == "pnet":
            values, scales = quantize_weight(conv.weight, 0)
            np.testing.assert_array_equal(weight, values)
            np.testing.assert_array_equal(arrays[f"{conv.name}.weight_scale"], scales)
            assert weight.dtype == np.int8
        else:  # heads of the small networks: scores keep their order
            np.testing.assert_array_equal(weight, conv.weight)
            assert weight.dtype == np.float32
    assert {key.partition(".")[0] for key in arrays if key.endswith(".zero_point")} == hidden
    for layer in trained.layers:
        low, high = ends[layer.conv.name]
        scale, zero = (arrays[f"{layer.conv.name}.{f}"] for f in ("scale", "zero_point"))
        assert float(scale) == np.float32((high - low) / LEVELS)
        assert int(zero) == round(-low / ((high - low) / LEVELS))
        np.testing.assert_array_equal(arrays[f"{layer.conv.name}.slopes"], layer.slopes)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_float_engine_holds_the_weights_and_nothing_else(name: str) -> None:
    trained = read_trained(name)
    arrays = read_arrays(write_native(trained), name, name)
    wanted = tensors_of(trained)
    assert arrays.keys() == wanted.keys()
    for key, tensor in wanted.items():
        np.testing.assert_array_equal(arrays[key], tensor)
        assert arrays[key].dtype == np.float32


@pytest.mark.parametrize(("low", "high", "zero"), [(0.0, 3.0, 0), (-3.0, 0.0, 255), (-1, 1, 128)])
def test_a_layer_may_give_values_of_one_sign_alone(low: float, high: float, zero: int) -> None:
    trained = read_trained("rnet")
    ends = dict.fromkeys((layer.conv.name for layer in trained.layers), (low, high))
    arrays = read_arrays(write_native(trained, ends), "rnet", "rnet")
    assert int(arrays["conv1.zero_point"]) == zero


def test_a_network_with_other_heads_cannot_be_written() -> None:
    made = small(np.random.default_rng(1), [[0.5, -0.5]], [None])
    with pytest.raises(ValueError, match="onet has the heads"):
        write_native(Trained("onet", made.layers, made.heads))
