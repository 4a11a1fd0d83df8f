"""Small networks of every shape the writers know, and engines and PyTorch to run them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.nn.functional import conv2d, max_pool2d, prelu

from unface.calibration.graph import Conv, Graph, MaxPool
from unface.calibration.onnx_network import OnnxNetwork
from unface.calibration.onnx_writer import write_onnx
from unface.calibration.rewrite import Layer, Trained
from unface.calibration.tflite_writer import write_tflite
from unface.engines.tflite import TfliteNetwork

SIDE = 20
POOLS = (None, MaxPool(2, 2), MaxPool(3, 2), MaxPool(3, 2, ceil=True))
SLOPES = (-3.0, -1.0, -0.2, 0.0, 0.25, 1.0, 1.0000001, 1.7, 40.0)
Outputs = dict[str, NDArray[np.float32]]


def conv(name: str, rng: np.random.Generator, shape: tuple[int, int, int, int]) -> Conv:
    """Return a convolution of random weights that keeps magnitudes."""
    weight = rng.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32)
    return Conv(name, weight, rng.normal(0, 0.3, shape[0]).astype(np.float32))


def small(
    rng: np.random.Generator, slopes: list[list[float]], pools: list[MaxPool | None]
) -> Trained:
    """Return a random network with a layer for each list of slopes, taking `SIDE` pixels."""
    layers: list[Layer] = []
    channels, kernel = 3, 3
    for index, (own, pool) in enumerate(zip(slopes, pools, strict=True)):
        node = conv(f"conv{index + 1}", rng, (len(own), channels, kernel, kernel))
        if index == 0:  # pixels reach 255
            node = replace(node, weight=node.weight / 64)
        layers.append(Layer(node, np.array(own, np.float32), pool))
        channels, kernel = len(own), 2
    heads = (conv("logit", rng, (1, channels, 1, 1)), conv("box", rng, (4, channels, 1, 1)))
    return Trained("small", tuple(layers), heads)


@st.composite
def networks(draw: st.DrawFn) -> Trained:
    """Draw a network of up to three layers: any slopes, only the first one pooled with `ceil`."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    one = st.sampled_from(SLOPES) | st.floats(-4, 4, width=32)
    slopes = draw(st.lists(st.lists(one, min_size=1, max_size=4), min_size=1, max_size=3))
    first = draw(st.sampled_from(POOLS))
    later = [draw(st.sampled_from(POOLS[:2])) for _ in slopes[1:]]
    return small(rng, slopes, [first, *later])


def images(count: int, rng: np.random.Generator, side: int = SIDE) -> NDArray[np.uint8]:
    """Return noise, with the extremes in it."""
    pixels = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    pixels[0], pixels[-1] = 0, 255
    return pixels


def expected(trained: Trained, pixels: NDArray[np.uint8]) -> Outputs:
    """Return what PyTorch computes, in float64: `[N, h, w, C]` by head."""
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).double()
    for layer in trained.layers:
        x = _conv(layer.conv, x)
        x = prelu(x, torch.from_numpy(layer.slopes).double())
        if layer.pool:
            x = max_pool2d(x, layer.pool.size, layer.pool.stride, ceil_mode=layer.pool.ceil)
    return {head.name: _conv(head, x).movedim(1, -1).numpy() for head in trained.heads}


def _conv(node: Conv, x: torch.Tensor) -> torch.Tensor:
    weight, bias = (torch.from_numpy(values).double() for values in (node.weight, node.bias))
    return conv2d(x, weight, bias)


def in_tflite(graph: Graph, pixels: NDArray[np.uint8]) -> Outputs:
    """Return what LiteRT computes of a graph in float32."""
    model = write_tflite(graph, (pixels.shape[1], pixels.shape[2]))
    return TfliteNetwork(model, graph.network, (len(pixels),), 1)(pixels)


def in_onnx(graph: Graph, pixels: NDArray[np.uint8]) -> Outputs:
    """Return what ONNX Runtime computes of a graph in float32."""
    model = write_onnx(graph, (pixels.shape[1], pixels.shape[2]))
    return OnnxNetwork(model, graph.network)(pixels)


def assert_equal(given: Outputs, wanted: Outputs, tolerance: float) -> None:
    """Hold outputs to what is wanted, relative to the largest of each where that is above 1."""
    assert given.keys() == wanted.keys()
    for name, values in wanted.items():
        largest = max(1.0, float(np.abs(values).max()))
        np.testing.assert_allclose(
            given[name].reshape(values.shape), values, rtol=0, atol=tolerance * largest
        )


def operators(model: bytes) -> list[str]:
    """Return the operators of a TFLite engine by name, in order."""
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if name[0] != "_"}
    parsed = parse(model)
    codes = [names[code.builtinCode] for code in parsed.operatorCodes]
    return [codes[operator.opcodeIndex] for operator in parsed.subgraphs[0].operators]


def parse(model: bytes) -> schema.ModelT:
    """Return a TFLite engine as the objects of its schema."""
    return schema.ModelT.InitFromPackedBuf(model, 0)
