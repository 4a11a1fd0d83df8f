from __future__ import annotations

import hashlib
import io
import json
import logging
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unface.engines import open_networks, prebuilt, shelf
from unface.engines.native import read_arrays
from unface.engines.shelf import Engine, named_files, open_named, parse_spec, read_shelf
from unface.errors import EngineError, InvalidOption
from unface.mtcnn.team import cores

PREBUILT = Path(__file__).parents[2] / "engines" / "prebuilt"
NETWORKS = ("pnet", "rnet", "onet")
TFLITE = ("fp32", "fp16", "dynamic", "int8", "mixed")
ONNX = NATIVE = ("fp32", "int8")
SETS = {*product(TFLITE, ["tflite"]), *product(NATIVE, ["native"])}
SUFFIXES = {"tflite": "tflite", "native": "npz", "onnx": "onnx"}
Manifest = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the engines, every set with a certificate that says it passed."""
    copy = tmp_path / "engines"
    copy.mkdir()
    for path in (*PREBUILT.glob("*.tflite"), *PREBUILT.glob("*.npz")):
        shutil.copy(path, copy)
    manifest = json.loads((PREBUILT / "manifest.json").read_text())
    manifest["certificates"] = [certificate(manifest, *made) for made in sorted(SETS)]
    write(copy, manifest)
    return copy


def certificate(manifest: Manifest, precision: str, runtime: str, passed: bool = True) -> Manifest:
    engines = {
        e["network"]: e["sha256"]
        for e in manifest["engines"]
        if (e["precision"], e["runtime"]) == (precision, runtime)
    }
    reasons = [] if passed else ["recall of small faces falls by 4.2 points", "more false ones"]
    return {
        "precision": precision,
        "runtime": runtime,
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


def without(manifest: Manifest, precision: str, runtime: str) -> Manifest:
    """Return the manifest without the engines of a precision for a runtime."""
    gone = (precision, runtime)
    kept = [e for e in manifest["engines"] if (e["precision"], e["runtime"]) != gone]
    return {**manifest, "engines": kept}


def replaced(folder: Path, file: str, content: bytes) -> None:
    """Write an engine anew and its hash into the manifest, as someone who means it would."""
    (folder / file).write_bytes(content)
    manifest = read(folder)
    entry(manifest, file)["sha256"] = hashlib.sha256(content).hexdigest()
    write(folder, manifest)


# --- what ships -----------------------------------------------------------------------------------


def test_three_networks_ship_in_every_precision() -> None:
    shipped = {(e.network, e.precision, e.runtime) for e in prebuilt()}
    assert shipped == {
        *product(NETWORKS, TFLITE, ["tflite"]),
        *product(NETWORKS, ONNX, ["onnx"]),
        *product(NETWORKS, NATIVE, ["native"]),
    }
    assert read_shelf().precisions == sorted(TFLITE)
    assert read_shelf().sets == sorted(SETS)  # nothing serves ONNX


def test_the_manifest_names_every_engine_that_ships_and_its_hash() -> None:
    files = {path.name for path in PREBUILT.iterdir() if path.suffix[1:] in SUFFIXES.values()}
    assert {engine.file for engine in prebuilt()} == files
    for engine in prebuilt():
        assert engine.file.endswith(f".{SUFFIXES[engine.runtime]}")
        data = (PREBUILT / engine.file).read_bytes()
        assert hashlib.sha256(data).hexdigest() == engine.sha256
        assert read_shelf().read(engine) == data


def test_the_gate_has_judged_all_sets_that_ship_as_they_are() -> None:
    certificates = {(c.precision, c.runtime): c for c in read_shelf().certificates}
    assert certificates.keys() == {*SETS, *product(ONNX, ["onnx"])}
    for (precision, runtime), judged in certificates.items():
        engines = [e for e in prebuilt() if (e.precision, e.runtime) == (precision, runtime)]
        assert judged.engines == {engine.network: engine.sha256 for engine in engines}
        assert judged.passed or judged.reasons
    for runtime in ("native", "tflite"):  # what serves unless told otherwise
        assert certificates["fp32", runtime].passed
        assert certificates["int8", runtime].passed
        read_shelf().check_certificate("int8", runtime)


# --- opening --------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", TFLITE)
def test_certified_engines_open(folder: Path, precision: str, runtime: str) -> None:
    networks = open_networks(precision, threads=1, folder=folder)
    serving = runtime if precision in NATIVE else "tflite"
    assert (networks.backend, networks.precision) == (serving, precision)
    assert networks.rnet(np.zeros((1, 24, 24, 3), np.uint8))["logit"].shape == (1,)


@pytest.mark.parametrize(("precision", "wanted"), sorted(SETS))
def test_every_set_opens_by_its_name(precision: str, wanted: str, runtime: str) -> None:
    if (wanted, runtime) == ("native", "tflite"):
        with pytest.raises(EngineError, match="core does not run here; LiteRT does"):
            open_named(f"{precision}.{wanted}")
        return
    networks = open_named(f"{precision}.{wanted}", threads=1)
    assert (networks.backend, networks.precision) == (wanted, precision)
    assert hasattr(networks.pnet, "scan") is (wanted == "native")
    files = named_files(f"{precision}.{wanted}")
    suffix = SUFFIXES[wanted]
    assert files == {n: (PREBUILT / f"{n}.{precision}.{suffix}").read_bytes() for n in NETWORKS}


def test_the_fastest_runtime_serves_and_litert_where_there_is_no_core(
    folder: Path, runtime: str
) -> None:
    found = read_shelf(folder)
    assert [found.fastest(p) for p in ("fp32", "int8")] == [runtime] * 2
    assert [found.fastest(p) for p in ("fp16", "dynamic", "mixed", "fp8", "")] == ["tflite"] * 5
    assert open_named(f"{folder}:int8", threads=1).backend == runtime
    assert named_files(f"{folder}:int8") == named_files(f"{folder}:int8.{runtime}")


@pytest.mark.usefixtures("core")
@pytest.mark.parametrize("limit", ["none", "avx2", "avx512", "what nobody knows", ""])
def test_the_environment_limits_the_core(
    monkeypatch: pytest.MonkeyPatch, backend: str, limit: str
) -> None:
    monkeypatch.setenv("UNFACE_KERNELS", limit)
    serving = "tflite" if limit == "none" else backend
    assert open_networks("int8", threads=1).backend == serving
    assert read_shelf().fastest("int8") == serving


def test_a_folder_with_engines_for_litert_alone_is_served_by_litert(folder: Path) -> None:
    for path in folder.glob("*.npz"):
        path.unlink()
    manifest = read(folder)
    for precision in NATIVE:
        manifest = without(manifest, precision, "native")
    write(folder, manifest)
    found = read_shelf(folder)
    assert found.sets == sorted(product(TFLITE, ["tflite"]))
    assert found.fastest("int8") == "tflite"
    assert open_networks("int8", threads=1, folder=folder).backend == "tflite"
    with pytest.raises(InvalidOption, match="there are no int8 engines for 'native'"):
        open_named(f"{folder}:int8.native")


def test_an_incomplete_set_for_the_core_leaves_the_precision_to_litert(folder: Path) -> None:
    manifest = read(folder)
    manifest["engines"] = [e for e in manifest["engines"] if e["file"] != "onet.int8.npz"]
    write(folder, manifest)
    assert ("int8", "native") not in read_shelf(folder).sets
    assert read_shelf(folder).fastest("int8") == "tflite"
    assert open_networks("int8", threads=1, folder=folder).backend == "tflite"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("int8.onnx", "there are no int8 engines for 'onnx'"),
        ("fp32.onnx", "there are no fp32 engines for 'onnx'"),
        ("mixed.native", "there are no mixed engines for 'native'"),
        ("int8.npz", "there are no int8 engines for 'npz'"),
        ("int8.tflite.tflite", "there are no int8 engines for 'tflite.tflite'"),
        ("fp8.native", "precision is 'fp8'; there are dynamic"),
        (".native", "precision is ''; there are dynamic"),
    ],
)
def test_a_runtime_that_does_not_serve_cannot_be_opened(spec: str, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        open_named(spec)


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
        ("int8", (None, "int8", None)),
        ("int8.tflite", (None, "int8", "tflite")),
        ("engines/mine:int8", (Path("engines/mine"), "int8", None)),
        ("engines/mine.old:int8.native", (Path("engines/mine.old"), "int8", "native")),
        ("/a:b/c:fp32", (Path("/a:b/c"), "fp32", None)),
        (".:mixed", (Path("."), "mixed", None)),
        (":int8", (None, "int8", None)),
        ("int8.", (None, "int8", None)),
        ("", (None, "", None)),
    ],
)
def test_a_spec_is_a_precision_a_runtime_if_any_and_a_folder_if_any(
    spec: str, parsed: tuple[Path | None, str, str | None]
) -> None:
    assert parse_spec(spec) == parsed


def test_engines_of_a_folder_open_by_name_without_a_certificate(folder: Path, runtime: str) -> None:
    write(folder, {**read(folder), "certificates": []})
    assert open_named(f"{folder}:int8", threads=1).precision == "int8"
    files = named_files(f"{folder}:int8")
    suffix = SUFFIXES[runtime]
    assert files == {n: (folder / f"{n}.int8.{suffix}").read_bytes() for n in NETWORKS}
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
    folder: Path, runtime: str
) -> None:
    manifest = read(folder)
    kept = [
        c for c in manifest["certificates"] if (c["precision"], c["runtime"]) != ("int8", runtime)
    ]
    assert len(kept) == len(SETS) - 1  # that of the other runtime does not count
    write(folder, {**manifest, "certificates": kept})
    open_networks("fp32", threads=1, folder=folder)
    with pytest.raises(
        EngineError, match=rf"int8 engines \({runtime}\) have no certificate.*--allow-uncert"
    ):
        open_networks("int8", threads=1, folder=folder)


@pytest.mark.parametrize("made", sorted(SETS))
def test_each_set_needs_a_certificate_of_its_own(folder: Path, made: tuple[str, str]) -> None:
    manifest = read(folder)
    kept = [c for c in manifest["certificates"] if (c["precision"], c["runtime"]) != made]
    write(folder, {**manifest, "certificates": kept})
    for other in SETS:
        if other != made:
            read_shelf(folder).check_certificate(*other)
    with pytest.raises(EngineError, match=rf"{made[0]} engines \({made[1]}\) have no certificate"):
        read_shelf(folder).check_certificate(*made)
    write(folder, {**manifest, "certificates": [certificate(manifest, *made)]})
    read_shelf(folder).check_certificate(*made)


def test_engines_that_failed_the_gate_are_refused_with_its_reasons(
    folder: Path, runtime: str
) -> None:
    manifest = read(folder)
    manifest["certificates"] = [certificate(manifest, "int8", runtime, passed=False)]
    write(folder, manifest)
    with pytest.raises(
        EngineError, match=r"failed the gate: recall of small .* 4\.2 points; more false ones;"
    ):
        open_networks("int8", threads=1, folder=folder)


def test_uncertified_engines_are_allowed_loudly(
    folder: Path, runtime: str, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = read(folder)
    manifest["certificates"] = [certificate(manifest, "int8", runtime, passed=False)]
    write(folder, manifest)
    with caplog.at_level(logging.WARNING):
        networks = open_networks("int8", threads=1, folder=folder, allow_uncertified=True)
    assert networks.precision == "int8"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "UNCERTIFIED ENGINES IN USE" in record.message
    assert "4.2 points" in record.message


@pytest.mark.usefixtures("runtime")
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
        lambda c: c.update(runtime="tflite" if c["runtime"] == "native" else "native"),
        lambda c: c.update(precision="fp32"),
        lambda c: c.update(passed="yes"),
        lambda c: c.update(passed=1),
        lambda c: c.update(passed=None),
    ],
)
def test_a_certificate_of_anything_else_counts_for_nothing(
    folder: Path, runtime: str, change: Callable[[Manifest], Any]
) -> None:
    manifest = read(folder)
    made = certificate(manifest, "int8", runtime)
    change(made)
    write(folder, {**manifest, "certificates": [made]})
    with pytest.raises(EngineError, match="int8 engines"):
        open_networks("int8", threads=1, folder=folder)


def test_an_engine_exchanged_with_its_hash_loses_the_certificate(
    folder: Path, runtime: str
) -> None:
    fp32, int8 = (f"rnet.{precision}.{SUFFIXES[runtime]}" for precision in ("fp32", "int8"))
    replaced(folder, int8, (folder / fp32).read_bytes())
    with pytest.raises(EngineError, match="have no certificate"):
        open_networks("int8", threads=1, folder=folder)


# --- damage ---------------------------------------------------------------------------------------


def test_a_damaged_engine_is_refused(folder: Path, runtime: str) -> None:
    file = folder / f"onet.fp32.{SUFFIXES[runtime]}"
    name = file.name.replace(".", r"\.")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(EngineError, match=rf"{name} is damaged.*build the engines"):
        open_networks("fp32", folder=folder)
    with pytest.raises(EngineError, match=rf"{name} is damaged"):
        open_networks("fp32", folder=folder, allow_uncertified=True)
    with pytest.raises(EngineError, match="is damaged"):
        named_files(f"{folder}:fp32")


def test_a_missing_engine_is_refused(folder: Path, runtime: str) -> None:
    """Never served by the other runtime in silence."""
    suffix = SUFFIXES[runtime]
    (folder / f"rnet.fp32.{suffix}").unlink()
    with pytest.raises(EngineError, match=rf"rnet\.fp32\.{suffix} is missing.*build the engines"):
        open_networks("fp32", folder=folder)


def test_a_file_that_is_no_engine_is_refused(folder: Path, runtime: str) -> None:
    suffix = SUFFIXES[runtime]
    replaced(folder, f"pnet.fp32.{suffix}", b"not an engine of any kind")
    with pytest.raises(EngineError, match=rf"pnet\.fp32\.{suffix} cannot be loaded"):
        open_named(f"{folder}:fp32").pnet(np.zeros((1, 256, 256, 3), np.uint8))


Arrays = dict[str, np.ndarray]


def setting(name: str, value: Any) -> Callable[[Arrays], Any]:
    return lambda arrays: arrays.update({name: value})


def first(name: str, value: float) -> Callable[[Arrays], Any]:
    """Return what changes the first value of an array."""

    def change(arrays: Arrays) -> None:
        arrays[name].reshape(-1)[0] = value

    return change


def cast(name: str, dtype: str) -> Callable[[Arrays], Any]:
    return lambda arrays: arrays.update({name: arrays[name].astype(dtype)})


ALTERATIONS: dict[str, Callable[[Arrays], Any]] = {
    "no weights": lambda a: a.pop("conv2.weight"),
    "no biases": lambda a: a.pop("box.bias"),
    "no slopes": lambda a: a.pop("conv1.slopes"),
    "no scale": lambda a: a.pop("conv2.scale"),
    "no zero point": lambda a: a.pop("conv3.zero_point"),
    "no weight scales": lambda a: a.pop("conv1.weight_scale"),
    "no head": lambda a: a.pop("logit.weight"),
    "nothing": lambda a: a.clear(),
    "weights of another shape": lambda a: a.update({"conv2.weight": a["conv2.weight"][:-1]}),
    "weights turned": lambda a: a.update({"conv2.weight": a["conv2.weight"].swapaxes(0, 1)}),
    "weights flat": lambda a: a.update({"conv1.weight": a["conv1.weight"].reshape(-1)}),
    "a bias too many": lambda a: a.update({"conv1.bias": np.append(a["conv1.bias"], 0)}),
    "one slope for all": setting("conv1.slopes", np.full(1, 0.1, np.float32)),
    "a scale by channel": setting("conv1.scale", np.ones(28, np.float32)),
    "a zero point in a list": setting("conv1.zero_point", np.zeros(1, np.int32)),
    "float weights in a hidden layer": cast("conv2.weight", "float32"),
    "float weights in the first layer alone": cast("conv1.weight", "float32"),
    "unsigned weights": cast("conv1.weight", "uint8"),
    "wide weights": cast("conv3.weight", "int16"),
    "biases in double": cast("conv1.bias", "float64"),
    "biases of the other byte order": cast("conv1.bias", ">f4"),
    "slopes in half": cast("conv2.slopes", "float16"),
    "a zero point in float": cast("conv1.zero_point", "float32"),
    "a wide zero point": cast("conv1.zero_point", "int64"),
    "complex scales": cast("conv1.scale", "complex64"),
    "names for weights": setting("conv1.weight", np.array(["a"])),
    "a weight that is NaN": first("logit.weight", np.nan),
    "a bias that is NaN": first("conv1.bias", np.nan),
    "a bias of infinity": first("box.bias", np.inf),
    "a slope of infinity": first("conv2.slopes", -np.inf),
    "a scale that is NaN": setting("conv1.scale", np.float32("nan")),
    "a scale of nothing": setting("conv2.scale", np.float32(0)),
    "a negative scale": setting("conv2.scale", np.float32(-0.1)),
    "a weight scale of nothing": first("conv2.weight_scale", 0),
    "a negative weight scale": first("conv3.weight_scale", -1),
    "a weight scale of infinity": first("conv3.weight_scale", np.inf),
    "a negative zero point": setting("conv1.zero_point", np.int32(-1)),
    "a zero point beyond a byte": setting("conv1.zero_point", np.int32(256)),
    "pickled weights": setting("conv1.weight", np.array([{"a": 1}, None], object)),
}


@pytest.mark.usefixtures("core")
@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_an_engine_for_the_core_that_is_not_its_network_is_refused(
    folder: Path, alteration: str
) -> None:
    """Also where someone wrote the hash of it into the manifest and allows it."""
    with np.load(folder / "rnet.int8.npz") as file:
        arrays = dict(file)
    ALTERATIONS[alteration](arrays)
    written = io.BytesIO()
    np.savez(written, **arrays)  # type: ignore[arg-type]
    replaced(folder, "rnet.int8.npz", written.getvalue())
    with pytest.raises(EngineError, match=r"rnet\.int8\.npz cannot be loaded"):
        open_networks("int8", threads=1, folder=folder, allow_uncertified=True)
    assert open_named(f"{folder}:int8.tflite", threads=1).backend == "tflite"  # untouched


def zipped(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


def array_file(content: bytes = b"", **header: Any) -> bytes:
    file = io.BytesIO()
    fields = {"descr": "<f4", "fortran_order": False, "shape": (1,), **header}
    np.lib.format.write_array_header_1_0(file, fields)  # type: ignore[no-untyped-call]
    return file.getvalue() + content


class Trap:
    """What would run a program if it were unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("a pickle was read",)


ENGINE = (PREBUILT / "rnet.int8.npz").read_bytes()
NO_ENGINES = {
    "nothing": b"",
    "half a file": ENGINE[: len(ENGINE) // 2],
    "all but the last byte": ENGINE[:-1],
    "no beginning": ENGINE[100:],
    "another network": (PREBUILT / "onet.int8.npz").read_bytes(),
    "an engine of LiteRT": (PREBUILT / "rnet.int8.tflite").read_bytes(),
    "a pickle": pickle.dumps(Trap()),
    "a zip of a pickle": zipped("conv1.weight.npy", pickle.dumps(Trap())),
    "an array alone": array_file(bytes(4)),
    "a zip of no arrays": zipped("conv1.weight", b"text"),
    "a zip of an array cut": zipped("conv1.weight.npy", array_file(shape=(9, 9))),
    "a zip of an array larger than memory": zipped("conv1.weight.npy", array_file(shape=(10**14,))),
    "a zip of an array of nonsense": zipped("conv1.weight.npy", b"\x93NUMPY\x01\x00\x04\x00{[(\n"),
}


@pytest.mark.usefixtures("core")
@pytest.mark.parametrize("content", NO_ENGINES)
def test_a_file_that_is_no_archive_of_arrays_is_refused(folder: Path, content: str) -> None:
    replaced(folder, "rnet.int8.npz", NO_ENGINES[content])
    with pytest.raises(EngineError, match=r"rnet\.int8\.npz cannot be loaded"):
        open_networks("int8", threads=1, folder=folder, allow_uncertified=True)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_an_engine_with_a_few_bytes_changed_is_read_as_it_was_or_refused(
    data: st.DataObject,
) -> None:
    """An archive holds a checksum of each array: what changes one is never taken for another."""
    wanted = read_arrays(ENGINE, "rnet", "rnet")
    changed = bytearray(ENGINE)
    headers = [found.start() for found in re.finditer(b"PK", ENGINE)]
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.sampled_from(headers)) + data.draw(st.integers(0, 150))
        changed[min(place, len(ENGINE) - 1)] = data.draw(st.integers(0, 255))
    try:
        arrays = read_arrays(bytes(changed), "rnet", "rnet")
    except EngineError:
        return
    assert all((arrays[name] == values).all() for name, values in wanted.items())


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


def test_damage_to_what_ships_asks_to_reinstall(shipped: Path, runtime: str) -> None:
    open_networks("int8", threads=1)
    file = shipped / f"rnet.fp32.{SUFFIXES[runtime]}"
    name = file.name.replace(".", r"\.")
    file.write_bytes(b"")
    with pytest.raises(EngineError, match=rf"{name} is damaged.*reinstall unface"):
        open_networks("fp32")
    file.unlink()
    with pytest.raises(EngineError, match=rf"{name} is missing: reinstall unface"):
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
