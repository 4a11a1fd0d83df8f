"""From a trained network to one that engines run fast: the same function in other nodes.

Every form of PReLU here is exact (a test holds each to the PyTorch network):

- "prelu": a node of its own. Fastest in float; no runtime has a fast integer kernel for it.
- "maximum": `max(x, a x)`, as a convolution of one weight a channel and a maximum. For a <= 1.
- "halves": the convolution gives `[x, a x]`, and the maximum of the halves is the PReLU. A maximum
  commutes with max-pooling whatever the sign of `a`, so both become one pooling. For a <= 1.
- "pair": the convolution gives `[relu(x), relu(-x)]`, and the next layer takes `[V, -a V]`:
  nothing but convolution and ReLU. Not before pooling, where slopes may be negative.

A slope above 1 is first split: `prelu(x) = a x + (1 - a) relu(x)`, two channels with the slopes 1
and 0, and the next layer takes `[a V, (1 - a) V]`. As a > 0, that holds through pooling too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from unface.calibration.graph import (
    Conv,
    Graph,
    HalvesMaximum,
    Maximum,
    MaxPool,
    Node,
    Prelu,
)
from unface.engines.native import LAYERS
from unface.engines.tflite import BOX_GAIN, MERGED_HEADS
from unface.mtcnn.network import FloatArray

Form = Literal["prelu", "maximum", "halves", "pair"]

# Measured, fastest first choice of each runtime: docs/engines.md, `python -m benchmarks.forms`.
FLOAT_COLUMNS = {"pnet": 2, "rnet": 2, "onet": 1}
INT8_COLUMNS = {"pnet": 2, "rnet": 2, "onet": 2}
# P-Net's heads are one tensor. Those of the others take no time: in INT8 engines they stay in
# float, so that scores keep their order, which decides what suppression keeps.
MERGED_HEADS_OF = ("pnet",)
INT8_FORMS: dict[str, dict[str, Form]] = {  # "maximum" where none is named
    "pnet": {"conv1": "halves"},
    "rnet": {},
    "onet": {},
}


@dataclass(frozen=True)
class Layer:
    """A trained layer: convolution, PReLU with `slopes` `[C]`, and pooling where there is one."""

    conv: Conv
    slopes: FloatArray
    pool: MaxPool | None


@dataclass(frozen=True)
class Trained:
    """A trained network: hidden layers, then heads that all take the last one's output."""

    network: str
    layers: tuple[Layer, ...]
    heads: tuple[Conv, ...]

    @property
    def convs(self) -> tuple[Conv, ...]:
        """All convolutions, in order, the heads last."""
        return (*(layer.conv for layer in self.layers), *self.heads)


POOLS = {
    network: {name: MaxPool(p.size, p.stride, p.ceil) for name, _, p in layers if p.size}
    for network, layers in LAYERS.items()
}


def read_trained(network: str) -> Trained:
    """Return "pnet", "rnet" or "onet" as `unface.mtcnn.networks` defines and loads it."""
    from unface.mtcnn.networks import load_network

    module = load_network(network)
    tensors = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    convs = [
        Conv(name.removesuffix(".weight"), tensor, tensors[name.replace("weight", "bias")])
        for name, tensor in tensors.items()
        if tensor.ndim == 4
    ]
    heads = [
        replace(c, name=o)
        for c, o in zip(convs[-len(module.outputs) :], module.outputs, strict=True)
    ]
    slopes = [tensor for name, tensor in tensors.items() if name.startswith("prelu")]
    layers = [
        Layer(conv, a, POOLS[network].get(conv.name))
        for conv, a in zip(convs[: len(slopes)], slopes, strict=True)
    ]
    return Trained(network, tuple(layers), tuple(heads))


def rewrite(trained: Trained, forms: Mapping[str, Form], default: Form, columns: int = 1) -> Graph:
    """Return the graph of a trained network, each layer in the form named for it, or `default`."""
    layers, heads = list(trained.layers), list(trained.heads)
    nodes: list[Node] = []
    for index, layer in enumerate(layers):
        form = forms.get(layer.conv.name, default)
        if form != "prelu":
            layer, mix = split_steep(layer)
            _mix(layers, heads, index, mix)
        if form == "pair":
            layer, mix = relu_pair(layer)
            _mix(layers, heads, index, mix)
        nodes += _nodes(layer, form)
    return Graph(trained.network, tuple(nodes), tuple(heads), columns)


def relu_graph(trained: Trained) -> Graph:
    """Return the graph of nothing but Conv and ReLU, for Q/DQ: pairs, halves where it is pooled."""
    pooled: dict[str, Form] = {la.conv.name: "halves" for la in trained.layers if la.pool}
    return rewrite(trained, pooled, "pair")


def merge_heads(graph: Graph) -> Graph:
    """Return a graph whose logit and box are one head; see `unface.engines.tflite`."""
    logit, box = graph.heads
    weight = np.concatenate([logit.weight, box.weight * BOX_GAIN])
    bias = np.concatenate([logit.bias, box.bias * BOX_GAIN])
    return replace(graph, heads=(Conv(MERGED_HEADS, weight, bias),))


def equalize(trained: Trained, limits: Mapping[str, FloatArray]) -> Trained:
    """Return the same network with the channels of each layer closer to one magnitude.

    PReLU and pooling commute with a positive factor, so a channel may be multiplied by one that
    the next layer divides by; one scale for all channels then wastes less of the small ones
    (cross-layer equalization; Nagel et al., "Data-Free Quantization", 2019). `limits` are the
    magnitudes by layer, `[C]`. The factor is the root of what would make them equal: all the way,
    the next layer's weights would become as uneven.
    """
    layers, heads = list(trained.layers), list(trained.heads)
    for index, layer in enumerate(layers):
        limit = limits[layer.conv.name].astype(np.float64)
        limit = np.maximum(limit, max(limit.max() * 1e-3, 1e-30))  # a channel may give nothing
        factor = np.sqrt(limit.max() / limit)
        factor = (factor / np.exp(np.log(factor).mean())).astype(np.float32)
        conv = layers[index].conv
        weight, bias = conv.weight * factor[:, None, None, None], conv.bias * factor
        layers[index] = replace(layers[index], conv=replace(conv, weight=weight, bias=bias))
        _mix(layers, heads, index, np.diag(1 / factor))
    return replace(trained, layers=tuple(layers), heads=tuple(heads))


def split_steep(layer: Layer) -> tuple[Layer, FloatArray]:
    """Return a layer without slopes above 1, and how old channels come of new ones `[old, new]`."""
    steep = np.flatnonzero(layer.slopes > 1)
    conv, a = layer.conv, layer.slopes
    slopes = np.concatenate([np.minimum(a, 1), np.zeros(len(steep), np.float32)])
    mix = np.concatenate([np.eye(len(a)), np.zeros((len(a), len(steep)))], axis=1)
    mix[steep, steep] = a[steep]
    mix[steep, len(a) + np.arange(len(steep))] = 1 - a[steep]
    weight = np.concatenate([conv.weight, conv.weight[steep]])
    bias = np.concatenate([conv.bias, conv.bias[steep]])
    return replace(layer, conv=replace(conv, weight=weight, bias=bias), slopes=slopes), mix


def relu_pair(layer: Layer) -> tuple[Layer, FloatArray]:
    """Return the layer as `[relu(x), relu(-x)]` and how the channels come of them `[C, 2C]`."""
    if layer.pool is not None:
        raise ValueError(f"{layer.conv.name} is pooled: relu(x) and relu(-x) would be pooled apart")
    conv, a = layer.conv, layer.slopes
    weight, bias = (
        np.concatenate([conv.weight, -conv.weight]),
        np.concatenate([conv.bias, -conv.bias]),
    )
    paired = replace(conv, weight=weight, bias=bias, relu=True)
    return replace(layer, conv=paired), np.concatenate([np.eye(len(a)), -np.diag(a)], axis=1)


def _nodes(layer: Layer, form: Form) -> list[Node]:
    conv, a = layer.conv, layer.slopes
    pool: list[Node] = [layer.pool] if layer.pool else []
    if form == "prelu":
        return [conv, Prelu(a), *pool]
    if form == "maximum":
        return [conv, Maximum(a), *pool]
    if form == "pair":
        return [conv]
    scaled = conv.weight * a[:, None, None, None], conv.bias * a
    both = replace(
        conv,
        weight=np.concatenate([conv.weight, scaled[0]]),
        bias=np.concatenate([conv.bias, scaled[1]]),
    )
    return [both, *pool, HalvesMaximum()]


def _mix(layers: list[Layer], heads: list[Conv], index: int, mix: FloatArray) -> None:
    """Let what follows layer `index` take other channels: its weights times `mix` `[old, new]`."""

    def mixed(conv: Conv) -> Conv:
        weight = np.einsum("oihw,in->onhw", conv.weight.astype(np.float64), mix)
        return replace(conv, weight=weight.astype(np.float32))

    if index + 1 < len(layers):
        layers[index + 1] = replace(layers[index + 1], conv=mixed(layers[index + 1].conv))
    else:
        heads[:] = [mixed(head) for head in heads]
