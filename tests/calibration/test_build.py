from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch comes with unface[engines]")
pytest.importorskip("onnx", reason="onnx comes with unface[engines]")
pytest.importorskip("onnxruntime", reason="onnxruntime comes with unface[engines]")

from small_networks import operators

from unface.calibration import build as building
from unface.calibration.build import (
    NATIVE,
    ONNX,
    SUFFIXES,
    TFLITE,
    TOOLS,
    build,
    build_all,
    build_native,
    build_tflite,
    certify,
    main,
    shipped_cache,
    write_manifest,
)
from unface.calibration.cache import read_calibration, write_calibration
from unface.calibration.labels import LabelledPicture, LabelledSet
from unface.calibration.onnx_network import OnnxNetwork, open_onnx
from unface.calibration.samples import SHAPES
from unface.calibration.scenes import FACE, LANDMARKS, picture
from unface.calibration.weights import int8_weights, native_weights
from unface.engines.native import NativeNetwork, NativePNet, read_arrays
from unface.engines.shelf import open_named, read_shelf
from unface.engines.tflite import TfliteNetwork
from unface.errors import EngineError
from unface.kernels.library import instruction_set
from unface.mtcnn.network import Network, UInt8Array
from unface.mtcnn.team import ALONE

ROOT = Path(__file__).parents[2]
PREBUILT = ROOT / "engines" / "prebuilt"
NETWORKS = ("pnet", "rnet", "onet")
CACHES = (*NETWORKS, "pnet.native")  # P-Net has weights of its own for the core
SETS = len(TFLITE) + len(ONNX) + len(NATIVE)
Entries = list[dict[str, Any]]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Entries]:
    """All engines, built once for this module, and what the manifest says of them."""
    folder = tmp_path_factory.mktemp("built")
    return folder, build_all(folder, shipped_cache())


def same_tools() -> bool:
    made_with = json.loads((PREBUILT / "manifest.json").read_text())["toolchain"]
    return all(version(tool).split("+")[0] == made_with[tool] for tool in TOOLS)


def opened(path: Path) -> Network:
    if path.suffix == ".onnx":
        return OnnxNetwork(path.read_bytes(), path.name)
    if path.suffix == ".npz":
        model, network = path.read_bytes(), path.name.split(".")[0]
        if network == "pnet":
            return NativePNet(model, path.name)
        return NativeNetwork(model, path.name, network, ALONE)
    return TfliteNetwork(path.read_bytes(), path.name, (1,), 1)


def photo_parts(name: str) -> UInt8Array:
    side = SHAPES[name][0]
    photo = picture("astronaut")
    places = ((0, 100), (60, 190), (40, 180), (70, 200), (100, 150), (200, 250))
    return np.stack([photo[y : y + side, x : x + side] for y, x in places])


def test_engines_built_again_are_the_committed_ones(built: tuple[Path, Entries]) -> None:
    folder, entries = built
    assert len(entries) == 3 * SETS
    if same_tools():
        assert entries == json.loads((PREBUILT / "manifest.json").read_text())["engines"]
        for entry in entries:
            file = entry["file"]
            assert (folder / file).read_bytes() == (PREBUILT / file).read_bytes(), file
        return
    for entry in entries:  # other tools may write other bytes, not other answers
        if entry["runtime"] == "native" and instruction_set() == "none":
            continue
        images = photo_parts(entry["network"])
        ours, theirs = (opened(home / entry["file"])(images) for home in (folder, PREBUILT))
        for output, values in ours.items():
            np.testing.assert_allclose(values, theirs[output], atol=1e-3, err_msg=entry["file"])


def test_building_twice_gives_the_same_bytes(built: tuple[Path, Entries], tmp_path: Path) -> None:
    folder, entries = built
    assert build_all(tmp_path / "new", shipped_cache()) == entries
    for path in folder.glob("*.*"):
        assert (tmp_path / "new" / path.name).read_bytes() == path.read_bytes()


def test_other_scales_give_other_int8_engines_and_the_same_float_ones(
    built: tuple[Path, Entries], tmp_path: Path
) -> None:
    def scaled(fields: dict[str, Any]) -> None:
        fields["layers"]["conv2"]["limit"] *= 0.9

    changed = changed_engines(built[1], tmp_path, scaled)
    assert set(changed) == {("int8", "tflite"), ("mixed", "tflite"), ("int8", "onnx")}


@pytest.mark.parametrize("field", ["low", "high", "logit_offset"])
def test_what_is_measured_for_the_core_changes_its_int8_engines_alone(
    built: tuple[Path, Entries], tmp_path: Path, field: str
) -> None:
    def moved(fields: dict[str, Any]) -> None:
        if field == "logit_offset":
            fields[field] += 0.25
        else:
            fields["layers"]["conv2"][field] *= 0.9

    assert changed_engines(built[1], tmp_path, moved) == {("int8", "native"): 3}


def changed_engines(
    entries: Entries, folder: Path, change: Callable[[dict[str, Any]], None]
) -> Counter[tuple[str, str]]:
    """Return how many engines of each set change when the caches of all networks do."""
    for name in CACHES:
        fields = json.loads((shipped_cache() / f"{name}.json").read_text())
        change(fields)
        (folder / f"{name}.json").write_text(json.dumps(fields))
    return Counter(
        (old["precision"], old["runtime"])
        for old, new in zip(entries, build_all(folder / "new", folder), strict=True)
        if old["sha256"] != new["sha256"]
    )


def test_p_nets_engine_for_the_core_is_of_weights_and_a_calibration_of_its_own(
    built: tuple[Path, Entries],
) -> None:
    entries = {e["file"]: e for e in built[1]}
    ours, theirs = entries["pnet.int8.npz"], entries["pnet.int8.tflite"]
    assert ours["weights_sha256"] != theirs["weights_sha256"]
    assert ours["calibration_sha256"] != theirs["calibration_sha256"]
    cache = (shipped_cache() / "pnet.native.json").read_bytes()
    assert ours["calibration_sha256"] == hashlib.sha256(cache).hexdigest()
    for name in ("rnet", "onet"):
        ours, theirs = entries[f"{name}.int8.npz"], entries[f"{name}.int8.tflite"]
        for field in ("weights_sha256", "calibration_sha256"):
            assert ours[field] == theirs[field]
    for name in NETWORKS:
        fp32 = entries[f"{name}.fp32.npz"]
        assert fp32["weights_sha256"] == entries[f"{name}.fp32.tflite"]["weights_sha256"]
        assert fp32["calibration_sha256"] is None


@pytest.mark.parametrize("name", NETWORKS)
def test_engines_for_the_core_carry_the_spans_and_the_offset_of_the_cache(name: str) -> None:
    weights, cache = native_weights(name)
    calibration = read_calibration(shipped_cache() / f"{cache}.json")
    arrays = read_arrays((PREBUILT / f"{name}.int8.npz").read_bytes(), name, name)
    for layer in weights.layers:
        low, high = calibration.spans()[layer.conv.name]
        scale, zero = (arrays[f"{layer.conv.name}.{field}"] for field in ("scale", "zero_point"))
        # Zero itself is a step, so that both ends may be half a step aside.
        assert float(scale) == pytest.approx((high - low) / 255, rel=1e-6)
        assert float(scale) * (0 - int(zero)) == pytest.approx(low, abs=0.51 * float(scale))
        assert float(scale) * (255 - int(zero)) == pytest.approx(high, abs=0.51 * float(scale))
    bias = next(head.bias for head in weights.heads if head.name == "logit")
    assert calibration.logit_offset != 0
    np.testing.assert_allclose(
        arrays["logit.bias"], bias + calibration.logit_offset, rtol=0, atol=1e-6
    )


def test_a_stale_cache_builds_nothing(tmp_path: Path) -> None:
    fields = json.loads((shipped_cache() / "pnet.json").read_text())
    fields["weights"]["conv1.weight"] = "0" * 64
    (tmp_path / "pnet.json").write_text(json.dumps(fields))
    with pytest.raises(EngineError, match=r"pnet is stale: conv1\.weight changed"):
        build_all(tmp_path / "new", tmp_path)
    assert not list((tmp_path / "new").glob("*.int8.*"))


@pytest.mark.parametrize("name", ["pnet.native", "rnet"])
def test_a_stale_cache_of_the_core_builds_no_int8_engine_for_it(name: str, tmp_path: Path) -> None:
    network = name.partition(".")[0]
    fields = json.loads((shipped_cache() / f"{name}.json").read_text())
    fields["weights"]["conv1.weight"] = "0" * 64
    (tmp_path / f"{name}.json").write_text(json.dumps(fields))
    calibration, (weights, _) = read_calibration(tmp_path / f"{name}.json"), native_weights(network)
    with pytest.raises(EngineError, match=rf"{network} is stale: conv1\.weight changed"):
        build_native(network, "int8", calibration, weights)
    build_native(network, "fp32", calibration, weights)


def test_the_calibration_of_other_weights_of_p_net_builds_nothing_for_the_core() -> None:
    calibration = read_calibration(shipped_cache() / "pnet.json")  # of LiteRT's
    with pytest.raises(EngineError, match=r"pnet is stale: .*changed"):
        build_native("pnet", "int8", calibration, native_weights("pnet")[0])


def test_int8_engines_are_at_most_three_tenths_of_the_float_ones() -> None:
    sizes = {
        precision: sum((PREBUILT / f"{n}.{precision}.tflite").stat().st_size for n in NETWORKS)
        for precision in TFLITE
    }
    native = {
        precision: sum((PREBUILT / f"{n}.{precision}.npz").stat().st_size for n in NETWORKS)
        for precision in NATIVE
    }
    assert native["int8"] <= 0.30 * native["fp32"]
    assert sizes["int8"] <= 0.30 * sizes["fp32"]
    assert sizes["fp16"] <= 0.55 * sizes["fp32"]
    assert sizes["dynamic"] <= 0.30 * sizes["fp32"]


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_that_the_mixed_engine_keeps_in_float_lose_nothing(
    name: str, tmp_path: Path
) -> None:
    """With all layers in float it is FP32 of the same weights; with some it lies in between."""
    fields = json.loads((shipped_cache() / f"{name}.json").read_text())
    images = photo_parts(name)
    layers = list(fields["layers"])
    hidden = [layer for layer in layers if layer not in ("logit", "box", "landmarks")]
    outputs, found = {}, {}
    for kind, floating in (("none", []), ("some", hidden[1:]), ("all", layers)):
        fields["float_layers"] = floating
        (tmp_path / f"{name}.json").write_text(json.dumps(fields))
        calibration = read_calibration(tmp_path / f"{name}.json")
        write_calibration(calibration, tmp_path)
        model = build_tflite(name, "mixed", calibration, int8_weights(name))
        found[kind] = operators(model)
        outputs[kind] = TfliteNetwork(model, name, (1,), 1)(images)
    int8 = open_named("int8.tflite", threads=1)
    assert "DEQUANTIZE" in found["some"]
    for output, exact in outputs["all"].items():
        lost = {kind: np.abs(outputs[kind][output] - exact).mean() for kind in ("none", "some")}
        assert 0 < lost["some"] < 0.9 * lost["none"], (output, lost)
        np.testing.assert_allclose(
            outputs["none"][output], getattr(int8, name)(images)[output], atol=1e-6
        )


def test_float_layers_in_between_open_from_a_folder_and_find_the_face(tmp_path: Path) -> None:
    from unface.mtcnn import Cascade

    for name in CACHES:
        fields = json.loads((shipped_cache() / f"{name}.json").read_text())
        fields["float_layers"] = ["conv2"]
        (tmp_path / f"{name}.json").write_text(json.dumps(fields))
    folder = tmp_path / "new"
    write_manifest(folder, build_all(folder, tmp_path), [])
    faces = Cascade(open_named(f"{folder}:mixed", threads=1)).detect(picture("astronaut"))
    assert len(faces) == 1


# --- certificates ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures() -> list[LabelledPicture]:
    """The portrait, and a picture without a face."""
    marks = np.array(LANDMARKS, np.float64)[None]
    none = (np.zeros((0, 4)), np.zeros(0, bool), np.zeros((0, 5, 2)))
    one = (np.array([FACE], np.float64), np.zeros(1, bool), marks)
    rules = LabelledSet(0.5)
    return [
        LabelledPicture("two", "one face", rules, *one, lambda: picture("astronaut")),
        LabelledPicture("two", "no face", rules, *none, lambda: picture("brick")),
    ]


@pytest.fixture(scope="module")
def judged(
    core: None, built: tuple[Path, Entries], pictures: list[LabelledPicture]
) -> tuple[Path, Entries, list[dict[str, Any]]]:
    folder, entries = built
    write_manifest(folder, entries, [])
    certificates = certify(folder, entries, pictures, "two scenes")
    write_manifest(folder, entries, certificates)
    return folder, entries, certificates


def test_each_set_of_engines_gets_a_certificate_of_its_bytes(
    judged: tuple[Path, Entries, list[dict[str, Any]]], pictures: list[LabelledPicture]
) -> None:
    folder, entries, certificates = judged
    sets = {(c["precision"], c["runtime"]): c for c in certificates}
    assert len(certificates) == len(sets) == SETS
    assert {runtime for _, runtime in sets} == {"tflite", "onnx", "native"}
    for (precision, runtime), certificate in sets.items():
        assert certificate["engines"] == {
            e["network"]: e["sha256"]
            for e in entries
            if (e["precision"], e["runtime"]) == (precision, runtime)
        }
        assert certificate["reference"] == ("torch fp32" if precision == "fp32" else "fp32.tflite")
        assert certificate["data"] == "two scenes"
        assert certificate["pictures"] == 2
        assert certificate["faces"] == len(pictures[0].faces) > 0
        assert certificate["passed"] is (not certificate["reasons"])
        assert not any(
            "seconds" in key or key.endswith("time") for key in certificate if key != "runtime"
        )
    for runtime in ("tflite", "native"):
        assert sets["fp32", runtime]["recall"]["all"]["candidate"] == 100
        read_shelf(folder).check_certificate("fp32", runtime)
    assert [c.passed for c in read_shelf(folder).certificates] == [
        c["passed"] for c in certificates
    ]


def test_certificates_are_kept_while_no_byte_changes(
    judged: tuple[Path, Entries, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, entries, certificates = judged
    asked: list[str] = []
    monkeypatch.setattr(building, "_certificate", lambda *a: asked.append(a[2]) or {})
    assert certify(folder, entries, [], "others") == certificates
    assert asked == []


@pytest.mark.parametrize("runtime", ["tflite", "native"])
def test_a_changed_byte_is_judged_anew_and_nothing_else(
    judged: tuple[Path, Entries, list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
    runtime: str,
) -> None:
    folder, entries, certificates = judged
    asked: list[tuple[str, str]] = []

    def judge(_: Path, runtime: str, precision: str, hashes: dict[str, str], *__: Any) -> Any:
        asked.append((runtime, precision))
        return {"engines": hashes}

    monkeypatch.setattr(building, "_certificate", judge)
    other = f"rnet.int8.{SUFFIXES[runtime]}"
    changed = [{**e, "sha256": "0" * 64} if e["file"] == other else e for e in entries]
    new = certify(folder, changed, [], "others")
    assert asked == [(runtime, "int8")]
    kept = [c for c in new if c in certificates]
    assert len(kept) == len(certificates) - 1
    (made,) = (c for c in new if c not in certificates)
    assert made["engines"]["rnet"] == "0" * 64


@pytest.mark.parametrize("content", [None, "", "{}", "[]", '{"certificates": 3}'])
def test_without_a_readable_manifest_all_is_judged(
    judged: tuple[Path, Entries, list[dict[str, Any]]],
    content: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(building, "_certificate", lambda *a: asked.append(a[2]) or {})
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    certify(tmp_path, judged[1], [], "others")
    assert len(asked) == SETS


def test_the_manifest_names_the_tools_it_was_made_with(
    judged: tuple[Path, Entries, list[dict[str, Any]]],
) -> None:
    folder, entries, certificates = judged
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["toolchain"] == {tool: version(tool).split("+")[0] for tool in TOOLS}
    assert (manifest["engines"], manifest["certificates"]) == (entries, certificates)


def test_the_build_says_whether_all_passed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pictures: list[LabelledPicture],
    capsys: pytest.CaptureFixture[str],
) -> None:
    verdict = {"passed": True}
    monkeypatch.setattr(building, "labelled_scenes", lambda: pictures)
    monkeypatch.setattr(building, "build_all", lambda folder, cache: [
        {"network": "pnet", "runtime": "tflite", "precision": "int8", "sha256": "1", "file": "a"}
    ])  # fmt: skip
    monkeypatch.setattr(
        building,
        "_certificate",
        lambda folder, runtime, precision, hashes, *_: {
            **{"precision": precision, "runtime": runtime, "engines": hashes, "reasons": []},
            **verdict,
        },
    )
    arguments = ["build", str(tmp_path)]
    monkeypatch.setattr("sys.argv", arguments)
    assert main() == 0
    (tmp_path / "manifest.json").unlink()
    verdict["passed"] = False
    assert main() == 1
    assert build(tmp_path, tmp_path, None) is False  # kept, and still not passed
    monkeypatch.setattr("sys.argv", [*arguments, "--data", str(tmp_path / "nothing")])
    assert main() == 2
    assert "make engines: " in capsys.readouterr().err


def test_a_mixed_engine_can_keep_the_merged_head_in_float() -> None:
    weights = int8_weights("pnet")
    calibration = read_calibration(shipped_cache() / "pnet.json")
    levels = {}
    for float_layers in ((), ("logit",)):
        model = build_tflite(
            "pnet", "mixed", replace(calibration, float_layers=float_layers), weights
        )
        logit = TfliteNetwork(model, "pnet", (1,), 1)(photo_parts("pnet")[:1])["logit"]
        levels[float_layers] = len(np.unique(logit))
    assert levels[()] <= 256 < levels["logit",]


# --- ONNX -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ONNX)
def test_onnx_engines_take_any_batch_and_give_what_the_contract_says(precision: str) -> None:
    networks = open_onnx(PREBUILT, precision)
    assert (networks.backend, networks.precision) == ("onnxruntime", precision)
    for name in NETWORKS:
        network: Network = getattr(networks, name)
        images = photo_parts(name)[:3]
        together = network(images)
        alone = [network(images[k : k + 1]) for k in range(3)]
        lite = getattr(open_named("fp32.tflite", threads=1), name)(images)
        assert together.keys() == lite.keys()
        for output, values in together.items():
            assert values.shape == lite[output].shape
            assert values.dtype == np.float32
            joined = np.concatenate([a[output] for a in alone])
            np.testing.assert_allclose(values, joined, atol=1e-4)
        network.close()


def test_what_is_no_onnx_model_is_an_engine_error(tmp_path: Path) -> None:
    for name in NETWORKS:
        (tmp_path / f"{name}.fp32.onnx").write_bytes(b"not a model")
    with pytest.raises(EngineError, match="pnet cannot be loaded"):
        open_onnx(tmp_path, "fp32")
