"""R- and O-Net, and what all networks have in common, on the compiled core."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_networks import (
    NETWORKS,
    Outputs,
    available,
    convolve,
    int8_values,
    limited_to,
    literal,
    noise,
    open_native,
    random_arrays,
)
from numpy.typing import NDArray

from unface.engines.shelf import open_named
from unface.errors import EngineError
from unface.kernels.arrays import crop
from unface.kernels.library import CUT, LIMIT
from unface.kernels.networks import CropKernel
from unface.kernels.packing import Convolution, PackedHead, PackedLayer

CROP_NETWORKS = ("rnet", "onet")


def assert_near(given: Outputs, wanted: Outputs, tolerance: float) -> None:
    assert given.keys() == wanted.keys()
    for name, values in wanted.items():
        assert given[name].shape == values.shape
        largest = max(1.0, float(np.abs(values).max()))
        np.testing.assert_allclose(given[name], values, rtol=0, atol=tolerance * largest)


def assert_same(given: Outputs, wanted: Outputs) -> None:
    assert given.keys() == wanted.keys()
    assert all((given[name] == values).all() for name, values in wanted.items())


@pytest.mark.parametrize("loudness", [1.0, 30.0])
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("seed", range(3))
def test_int8_is_what_integers_and_single_steps_of_float_give(
    isa: str, network: str, seed: int, loudness: float
) -> None:
    """`loudness` 30: most values are beyond a byte, and are clipped."""
    rng = np.random.default_rng(seed)
    arrays = random_arrays(network, rng, quantized=True, loudness=loudness)
    images = noise(network, 5, rng)
    wanted = literal(arrays, network, images)
    assert_near(open_native(arrays, network)(images), wanted, 1e-5)
    assert np.ptp(wanted["logit"]) > 0.01  # no network that has gone silent


@pytest.mark.parametrize("network", NETWORKS)
@given(seed=st.integers(0, 2**32 - 1), loudness=st.sampled_from([0.1, 1.0, 5.0, 300.0]))
@settings(max_examples=10, deadline=None)
def test_int8_is_the_same_to_the_bit_on_all_instruction_sets(
    network: str, seed: int, loudness: float
) -> None:
    rng = np.random.default_rng(seed)
    arrays = random_arrays(network, rng, quantized=True, loudness=loudness)
    images, outputs = noise(network, 19, rng), []
    for isa in available():
        with limited_to(isa):
            outputs.append(open_native(arrays, network)(images))
    for other in outputs[1:]:
        assert_same(other, outputs[0])


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("seed", range(3))
def test_float_is_what_double_precision_gives_rounding_aside(
    isa: str, network: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    arrays = random_arrays(network, rng, quantized=False)
    images = noise(network, 5, rng)
    assert_near(open_native(arrays, network)(images), literal(arrays, network, images), 1e-5)


@pytest.mark.parametrize("network", NETWORKS)
def test_float_engines_that_ship_compute_what_torch_does(isa: str, network: str) -> None:
    pytest.importorskip("torch", reason="torch comes with unface[engines]")
    from unface.mtcnn.networks import TorchNetwork, load_network

    images = noise(network, 17, np.random.default_rng(1))
    given = getattr(open_named("fp32.native", threads=1), network)(images)
    assert_near(given, TorchNetwork(load_network(network))(images), 1e-4)


@pytest.mark.parametrize("quantized", [True, False])
@pytest.mark.parametrize("network", CROP_NETWORKS)
@pytest.mark.parametrize("count", [1, 7, 8, 9, 15, 16, 17, 33])
def test_a_batch_gives_what_its_crops_give_alone(
    isa: str, network: str, quantized: bool, count: int
) -> None:
    rng = np.random.default_rng(count)
    run = open_native(random_arrays(network, rng, quantized=quantized), network)
    images = noise(network, count, rng)
    together = run(images)
    order = rng.permutation(count)
    assert_same(run(images[order]), {name: v[order] for name, v in together.items()})
    for at in {0, count // 2, count - 1}:
        alone = run(images[at : at + 1])
        assert_same(alone, {name: v[at : at + 1] for name, v in together.items()})


@pytest.mark.parametrize("quantized", [True, False])
@pytest.mark.parametrize("network", NETWORKS)
def test_nothing_of_a_call_is_left_for_the_next(isa: str, network: str, quantized: bool) -> None:
    rng = np.random.default_rng(2)
    run = open_native(random_arrays(network, rng, quantized=quantized), network)
    a, b = noise(network, 3, rng), noise(network, 18, rng)
    first = run(a)
    run(b)
    assert_same(run(a), first)


@pytest.mark.parametrize("network", CROP_NETWORKS)
def test_no_crops_have_no_outputs(isa: str, network: str) -> None:
    run = open_native(random_arrays(network, np.random.default_rng(), quantized=True), network)
    outputs = run(noise(network, 2, np.random.default_rng())[:0])
    assert outputs["logit"].shape == (0,)
    assert outputs["box"].shape == (0, 4)


@pytest.mark.parametrize("quantized", [True, False])
@pytest.mark.parametrize("network", CROP_NETWORKS)
def test_cutting_and_classifying_is_cutting_then_classifying(
    isa: str, network: str, quantized: bool
) -> None:
    rng = np.random.default_rng(4)
    side = {"rnet": 24, "onet": 48}[network]
    run = open_native(random_arrays(network, rng, quantized=quantized), network)
    images = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((90, 70), (45, 35))]
    cuts = np.zeros(37, CUT)
    for field, low, high in (("x", -60, 100), ("y", -60, 100)):
        cuts[field] = rng.uniform(low, high, len(cuts))
    cuts["width"] = cuts["height"] = rng.uniform(1, 3.9 * side, len(cuts))
    cuts["picture"] = rng.integers(0, 2, len(cuts))
    crops = np.empty((len(cuts), side, side, 3), np.uint8)
    crop(images, cuts, crops)
    assert_same(run.cut_and_run(images, cuts), run(crops))  # type: ignore[attr-defined]


# ---- one layer, read out value by value ------------------------------------------------------


def values_of(conv: Convolution, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return what a convolution leaves of crops as large as its kernel, `[n, out]`."""
    out, _, kernel, _ = conv.weight.shape
    identity = PackedHead(np.eye(out, dtype=np.float32), np.zeros(out, np.float32))
    is_float = conv.weight_scale is None
    return CropKernel(kernel, [PackedLayer(conv)], identity, is_float=is_float).classify(crops)


numbers = st.floats(-1e6, 1e6, width=32)


@given(data=st.data(), out=st.integers(1, 16), zero_point=st.integers(0, 255))
@settings(max_examples=150, deadline=None)
def test_a_value_is_rounded_to_even_and_clipped_at_both_ends(
    data: st.DataObject, out: int, zero_point: int
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    weight = rng.integers(-128, 128, (out, 3, 3, 3), dtype=np.int8)
    scale = data.draw(st.sampled_from([1e-4, 2**-9, 0.5, 4.0]))
    bias = np.array(data.draw(st.lists(numbers, min_size=out, max_size=out)), np.float32)
    slopes = rng.choice((-1e2, -1.0, 0.0, 0.5, 1.0, 1e2), out).astype(np.float32)
    scales = np.full(out, scale, np.float32)
    conv = Convolution(weight, bias, slopes, scales, 1.0, zero_point)
    crops = rng.integers(0, 256, (17, 3, 3, 3), dtype=np.uint8)
    crops[0], crops[1] = 0, 255
    sums = convolve(crops, weight)[:, 0, 0]
    wanted = int8_values(sums, scales, bias, slopes, zero_point)
    for isa in available():
        with limited_to(isa):
            assert (values_of(conv, crops) == wanted).all()


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_largest_products_do_not_wrap(isa: str, sign: int) -> None:
    """Two products of 255 and 127 are more than 16 bits hold: AVX2's own multiply-add clips."""
    weight = np.full((4, 3, 3, 3), 127 * sign, np.int8)
    scales, bias = np.full(4, 2**-13, np.float32), np.zeros(4, np.float32)
    conv = Convolution(weight, bias, np.ones(4, np.float32), scales, 1.0, 128)
    values = values_of(conv, np.full((1, 3, 3, 3), 255, np.uint8))
    assert (values == 128 + sign * round(27 * 255 * 127 / 2**13)).all()


@pytest.mark.parametrize(
    "field", [{"bias": 3e9}, {"weight_scale": 1e7}, {"bias": 1e5, "slopes": -1e6}, {"bias": np.inf}]
)
def test_an_engine_whose_values_would_wrap_is_refused(field: dict[str, float]) -> None:
    parts = {"bias": 0.0, "slopes": 1.0, "weight_scale": 1.0, **field}
    arrays = {name: np.full(4, value, np.float32) for name, value in parts.items()}
    conv = Convolution(np.full((4, 3, 3, 3), -127, np.int8), **arrays)
    with pytest.raises(EngineError, match="damaged"):
        PackedLayer(conv)


def test_crops_of_another_size_or_kind_are_refused(isa: str) -> None:
    run = open_native(random_arrays("rnet", np.random.default_rng(), quantized=True), "rnet")
    kernel: CropKernel = run._kernel  # type: ignore[attr-defined]
    for shape in ((1, 23, 24, 3), (1, 24, 24, 4), (24, 24, 3), (1, 48, 48, 3)):
        with pytest.raises(ValueError, match="crops are uint8"):
            kernel.classify(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="crops are float32"):
        kernel.classify(np.zeros((1, 24, 24, 3), np.float32))  # type: ignore[arg-type]


def test_crops_that_are_not_contiguous_count_as_they_look(isa: str) -> None:
    rng = np.random.default_rng(3)
    run = open_native(random_arrays("rnet", rng, quantized=True), "rnet")
    images = noise("rnet", 6, rng)
    turned = images.transpose(0, 2, 1, 3)
    assert_same(run(turned), run(turned.copy()))
    assert_same(run(images[::2]), run(images[::2].copy()))


def test_switched_off_the_core_refuses_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT, "none")
    arrays = random_arrays("rnet", np.random.default_rng(), quantized=True)
    with pytest.raises(EngineError, match="switched off"):
        open_native(arrays, "rnet")(noise("rnet", 2, np.random.default_rng()))


@pytest.mark.parametrize("network", NETWORKS)
def test_threads_may_share_a_network(isa: str, network: str) -> None:
    rng = np.random.default_rng(5)
    run = open_native(random_arrays(network, rng, quantized=True), network)
    batches = [noise(network, count, rng) for count in (3, 17, 40, 5)] * 5
    alone = [run(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        for given, wanted in zip(pool.map(run, batches), alone, strict=True):
            assert_same(given, wanted)
