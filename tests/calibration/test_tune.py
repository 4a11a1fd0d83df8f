from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="torch comes with unface[engines]")

from small_networks import conv, images, small  # noqa: E402

from unface.calibration import calibrate as calibrating  # noqa: E402
from unface.calibration import tune as tuning  # noqa: E402
from unface.calibration.cache import read_calibration  # noqa: E402
from unface.calibration.calibrate import calibrate  # noqa: E402
from unface.calibration.graph import Conv, MaxPool  # noqa: E402
from unface.calibration.native_writer import write_native  # noqa: E402
from unface.calibration.ranges import activations, spans  # noqa: E402
from unface.calibration.rewrite import (  # noqa: E402
    INT8_FORMS,
    MERGED_HEADS_OF,
    Layer,
    Trained,
    merge_heads,
    read_trained,
    rewrite,
)
from unface.calibration.samples import SHAPES  # noqa: E402
from unface.calibration.scales import Scales  # noqa: E402
from unface.calibration.scenes import picture  # noqa: E402
from unface.calibration.tflite_writer import write_tflite  # noqa: E402
from unface.calibration.tune import (  # noqa: E402
    QuantizedNetwork,
    StoredNetwork,
    rounded,
    tune,
)
from unface.calibration.weights import (  # noqa: E402
    hash_of,
    int8_weights,
    native_weights,
    tensors_of,
)
from unface.engines.native import NativePNet  # noqa: E402
from unface.engines.tflite import BOX_GAIN, MERGED_HEADS, TfliteNetwork  # noqa: E402

CACHE = Path(__file__).parents[2] / "calibration" / "cache"
Pixels = NDArray[np.uint8]
Outputs = dict[str, NDArray[np.float32]]
Spans = dict[str, tuple[float, float]]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """So small a network is slower on two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def in_engine(trained: Trained, scales: Scales, pixels: Pixels, columns: int = 1) -> Outputs:
    """Return what LiteRT gives for the INT8 engine as it is built, in steps of int8."""
    graph = rewrite(trained, INT8_FORMS[trained.network], "maximum", columns)
    heads = {head.name for head in trained.heads}
    if trained.network in MERGED_HEADS_OF:
        graph, heads = merge_heads(graph), set()
    side = (pixels.shape[1], pixels.shape[2])
    model = write_tflite(graph, side, scales=scales, float_layers=heads)
    outputs = TfliteNetwork(model, trained.network, (len(pixels),), 1)(pixels)
    return in_steps(trained, scales, outputs)


def simulated(trained: Trained, scales: Scales, pixels: Pixels) -> Outputs:
    """Return what the simulation gives, in steps of int8."""
    with torch.no_grad():
        found = QuantizedNetwork(trained, scales)(_tensor(pixels))
    arrays = (values.movedim(1, -1).numpy() for values in found)
    return in_steps(
        trained, scales, dict(zip([h.name for h in trained.heads], arrays, strict=True))
    )


def exact(trained: Trained, scales: Scales, pixels: Pixels) -> Outputs:
    """Return what float32 gives, in steps of int8."""
    found = activations(trained, pixels)
    heads = {head.name: found[head.name][0].movedim(1, -1).numpy() for head in trained.heads}
    return in_steps(trained, scales, heads)


def in_steps(trained: Trained, scales: Scales, outputs: Outputs) -> Outputs:
    """Return outputs `[n, cells, C]` in steps of int8: of the heads', where they are INT8."""
    step = dict(scales)
    if trained.network in MERGED_HEADS_OF:
        step |= {"logit": scales[MERGED_HEADS], "box": scales[MERGED_HEADS] / BOX_GAIN}
    return {
        head.name: outputs[head.name].reshape(len(outputs[head.name]), -1, head.outputs)
        / step[head.name]
        for head in trained.heads
    }


def _tensor(pixels: Pixels) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float()


def through(layer: Layer, network: str) -> Trained:
    """Return a network of one layer whose box head gives the layer's values as they are."""
    channels = layer.conv.outputs
    eye = np.eye(channels, dtype=np.float32)[:, :, None, None]
    if network in MERGED_HEADS_OF:
        eye = eye / np.float32(BOX_GAIN)
    logit = Conv("logit", np.ones((1, channels, 1, 1), np.float32), np.zeros(1, np.float32))
    return Trained(network, (layer,), (logit, Conv("box", eye, np.zeros(channels, np.float32))))


def scales_of(limit: float) -> dict[str, float]:
    return dict.fromkeys(("conv1", "logit", "box", MERGED_HEADS), limit / 127)


@given(
    st.lists(st.sampled_from((-1.97, -0.31, 0.0, 0.23, 1.0)), min_size=2, max_size=5),
    st.sampled_from((None, MaxPool(2, 2))),
    st.sampled_from(("pnet", "rnet")),  # halves, maximum
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=25, deadline=None)
def test_the_simulation_rounds_one_layer_as_litert_does(
    slopes: list[float], pool: MaxPool | None, network: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    trained = through(small(rng, [slopes], [pool]).layers[0], network)
    pixels = images(5, rng)[1:-1]  # in one colour a value between two steps is there 324 times
    limit = float(activations(trained, pixels)["conv1"].abs().max())
    scales = scales_of(limit)
    ours, theirs = (f(trained, scales, pixels)["box"] for f in (simulated, in_engine))
    apart = np.abs(ours - theirs)
    # A step of the convolution is |slope| steps of the PReLU; LiteRT has slopes in 256ths.
    assert apart.max() < 0.01 + max(1, *(np.ceil(abs(slope)) for slope in slopes))
    assert (apart > 0.5).mean() < 0.05
    assert len(np.unique(theirs.round())) > 20  # not all the same


@pytest.mark.parametrize("name", ["pnet", "rnet", "onet"])
def test_the_simulation_is_far_nearer_to_the_real_engine_than_float_is(name: str) -> None:
    """One rounding otherwise in a hidden layer may move an output by steps: not the same bits."""
    scales = read_calibration(CACHE / f"{name}.json").engine_scales()
    trained = int8_weights(name)
    assert max(layer.slopes.max() for layer in trained.layers) <= 1
    side = SHAPES[name][0]
    photo = picture("astronaut")
    places = [(0, 100)] if name == "pnet" else [(y, x) for y in (30, 60) for x in range(90, 300, 7)]
    pixels = np.stack([photo[y : y + side, x : x + side] for y, x in places])
    real = in_engine(trained, scales, pixels, columns=2)
    ours, float_ = simulated(trained, scales, pixels), exact(trained, scales, pixels)
    for head, values in real.items():
        apart = np.abs(ours[head] - values)
        lost = np.abs(float_[head] - values)
        assert apart.mean() < 0.6, head
        assert np.quantile(apart, 0.9) < 1.01, head
        assert apart.mean() < 0.5 * lost.mean(), head


def test_clipping_and_weight_rounding_are_simulated() -> None:
    rng = np.random.default_rng(3)
    trained = through(small(rng, [[0.5, -0.5, 0.1]], [None]).layers[0], "rnet")
    pixels = images(3, rng)
    limit = float(activations(trained, pixels)["conv1"].abs().max())
    scales = scales_of(0.15 * limit)  # the largest are clipped
    ours, theirs = (f(trained, scales, pixels)["box"] for f in (simulated, in_engine))
    clipped = np.abs(ours) >= 126.9
    assert 0.01 < clipped.mean() < 0.99
    assert np.abs(ours - theirs).max() < 1.01


@given(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=30), st.floats(0.01, 2))
@settings(deadline=None)
def test_rounding_gives_int8_steps_and_passes_the_gradient_straight_through(
    values: list[float], scale: float
) -> None:
    x = torch.tensor(values, requires_grad=True)
    y = rounded(x, scale)
    steps = (y.detach() / scale).numpy()
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
    assert np.abs(steps).max() < 127.01
    inside = np.abs(np.rint(np.float32(values) / np.float32(scale))) <= 127
    np.testing.assert_allclose(
        y.detach().numpy()[inside], np.float32(values)[inside], atol=0.51 * scale
    )
    (y * torch.arange(1.0, len(values) + 1)).sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad, np.where(inside, np.arange(1.0, len(values) + 1), 0))


def test_every_weight_bias_and_slope_of_the_simulation_can_be_learnt() -> None:
    rng = np.random.default_rng(4)
    made = small(rng, [[0.5, -0.5], [0.2, 0.3]], [MaxPool(2, 2), None])
    network = QuantizedNetwork(replace(made, network="rnet"), dict.fromkeys(
        ("conv1", "conv2", "logit", "box"), 0.05
    ))  # fmt: skip
    sum(head.square().sum() for head in network(_tensor(images(4, rng)))).backward()
    parameters = list(network.parameters())
    assert len(parameters) == 4 + 4 + 2
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters)


def test_the_simulation_gives_back_its_weights() -> None:
    made = replace(small(np.random.default_rng(5), [[0.5, -0.5]], [None]), network="rnet")
    scales = {"conv1": 0.1, "logit": 0.1, "box": 0.1}
    network = QuantizedNetwork(made, scales)
    assert hash_of(network.trained()) == hash_of(made)
    with torch.no_grad():
        network.slopes[0][0] = 3.0
        network.weights[0] += 1
    changed = network.trained()
    assert changed.layers[0].slopes.tolist() == [1.0, -0.5]
    np.testing.assert_allclose(changed.layers[0].conv.weight, made.layers[0].conv.weight + 1)
    assert hash_of(made) == hash_of(QuantizedNetwork(made, scales).trained())  # copied, not shared


# --- the simulation of the compiled core ----------------------------------------------------------


def stored(trained: Trained, measured: Spans, pixels: Pixels) -> Outputs:
    """Return what the simulation gives, as a `Network` does."""
    with torch.no_grad():
        logit, box = StoredNetwork(trained, measured)(_tensor(pixels))
    return {"logit": logit[:, 0].numpy(), "box": box.movedim(1, -1).numpy()}


def disturbed_p_net(seed: int) -> Trained:
    """Return P-Net with other weights and slopes of any sign, some above 1."""
    rng, trained = np.random.default_rng(seed), disturbed(read_trained("pnet"), 0.4)
    return replace(
        trained,
        layers=tuple(
            replace(la, slopes=rng.uniform(-1.5, 1.5, len(la.slopes)).astype(np.float32))
            for la in trained.layers
        ),
    )


@pytest.mark.usefixtures("core")
@pytest.mark.parametrize("seed", [None, 1, 2])
def test_the_simulation_of_the_core_is_what_the_core_computes(seed: int | None) -> None:
    """Of the weights that ship, and of others with other spans, some of which clip."""
    photo = picture("astronaut")
    places = [(0, 100), (60, 190), (200, 250)]
    pixels = np.stack([photo[y : y + 90, x : x + 70] for y, x in places])
    if seed is None:
        trained = native_weights("pnet")[0]
        measured = read_calibration(CACHE / "pnet.native.json").spans()
    else:
        trained = disturbed_p_net(seed)
        measured = {k: (0.7 * v[0], 0.7 * v[1]) for k, v in spans(trained, pixels).items()}
    real = NativePNet(write_native(trained, measured), "pnet")(pixels)
    ours, float_ = stored(trained, measured, pixels), activations(trained, pixels)
    for head, values in real.items():
        apart = np.abs(ours[head] - values)
        exact = float_[head][0].movedim(1, -1).numpy().reshape(values.shape)
        lost = np.abs(exact - values)
        # Single precision puts a value between two steps now and then into the other.
        assert np.quantile(apart, 0.95) < 1e-4 * np.abs(values).max(), head
        assert apart.mean() < 0.01 * lost.mean(), head


@given(
    st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=30),
    st.floats(-9, 0),
    st.floats(0.1, 9),
)
@settings(deadline=None)
def test_storing_gives_one_of_256_values_and_passes_the_gradient_straight_through(
    values: list[float], low: float, high: float
) -> None:
    x = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    y = tuning._Stored.apply(x, low, high)  # type: ignore[no-untyped-call]
    step = (high - low) / 255
    zero = round(-low / step)
    steps = y.detach().numpy() / step + zero
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-6)
    assert steps.min() > -0.01
    assert steps.max() < 255.01
    exact = np.array(values)
    inside = (exact > low + step) & (exact < high - step)
    assert (np.abs(y.detach().numpy() - exact)[inside] <= 0.5001 * step).all()
    (y * torch.arange(1.0, len(values) + 1)).sum().backward()
    assert x.grad is not None
    order = np.arange(1.0, len(values) + 1)
    beyond = (exact < low - step) | (exact > high + step)
    np.testing.assert_allclose(x.grad[torch.from_numpy(inside)], order[inside])
    np.testing.assert_allclose(x.grad[torch.from_numpy(beyond)], 0)
    zeros = tuning._Stored.apply(torch.zeros(1), low, high)  # type: ignore[no-untyped-call]
    assert zeros.item() == 0


def test_the_simulation_of_the_core_gives_back_its_weights_and_slopes_above_one() -> None:
    made = small(np.random.default_rng(5), [[0.5, -0.5]], [None])
    made = replace(made, network="pnet")
    network = StoredNetwork(made, {"conv1": (-1.0, 1.0)})
    assert hash_of(network.trained()) == hash_of(made)
    with torch.no_grad():
        network.slopes[0][0] = 3.0
        network.weights[0] += 1
    changed = network.trained()
    assert changed.layers[0].slopes.tolist() == [3.0, -0.5]  # the core has PReLU itself
    np.testing.assert_allclose(changed.layers[0].conv.weight, made.layers[0].conv.weight + 1)
    assert hash_of(made) == hash_of(StoredNetwork(made, {"conv1": (-1.0, 1.0)}).trained())


def test_every_weight_bias_and_slope_of_the_simulation_of_the_core_can_be_learnt() -> None:
    rng = np.random.default_rng(4)
    made = small(rng, [[0.5, -0.5], [0.2, 0.3]], [MaxPool(2, 2), None])
    pixels = images(4, rng)
    network = StoredNetwork(made, spans(replace(made, network="pnet"), pixels))
    sum(head.square().sum() for head in network(_tensor(pixels))).backward()
    parameters = list(network.parameters())
    assert len(parameters) == 4 + 4 + 2
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters)


# --- tuning ---------------------------------------------------------------------------------------


@pytest.fixture
def teacher(monkeypatch: pytest.MonkeyPatch) -> Trained:
    """A small network in the place of R-Net, to be learnt from."""
    from unface.mtcnn import networks

    rng = np.random.default_rng(6)
    made = small(rng, [[0.3, -0.3, 0.1, 0.6], [0.2, -0.1, 0.4]], [MaxPool(2, 2), None])
    head = conv("logit", rng, (1, 3, 1, 1))
    made = replace(made, network="rnet", heads=(head, made.heads[1]))

    def forward(pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = activations(made, pixels.permute(0, 2, 3, 1).numpy().astype(np.uint8))
        return tuple(found[head.name][0] for head in made.heads)

    monkeypatch.setattr(networks, "load_network", lambda name: forward)
    # The core takes no network of another shape.
    monkeypatch.setattr(calibrating, "offset", lambda *_: 0.0)
    monkeypatch.setitem(tuning.BATCH, "rnet", 16)
    return made


def disturbed(trained: Trained, by: float) -> Trained:
    """Return a network whose weights are off by a share of their magnitude."""
    rng = np.random.default_rng(7)
    layers = []
    for layer in trained.layers:
        weight = layer.conv.weight
        off = rng.normal(0, by * np.abs(weight).mean(), weight.shape).astype(np.float32)
        layers.append(replace(layer, conv=replace(layer.conv, weight=weight + off)))
    return replace(trained, layers=tuple(layers))


def distance(trained: Trained, teacher: Trained, pixels: Pixels) -> float:
    """Return how far the INT8 engine's logits are from the teacher's, where they matter."""
    scales = calibrate(trained, pixels).engine_scales()
    ours = in_engine(trained, scales, pixels)["logit"] * scales["logit"]
    theirs = exact(teacher, {"logit": 1.0, "box": 1.0}, pixels)["logit"]
    least = tuning.FLOOR
    return float(np.abs(np.maximum(ours, least) - np.maximum(theirs, least)).mean())


def test_tuning_brings_the_int8_engine_nearer_to_its_teacher(teacher: Trained) -> None:
    pixels = images(48, np.random.default_rng(8))
    start = disturbed(teacher, 0.15)
    tuned = tune(start, pixels, steps=300)
    before, after = (distance(network, teacher, pixels) for network in (start, tuned))
    assert after < 0.7 * before
    fresh = images(48, np.random.default_rng(9))  # learnt, not learnt by heart
    assert distance(tuned, teacher, fresh) < 0.8 * distance(start, teacher, fresh)


def test_tuning_for_the_core_brings_its_arithmetic_nearer_to_the_teacher(
    teacher: Trained,
) -> None:
    def apart(trained: Trained, pixels: Pixels) -> float:
        given = stored(trained, calibrate(trained, pixels).spans(), pixels)["logit"].ravel()
        wanted = activations(teacher, pixels)["logit"][0].numpy().ravel()
        least = tuning.FLOOR
        return float(np.abs(np.maximum(given, least) - np.maximum(wanted, least)).mean())

    pixels = images(48, np.random.default_rng(8))
    start = disturbed(teacher, 0.15)
    tuned = tune(start, pixels, steps=300, native=True)
    assert apart(tuned, pixels) < 0.7 * apart(start, pixels)
    fresh = images(48, np.random.default_rng(9))
    assert apart(tuned, fresh) < 0.8 * apart(start, fresh)


@pytest.mark.parametrize("native", [False, True])
def test_tuning_is_the_same_every_time_and_leaves_what_it_is_given(
    teacher: Trained, native: bool
) -> None:
    pixels = images(16, np.random.default_rng(10))
    kept = {name: tensor.copy() for name, tensor in tensors_of(teacher).items()}
    one, two = (tune(teacher, pixels, steps=5, native=native) for _ in range(2))
    assert hash_of(one) == hash_of(two) != hash_of(teacher)
    assert hash_of(tune(teacher, pixels, steps=5, native=not native)) != hash_of(one)
    assert hash_of(tune(teacher, pixels, steps=5, seed=1, native=native)) != hash_of(one)
    assert all((tensor == kept[name]).all() for name, tensor in tensors_of(teacher).items())
    assert {n: t.shape for n, t in tensors_of(one).items()} == {n: t.shape for n, t in kept.items()}


@pytest.mark.slow
def test_a_few_steps_on_a_real_network_lower_the_loss() -> None:
    photo = picture("astronaut")
    crops = [photo[y : y + 24, x : x + 24] for y in range(0, 200, 20) for x in range(100, 300, 20)]
    pixels = np.stack(crops)
    start = disturbed(read_trained("rnet"), 0.1)
    tuned = tune(start, pixels, steps=12)
    teacher = read_trained("rnet")
    assert distance(tuned, teacher, pixels) < 0.9 * distance(start, teacher, pixels)
