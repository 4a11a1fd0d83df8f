"""Write a graph as a TFLite engine: FP32, FP16, dynamic range, INT8, or a mixture by layer.

The file is put together with the schema classes that ship in ai-edge-litert, so that every node,
scale and weight is exactly what the graph and the calibration cache say (docs/engines.md says why
no converter stands in between). Tensors are NHWC; batches may have any size.

INT8 follows the TFLite quantization specification: weights symmetric per output channel, biases
int32 at (input scale * weight scale), activations one scale a tensor. Scales are the cache's.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from unface.calibration.graph import (
    Conv,
    Graph,
    HalvesMaximum,
    Maximum,
    MaxPool,
    Node,
    Prelu,
    in_columns,
)
from unface.calibration.scales import INPUT_SCALE, INPUT_ZERO_POINT, Scales, quantize_weight
from unface.mtcnn.network import FloatArray

Weights = Literal["float32", "float16", "int8"]
IDENTIFIER = b"TFL3"
SAME, VALID = schema.Padding.SAME, schema.Padding.VALID
RELU, NO_ACTIVATION = schema.ActivationFunctionType.RELU, schema.ActivationFunctionType.NONE


def write_tflite(
    graph: Graph,
    sides: tuple[int, int],
    *,
    weights: Weights = "float32",
    scales: Scales | None = None,
    float_layers: Collection[str] = (),
) -> bytes:
    """Return the engine of a graph for inputs of `sides` (height, width) pixels.

    Without `scales` activations are float32 and `weights` says how weights are kept: "int8" is
    dynamic range, quantizing activations as they come. With `scales` it is INT8 but for
    `float_layers`, named.
    """
    return _Writer(graph, sides, weights, scales, frozenset(float_layers)).write()


@dataclass(frozen=True)
class _Tensor:
    index: int
    shape: tuple[int, ...]  # of one image: height, width, channels
    scale: float | None  # None: float32


class _Writer:
    def __init__(
        self,
        graph: Graph,
        sides: tuple[int, int],
        weights: Weights,
        scales: Scales | None,
        float_layers: frozenset[str],
    ) -> None:
        self._graph, self._sides = graph, sides
        self._weights, self._scales, self._float_layers = weights, scales, float_layers
        self._subgraph = schema.SubGraphT()
        self._subgraph.tensors, self._subgraph.operators = [], []
        self._buffers = [schema.BufferT()]
        self._codes: dict[int, int] = {}
        self._packed = 1  # columns that lie side by side in the channels
        self._halves = 1  # of which so many are [x, a x] of one

    def write(self) -> bytes:
        height, width = self._sides
        graph = self._graph
        image = self._input(height, width)
        x = image
        for position, node in enumerate(graph.trunk):
            x = self._node(x, node, graph.trunk[position + 1 :], first=position == 0)
        heads = [self._conv(x, head) for head in graph.heads]
        self._subgraph.inputs = [image.index]
        self._subgraph.outputs = [head.index for head in heads]
        return self._finish()

    def _node(self, x: _Tensor, node: Node, rest: tuple[Node, ...], first: bool) -> _Tensor:
        if isinstance(node, Conv):
            halves = any(isinstance(n, HalvesMaximum) for n in rest[:2])
            self._halves = 2 if halves and not isinstance(rest[0], Conv) else 1
            if first and self._graph.columns > 1:
                return self._first(x, node)
            return self._conv(x, node)
        if isinstance(node, Prelu):
            return self._prelu(x, np.tile(node.slopes, self._packed))
        if isinstance(node, Maximum):
            return self._maximum(x, np.tile(node.slopes, self._packed))
        if isinstance(node, MaxPool):
            return self._pool(x, node.size, node.stride, node.ceil)
        return x if self._halves == 1 else self._pool(x, 1, 1, False)

    def _first(self, x: _Tensor, conv: Conv) -> _Tensor:
        columns = self._graph.columns
        height, width, channels = x.shape
        if width % columns or (conv.weight.shape[3] - 1) % columns:
            raise ValueError(f"{width} pixels do not come out in {columns} columns")
        packed = self._reshape(x, (height, width // columns, columns * channels))
        y = self._conv(packed, in_columns(conv, columns))
        self._packed = columns
        return y

    def _input(self, height: int, width: int) -> _Tensor:
        name, shape = "pixels", (height, width, 3)
        if self._scales is None:
            return self._tensor(name, shape, None)
        return self._tensor(name, shape, INPUT_SCALE, INPUT_ZERO_POINT)

    def _conv(self, x: _Tensor, conv: Conv) -> _Tensor:
        if self._packed > 1:
            raise ValueError("columns come apart in pooling; the first layer has none")
        outputs, _, height, width = conv.weight.shape
        shape = (x.shape[0] - height + 1, x.shape[1] - width + 1, outputs)
        weight = conv.weight.transpose(0, 2, 3, 1)
        x = self._in_precision_of(conv.name, x)
        options = schema.Conv2DOptionsT()
        options.padding, options.strideH, options.strideW = VALID, 1, 1
        options.dilationHFactor = options.dilationWFactor = 1
        options.fusedActivationFunction = RELU if conv.relu else NO_ACTIVATION
        constants = self._constants(conv.name, x, weight, conv.bias, axis=0)
        scale = None if x.scale is None else self._scale(conv.name)
        y = self._tensor(conv.name, shape, scale)
        kind = schema.BuiltinOptions.Conv2DOptions
        self._operator("CONV_2D", [x.index, *constants], y, kind, options, version=3)
        return y

    def _maximum(self, x: _Tensor, slopes: FloatArray) -> _Tensor:
        weight = slopes[None, None, None, :]
        name = self._name(x)
        options = schema.DepthwiseConv2DOptionsT()
        options.padding, options.strideH, options.strideW = VALID, 1, 1
        options.dilationHFactor = options.dilationWFactor = options.depthMultiplier = 1
        bias = np.zeros(len(slopes), np.float32)
        constants = self._constants(f"{name}/slopes", x, weight, bias, axis=3)
        scaled = self._tensor(f"{name}/scaled", x.shape, x.scale)
        kind = schema.BuiltinOptions.DepthwiseConv2DOptions
        self._operator("DEPTHWISE_CONV_2D", [x.index, *constants], scaled, kind, options, version=3)
        y = self._tensor(f"{name}/prelu", x.shape, x.scale)
        kind = schema.BuiltinOptions.MaximumMinimumOptions
        options = schema.MaximumMinimumOptionsT()
        self._operator("MAXIMUM", [x.index, scaled.index], y, kind, options, version=2)
        return y

    def _prelu(self, x: _Tensor, slopes: FloatArray) -> _Tensor:
        if x.scale is not None:
            raise ValueError("LiteRT has no fast integer PReLU: rewrite the layer first")
        name = self._name(x)
        constant = self._constant(f"{name}/slopes", slopes[None, None])
        y = self._tensor(f"{name}/prelu", x.shape, None)
        self._operator("PRELU", [x.index, constant], y)
        return y

    def _pool(self, x: _Tensor, size: int, stride: int, ceil: bool) -> _Tensor:
        """Pool, over the halves of a PReLU too; columns that lay side by side come apart."""
        wide, halves = self._packed * self._halves, self._halves
        if ceil and halves > 1:
            raise ValueError("TFLite would pad halves on both sides: use another form")
        if wide > 1:
            height, width, channels = x.shape
            x = self._reshape(x, (height, width * wide, channels // wide))
        self._packed = self._halves = 1
        if (size, halves) == (1, 1):
            return x
        height, width, channels = x.shape
        if ceil and max(_padding(height, size, stride), _padding(width, size, stride)) > 1:
            raise ValueError(f"TFLite would pad {height} x {width} on both sides: use another size")
        options = schema.Pool2DOptionsT()
        options.padding = SAME if ceil else VALID
        options.filterHeight, options.filterWidth = size, size * halves
        options.strideH, options.strideW = stride, stride * halves
        options.fusedActivationFunction = NO_ACTIVATION
        shape = (_pooled(height, size, stride, ceil), _pooled(width // halves, size, stride, ceil))
        y = self._tensor(f"{self._name(x)}/pool", (*shape, channels), x.scale)
        kind = schema.BuiltinOptions.Pool2DOptions
        self._operator("MAX_POOL_2D", [x.index], y, kind, options, version=2)
        return y

    def _reshape(self, x: _Tensor, shape: tuple[int, int, int]) -> _Tensor:
        zero_point = INPUT_ZERO_POINT if x.index == 0 else 0
        y = self._tensor(f"{self._name(x)}/reshape", shape, x.scale, zero_point)
        wanted = np.array([-1, *shape], np.int32)
        constant = self._constant(f"{self._name(x)}/shape", wanted)
        options = schema.ReshapeOptionsT()
        options.newShape = [-1, *shape]
        kind = schema.BuiltinOptions.ReshapeOptions
        self._operator("RESHAPE", [x.index, constant], y, kind, options)
        return y

    def _in_precision_of(self, layer: str, x: _Tensor) -> _Tensor:
        """Return `x`, quantized or not as the layer wants it."""
        wants_float = self._scales is None or layer in self._float_layers
        if wants_float == (x.scale is None):
            return x
        if wants_float:
            y = self._tensor(f"{self._name(x)}/float", x.shape, None)
            self._operator("DEQUANTIZE", [x.index], y, version=2)
        else:
            y = self._tensor(f"{self._name(x)}/int8", x.shape, self._scale(self._layer(x)))
            self._operator("QUANTIZE", [x.index], y, version=2)
        return y

    def _scale(self, layer: str) -> float:
        assert self._scales is not None  # noqa: S101 - for the type checker
        return self._scales[layer]

    def _constants(
        self, name: str, x: _Tensor, weight: FloatArray, bias: FloatArray, axis: int
    ) -> tuple[int, int]:
        """Return the tensors of weight and bias as the precision has them."""
        if x.scale is not None:
            values, scale = quantize_weight(weight, axis)
            both = scale * np.float32(x.scale)
            return (
                self._constant(f"{name}/weight", values, scale, axis),
                self._constant(f"{name}/bias", np.rint(bias / both).astype(np.int32), both, 0),
            )
        bias_tensor = self._constant(f"{name}/bias", bias)
        if self._weights == "int8" and axis == 0:
            values, scale = quantize_weight(weight, axis)
            return self._constant(f"{name}/weight", values, scale, axis), bias_tensor
        if self._weights == "float16" and axis == 0:
            half = self._constant(f"{name}/half", weight.astype(np.float16))
            full = _Tensor(
                self._add(f"{name}/weight", weight.shape, schema.TensorType.FLOAT32), (), None
            )
            self._operator("DEQUANTIZE", [half], full, version=3)
            return full.index, bias_tensor
        return self._constant(f"{name}/weight", weight), bias_tensor

    def _tensor(
        self, name: str, shape: tuple[int, ...], scale: float | None, zero_point: int = 0
    ) -> _Tensor:
        kinds = schema.TensorType
        kind = kinds.FLOAT32 if scale is None else kinds.INT8
        index = self._add(name, (1, *shape), kind)
        if scale is not None:
            self._quantization(index, np.array([scale], np.float32), 0, zero_point)
        self._subgraph.tensors[index].shapeSignature = [-1, *shape]
        return _Tensor(index, shape, scale)

    def _constant(
        self, name: str, values: np.ndarray, scale: FloatArray | None = None, axis: int = 0
    ) -> int:
        kinds = {"float32": "FLOAT32", "float16": "FLOAT16", "int8": "INT8", "int32": "INT32"}
        kind = getattr(schema.TensorType, kinds[str(values.dtype)])
        index = self._add(name, values.shape, kind)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self._subgraph.tensors[index].buffer = len(self._buffers)
        self._buffers.append(buffer)
        if scale is not None:
            self._quantization(index, scale, axis)
        return index

    def _quantization(self, index: int, scale: FloatArray, axis: int, zero_point: int = 0) -> None:
        parameters = schema.QuantizationParametersT()
        parameters.scale = scale.astype(np.float32)
        parameters.zeroPoint = np.full(len(scale), zero_point, np.int64)
        parameters.quantizedDimension = axis
        self._subgraph.tensors[index].quantization = parameters

    def _add(self, name: str, shape: tuple[int, ...], kind: int) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name.encode(), list(shape), kind, 0
        self._subgraph.tensors.append(tensor)
        return len(self._subgraph.tensors) - 1

    def _name(self, x: _Tensor) -> str:
        return str(self._subgraph.tensors[x.index].name.decode())

    def _layer(self, x: _Tensor) -> str:
        return self._name(x).split("/")[0]

    def _operator(
        self,
        code: str,
        inputs: list[int],
        output: _Tensor,
        kind: int = 0,
        options: Any = None,
        version: int = 1,
    ) -> None:
        operator = schema.OperatorT()
        builtin = getattr(schema.BuiltinOperator, code)
        key = builtin * 100 + version
        operator.opcodeIndex = self._codes.setdefault(key, len(self._codes))
        operator.inputs, operator.outputs = inputs, [output.index]
        operator.builtinOptionsType, operator.builtinOptions = kind, options
        self._subgraph.operators.append(operator)

    def _finish(self) -> bytes:
        model = schema.ModelT()
        model.version, model.subgraphs, model.buffers = 3, [self._subgraph], self._buffers
        model.description = f"unface {self._graph.network}".encode()
        model.operatorCodes = []
        for key in self._codes:
            code = schema.OperatorCodeT()
            code.builtinCode, code.version = key // 100, key % 100
            code.deprecatedBuiltinCode = min(code.builtinCode, 127)
            model.operatorCodes.append(code)
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), IDENTIFIER)
        return bytes(builder.Output())


def _pooled(length: int, size: int, stride: int, ceil: bool) -> int:
    return -(-(length - size) // stride) + 1 if ceil else (length - size) // stride + 1


def _padding(length: int, size: int, stride: int) -> int:
    """Return what TFLite's SAME adds to a side; the larger half of it goes behind."""
    return (-(-length // stride) - 1) * stride + size - length
