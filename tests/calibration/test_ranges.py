from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="torch comes with unface[engines]")

from small_networks import expected, images, small  # noqa: E402

from unface.calibration import calibrate as calibrating  # noqa: E402
from unface.calibration import ranges  # noqa: E402
from unface.calibration.cache import METHODS  # noqa: E402
from unface.calibration.calibrate import calibrate, offset  # noqa: E402
from unface.calibration.graph import MaxPool  # noqa: E402
from unface.calibration.ranges import (  # noqa: E402
    BINS,
    Method,
    activations,
    channel_limits,
    histograms,
    spans,
    threshold,
)
from unface.calibration.rewrite import Trained, read_trained  # noqa: E402
from unface.calibration.scenes import picture  # noqa: E402
from unface.calibration.weights import hashes_of, native_weights  # noqa: E402
from unface.mtcnn.networks import TorchNetwork, load_network  # noqa: E402

Counts = NDArray[np.int64]


def counted(values: NDArray[np.float64]) -> tuple[float, Counts]:
    largest = float(np.abs(values).max())
    return largest, np.histogram(np.abs(values), bins=BINS, range=(0, largest))[0]


def rounded(values: NDArray[np.float64], limit: float) -> NDArray[np.float64]:
    scale = limit / 127
    return np.clip(np.rint(values / scale), -127, 127) * scale


UNIFORM = np.random.default_rng(1).uniform(-3, 3, 200_000)
NORMAL = np.random.default_rng(2).normal(0, 1, 200_000)
OUTLIER = np.concatenate([NORMAL, [50.0]])
HEAVY = np.random.default_rng(3).laplace(0, 1, 200_000)
DISTRIBUTIONS = {"uniform": UNIFORM, "normal": NORMAL, "outlier": OUTLIER, "heavy": HEAVY}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_min_max_is_the_largest_seen(name: str) -> None:
    largest, counts = counted(DISTRIBUTIONS[name])
    assert threshold(largest, counts, "min-max") == largest


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_percentile_is_the_one_that_numpy_finds(name: str) -> None:
    largest, counts = counted(DISTRIBUTIONS[name])
    exact = np.quantile(np.abs(DISTRIBUTIONS[name]), 0.9999)
    assert threshold(largest, counts, "percentile") == pytest.approx(exact, abs=2 * largest / BINS)


def test_one_outlier_is_clipped_by_all_but_min_max() -> None:
    largest, counts = counted(OUTLIER)
    assert threshold(largest, counts, "percentile") < 0.1 * largest
    for method in ("mse", "entropy"):
        assert threshold(largest, counts, method) < 0.7 * largest  # type: ignore[arg-type]


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_mse_limit_has_the_least_squared_error_of_all_methods(name: str) -> None:
    values = DISTRIBUTIONS[name]
    largest, counts = counted(values)
    errors = {
        method: float(((values - rounded(values, threshold(largest, counts, method))) ** 2).mean())
        for method in METHODS
    }
    # The search goes in 128 steps, so that a limit in between may be a little better.
    assert errors["mse"] <= 1.03 * min(errors.values()), errors


def test_mse_and_entropy_keep_all_of_what_has_no_tail() -> None:
    largest, counts = counted(UNIFORM)
    for method in ("percentile", "mse", "entropy"):
        limit = threshold(largest, counts, method)  # type: ignore[arg-type]
        assert limit > 0.97 * largest


@given(
    st.lists(st.integers(0, 10**6), min_size=1, max_size=40),
    st.floats(1e-3, 1e4),
    st.sampled_from(METHODS),
    st.integers(0, BINS - 40),
)
@settings(max_examples=40, deadline=None)
def test_a_limit_is_above_nothing_and_never_above_the_largest(
    parts: list[int], largest: float, method: Method, begin: int
) -> None:
    counts = np.zeros(BINS, np.int64)
    counts[begin : begin + len(parts)] = parts
    limit = threshold(largest, counts, method)
    assert 0 < limit <= largest * (1 + 1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_a_layer_that_gives_nothing_has_no_limit(method: Method) -> None:
    assert threshold(0.0, np.zeros(BINS, np.int64), method) == 0


@pytest.mark.parametrize("name", ["pnet", "rnet", "onet"])
def test_activations_are_those_of_the_pytorch_network(name: str) -> None:
    side = {"pnet": 40, "rnet": 24, "onet": 48}[name]
    pixels = images(5, np.random.default_rng(), side)
    module = load_network(name)
    seen: dict[str, torch.Tensor] = {}
    layers = {n: m for n, m in module.named_children() if isinstance(m, torch.nn.PReLU)}
    for prelu in layers:
        layers[prelu].register_forward_hook(
            lambda _, given, result, key=prelu: seen.update({key: torch.stack([*given, result])})
        )
    outputs = TorchNetwork(module)(pixels)
    trained = read_trained(name)
    found = activations(trained, pixels)
    assert list(found) == [*(layer.conv.name for layer in trained.layers), *module.outputs]
    for layer, prelu in zip(trained.layers, layers, strict=True):
        torch.testing.assert_close(found[layer.conv.name], seen[prelu], rtol=1e-4, atol=1e-4)
    for head in module.outputs:
        values = found[head][0].movedim(1, -1).numpy().reshape(outputs[head].shape)
        np.testing.assert_allclose(values, outputs[head], atol=1e-4)
        assert (found[head][0] == found[head][1]).all()


def steep() -> Trained:
    rng = np.random.default_rng(7)
    trained = small(rng, [[0.1, 2.0, -30.0], [0.5, 0.5]], [MaxPool(2, 2), None])
    return Trained("pnet", trained.layers, trained.heads)


def test_histograms_count_every_value_before_and_after_prelu_once() -> None:
    trained, pixels = steep(), images(9, np.random.default_rng(4))  # more than two batches
    whole = activations(trained, pixels)
    for name, (largest, counts) in histograms(trained, pixels).items():
        values = whole[name].abs().numpy()
        assert largest == pytest.approx(float(values.max()), rel=1e-5)
        assert counts.sum() == values.size
        assert counts[-1] >= 1
        share = np.histogram(values, bins=BINS, range=(0, largest))[0]
        # Rounding puts a value at a bin's edge into its neighbour.
        assert np.abs(np.cumsum(counts) - np.cumsum(share)).max() <= max(3, 0.001 * values.size)
    # A slope of magnitude 30 makes the largest negative value larger than any before it.
    after = whole["conv1"][1].abs().max()
    assert histograms(trained, pixels)["conv1"][0] == pytest.approx(float(after))


def test_channel_limits_are_the_quantiles_of_each_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    trained, pixels = steep(), images(4, np.random.default_rng(5))
    found = channel_limits(trained, pixels)
    whole = activations(trained, pixels)
    for name, values in whole.items():
        channels = values.abs().transpose(0, 2).flatten(1).numpy()
        assert found[name].shape == (channels.shape[0],)
        assert (found[name] <= channels.max(axis=1)).all()
        wanted = np.quantile(channels, 0.9999, axis=1)
        np.testing.assert_allclose(found[name], wanted, rtol=0.05)
    monkeypatch.setitem(ranges.CHANNEL_SAMPLES, "pnet", 2)
    first = channel_limits(trained, pixels)
    np.testing.assert_allclose(first["conv1"], channel_limits(trained, pixels[:2])["conv1"])


@pytest.mark.parametrize("method", METHODS)
def test_a_calibration_says_what_it_was_measured_on(
    method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The core takes no network of another shape.
    monkeypatch.setattr(calibrating, "offset", lambda *_: 0.125)
    trained, pixels = steep(), images(5, np.random.default_rng(6))
    made = calibrate(trained, pixels, method)
    assert made.logit_offset == 0.125
    assert made == calibrate(trained, pixels, method)
    assert made.samples == 5
    assert made.weights == hashes_of(trained)
    made.check(trained)
    assert list(made.layers) == ["conv1", "conv2", "logit", "box"]
    for name, layer in made.layers.items():
        assert layer.method == method
        assert 0 < layer.limit <= layer.largest * (1 + 1e-6)
        assert made.scales()[name] == pytest.approx(layer.limit / 127, rel=1e-6)
        assert made.spans()[name] == pytest.approx(spans(trained, pixels)[name], rel=1e-5)
    logits = np.abs(expected(trained, pixels)["logit"]).max()
    assert made.layers["logit"].largest == pytest.approx(logits, rel=1e-4)
    other = pixels.copy()
    other[0, 0, 0, 0] ^= 1
    assert calibrate(trained, other, method).samples_sha256 != made.samples_sha256


# --- for the compiled core ------------------------------------------------------------------------


def test_spans_leave_out_the_same_small_share_on_either_side_of_what_prelu_gives() -> None:
    trained, pixels = steep(), images(9, np.random.default_rng(4))  # more than two batches
    whole = activations(trained, pixels)
    for name, (low, high) in spans(trained, pixels).items():
        after = whole[name][1].double().numpy()
        assert low <= 0 <= high
        assert low < high
        step = (after.max() - after.min()) / BINS
        first = np.quantile(after, 0.0001, method="lower")
        last = np.quantile(after, 0.9999, method="higher")
        assert low == pytest.approx(min(0, first), abs=2 * step)
        assert high == pytest.approx(max(0, last), abs=2 * step)
        assert (after < low - step).mean() <= 0.0001
        assert (after > high + step).mean() <= 0.0001
    # What is before PReLU needs no room: its largest is far below what a slope of -30 makes of it.
    before, after = whole["conv1"]
    assert spans(trained, pixels)["conv1"][1] > 2 * float(before.max())


def test_spans_hold_zero_whatever_a_layer_gives() -> None:
    rng = np.random.default_rng(8)
    pixels = images(3, rng)
    for shift, side in ((1000.0, 0), (-1000.0, 1)):
        trained = small(rng, [[0.5, 0.5]], [None])
        trained.layers[0].conv.bias[:] = shift
        trained = Trained("pnet", trained.layers, trained.heads)
        ends = spans(trained, pixels)["conv1"]
        assert ends[side] == 0
        assert abs(ends[1 - side]) > 400


def test_one_outlier_is_outside_the_span() -> None:
    """A single white pixel on grey, seen by a filter that is one pixel."""
    trained = small(np.random.default_rng(9), [[0.5]], [None])
    weight = np.zeros_like(trained.layers[0].conv.weight)
    weight[0, 0, 0, 0] = 1
    trained.layers[0].conv.weight[:] = weight
    trained.layers[0].conv.bias[:] = 0
    trained = Trained("pnet", trained.layers, trained.heads)
    pixels = np.full((40, 20, 20, 3), 10, np.uint8)
    pixels[0, 5, 5] = 255
    assert spans(trained, pixels)["conv1"] == (0, pytest.approx(10, abs=2 * 255 / BINS))


def parts(network: str) -> NDArray[np.uint8]:
    """Return what is about a face, and beside it, as large as the network looks for."""
    side, scale, step = {"pnet": (48, 8, 4), "rnet": (24, 4, 2), "onet": (48, 2, 4)}[network]
    small = (512 // scale, 512 // scale)
    photo = cv2.resize(picture("astronaut"), small, interpolation=cv2.INTER_AREA)
    y1, x1 = (max(0, at // scale - 10) for at in (60, 170))  # her face, 90 pixels wide
    places = [(y, x) for y in range(y1, y1 + 21, step) for x in range(x1, x1 + 21, step)]
    shown = [photo[y : y + side, x : x + side] for y, x in places]
    return np.stack([part for part in shown if part.shape == (side, side, 3)])


@pytest.mark.usefixtures("core")
@pytest.mark.parametrize("network", ["pnet", "rnet", "onet"])
def test_with_the_offset_int8_passes_as_often_as_float(network: str) -> None:
    weights, samples = native_weights(network)[0], parts(network)
    made = calibrate(weights, samples)
    least = {"pnet": 0.6, "rnet": 0.7, "onet": 0.7}[network]
    least = float(np.log(least / (1 - least)))
    exact = TorchNetwork(load_network(network))(samples)["logit"]
    rounded = calibrating._integers(weights, made)(samples)["logit"]
    passed = int((exact >= least).sum())
    assert 0 < passed < exact.size
    assert int((rounded + made.logit_offset >= least).sum()) == passed
    assert 0 < abs(made.logit_offset) < 1
    assert made == calibrate(weights, samples)


@pytest.mark.usefixtures("core")
def test_where_all_or_nothing_passes_there_is_no_offset() -> None:
    weights = native_weights("rnet")[0]
    made = calibrate(weights, parts("rnet"))
    exact = TorchNetwork(load_network("rnet"))(parts("rnet"))["logit"]
    for chosen in (exact > 2, exact < -2):
        assert chosen.sum() > 3
        assert offset(weights, made, parts("rnet")[chosen]) == 0


def test_without_the_core_there_is_no_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNFACE_KERNELS", "none")
    assert calibrate(native_weights("rnet")[0], parts("rnet")[:9]).logit_offset == 0
