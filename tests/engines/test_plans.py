from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from unface.engines.layers import Layer, layers_to_json
from unface.engines.plans import (
    groups,
    layers_file,
    open_plans,
    read_plans,
    runtime_name,
)
from unface.engines.tensorrt import RTX, TENSORRT, device_capability, library_of
from unface.errors import EngineError, InvalidOption

NETWORKS = ("pnet", "rnet", "onet")
MADE = ("tensorrt_rtx", "1.7.1.116")


def entry(folder: Path, network: str, precision: str, capabilities: list[str]) -> dict[str, Any]:
    runtime = runtime_name(RTX, capabilities)
    file = f"{network}.{precision}.{runtime}.plan"
    plan = f"plan of {file}".encode()
    (folder / file).write_bytes(plan)
    return {
        "network": network,
        "precision": precision,
        "runtime": runtime,
        "file": file,
        "sha256": hashlib.sha256(plan).hexdigest(),
        "library": RTX,
        "version": MADE[1],
        "compute_capabilities": capabilities,
        "onnx_sha256": "0" * 64,
    }


def write(folder: Path, engines: list[dict[str, Any]], passed: bool = True) -> None:
    certificates = [
        {
            "precision": precision,
            "runtime": runtime,
            "engines": {
                e["network"]: e["sha256"]
                for e in engines
                if (e["precision"], e["runtime"]) == (precision, runtime)
            },
            "passed": passed,
            "reasons": [] if passed else ["recall falls by 4.2 points"],
        }
        for precision, runtime in {(e["precision"], e["runtime"]) for e in engines}
    ]
    manifest = {"engines": engines, "certificates": certificates}
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Plans for 7.5, and for 8.6 and 8.9 together, in FP16 and INT8."""
    engines = [
        entry(tmp_path, network, precision, capabilities)
        for precision in ("fp16", "int8")
        for capabilities in (["7.5"], ["8.6", "8.9"])
        for network in NETWORKS
    ]
    write(tmp_path, engines)
    return tmp_path


@pytest.mark.parametrize(
    ("capability", "runtime"),
    [
        ("7.5", "tensorrt_rtx-sm75"),
        ("8.6", "tensorrt_rtx-sm86-89"),
        ("8.9", "tensorrt_rtx-sm86-89"),
    ],
)
def test_the_plans_of_a_gpu_are_found(folder: Path, capability: str, runtime: str) -> None:
    found = read_plans(folder).fitting("int8", *MADE, capability)
    assert set(found) == set(NETWORKS)
    assert {plan.engine.runtime for plan in found.values()} == {runtime}
    assert {plan.engine.precision for plan in found.values()} == {"int8"}


@pytest.mark.parametrize(
    ("library", "version", "capability", "here"),
    [
        (RTX, "1.7.1.116", "9.0", "tensorrt_rtx 1.7.1.116, compute capability 9.0"),
        (RTX, "1.8.0.1", "8.6", "tensorrt_rtx 1.8.0.1, compute capability 8.6"),
        (TENSORRT, "1.7.1.116", "8.6", "here are tensorrt 1.7.1.116"),
    ],
)
def test_plans_of_another_gpu_version_or_library_are_refused_with_both_named(
    folder: Path, library: str, version: str, capability: str, here: str
) -> None:
    with pytest.raises(EngineError) as error:
        read_plans(folder).fitting("fp16", library, version, capability)
    message = str(error.value)
    assert "are of tensorrt_rtx 1.7.1.116, compute capability 7.5; " in message
    assert "compute capability 8.6 8.9; " in message
    assert here in message
    assert message.endswith("make engines TARGET=tensorrt)")


def test_a_precision_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidOption, match="'fp8'; there are fp16, int8"):
        read_plans(folder).fitting("fp8", *MADE, "8.6")


def test_two_of_three_plans_do_not_fit(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    engines = [e for e in manifest["engines"] if not e["file"].startswith("onet.int8")]
    write(folder, engines)
    with pytest.raises(EngineError, match="here are tensorrt_rtx"):
        read_plans(folder).fitting("int8", *MADE, "8.6")
    assert len(read_plans(folder).fitting("fp16", *MADE, "8.6")) == 3


def test_a_plan_with_another_byte_is_damaged(folder: Path) -> None:
    plans = read_plans(folder)
    engine = plans.plans[0].engine
    assert plans.shelf.read(engine).startswith(b"plan of")
    (folder / engine.file).write_bytes(b"plan of something else")
    with pytest.raises(EngineError, match=r"is damaged \(its hash differs\): build the engines"):
        plans.shelf.read(engine)


def test_plans_that_failed_the_gate_are_not_certified(folder: Path) -> None:
    plans = read_plans(folder)
    plans.shelf.check_certificate("int8", "tensorrt_rtx-sm75")
    write(folder, json.loads((folder / "manifest.json").read_text())["engines"], passed=False)
    with pytest.raises(EngineError, match=r"failed the gate: recall falls by 4\.2 points"):
        read_plans(folder).shelf.check_certificate("int8", "tensorrt_rtx-sm75")


@pytest.mark.skipif(device_capability() is not None, reason="there is a GPU here")
def test_opening_plans_without_a_gpu_says_what_runs_instead(folder: Path) -> None:
    fake = library_of(RTX, type("Module", (), {"ILogger": object, "__version__": MADE[1]}))
    with pytest.raises(EngineError, match="no NVIDIA GPU with a driver here; the engines for the"):
        open_plans(folder, "int8", fake)


@pytest.mark.parametrize("text", ["", "{}", '{"engines": 3, "certificates": []}'])
def test_a_folder_without_a_manifest_of_plans_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(EngineError, match="manifest"):
        read_plans(tmp_path)


def test_engines_for_the_cpu_are_no_plans() -> None:
    prebuilt = Path(__file__).parents[2] / "engines" / "prebuilt"
    with pytest.raises(EngineError, match="holds no TensorRT plans: make engines TARGET=tensorrt"):
        read_plans(prebuilt)


def test_what_was_fused_is_read_from_beside_the_plan(folder: Path) -> None:
    plans = read_plans(folder)
    plan = plans.plans[0]
    with pytest.raises(EngineError, match="were not kept"):
        plans.kept_layers(plan)
    layers = (Layer("c", "correlation", ("conv1/conv",), (), ()),)
    (folder / layers_file(plan.engine.file)).write_text(layers_to_json(layers))
    assert plans.kept_layers(plan) == layers
    (folder / layers_file(plan.engine.file)).write_text("[{}]")
    with pytest.raises(EngineError, match="were not kept"):
        plans.kept_layers(plan)


def test_one_plan_of_rtx_serves_all_that_have_int8_and_turing_has_its_own() -> None:
    assert groups(RTX, ["8.9", "7.5", "12.0"]) == [("7.5",), ("8.9", "12.0")]
    assert groups(RTX, ["8.6"]) == [("8.6",)]
    assert groups(RTX, ["7.5"]) == [("7.5",)]
    assert groups(RTX, []) == []
    assert groups(TENSORRT, ["9.0"]) == [("9.0",)]
