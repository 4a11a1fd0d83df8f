"""Write a graph as ONNX: float32 or float16, or Q/DQ with the scales of the calibration cache.

For TensorRT and ONNX Runtime: the graph says every type (TensorRT calls that strongly typed), and
quantization is explicit (Q/DQ nodes), symmetric, weights per output channel, biases in float, as
TensorRT's documentation asks ("Working with Quantized Types"). Input is `pixels`, uint8
`[N, H, W, 3]`; outputs are named as the heads, float32 `[N, h, w, channels]`.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from unface.calibration.graph import Conv, Graph, HalvesMaximum, MaxPool, Prelu
from unface.calibration.scales import INPUT_SCALE, INPUT_ZERO_POINT, Scales, quantize_weight

OPSET = 17
IR_VERSION = 8  # of that opset: older runtimes read it too
MIDDLE = -INPUT_ZERO_POINT  # less 128, pixels are int8 without loss, and sums small in float16
FLOAT, HALF = np.dtype(np.float32), np.dtype(np.float16)


def write_onnx(
    graph: Graph,
    sides: tuple[int, int],
    scales: Scales | None = None,
    *,
    half: bool = False,
    float_layers: Set[str] = frozenset(),
    even: bool = False,
) -> bytes:
    """Return the ONNX model of a graph for any batch of `sides` (height, width) pixels.

    With `scales` what every convolution takes is quantized, but for those of `float_layers`; what
    the heads give stays float. `half`: convolutions that are not quantized are float16, with what
    they give. `even`: the weights of a convolution with ReLU get one scale; what a channel's own
    scale is beside it, positive, moves behind the ReLU into the scales by channel of the
    quantization there. The same integers and the same result; TensorRT for RTX takes ReLU into an
    INT8 convolution only so (TensorRT itself has no scales by channel for activations).
    """
    return _Writer(graph, scales, half, float_layers, even).write(*sides)


class _Writer:
    def __init__(
        self, graph: Graph, scales: Scales | None, half: bool, float_layers: Set[str], even: bool
    ) -> None:
        self._graph, self._scales, self._even = graph, scales or {}, even
        names = {conv.name for conv in graph.layers}
        self._quantized = names - float_layers if scales is not None else set()
        self._half = names - self._quantized if half else set()
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._gains: dict[str, np.ndarray] = {}  # by even layer: what its channels lack, [C]
        self._made: set[str] = set()

    def write(self, height: int, width: int) -> bytes:
        graph = self._graph
        x, source = self._input(), "pixels"
        for node in graph.trunk:
            if isinstance(node, Conv):
                x, source = self._conv(self._taken(x, source, node), node, source), node.name
            elif isinstance(node, Prelu):
                x = self._prelu(x, node, source)
            elif isinstance(node, MaxPool):
                x = self._pool(x, node, source)
            elif isinstance(node, HalvesMaximum):
                x = self._halves(x, source)
            else:
                raise ValueError("a maximum with slopes is TFLite's form: use halves or pairs")
        for head in graph.heads:
            y = self._conv(self._taken(x, source, head), head, source)
            if self._type(head.name) == HALF:
                y = self._cast(y, FLOAT, f"{head.name}/float")
            self._node("Transpose", [y], head.name, named=True, perm=[0, 2, 3, 1])
        return self._model(height, width)

    def _model(self, height: int, width: int) -> bytes:
        graph = self._graph
        pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", height, width, 3])
        outputs = [
            helper.make_tensor_value_info(
                head.name,
                TensorProto.FLOAT,
                ["N", f"{head.name}_h", f"{head.name}_w", head.outputs],
            )
            for head in graph.heads
        ]
        model = helper.make_model(
            helper.make_graph(
                self._nodes, graph.network, [pixels], outputs, list(self._constants.values())
            ),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="unface",
        )
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString(deterministic=True))

    def _type(self, layer: str) -> np.dtype[Any]:
        """Return the type of what a layer gives; of the pixels: what the first one takes."""
        name = self._graph.layers[0].name if layer == "pixels" else layer
        return HALF if name in self._half else FLOAT

    @property
    def _is_centred(self) -> bool:
        first = self._graph.layers[0].name
        return first in self._quantized or first in self._half

    def _input(self) -> str:
        # The cast comes first: TensorRT takes uint8 into nothing else.
        x = self._cast("pixels", self._type("pixels"), "input/float")
        x = self._node("Transpose", [x], "input/channels_first", perm=[0, 3, 1, 2])
        if not self._is_centred:
            return x
        middle = self._constant("input/middle", np.asarray(MIDDLE, self._type("pixels")))
        return self._node("Sub", [x, middle], "input/centred")  # the first bias makes up for it

    def _conv(self, x: str, conv: Conv, source: str) -> str:
        bias = conv.bias
        if self._is_centred and source == "pixels":
            used = self._restored(conv) if conv.name in self._quantized else conv.weight
            bias = bias + MIDDLE * used.sum((1, 2, 3)).astype(np.float32)
        weight = self._weight(conv, source)
        bias = (bias / self._gains.get(conv.name, np.float32(1))).astype(self._type(conv.name))
        inputs = [x, weight, self._constant(f"{conv.name}/bias", bias)]
        x = self._node("Conv", inputs, f"{conv.name}/conv", kernel_shape=conv.weight.shape[2:])
        return self._node("Relu", [x], f"{conv.name}/relu") if conv.relu else x

    def _restored(self, conv: Conv) -> np.ndarray:
        values, scale = quantize_weight(conv.weight, 0)
        return values.astype(np.float32) * scale[:, None, None, None]

    def _weight(self, conv: Conv, source: str) -> str:
        if conv.name not in self._quantized:
            gains = self._gains.get(source, np.ones(1, np.float32))[:, None, None]
            weight = (conv.weight * gains).astype(self._type(conv.name))
            return self._constant(f"{conv.name}/weight", weight)
        values, scale = quantize_weight(conv.weight, 0)
        axis: dict[str, Any] = {"axis": 0}
        if self._even and conv.relu:
            one = np.asarray(np.median(scale))
            self._gains[conv.name] = scale / one
            scale, axis = one, {}
        inputs = [
            self._constant(f"{conv.name}/weight_int8", values),
            self._constant(f"{conv.name}/weight_scale", scale),
            self._constant(f"{conv.name}/weight_zero", np.zeros(scale.shape, np.int8)),
        ]
        return self._node("DequantizeLinear", inputs, f"{conv.name}/weight", **axis)

    def _taken(self, x: str, layer: str, conv: Conv) -> str:
        """Return what a convolution takes of a layer that gives `x`: quantized, or in its type."""
        wanted = self._type(conv.name)
        if wanted != self._type(layer):
            x = self._cast(x, wanted, f"{layer}/{wanted}")
        return self._restored_int8(x, layer) if conv.name in self._quantized else x

    def _restored_int8(self, x: str, layer: str) -> str:
        scale = np.float32(INPUT_SCALE if layer == "pixels" else self._scales[layer])
        with_scale = [
            self._constant(f"{layer}/scale", scale),
            self._constant(f"{layer}/zero", np.int8(0)),
        ]
        quantize, axis = with_scale, dict[str, Any]()
        if layer in self._gains:
            gains = self._gains[layer]
            quantize = [
                self._constant(f"{layer}/scale_by_channel", scale / gains),
                self._constant(f"{layer}/zero_by_channel", np.zeros(len(gains), np.int8)),
            ]
            axis = {"axis": 1}
        x = self._node("QuantizeLinear", [x, *quantize], f"{layer}/int8", **axis)
        return self._node("DequantizeLinear", [x, *with_scale], f"{layer}/restored")

    def _pool(self, x: str, pool: MaxPool, source: str) -> str:
        return self._node(
            "MaxPool",
            [x],
            f"{source}/pool",
            kernel_shape=[pool.size] * 2,
            strides=[pool.stride] * 2,
            ceil_mode=int(pool.ceil),
        )

    def _prelu(self, x: str, prelu: Prelu, source: str) -> str:
        slopes = prelu.slopes[:, None, None].astype(self._type(source))
        return self._node(
            "PRelu", [x, self._constant(f"{source}/slopes", slopes)], f"{source}/prelu"
        )

    def _halves(self, x: str, source: str) -> str:
        halves = [f"{source}/half{index}" for index in range(2)]
        self._nodes.append(helper.make_node("Split", [x], halves, name=f"{source}/split", axis=1))
        return self._node("Max", halves, f"{source}/prelu")

    def _node(
        self, kind: str, inputs: list[str], name: str, *, named: bool = False, **attributes: Any
    ) -> str:
        output = name if named else f"{name}/output"
        if output not in self._made:  # several heads take the same
            self._made.add(output)
            self._nodes.append(helper.make_node(kind, inputs, [output], name=name, **attributes))
        return output

    def _cast(self, x: str, to: np.dtype[Any], name: str) -> str:
        return self._node("Cast", [x], name, to=helper.np_dtype_to_tensor_dtype(to))

    def _constant(self, name: str, values: np.ndarray | np.generic) -> str:
        self._constants[name] = numpy_helper.from_array(np.asarray(values), name)
        return name
