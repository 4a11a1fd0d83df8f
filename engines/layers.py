"""What TensorRT fused: the layers of a plan, as the engine inspector or the builder's log tell."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

CONVOLUTION, POOLING, QUANTIZE = "convolution", "pooling", "quantize"
DEQUANTIZE, REFORMAT, OTHER = "dequantize", "REFORMAT", "elementwise"

# By TensorRT's names of layers. "correlation" is the compiler's (Myelin), the rest the library's.
_KINDS = {
    "correlation": CONVOLUTION,
    "conv": CONVOLUTION,
    "gemm": CONVOLUTION,  # over 1 x 1 it is the same
    "CaskConvolution": CONVOLUTION,
    "CaskGemmConvolution": CONVOLUTION,
    "CaskJitConv": CONVOLUTION,
    "CaskFlattenConvolution": CONVOLUTION,
    "Convolution": CONVOLUTION,
    "maxpool": POOLING,
    "CaskPooling": POOLING,
    "TiledPooling": POOLING,
    "Pooling": POOLING,
    "Reformat": REFORMAT,
    "Shuffle": REFORMAT,
    "copy": REFORMAT,
}
_NO_WORK = {"shape_call", "signal", "wait", "NoOp", "Constant", "Signal", "Wait"}
# What a generated kernel is made of, by the syllables of its name: moving and converting alone.
_MOVES = {"Cast", "Tran", "Resh", "Move", "Copy", "Slic", "Conc", "Repl"}
_DTYPES = {
    "Float": "FP32",
    "FP32": "FP32",
    "Half": "FP16",
    "FP16": "FP16",
    "Int8": "INT8",
    "UInt8": "UINT8",
    "Int32": "INT32",
    "INT32": "INT32",
    "BFloat16": "BF16",
}


@dataclass(frozen=True)
class Tensor:
    """What a layer reads or writes: name, type ("INT8"), shape (-1: any), layout ("NHWC")."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    layout: str


@dataclass(frozen=True)
class Layer:
    """One kernel of a plan: TensorRT's name and type for it, the ONNX nodes that went into it."""

    name: str
    type: str
    nodes: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def steps(self) -> tuple[str, ...]:
        """What a generated kernel does one after the other: "Mul", "Add", "Relu", "Roun"."""
        found = re.match(r"__myl_([A-Za-z]+)_myl", self.name)
        return tuple(re.findall("[A-Z][a-z]+", found[1])) if found else ()

    @property
    def kind(self) -> str:
        """What it is for a reader: "convolution", "quantize", "REFORMAT" and so on."""
        kind = _KINDS.get(self.type)
        if kind is not None:
            return kind
        if self.steps and set(self.steps) <= _MOVES:
            return REFORMAT
        takes, gives = (any(t.dtype == "INT8" for t in x) for x in (self.inputs, self.outputs))
        if takes == gives:
            return OTHER
        return QUANTIZE if gives else DEQUANTIZE

    @property
    def is_int8(self) -> bool:
        """Whether all that it reads but for weights is int8."""
        return bool(self.inputs) and all(tensor.dtype == "INT8" for tensor in self.inputs)

    @property
    def has_relu(self) -> bool:
        """Whether a ReLU went into it."""
        return any(node.endswith("/relu") for node in self.nodes)


def layers_from_log(lines: Iterable[str]) -> tuple[Layer, ...]:
    """Return the layers of a plan from what the builder says at its most verbose; () if nothing."""
    found = re.finditer(r"^Name: (.*?), LayerType: (\w+), (.*)$", "\n".join(lines), re.MULTILINE)
    return _tidied(_from_line(*match.groups()) for match in found)


def layers_from_inspector(text: str) -> tuple[Layer, ...]:
    """Return the layers that the engine inspector wrote as JSON, of TensorRT 10, 11 or RTX."""
    layers: list[Any] = json.loads(text).get("Layers", [])
    # A plan built without detailed profiling tells names alone.
    return _tidied(_from_fields(x if isinstance(x, dict) else {"Name": x}) for x in layers)


def layers_to_json(layers: Sequence[Layer]) -> str:
    """Return the layers as JSON, a layer a line, for `layers_from_json`."""
    rows = [{**vars(x), "inputs": _rows(x.inputs), "outputs": _rows(x.outputs)} for x in layers]
    return "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"


def layers_from_json(text: str) -> tuple[Layer, ...]:
    """Return what `layers_to_json` wrote."""

    def tensors(rows: list[dict[str, Any]]) -> tuple[Tensor, ...]:
        return tuple(Tensor(**{**row, "shape": tuple(row["shape"])}) for row in rows)

    return tuple(
        Layer(
            row["name"],
            row["type"],
            tuple(row["nodes"]),
            tensors(row["inputs"]),
            tensors(row["outputs"]),
        )
        for row in json.loads(text)
    )


def convolutions(layers: Sequence[Layer]) -> list[Layer]:
    """Return the layers that are convolutions."""
    return [layer for layer in layers if layer.kind == CONVOLUTION]


def layers_between_convolutions(layers: Sequence[Layer]) -> list[Layer]:
    """Return the layers, convolutions left out, through which one convolution feeds another."""
    both = _reached(layers, forwards=True) & _reached(layers, forwards=False)
    return [x for x in layers if x.kind != CONVOLUTION and x.name in both]


def table(layers: Sequence[Layer]) -> str:
    """Return the layers as a table for people, and what matters of it in a last line."""
    rows = [("", "kind", "ONNX nodes in it", "takes", "gives", "kernel")]
    for number, layer in enumerate(layers, 1):
        kernel = " ".join(layer.steps).lower() or layer.type
        nodes = " + ".join(layer.nodes) or "-"
        taken, given = _text(layer.inputs), _text(layer.outputs)
        rows.append((str(number), layer.kind, nodes, taken, given, kernel))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        "  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[5]]).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, summary(layers)])


def summary(layers: Sequence[Layer]) -> str:
    """Return in one line how many convolutions take int8 and hold a ReLU, what is between them."""
    own = convolutions(layers)
    int8 = sum(layer.is_int8 for layer in own)
    fused = sum(layer.has_relu for layer in own)
    apart = sum(layer.has_relu for layer in layers) - fused
    between = layers_between_convolutions(layers)
    count = {kind: sum(x.kind == kind for x in between) for kind in (REFORMAT, QUANTIZE)}
    return (
        f"{len(own)} convolutions, {int8} take INT8; {fused} with their ReLU, "
        f"{apart} ReLU apart; between them {count[REFORMAT]} reformat, {count[QUANTIZE]} quantize"
    )


def _from_line(name: str, type_: str, rest: str) -> Layer:
    parts = re.split(r"(?:^|, )(Inputs|Constants|Outputs|TacticName|Metadata): ?", rest)
    fields = dict(zip(parts[1::2], parts[2::2], strict=True))

    def tensors(key: str) -> list[dict[str, Any]]:
        found = re.findall(
            r"Name: (.*?), .*?Dimensions: (\[.*?\]), .*?(?:Format/)?Data[tT]ype: (.*?)"
            r"(?:, Format: (.*?))? }",
            fields.get(key, ""),
        )
        return [
            {"Name": n, "Dimensions": json.loads(shape), "Datatype": dtype, "Format": layout}
            for n, shape, dtype, layout in found
        ]

    return _from_fields(
        {
            "Name": name,
            "LayerType": type_,
            "Inputs": tensors("Inputs"),
            "Outputs": tensors("Outputs"),
            "Metadata": fields.get("Metadata", ""),
        }
    )


def _from_fields(fields: dict[str, Any]) -> Layer:
    nodes = re.findall(r"\[ONNX Layer: (.*?)\]", fields.get("Metadata", ""))
    return Layer(
        fields["Name"],
        fields.get("LayerType", "unknown"),
        tuple(dict.fromkeys(nodes)),
        tuple(map(_tensor, fields.get("Inputs", []))),
        tuple(map(_tensor, fields.get("Outputs", []))),
    )


def _tensor(fields: dict[str, Any]) -> Tensor:
    said = fields.get("Datatype") or fields.get("Format/Datatype", "")  # 11 and RTX; 10
    dtype = next((ours for theirs, ours in _DTYPES.items() if theirs in said.split()), said)
    words = f"{fields.get('Format', '')} {said}"
    short = re.search(r"\((\w+)\)", words)
    layout = short[1] if short else _layout(words)
    return Tensor(fields["Name"], dtype, tuple(fields.get("Dimensions", ())), layout)


def _layout(words: str) -> str:
    """Return the layout that TensorRT 10 names in words: "Channel major FP16 format ..."."""
    if "vectorized" in words:
        return "blocks"  # of 4, 16 or 32 channels
    return "NHWC" if "hannel major" in words else "Linear"


def _tidied(layers: Iterable[Layer]) -> tuple[Layer, ...]:
    """Leave out what does no work, and name each ONNX node where its arithmetic is."""
    working = [layer for layer in layers if layer.type not in _NO_WORK]
    owned = {node for x in working if x.kind == CONVOLUTION for node in x.nodes}
    return tuple(replace(layer, nodes=_own_nodes(layer, owned)) for layer in working)


def _own_nodes(layer: Layer, owned: set[str]) -> tuple[str, ...]:
    """Return the ONNX nodes of a layer without those that it only helps, unless it has no other."""
    mine = layer.nodes if layer.kind == CONVOLUTION else [n for n in layer.nodes if n not in owned]
    helped = [n for n in layer.nodes if not n.endswith("/relu")]
    named = [n for n in mine if not n.endswith(("/weight", "/restored"))]
    return tuple(sorted(named or mine or helped, key=_order))


def _order(node: str) -> tuple[int, str]:
    """Sort a layer's nodes as they follow each other: "conv2/conv", then "conv2/relu"."""
    steps = ("float", "channels_first", "centred", "conv", "relu", "pool", "split", "prelu", "int8")
    step = node.rpartition("/")[2]
    return (steps.index(step) if step in steps else len(steps), node)


def _reached(layers: Sequence[Layer], *, forwards: bool) -> set[str]:
    """Return the layers that what convolutions give reaches (or, backwards, that reach one)."""
    reached: set[str] = set()
    tensors: set[str] = set()
    for layer in layers if forwards else reversed(layers):
        ends = (layer.inputs, layer.outputs)
        taken, given = ends if forwards else ends[::-1]
        if tensors & {tensor.name for tensor in taken}:
            reached.add(layer.name)
        if layer.name in reached or layer.kind == CONVOLUTION:
            tensors |= {tensor.name for tensor in given}
    return reached


def _rows(tensors: Sequence[Tensor]) -> list[dict[str, Any]]:
    return [vars(tensor) for tensor in tensors]


def _text(tensors: Sequence[Tensor]) -> str:
    """Return types and shapes, one for tensors that are the same: "INT8 NHWC 32x125x125"."""
    said = [f"{t.dtype} {t.layout} {'x'.join(map(str, t.shape[1:]))}" for t in tensors]
    return ", ".join(dict.fromkeys(said)) or "-"
