"""What is written for TensorRT: types that the graph says, and the same function in each form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="torch comes with unface[engines]")
onnx = pytest.importorskip("onnx", reason="onnx comes with unface[engines]")
pytest.importorskip("onnxruntime", reason="onnxruntime comes with unface[engines]")

from small_networks import assert_equal, expected, images, networks  # noqa: E402

from unface.calibration.build import build_onnx, shipped_cache  # noqa: E402
from unface.calibration.cache import Calibration, read_calibration  # noqa: E402
from unface.calibration.graph import Conv  # noqa: E402
from unface.calibration.onnx_network import OnnxNetwork  # noqa: E402
from unface.calibration.onnx_writer import write_onnx  # noqa: E402
from unface.calibration.rewrite import Trained, relu_graph, rewrite  # noqa: E402
from unface.calibration.samples import SHAPES  # noqa: E402
from unface.calibration.scenes import picture  # noqa: E402
from unface.calibration.weights import int8_weights  # noqa: E402
from unface.mtcnn.networks import TorchNetwork, load_network  # noqa: E402

NETWORKS = ("pnet", "rnet", "onet")
HALF_ROUNDING = {"logit": 0.1, "box": 0.004, "landmarks": 0.002}  # INT8 is 10 to 20 times as far
FEW = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
Outputs = dict[str, NDArray[np.float32]]


def calibration(name: str) -> Calibration:
    return read_calibration(shipped_cache() / f"{name}.json")


def model(name: str, precision: str, *, even: bool = False) -> bytes:
    return build_onnx(name, precision, calibration(name), int8_weights(name), even=even)


def pixels(name: str) -> NDArray[np.uint8]:
    """Parts of photographs, a face among them, noise and the extremes."""
    side = SHAPES[name][0]
    photo = picture("astronaut")
    parts = [photo[y : y + side, x : x + side] for y, x in ((0, 100), (60, 190), (40, 180))]
    noise = np.random.default_rng().integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    noise[1] = 255
    return np.concatenate([parts, noise])


def run(name: str, data: bytes, images: NDArray[np.uint8]) -> Outputs:
    return OnnxNetwork(data, name)(images)


def types(data: bytes) -> dict[str, Counter[str]]:
    """Count the types of the constants by what takes them: {"Conv": {"FLOAT16": 4}}."""
    graph = onnx.load_from_string(data).graph
    kinds = {c.name: onnx.TensorProto.DataType.Name(c.data_type) for c in graph.initializer}
    found: dict[str, Counter[str]] = {}
    for node in graph.node:
        for name in node.input:
            if name in kinds:
                found.setdefault(node.op_type, Counter())[kinds[name]] += 1
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_half_precision_gives_what_the_pytorch_network_does(name: str) -> None:
    images = pixels(name)
    wanted = TorchNetwork(load_network(name))(images)
    given = run(name, model(name, "fp16"), images)
    for output, values in wanted.items():
        far = np.abs(given[output] - values).max()
        assert 0 < far < HALF_ROUNDING[output], output
        assert given[output].dtype == np.float32


@pytest.mark.parametrize("name", NETWORKS)
def test_rounding_also_what_passes_between_nodes_changes_little(name: str) -> None:
    """As a GPU does; ONNX Runtime's CPU keeps float32 there, so that the gate does not see it."""
    images, data = pixels(name), model(name, "fp16")
    given = run(name, data, images)
    for output, values in rounded_everywhere(data, images).items():
        far = np.abs(given[output].ravel() - values.ravel()).max()
        assert 0 < far < HALF_ROUNDING[output] / 3, output


def rounded_everywhere(data: bytes, images: NDArray[np.uint8]) -> Outputs:
    """Run a half precision model in PyTorch, node by node, each result rounded to float16."""
    graph = onnx.load_from_string(data).graph
    values = {c.name: _tensor(onnx.numpy_helper.to_array(c)) for c in graph.initializer}
    values["pixels"] = _tensor(images)
    for node in graph.node:
        taken = [values[name] for name in node.input]
        said = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        values[node.output[0]] = STEPS[node.op_type](taken, said).half().float()
    return {output.name: values[output.name].numpy() for output in graph.output}


def _tensor(array: NDArray[np.generic]) -> Any:
    return torch.from_numpy(array.astype(np.float32))


STEPS: dict[str, Callable[[list[Any], dict[str, Any]], Any]] = {
    "Cast": lambda x, said: x[0],
    "Transpose": lambda x, said: x[0].permute(*said["perm"]),
    "Sub": lambda x, said: x[0] - x[1],
    "Conv": lambda x, said: torch.nn.functional.conv2d(*x),
    "PRelu": lambda x, said: torch.where(x[0] < 0, x[0] * x[1], x[0]),
    "MaxPool": lambda x, said: torch.nn.functional.max_pool2d(
        x[0], said["kernel_shape"][0], said["strides"][0], ceil_mode=bool(said["ceil_mode"])
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_even_weights_are_the_same_integers_and_give_the_same(name: str) -> None:
    plain, even = (model(name, "int8", even=even) for even in (False, True))
    images = pixels(name)
    first, second = run(name, plain, images), run(name, even, images)
    for output, values in first.items():  # but where a sum lies right between two integers
        assert (np.abs(second[output] - values) > 1e-4).mean() < 1e-3, output
    ints = [
        {
            constant.name: constant.raw_data
            for constant in onnx.load_from_string(data).graph.initializer
            if constant.name.endswith("/weight_int8")
        }
        for data in (plain, even)
    ]
    assert ints[0] == ints[1]


@pytest.mark.parametrize("name", NETWORKS)
def test_even_convolutions_with_relu_have_one_weight_scale_and_others_one_a_channel(
    name: str,
) -> None:
    graph = onnx.load_from_string(model(name, "int8", even=True)).graph
    shapes = {c.name: tuple(c.dims) for c in graph.initializer}
    with_relu = {node.name.rpartition("/")[0] for node in graph.node if node.op_type == "Relu"}
    assert with_relu
    for constant, shape in shapes.items():
        layer, _, what = constant.rpartition("/")
        if what == "weight_scale":
            assert (shape == ()) == (layer in with_relu), layer
        if what == "scale_by_channel":
            assert layer in with_relu
    assert {n.rpartition("/")[0] for n in shapes if n.endswith("by_channel")} == with_relu


@pytest.mark.parametrize("even", [False, True])
@pytest.mark.parametrize("name", ["rnet", "onet"])
def test_mixed_engines_lie_within_half_a_rounding_of_int8(name: str, even: bool) -> None:
    """R- and O-Net keep their heads in float16; what the rest gives is INT8's."""
    images = pixels(name)
    exact = TorchNetwork(load_network(name))(images)
    int8, mixed = (run(name, model(name, p, even=even), images) for p in ("int8", "mixed"))
    for output, values in exact.items():
        between = np.abs(mixed[output] - int8[output]).mean()
        assert 0 < between < np.abs(int8[output] - values).mean(), output


def test_a_network_that_mixed_keeps_in_float_altogether_is_the_half_precision_one() -> None:
    assert {"conv1", "conv2", "conv3"} <= set(calibration("pnet").float_layers)
    assert model("pnet", "mixed", even=True) == model("pnet", "fp16")
    assert calibration("rnet").float_layers == ()
    assert model("rnet", "mixed") != model("rnet", "fp16")


@pytest.mark.parametrize("name", NETWORKS)
def test_the_types_are_those_of_the_precision(name: str) -> None:
    assert types(model(name, "fp32")).keys() == {"Conv", "PRelu"}
    assert set(types(model(name, "fp32"))["Conv"]) == {"FLOAT"}
    half = types(model(name, "fp16"))
    assert set(half["Conv"]) == set(half["PRelu"]) == {"FLOAT16"}
    for even in (False, True):
        int8 = types(model(name, "int8", even=even))
        assert set(int8["Conv"]) == {"FLOAT"}  # biases: TensorRT wants no INT32
        assert set(int8["QuantizeLinear"]) == {"FLOAT", "INT8"}
    if name != "pnet":
        heads = len(int8_weights(name).heads)
        mixed = types(model(name, "mixed"))
        assert mixed["Conv"]["FLOAT16"] == 2 * heads
        assert set(mixed["QuantizeLinear"]) == {"FLOAT", "INT8"}  # half has no scales so small


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "mixed"])
def test_bytes_go_into_a_cast_alone_and_heads_come_out_as_float(precision: str) -> None:
    """TensorRT takes uint8 nowhere else."""
    for name in NETWORKS:
        graph = onnx.load_from_string(model(name, precision, even=True)).graph
        assert [node.op_type for node in graph.node if "pixels" in node.input] == ["Cast"]
        for output in graph.output:
            assert output.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


@given(trained=networks(), data=st.data())
@FEW
def test_even_weights_change_no_network_whichever_layers_stay_in_float(
    trained: Trained, data: st.DataObject
) -> None:
    graph = relu_graph(trained)
    floating = data.draw(st.sets(st.sampled_from([conv.name for conv in graph.layers])))
    inputs = images(4, np.random.default_rng(1))
    scales = fine_scales(trained, inputs)
    plain, even = (
        OnnxNetwork(
            write_onnx(graph, inputs.shape[1:3], scales, float_layers=floating, even=e), "small"
        )(inputs)
        for e in (False, True)
    )
    for output, values in plain.items():  # a sum right between two integers may go either way
        largest = max(1.0, float(np.abs(values).max()))
        assert np.abs(even[output] - values).mean() < 0.005 * largest, output


@given(trained=networks())
@FEW
def test_half_precision_loses_little_of_any_network(trained: Trained) -> None:
    inputs = images(4, np.random.default_rng(1))
    written = write_onnx(rewrite(trained, {}, "prelu"), inputs.shape[1:3], half=True)
    assert_equal(OnnxNetwork(written, "small")(inputs), expected(trained, inputs), 0.02)


def fine_scales(trained: Trained, inputs: NDArray[np.uint8]) -> dict[str, float]:
    """Scales that hold what each layer gives of these inputs."""
    found = {}
    for index, layer in enumerate(trained.layers):
        part = replace(
            trained,
            layers=trained.layers[: index + 1],
            heads=(_look(layer.conv.name, len(layer.slopes)),),
        )
        largest = float(np.abs(expected(part, inputs)[layer.conv.name]).max())
        steep = float(max(1.0, np.abs(layer.slopes).max()))  # a part of a pair may be larger
        least = float(np.abs(layer.slopes)[layer.slopes != 0].min(initial=1.0))
        found[layer.conv.name] = max(largest, 1e-3) * max(steep, 1 / max(least, 0.05)) / 127
    return found


def _look(name: str, channels: int) -> Conv:
    weight = np.eye(channels, dtype=np.float32)[:, :, None, None]
    return Conv(name, weight, np.zeros(channels, np.float32))


def test_a_maximum_with_slopes_is_refused() -> None:
    trained = int8_weights("rnet")
    with pytest.raises(ValueError, match="TFLite's form"):
        write_onnx(rewrite(trained, {}, "maximum"), (24, 24), half=True)
