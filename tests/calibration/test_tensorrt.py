"""Plans built by `tensorrt_rtx`, without a GPU: that they are built, what they are of, what fuses.

That they run, and how fast, only a GPU can show.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("torch", reason="torch comes with unface[engines]")
pytest.importorskip("onnx", reason="onnx comes with unface[engines]")
pytest.importorskip("onnxruntime", reason="onnxruntime comes with unface[engines]")
pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx comes with unface[rtx]")

from unface.calibration.build import BUILT_IN, shipped_cache
from unface.calibration.scenes import FACE, picture
from unface.calibration.tensorrt import (
    BATCHES,
    CAPABILITIES,
    PRECISIONS,
    VERDICTS,
    Order,
    build_plans,
    judge_models,
    write_plans,
)
from unface.engines.layers import (
    POOLING,
    QUANTIZE,
    REFORMAT,
    Layer,
    convolutions,
    layers_between_convolutions,
)
from unface.engines.plans import Plans, layers_file, read_plans, runtime_name
from unface.engines.shelf import read_shelf
from unface.engines.tensorrt import (
    RTX,
    device_capability,
    find_tensorrt,
    library_of,
)
from unface.errors import EngineError, InvalidOption

ROOT = Path(__file__).parents[2]
NETWORKS = ("pnet", "rnet", "onet")
AMPERE_ON = ("8.0", "8.6", "8.9", "12.0")
TURING, LATER = runtime_name(RTX, ["7.5"]), runtime_name(RTX, AMPERE_ON)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything, for all compute capabilities; verdicts are those that ship."""
    folder = tmp_path_factory.mktemp("plans") / "new"
    assert build_plans(Order(folder, library=RTX), gate=False)
    return folder


@pytest.fixture(scope="module")
def plans(built: Path) -> Plans:
    return read_plans(built)


@pytest.fixture(scope="module")
def int8_layers(plans: Plans) -> Callable[[str, str], tuple[Layer, ...]]:
    def layers(network: str, runtime: str) -> tuple[Layer, ...]:
        return plans.kept_layers(plans.of("int8", runtime)[network])

    return layers


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_every_precision_is_built_for_every_compute_capability(
    plans: Plans, precision: str, capability: str
) -> None:
    found = plans.fitting(precision, RTX, find_tensorrt(RTX).version, capability)
    for plan in found.values():
        assert len(plans.shelf.read(plan.engine)) > 100_000
        assert plans.kept_layers(plan)


@pytest.mark.slow
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_every_compute_capability_can_be_built_for_alone(capability: str, tmp_path: Path) -> None:
    order = Order(tmp_path, capabilities=[capability], library=RTX)
    entries = write_plans(order, find_tensorrt(RTX))
    assert len(entries) == len(NETWORKS) * len(PRECISIONS)
    assert all(e["compute_capabilities"] == [capability] for e in entries)
    assert len(list(tmp_path.glob("*.plan"))) == len(entries)


def test_the_manifest_says_of_each_plan_what_it_is_and_what_it_is_of(built: Path) -> None:
    engines = manifest(built)["engines"]
    assert len(engines) == len(NETWORKS) * len(PRECISIONS) * 2
    for entry in engines:
        network, precision = entry["network"], entry["precision"]
        assert entry["file"] == f"{network}.{precision}.{entry['runtime']}.plan"
        assert entry["library"] == RTX
        assert entry["version"] == find_tensorrt(RTX).version
        assert entry["runtime"] == runtime_name(RTX, entry["compute_capabilities"])
        for file, digest in ((entry["file"], "sha256"), (entry["onnx"], "onnx_sha256")):
            assert hashlib.sha256((built / file).read_bytes()).hexdigest() == entry[digest]
        assert entry["batches"] == list(vars(BATCHES[network]).values())
        cache = (shipped_cache() / f"{network}.json").read_bytes()
        quantized = hashlib.sha256(cache).hexdigest()
        of_cache = quantized if precision in ("int8", "mixed") else None
        assert entry["calibration_sha256"] == of_cache
        assert len(entry["weights_sha256"]) == 64


def test_the_weights_and_the_cache_are_those_of_the_other_engines(built: Path) -> None:
    shipped = {
        (e["network"], e["precision"]): e
        for e in json.loads((read_shelf().folder / "manifest.json").read_text())["engines"]
        if e["runtime"] == "onnx"
    }
    for entry in manifest(built)["engines"]:
        if entry["precision"] in ("fp32", "int8"):
            same = shipped[entry["network"], entry["precision"]]
            for field in ("weights_sha256", "calibration_sha256"):
                assert entry[field] == same[field]


def test_every_set_has_the_verdict_on_the_models_it_is_of(built: Path) -> None:
    data = manifest(built)
    engines, certificates = data["engines"], data["certificates"]
    sets = {(e["precision"], e["runtime"]) for e in engines}
    assert {(c["precision"], c["runtime"]) for c in certificates} == sets
    for certificate in certificates:
        mine = [
            e
            for e in engines
            if (e["precision"], e["runtime"]) == (certificate["precision"], certificate["runtime"])
        ]
        assert certificate["engines"] == {e["network"]: e["sha256"] for e in mine}
        assert certificate["onnx"] == {e["network"]: e["onnx_sha256"] for e in mine}
        assert certificate["judged_by"] == "onnxruntime"
        assert certificate["data"] != BUILT_IN
        assert certificate["faces"] > 1000
        assert certificate["passed"] is True
        read_shelf(built).check_certificate(certificate["precision"], certificate["runtime"])


def test_the_verdicts_that_ship_are_on_the_models_of_what_ships() -> None:
    """Built again, no model would have to be judged again."""
    made_with = json.loads((ROOT / "engines" / "prebuilt" / "manifest.json").read_text())
    if any(version(tool) != made_with["toolchain"][tool] for tool in ("numpy", "onnx")):
        pytest.skip("other tools may write other bytes")
    verdicts = json.loads((ROOT / "calibration" / VERDICTS).read_text())
    assert [(v["precision"], v["passed"], v["faces"] > 1000) for v in verdicts] == [
        ("fp16", True, True),
        ("int8", True, True),
        ("mixed", True, True),
        ("mixed", True, True),
    ]
    assert judge_models(None, verdicts) == verdicts


# --- what is fused --------------------------------------------------------------------------------


def test_int8_p_net_is_conv_and_relu_in_int8_without_a_reformat_between(
    int8_layers: Callable[[str, str], tuple[Layer, ...]],
) -> None:
    layers = int8_layers("pnet", LATER)
    own = convolutions(layers)
    assert [layer.nodes[0] for layer in own[:3]] == ["conv1/conv", "conv2/conv", "conv3/conv"]
    assert {layer.nodes[0] for layer in own[3:]} == {"logit/conv", "box/conv"}
    assert all(layer.is_int8 for layer in own)
    assert own[1].nodes == ("conv2/conv", "conv2/relu")
    assert own[2].nodes == ("conv3/conv", "conv3/relu")
    assert not any(layer.has_relu for layer in layers if layer not in own)
    between = layers_between_convolutions(layers)
    assert [layer for layer in between if layer.kind == REFORMAT] == []
    # Convolutions of RTX give no int8: what is between rounds, pools, or is conv1's PReLU.
    assert [layer.kind for layer in between].count(QUANTIZE) == 3
    assert [layer.kind for layer in between].count(POOLING) == 1
    assert [layer.nodes for layer in between if layer.kind not in (QUANTIZE, POOLING)] == [
        ("conv1/split", "conv1/prelu")
    ]
    assert {t.layout for layer in between for t in layer.inputs + layer.outputs} == {"NHWC"}


@pytest.mark.parametrize("network", NETWORKS)
def test_every_int8_convolution_takes_int8_and_holds_its_relu(
    network: str, int8_layers: Callable[[str, str], tuple[Layer, ...]]
) -> None:
    layers = int8_layers(network, LATER)
    own = convolutions(layers)
    assert all(layer.is_int8 for layer in own)
    assert [x for x in layers_between_convolutions(layers) if x.kind == REFORMAT] == []
    assert sum(layer.has_relu for layer in own) > 0
    assert not any(layer.has_relu for layer in layers if layer not in own)


def test_half_precision_convolutions_take_and_give_half(plans: Plans) -> None:
    for runtime in (TURING, LATER):
        for plan in plans.of("fp16", runtime).values():
            for layer in convolutions(plans.kept_layers(plan)):
                assert {t.dtype for t in layer.inputs + layer.outputs} == {"FP16"}


def test_mixed_engines_compute_in_int8_but_for_what_the_cache_keeps_in_float(plans: Plans) -> None:
    found = plans.of("mixed", LATER)
    assert not any(x.is_int8 for x in convolutions(plans.kept_layers(found["pnet"])))
    for network in ("rnet", "onet"):
        for layer in convolutions(plans.kept_layers(found[network])):
            head = layer.nodes[0].partition("/")[0] in ("logit", "box", "landmarks")
            assert {t.dtype for t in layer.inputs} == {"FP16" if head else "INT8"}


def test_turing_computes_int8_in_float_and_the_build_says_so(
    int8_layers: Callable[[str, str], tuple[Layer, ...]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert not any(x.is_int8 for x in convolutions(int8_layers("pnet", TURING)))
    order = Order(tmp_path, ["int8"], ["7.5", "8.6"], RTX)
    write_plans(order, find_tensorrt(RTX))
    said = capsys.readouterr().err
    assert f"pnet.int8.{TURING}.plan: tensorrt_rtx has no INT8 for it" in said
    assert "sm86.plan: " not in said


# --- built again ----------------------------------------------------------------------------------


def test_a_build_without_changes_keeps_every_plan(built: Path, tmp_path: Path) -> None:
    folder = tmp_path / "again"
    shutil.copytree(built, folder)
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.plan")}
    assert build_plans(Order(folder, library=RTX), gate=False)
    assert manifest(folder) == manifest(built)
    assert {path.name: path.stat().st_mtime_ns for path in folder.glob("*.plan")} == before


@pytest.mark.parametrize("harm", ["damaged", "gone", "layers gone"])
def test_a_plan_that_is_damaged_or_gone_is_built_again_and_no_other(
    built: Path, tmp_path: Path, harm: str
) -> None:
    folder = tmp_path / "again"
    shutil.copytree(built, folder)
    file = folder / f"rnet.fp16.{LATER}.plan"
    if harm == "damaged":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        (file if harm == "gone" else folder / layers_file(file.name)).unlink()
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.plan")}
    assert build_plans(Order(folder, library=RTX), gate=False)
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.plan")}
    assert {name for name, time in after.items() if before.get(name) != time} == {file.name}
    shelf = read_shelf(folder)
    for engine in shelf.engines:
        shelf.read(engine)
    shelf.check_certificate("fp16", LATER)


def test_another_cache_gives_other_int8_plans_and_the_same_float_ones(
    built: Path, tmp_path: Path
) -> None:
    cache, folder = tmp_path / "cache", tmp_path / "again"
    shutil.copytree(built, folder)
    shutil.copytree(shipped_cache(), cache)
    for path in cache.glob("?net.json"):
        fields = json.loads(path.read_text())
        fields["layers"]["conv2"]["limit"] *= 0.9
        path.write_text(json.dumps(fields))
    assert build_plans(Order(folder, library=RTX, cache=cache), gate=False)
    changed = {
        (new["network"], new["precision"])
        for old, new in zip(manifest(built)["engines"], manifest(folder)["engines"], strict=True)
        if old["sha256"] != new["sha256"]
    }
    quantized = {(n, p) for n in NETWORKS for p in ("int8", "mixed")}
    assert changed == quantized - {("pnet", "mixed")}  # which is float altogether
    certificates = manifest(folder)["certificates"]
    assert {c["precision"] for c in certificates} == {"fp32", "fp16"}  # others were not judged
    with pytest.raises(EngineError, match="have no certificate"):
        read_shelf(folder).check_certificate("int8", LATER)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A portrait, labelled, and a picture without a face."""
    folder = tmp_path_factory.mktemp("labelled")
    (folder / "images").mkdir()
    x1, y1, x2, y2 = FACE
    lines = []
    for name, faces in (
        ("astronaut", [{"box": [x1, y1, x2 - x1, y2 - y1], "landmarks": None}]),
        ("brick", []),
    ):
        pixels = picture(name)
        Image.fromarray(pixels).save(folder / "images" / f"{name}.png")
        size = {"width": pixels.shape[1], "height": pixels.shape[0]}
        lines.append(json.dumps({"image": f"{name}.png", "faces": faces, **size}))
    (folder / "labels.jsonl").write_text("\n".join(lines))
    return folder


def other_cache(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    shutil.copytree(shipped_cache(), folder)
    for path in folder.glob("?net.json"):
        fields = json.loads(path.read_text())
        change(fields)
        path.write_text(json.dumps(fields))
    return folder


def test_models_that_nobody_judged_are_judged(labelled: Path, tmp_path: Path) -> None:
    def slightly(fields: dict[str, Any]) -> None:
        fields["layers"]["conv2"]["limit"] *= 0.99

    folder = tmp_path / "plans"
    order = Order(folder, ["int8"], ["8.6"], RTX, other_cache(tmp_path / "cache", slightly))
    assert build_plans(order, labelled)
    (certificate,) = manifest(folder)["certificates"]
    assert certificate["data"] == labelled.name
    assert certificate["reference"] == "fp32.tflite"
    assert certificate["pictures"] == 2
    assert certificate["passed"]


def test_plans_of_models_that_fail_the_gate_are_marked_so(labelled: Path, tmp_path: Path) -> None:
    def ruined(fields: dict[str, Any]) -> None:
        for layer in fields["layers"].values():
            layer["limit"] *= 0.02

    folder = tmp_path / "plans"
    order = Order(folder, ["int8"], ["8.6"], RTX, other_cache(tmp_path / "cache", ruined))
    assert not build_plans(order, labelled)
    (certificate,) = manifest(folder)["certificates"]
    assert certificate["passed"] is False
    with pytest.raises(EngineError, match="failed the gate"):
        read_shelf(folder).check_certificate("int8", "tensorrt_rtx-sm86")
    assert not build_plans(order, labelled)  # kept, and so is the verdict


# --- wrong use ------------------------------------------------------------------------------------


def test_a_precision_or_capability_that_there_is_not_builds_nothing(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="'fp8'; there are fp32, fp16, int8, mixed"):
        build_plans(Order(tmp_path, ["fp8"], ["8.6"], RTX))
    with pytest.raises(InvalidOption, match=r"'6\.1'"):
        build_plans(Order(tmp_path, ["fp16"], ["6.1"], RTX))
    assert not list(tmp_path.glob("*.plan"))


@pytest.mark.skipif(device_capability() is not None, reason="there is a GPU here")
def test_tensorrt_without_a_gpu_says_that_rtx_needs_none(tmp_path: Path) -> None:
    fake = library_of("tensorrt", SimpleNamespace(ILogger=object, __version__="10.13.2.6"))
    with pytest.raises(EngineError, match="there is none here; tensorrt_rtx needs none"):
        write_plans(Order(tmp_path), fake)
