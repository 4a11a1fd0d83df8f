from __future__ import annotations

import json
from typing import Any

import pytest

from unface.engines.layers import (
    CONVOLUTION,
    OTHER,
    QUANTIZE,
    REFORMAT,
    Layer,
    convolutions,
    layers_between_convolutions,
    layers_from_inspector,
    layers_from_json,
    layers_from_log,
    layers_to_json,
    summary,
    table,
)

# As TensorRT for RTX 1.7.1.116 writes it at its most verbose, shortened.
LOG = """Engine generation completed in 0.05 seconds.
Layers:
Name: __mye740_0_myl0_0, LayerType: shape_call, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0, Metadata: 
Name: __myl_CastTranAddReplConc_myl0_1, LayerType: kgen, Inputs: [ { Name: pixels, Dimensions: [-1,256,256,3], Strides: [196608,768,3,1], StrideOrder: [3,2,1,0], Datatype: UInt8, Format: (Linear) Row major linear format }], Constants: [], Outputs: [ { Name: a, Dimensions: [-1,4,256,256], Strides: [1,1,1,1], StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) Channel major format }], TacticName: t, StreamId: 0, Metadata: [ONNX Layer: conv1/conv]\x1f[ONNX Layer: input/float]
Name: conv1/conv_myl0_2, LayerType: correlation, Inputs: [ { Name: a, Dimensions: [-1,4,256,256], Strides: [1,1,1,1], StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) Channel major format }], Constants: [ { Name: w, Dimensions: [20,4,3,3], Strides: [1,1,1,1], StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) Channel major format }], Outputs: [ { Name: b, Dimensions: [-1,20,254,254], Strides: [1,1,1,1], StrideOrder: [3,0,2,1], Datatype: Float, Format: (NHWC) Channel major format }], TacticName: __myelin_CASK_STUB, StreamId: 0, Metadata: [ONNX Layer: conv1/conv]\x1f[ONNX Layer: conv1/relu]\x1f[ONNX Layer: pixels/restored]\x1f[ONNX Layer: conv1/weight]
Name: __myl_MulMinMaxRounCast_myl0_3, LayerType: kgen, Inputs: [ { Name: b, Dimensions: [-1,20,254,254], Strides: [1,1,1,1], StrideOrder: [3,0,2,1], Datatype: Float, Format: (NHWC) Channel major format }], Constants: [], Outputs: [ { Name: c, Dimensions: [-1,20,254,254], Strides: [1,1,1,1], StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) Channel major format }], TacticName: t, StreamId: 0, Metadata: [ONNX Layer: conv1/int8]
Name: logit/conv_myl0_4, LayerType: correlation, Inputs: [ { Name: c, Dimensions: [-1,20,254,254], Strides: [1,1,1,1], StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) Channel major format }], Constants: [], Outputs: [ { Name: logit, Dimensions: [-1,1,254,254], Strides: [1,1,1,1], StrideOrder: [3,0,2,1], Datatype: Float, Format: (Linear) Row major linear format }], TacticName: t, StreamId: 0, Metadata: [ONNX Layer: logit/conv]
Name: x_5, LayerType: signal, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0, EventId: 1, Metadata: 

I/O Tensors:
 Name: pixels, IOMode: Input, DataType: UInt8, Dimensions: [-1,256,256,3], Location: Device
"""  # noqa: E501, W291


def inspected(version: int, *, reformat: bool = False) -> str:
    """Two INT8 convolutions as the inspector of TensorRT 10 or 11 writes them."""

    def tensor(name: str, channels: int) -> dict[str, Any]:
        fields: dict[str, Any] = {"Name": name, "Dimensions": [-1, channels, 9, 9]}
        wide = "Thirty-two wide channel vectorized row major Int8 format"
        if version == 10:
            return {**fields, "Location": "Device", "Format/Datatype": wide}
        return {**fields, "Datatype": "Int8", "Format": "(NC/32HW32) Channel vectorized"}

    def convolution(name: str, takes: str, gives: str, relu: str = "") -> dict[str, Any]:
        return {
            "Name": name,
            "LayerType": "CaskConvolution",
            "Inputs": [tensor(takes, 32)],
            "Outputs": [tensor(gives, 32)],
            "HasReLU": int(bool(relu)),
            "Metadata": f"[ONNX Layer: {name}]\x1f{relu and f'[ONNX Layer: {relu}]'}",
        }

    layers = [
        convolution("conv1/conv", "a", "b", "conv1/relu"),
        convolution("conv2/conv", "c" if reformat else "b", "d"),
        {"Name": "after", "LayerType": "Reformat", "Inputs": [tensor("d", 32)], "Outputs": []},
    ]
    if reformat:
        between = {"Name": "Reformatting CopyNode", "LayerType": "Reformat"}
        layers.insert(1, {**between, "Inputs": [tensor("b", 32)], "Outputs": [tensor("c", 32)]})
    return json.dumps({"Layers": layers, "Bindings": ["a", "d"]})


def test_the_builders_log_tells_the_layers_that_do_work() -> None:
    layers = layers_from_log(LOG.splitlines())
    assert [layer.kind for layer in layers] == [QUANTIZE, CONVOLUTION, QUANTIZE, CONVOLUTION]
    first = layers[1]
    assert first.nodes == ("conv1/conv", "conv1/relu")
    assert (first.inputs[0].dtype, first.outputs[0].dtype) == ("INT8", "FP32")
    assert first.inputs[0].shape == (-1, 4, 256, 256)
    assert first.inputs[0].layout == "NHWC"
    assert first.is_int8
    assert first.has_relu
    assert layers[2].steps == ("Mul", "Min", "Max", "Roun", "Cast")


def test_a_node_is_named_where_its_arithmetic_is() -> None:
    helper, convolution, *_ = layers_from_log(LOG.splitlines())
    assert helper.nodes == ("input/float",)  # it only fills up the channels of conv1
    assert "conv1/conv" in convolution.nodes


def test_a_log_without_layers_gives_none() -> None:
    assert layers_from_log(["Engine generation completed in 0.05 seconds.", ""]) == ()
    assert layers_from_log([]) == ()


@pytest.mark.parametrize("version", [10, 11])
def test_the_inspector_of_each_version_tells_types_and_fusions(version: int) -> None:
    layers = layers_from_inspector(inspected(version))
    assert len(convolutions(layers)) == 2
    assert all(layer.is_int8 for layer in convolutions(layers))
    assert [layer.has_relu for layer in convolutions(layers)] == [True, False]
    assert layers_between_convolutions(layers) == []  # one after the last is not between


@pytest.mark.parametrize("version", [10, 11])
def test_a_reformat_between_two_convolutions_is_found(version: int) -> None:
    layers = layers_from_inspector(inspected(version, reformat=True))
    assert [x.kind for x in layers_between_convolutions(layers)] == [REFORMAT]
    assert "between them 1 reformat, 0 quantize" in summary(layers)
    assert "REFORMAT" in table(layers)


def test_an_inspector_that_tells_names_alone_is_read() -> None:
    layers = layers_from_inspector('{"Layers": ["conv1/conv + conv1/relu"], "Bindings": []}')
    assert [layer.name for layer in layers] == ["conv1/conv + conv1/relu"]
    assert layers[0].kind == OTHER
    assert layers_from_inspector("{}") == ()


def test_what_only_moves_and_converts_is_a_reformat() -> None:
    def kernel(steps: str) -> Layer:
        return Layer(f"__myl_{steps}_myl0_1", "kgen", (), (), ())

    assert kernel("TranCast").kind == REFORMAT
    assert kernel("MulAddTran").kind == OTHER


def test_layers_come_back_from_json_as_they_were() -> None:
    layers = layers_from_log(LOG.splitlines())
    assert layers_from_json(layers_to_json(layers)) == layers
    assert layers_from_json(layers_to_json(())) == ()


def test_the_table_has_a_line_for_each_layer_and_says_what_matters_last() -> None:
    layers = layers_from_log(LOG.splitlines())
    head, *rows, last = table(layers).splitlines()
    assert len(rows) == len(layers)
    assert head.split()[0] == "kind"
    column = head.index("takes")
    assert all(row[column - 1] == " " != row[column] for row in rows)
    assert "INT8 NHWC 4x256x256" in rows[1]
    assert last == (
        "2 convolutions, 2 take INT8; 1 with their ReLU, 0 ReLU apart; "
        "between them 0 reformat, 1 quantize"
    )
    assert table(()).splitlines()[-1].startswith("0 convolutions")
