from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unface.engines import open_networks, prebuilt, shelf
from unface.engines.shelf import Engine, cores, named_files, open_named, parse_spec, read_shelf
from unface.errors import EngineError, InvalidOption

PREBUILT = Path(__file__).parents[2] / "engines" / "prebuilt"
NETWORKS = ("pnet", "rnet", "onet")
TFLITE = ("fp32", "fp16", "dynamic", "int8", "mixed")
ONNX = ("fp32", "int8")
Manifest = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the engines, every set with a certificate that says it passed."""
    copy = tmp_path / "engines"
    copy.mkdir()
    for path in PREBUILT.glob("*.tflite"):
        shutil.copy(path, copy)
    manifest = json.loads((PREBUILT / "manifest.json").read_text())
    manifest["certificates"] = [certificate(manifest, precision) for precision in TFLITE]
    write(copy, manifest)
    return copy


def certificate(manifest: Manifest, precision: str, passed: bool = True) -> Manifest:
    engines = {
        e["network"]: e["sha256"]
        for e in manifest["engines"]
        if (e["precision"], e["runtime"]) == (precision, "tflite")
    }
    reasons = [] if passed else ["recall of small faces falls by 4.2 points", "more false ones"]
    return {
        "precision": precision,
        "runtime": "tflite",
        "engines": engines,
        "passed": passed,
        "reasons": reasons,
    }


def read(folder: Path) -> Manifest:
    return json.loads((folder / "manifest.json").read_text())


def write(folder: Path, manifest: Any) -> None:
    (folder / "manifest.json").write_text(json.dumps(manifest))


def entry(manifest: Manifest, file: str) -> Manifest:
    (found,) = (e for e in manifest["engines"] if e["file"] == file)
    return found


# --- what ships -----------------------------------------------------------------------------------


def test_three_networks_ship_in_every_precision() -> None:
    shipped = {(e.network, e.precision, e.runtime) for e in prebuilt()}
    assert shipped == {
        *product(NETWORKS, TFLITE, ["tflite"]),
        *product(NETWORKS, ONNX, ["onnx"]),
    }
    assert read_shelf().precisions == sorted(TFLITE)


def test_the_manifest_names_every_engine_that_ships_and_its_hash() -> None:
    files = {path.name for kind in ("tflite", "onnx") for path in PREBUILT.glob(f"*.{kind}")}
    assert {engine.file for engine in prebuilt()} == files
    for engine in prebuilt():
        data = (PREBUILT / engine.file).read_bytes()
        assert hashlib.sha256(data).hexdigest() == engine.sha256
        assert read_shelf().read(engine) == data


def test_the_gate_has_judged_all_sets_that_ship_as_they_are() -> None:
    certificates = {(c.precision, c.runtime): c for c in read_shelf().certificates}
    assert certificates.keys() == {*product(TFLITE, ["tflite"]), *product(ONNX, ["onnx"])}
    for (precision, runtime), judged in certificates.items():
        engines = [e for e in prebuilt() if (e.precision, e.runtime) == (precision, runtime)]
        assert judged.engines == {engine.network: engine.sha256 for engine in engines}
        assert judged.passed or judged.reasons
    assert certificates["fp32", "tflite"].passed
    assert certificates["int8", "tflite"].passed


# --- opening --------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", TFLITE)
def test_certified_engines_open(folder: Path, precision: str) -> None:
    networks = open_networks(precision, threads=1, folder=folder)
    assert (networks.backend, networks.precision) == ("tflite", precision)
    assert networks.rnet(np.zeros((1, 24, 24, 3), np.uint8))["logit"].shape == (1,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precision": "fp8"}, "there are dynamic, fp16, fp32, int8, mixed"),
        ({"precision": None}, "there are dynamic, fp16, fp32, int8, mixed"),
        ({"precision": "../fp32"}, "there are dynamic"),
        ({"threads": 0}, "1 to 64"),
        ({"threads": 65}, "1 to 64"),
        ({"threads": 1.5}, "whole number"),
        ({"threads": "2"}, "whole number"),
        ({"threads": float("nan")}, "whole number"),
    ],
)
def test_a_bad_choice_of_engines_is_refused(
    folder: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidOption, match=message):
        open_networks(folder=folder, **arguments)


def test_threads_default_to_the_cores_this_process_may_use() -> None:
    assert 1 <= cores() <= 64


@pytest.mark.parametrize(
    ("spec", "parsed"),
    [
        ("int8", (None, "int8")),
        ("engines/mine:int8", (Path("engines/mine"), "int8")),
        ("/a:b/c:fp32", (Path("/a:b/c"), "fp32")),
        (".:mixed", (Path("."), "mixed")),
        (":int8", (None, "int8")),
        ("", (None, "")),
    ],
)
def test_a_spec_is_a_precision_or_a_folder_and_a_precision(
    spec: str, parsed: tuple[Path | None, str]
) -> None:
    assert parse_spec(spec) == parsed


def test_engines_of_a_folder_open_by_name_without_a_certificate(folder: Path) -> None:
    write(folder, {**read(folder), "certificates": []})
    assert open_named(f"{folder}:int8", threads=1).precision == "int8"
    files = named_files(f"{folder}:int8")
    assert files == {n: (folder / f"{n}.int8.tflite").read_bytes() for n in NETWORKS}
    for spec in (f"{folder}:fp8", "fp8", ""):
        with pytest.raises(InvalidOption, match="there are dynamic, fp16"):
            open_named(spec)


def test_only_complete_sets_of_tflite_engines_are_offered(folder: Path) -> None:
    manifest = read(folder)
    manifest["engines"] = [e for e in manifest["engines"] if e["file"] != "rnet.fp16.tflite"]
    for engine in manifest["engines"]:
        if engine["precision"] == "mixed":
            engine["runtime"] = "onnx"
    write(folder, manifest)
    assert read_shelf(folder).precisions == ["dynamic", "fp32", "int8"]
    for precision in ("fp16", "mixed"):
        with pytest.raises(InvalidOption, match=r"there are dynamic, fp32, int8$"):
            open_networks(precision, folder=folder)


# --- certificates ---------------------------------------------------------------------------------


def test_engines_without_a_certificate_are_refused_and_the_message_says_what_to_do(
    folder: Path,
) -> None:
    manifest = read(folder)
    manifest["certificates"] = [c for c in manifest["certificates"] if c["precision"] != "int8"]
    write(folder, manifest)
    open_networks("fp32", threads=1, folder=folder)
    with pytest.raises(EngineError, match=r"int8 engines have no certificate.*--allow-uncert"):
        open_networks("int8", threads=1, folder=folder)


def test_engines_that_failed_the_gate_are_refused_with_its_reasons(folder: Path) -> None:
    manifest = read(folder)
    manifest["certificates"] = [certificate(manifest, "int8", passed=False)]
    write(folder, manifest)
    with pytest.raises(
        EngineError, match=r"failed the gate: recall of small .* 4\.2 points; more false ones;"
    ):
        open_networks("int8", threads=1, folder=folder)


def test_uncertified_engines_are_allowed_loudly(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = read(folder)
    manifest["certificates"] = [certificate(manifest, "int8", passed=False)]
    write(folder, manifest)
    with caplog.at_level(logging.WARNING):
        networks = open_networks("int8", threads=1, folder=folder, allow_uncertified=True)
    assert networks.precision == "int8"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "UNCERTIFIED ENGINES IN USE" in record.message
    assert "4.2 points" in record.message


def test_certified_engines_open_without_a_word(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="unface"):
        open_networks("int8", threads=1, folder=folder, allow_uncertified=True)
    assert not caplog.records


def swap_network(c: Manifest) -> None:
    c["engines"] = {**c["engines"], "rnet": "0" * 64}


@pytest.mark.parametrize(
    "change",
    [
        swap_network,
        lambda c: c["engines"].pop("rnet"),
        lambda c: c.update(engines={}),
        lambda c: c.update(runtime="onnx"),
        lambda c: c.update(precision="fp32"),
        lambda c: c.update(passed="yes"),
        lambda c: c.update(passed=1),
        lambda c: c.update(passed=None),
    ],
)
def test_a_certificate_of_anything_else_counts_for_nothing(
    folder: Path, change: Callable[[Manifest], Any]
) -> None:
    manifest = read(folder)
    made = certificate(manifest, "int8")
    change(made)
    write(folder, {**manifest, "certificates": [made]})
    with pytest.raises(EngineError, match="int8 engines"):
        open_networks("int8", threads=1, folder=folder)


def test_an_engine_exchanged_with_its_hash_loses_the_certificate(folder: Path) -> None:
    manifest = read(folder)
    shutil.copy(folder / "rnet.fp32.tflite", folder / "rnet.int8.tflite")
    entry(manifest, "rnet.int8.tflite")["sha256"] = entry(manifest, "rnet.fp32.tflite")["sha256"]
    write(folder, manifest)
    with pytest.raises(EngineError, match="have no certificate"):
        open_networks("int8", threads=1, folder=folder)


# --- damage ---------------------------------------------------------------------------------------


def test_a_damaged_engine_is_refused(folder: Path) -> None:
    file = folder / "onet.fp32.tflite"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(EngineError, match=r"onet\.fp32\.tflite is damaged.*build the engines"):
        open_networks("fp32", folder=folder)
    with pytest.raises(EngineError, match=r"onet\.fp32\.tflite is damaged"):
        open_networks("fp32", folder=folder, allow_uncertified=True)
    with pytest.raises(EngineError, match="is damaged"):
        named_files(f"{folder}:fp32")


def test_a_missing_engine_is_refused(folder: Path) -> None:
    (folder / "rnet.fp32.tflite").unlink()
    with pytest.raises(EngineError, match=r"rnet\.fp32\.tflite is missing.*build the engines"):
        open_networks("fp32", folder=folder)


def test_a_file_that_is_no_engine_is_refused(folder: Path) -> None:
    (folder / "pnet.fp32.tflite").write_bytes(b"not a flatbuffer")
    manifest = read(folder)
    found = entry(manifest, "pnet.fp32.tflite")
    found["sha256"] = hashlib.sha256(b"not a flatbuffer").hexdigest()
    write(folder, manifest)
    with pytest.raises(EngineError, match=r"pnet\.fp32\.tflite cannot be loaded"):
        open_named(f"{folder}:fp32").pnet(np.zeros((1, 256, 256, 3), np.uint8))


def test_what_is_no_folder_of_engines_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for path in (tmp_path / "nothing", file):
        with pytest.raises(EngineError, match=f"{path.name} is no folder of engines"):
            open_networks(folder=path)
    with pytest.raises(EngineError, match="manifest of the engines cannot be read"):
        open_networks(folder=tmp_path)


def engine(**changed: Any) -> Manifest:
    made = {"network": "pnet", "precision": "a", "file": "a", "sha256": "0", "runtime": "tflite"}
    return {"engines": [{**made, **changed}], "certificates": []}


def judged(**changed: Any) -> Manifest:
    made = {"precision": "a", "runtime": "tflite", "engines": {}, "passed": True, "reasons": []}
    return {"engines": [], "certificates": [{**made, **changed}]}


@pytest.mark.parametrize(
    "manifest",
    [
        *({}, [], [1], 3, None, "text"),
        *({"engines": [{}], "certificates": []}, {"engines": 3, "certificates": []}),
        *({"engines": []}, {"engines": [], "certificates": [3]}, {"engines": [None]}),
        *(engine(sha256=3), engine(precision=3), engine(precision=[]), engine(network=None)),
        *(engine(file=None), engine(file=3)),
        *(judged(engines=3), judged(engines="abc"), judged(reasons=3), judged(engines=None)),
    ],
)
def test_a_damaged_manifest_is_refused(tmp_path: Path, manifest: Any) -> None:
    write(tmp_path, manifest)
    with pytest.raises(EngineError, match="manifest of the engines cannot be read"):
        read_shelf(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000])
def test_a_manifest_that_is_no_json_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(EngineError, match="manifest of the engines cannot be read"):
        read_shelf(tmp_path)


@pytest.mark.parametrize("file", ["../secret.tflite", "/etc/passwd", "b/a", "./a", "a/", "."])
def test_a_manifest_cannot_name_a_file_outside_its_folder(tmp_path: Path, file: str) -> None:
    (tmp_path / "secret.tflite").write_bytes(b"secret")
    folder = tmp_path / "engines"
    folder.mkdir()
    digest = hashlib.sha256(b"secret").hexdigest()
    write(folder, engine(file=file, sha256=digest))
    with pytest.raises(EngineError, match="manifest of the engines cannot be read"):
        read_shelf(folder)


@pytest.mark.parametrize("file", ["..", "", "a\0b", "a" * 300])
def test_a_name_that_no_engine_can_have_is_an_engine_error(tmp_path: Path, file: str) -> None:
    write(tmp_path, engine(file=file))
    found = read_shelf(tmp_path)
    with pytest.raises(EngineError, match="is missing: build the engines again"):
        found.read(found.engines[0])


# --- damage to what ships -------------------------------------------------------------------------


@pytest.fixture
def shipped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The copy of the engines in the place of those that ship."""
    monkeypatch.setattr(shelf, "files", lambda _: folder.parent)
    folder.rename(folder.parent / "prebuilt")
    shelf._prebuilt.cache_clear()
    yield folder.parent / "prebuilt"
    shelf._prebuilt.cache_clear()


def test_damage_to_what_ships_asks_to_reinstall(shipped: Path) -> None:
    open_networks("int8", threads=1)
    (shipped / "rnet.fp32.tflite").write_bytes(b"")
    with pytest.raises(EngineError, match=r"rnet\.fp32\.tflite is damaged.*reinstall unface"):
        open_networks("fp32")
    (shipped / "rnet.fp32.tflite").unlink()
    with pytest.raises(EngineError, match=r"rnet\.fp32\.tflite is missing: reinstall unface"):
        open_networks("fp32")


def test_a_damaged_manifest_of_what_ships_asks_to_reinstall(shipped: Path) -> None:
    (shipped / "manifest.json").write_text("{}")
    for call in (open_networks, prebuilt, lambda: open_named("int8")):
        with pytest.raises(EngineError, match="cannot be read: reinstall unface"):
            call()


def test_an_engine_is_known_by_its_hash() -> None:
    foreign = Engine("pnet", "fp32", "pnet.fp32.tflite", "0" * 64)
    with pytest.raises(EngineError, match="hash differs"):
        read_shelf().read(foreign)
