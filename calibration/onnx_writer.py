"""Write a graph as ONNX: float32, or Q/DQ with the scales of the calibration cache.

For TensorRT and ONNX Runtime: quantization is explicit (Q/DQ nodes), symmetric, weights per output
channel, biases float32, as TensorRT's documentation asks ("Working with Quantized Types"). Input
is `pixels`, uint8 `[N, H, W, 3]`; outputs are named as the heads, `[N, h, w, channels]`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from unface.calibration.graph import Conv, Graph, HalvesMaximum, MaxPool, Prelu
from unface.calibration.scales import INPUT_SCALE, INPUT_ZERO_POINT, Scales, quantize_weight

OPSET = 17
IR_VERSION = 8  # of that opset: older runtimes read it too


def write_onnx(graph: Graph, sides: tuple[int, int], scales: Scales | None = None) -> bytes:
    """Return the ONNX model of a graph for any batch of `sides` (height, width) pixels.

    With `scales` what every convolution takes is quantized; what the heads give stays float32.
    """
    return _Writer(graph, scales).write(*sides)


class _Writer:
    def __init__(self, graph: Graph, scales: Scales | None) -> None:
        self._graph, self._scales = graph, scales
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def write(self, height: int, width: int) -> bytes:
        graph = self._graph
        x, source = self._input(), "pixels"
        for node in graph.trunk:
            if isinstance(node, Conv):
                x, source = self._conv(self._quantized(x, source), node, source), node.name
            elif isinstance(node, Prelu):
                slopes = self._constant(f"{source}/slopes", node.slopes[:, None, None])
                x = self._node("PRelu", [x, slopes], f"{source}/prelu")
            elif isinstance(node, MaxPool):
                x = self._pool(x, node, source)
            elif isinstance(node, HalvesMaximum):
                x = self._halves(x, source)
            else:
                raise ValueError("a maximum with slopes is TFLite's form: use halves or pairs")
        x = self._quantized(x, source)
        for head in graph.heads:
            y = self._conv(x, head, source)
            self._node("Transpose", [y], head.name, named=True, perm=[0, 2, 3, 1])
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

    def _input(self) -> str:
        x = self._node("Transpose", ["pixels"], "input/channels_first", perm=[0, 3, 1, 2])
        x = self._node("Cast", [x], "input/float", to=TensorProto.FLOAT)
        if self._scales is None:
            return x
        # Symmetric int8 without loss: 0-255 less 128 (the first convolution's bias makes up).
        middle = self._constant("input/middle", np.float32(-INPUT_ZERO_POINT))
        return self._node("Sub", [x, middle], "input/centred")

    def _conv(self, x: str, conv: Conv, source: str) -> str:
        bias = conv.bias
        if self._scales is not None and source == "pixels":
            used = self._restored(conv)
            bias = bias - INPUT_ZERO_POINT * used.sum((1, 2, 3)).astype(np.float32)
        inputs = [x, self._weight(conv), self._constant(f"{conv.name}/bias", bias)]
        x = self._node("Conv", inputs, f"{conv.name}/conv", kernel_shape=conv.weight.shape[2:])
        return self._node("Relu", [x], f"{conv.name}/relu") if conv.relu else x

    def _restored(self, conv: Conv) -> np.ndarray:
        values, scale = quantize_weight(conv.weight, 0)
        return values.astype(np.float32) * scale[:, None, None, None]

    def _weight(self, conv: Conv) -> str:
        if self._scales is None:
            return self._constant(f"{conv.name}/weight", conv.weight)
        values, scale = quantize_weight(conv.weight, 0)
        inputs = [
            self._constant(f"{conv.name}/weight_int8", values),
            self._constant(f"{conv.name}/weight_scale", scale),
            self._constant(f"{conv.name}/weight_zero", np.zeros(len(scale), np.int8)),
        ]
        return self._node("DequantizeLinear", inputs, f"{conv.name}/weight", axis=0)

    def _quantized(self, x: str, layer: str) -> str:
        if self._scales is None:
            return x
        scale = INPUT_SCALE if layer == "pixels" else self._scales[layer]
        with_scale = [
            self._constant(f"{layer}/scale", np.float32(scale)),
            self._constant(f"{layer}/zero", np.int8(0)),
        ]
        x = self._node("QuantizeLinear", [x, *with_scale], f"{layer}/int8")
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

    def _halves(self, x: str, source: str) -> str:
        halves = [f"{source}/half{index}" for index in range(2)]
        self._nodes.append(helper.make_node("Split", [x], halves, name=f"{source}/split", axis=1))
        return self._node("Max", halves, f"{source}/prelu")

    def _node(
        self, kind: str, inputs: list[str], name: str, *, named: bool = False, **attributes: Any
    ) -> str:
        output = name if named else f"{name}/output"
        self._nodes.append(helper.make_node(kind, inputs, [output], name=name, **attributes))
        return output

    def _constant(self, name: str, values: np.ndarray | np.generic) -> str:
        self._constants[name] = numpy_helper.from_array(np.asarray(values), name)
        return name
