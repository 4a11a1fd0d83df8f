"""Every answer can be traced to the engine files that gave it, and to what was certified."""

from __future__ import annotations

import json
import logging
import shutil
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from failing_gpus import Socket, needs_the_simulator

from unface.canonical_json import canonical
from unface.engines.cascades import Cascades
from unface.engines.plans import read_plans
from unface.engines.provenance import Provenance, of_fitting
from unface.engines.sealed import write_sealed
from unface.engines.shelf import read_shelf
from unface.errors import EngineError
from unface.mtcnn.options import DetectOptions

PREBUILT = Path(__file__).parents[2] / "engines" / "prebuilt"
MANIFEST = json.loads((PREBUILT / "manifest.json").read_text())
NETWORKS = ("pnet", "rnet", "onet")
BLANK = np.full((60, 70, 3), 99, np.uint8)


def hash_of(value: Any) -> str:
    return sha256(canonical(value)).hexdigest()


def id_of(precision: str, runtime: str, manifest: dict[str, Any] = MANIFEST) -> str:
    """Return the id of a certificate, from the manifest as anybody reads it."""
    (found,) = (
        c
        for c in manifest["certificates"]
        if (c["precision"], c["runtime"]) == (precision, runtime)
    )
    return hash_of(found)


def hashes(provenance: Provenance) -> dict[str, str]:
    return {engine.network: engine.sha256 for engine in provenance.engines}


def on_disk(precision: str, suffix: str) -> dict[str, str]:
    return {
        name: sha256((PREBUILT / f"{name}.{precision}.{suffix}").read_bytes()).hexdigest()
        for name in NETWORKS
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    copy = tmp_path / "engines"
    shutil.copytree(PREBUILT, copy)
    return copy


# --- certificates ---------------------------------------------------------------------------------


def test_a_certificate_is_known_by_the_hash_of_all_that_it_says() -> None:
    assert [c.id for c in read_shelf().certificates] == [
        hash_of(entry) for entry in MANIFEST["certificates"]
    ]
    assert len({c.id for c in read_shelf().certificates}) == len(MANIFEST["certificates"])


def test_whatever_a_certificate_says_otherwise_gives_another_id(folder: Path) -> None:
    before = [c.id for c in read_shelf(folder).certificates]
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["certificates"][0]["faces"] += 1
    (folder / "manifest.json").write_text(json.dumps(manifest))
    after = [c.id for c in read_shelf(folder).certificates]
    assert [one == other for one, other in zip(before, after, strict=True)] == [
        False,
        *[True] * (len(before) - 1),
    ]


def test_layout_of_the_manifest_and_encryption_leave_ids_as_they_are(
    folder: Path, tmp_path: Path
) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["certificates"] = [dict(reversed(c.items())) for c in manifest["certificates"]]
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=7))
    write_sealed(read_shelf(folder), tmp_path / "sealed", bytes(32))
    for shelf in (read_shelf(folder), read_shelf(tmp_path / "sealed", bytes(32))):
        assert [c.id for c in shelf.certificates] == [c.id for c in read_shelf().certificates]


def test_a_manifest_with_what_json_does_not_have_is_refused(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["certificates"][0]["faces"] = float("nan")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(EngineError, match="manifest of the engines cannot be read"):
        read_shelf(folder)


# --- the CPU --------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_answer_of_the_cpu_is_traced_to_its_files(runtime: str, precision: str) -> None:
    opened = Cascades("fp32", threads=1)
    faces = opened.detect(BLANK, DetectOptions(precision=precision))
    traced = opened.provenance(faces.backend, faces.precision)
    opened.close()
    assert [engine.network for engine in traced.engines] == list(NETWORKS)
    assert {engine.precision for engine in traced.engines} == {precision}
    assert hashes(traced) == on_disk(precision, "npz" if runtime == "native" else "tflite")
    assert traced.certificates == (id_of(precision, runtime),)


def test_what_has_not_served_is_not_vouched_for(backend: str) -> None:
    opened = Cascades("fp32", threads=1)
    other = "tflite" if backend == "native" else "native"
    for served in (
        (backend, "int8"),
        (other, "fp32"),
        ("cuda", "fp16"),
        ("tensorrt", "fp16"),
        ("", ""),
    ):
        with pytest.raises(EngineError, match="have served here"):
            opened.provenance(*served)
    opened.close()


@pytest.mark.parametrize("change", ["none", "failed"])
def test_engines_without_a_certificate_are_traced_without_one(
    folder: Path, backend: str, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    if change == "none":
        manifest["certificates"] = []
    for certificate in manifest["certificates"]:
        certificate.update(passed=False, reasons=["recall falls"])
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with caplog.at_level(logging.ERROR):
        opened = Cascades("fp32", threads=1, folder=folder, allow_uncertified=True)
    traced = opened.provenance(backend, "fp32")
    opened.close()
    assert traced.certificates == ()
    assert hashes(traced) == {
        e.network: e.sha256 for e in read_shelf().of("fp32", backend).values()
    }


def test_engines_exchanged_while_others_serve_are_never_taken_for_them(
    folder: Path, backend: str
) -> None:
    """Those of a precision are all of the folder as it was when it was first opened."""
    opened = Cascades("fp32", threads=2, folder=folder)
    before = opened.provenance(backend, "fp32")
    suffix = "npz" if backend == "native" else "tflite"
    manifest = json.loads((folder / "manifest.json").read_text())
    for engine in manifest["engines"]:
        if (engine["precision"], engine["runtime"]) == ("fp32", backend):
            file = folder / engine["file"]
            shutil.copy(folder / f"{engine['network']}.int8.{suffix}", file)
            engine["sha256"] = sha256(file.read_bytes()).hexdigest()
    manifest["certificates"] = []
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(EngineError, match="is damaged"):  # not served by those there now
        opened.detect_all([BLANK, BLANK], DetectOptions())
    assert opened.detect(BLANK, DetectOptions()).precision == "fp32"
    assert opened.provenance(backend, "fp32") == before
    opened.close()


# --- a GPU ----------------------------------------------------------------------------------------


@pytest.fixture
def simulated() -> Socket:
    needs_the_simulator()
    return Socket()


def test_an_answer_of_a_gpu_is_traced_to_its_weights_and_to_both_certificates(
    simulated: Socket, backend: str
) -> None:
    opened = Cascades(threads=1, device="gpu", open_device=simulated.open, pauses=(3600.0,))
    faces = opened.detect(BLANK, DetectOptions(min_face=40))
    traced = opened.provenance(faces.backend, faces.precision)
    assert {engine.precision for engine in traced.engines} == {"fp16"}
    assert hashes(traced) == on_disk("fp32", "npz")
    own = json.loads((files("unface.gpu") / "certificate.json").read_text())
    assert traced.certificates == (id_of("fp32", "native"), hash_of(own))
    on_cpu = opened.provenance(backend, "fp32")  # that stands by
    assert on_cpu.certificates == (id_of("fp32", backend),)
    opened.close()


def plans(folder: Path, capability: str) -> None:
    entries = []
    for network in NETWORKS:
        file = folder / f"{network}.{capability}.plan"
        file.write_text(f"{network} for {capability}")
        entries.append(
            {
                "network": network,
                "precision": "int8",
                "runtime": f"tensorrt-sm{capability.replace('.', '')}",
                "file": file.name,
                "sha256": sha256(file.read_bytes()).hexdigest(),
                "library": "tensorrt",
                "version": "10.13",
                "compute_capabilities": [capability],
                "onnx_sha256": "0" * 64,
            }
        )
    certificate = {
        "precision": "int8",
        "runtime": entries[0]["runtime"],
        "engines": {e["network"]: e["sha256"] for e in entries},
        "passed": True,
        "reasons": [],
    }
    file = folder / "manifest.json"
    manifest = {"engines": [], "certificates": []}
    if file.exists():
        manifest = json.loads(file.read_text())
    manifest["engines"] += entries
    manifest["certificates"].append(certificate)
    file.write_text(json.dumps(manifest))


def test_an_answer_of_tensorrt_is_traced_to_the_plans_that_fit_the_card(tmp_path: Path) -> None:
    for capability in ("8.6", "9.0"):
        plans(tmp_path, capability)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    traced = of_fitting(read_plans(tmp_path), "int8", "tensorrt", "10.13", "9.0")
    assert hashes(traced) == {
        name: sha256(f"{name} for 9.0".encode()).hexdigest() for name in NETWORKS
    }
    assert traced.certificates == (id_of("int8", "tensorrt-sm90", manifest),)
    with pytest.raises(EngineError, match="here are tensorrt"):
        of_fitting(read_plans(tmp_path), "int8", "tensorrt", "10.13", "7.5")
