"""`unface calibrate` and `unface engines` as a person types them: real processes, real files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from unface.calibration.cache import read_calibration
from unface.calibration.samples import read_samples

ROOT = Path(__file__).parents[2]
PREBUILT = ROOT / "engines" / "prebuilt"
RTX = ("--library", "tensorrt_rtx")
CACHES = ("pnet", "rnet", "onet", "pnet.native")


def unface(
    *arguments: object, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "unface.command", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, gain in enumerate((1.0, 0.4)):
        Image.fromarray((data.astronaut() * gain).astype(np.uint8)).save(folder / f"{index}.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_the_engines_that_ship_are_listed_with_their_certificates() -> None:
    result = unface("engines", "list")
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    for precision in ("dynamic", "fp16", "fp32", "int8", "mixed"):
        sets = [line.split()[1] for line in lines if line.startswith(f"{precision} ")]
        assert sets == (["native", "tflite"] if precision in ("fp32", "int8") else ["tflite"])
    assert len([line for line in lines if line.endswith("passed the gate")]) == 7
    assert not any("NOT CERTIFIED" in line for line in lines)
    assert len([line for line in lines if ".tflite" in line]) == 15
    assert len([line for line in lines if ".npz" in line]) == 6
    assert len([line for line in lines if line.startswith("  certificate  ")]) == 7
    assert len(lines) == 7 + 7 + 21  # nothing serves ONNX


def test_a_folder_without_engines_is_an_error(tmp_path: Path) -> None:
    assert "manifest" in unface("engines", "list", tmp_path).stderr
    assert "no folder" in unface("engines", "list", tmp_path / "nowhere").stderr


def test_calibrating_says_what_the_pictures_lack(photos: Path, tmp_path: Path) -> None:
    result = unface("calibrate", photos, "--out", tmp_path / "cache")
    assert result.returncode == 0, result.stderr
    assert "2 pictures are few: 100 to 500 are wanted" in result.stderr
    assert "0 back-lit faces are few" in result.stderr
    assert {path.stem for path in (tmp_path / "cache").iterdir()} == set(CACHES)
    for name in CACHES:
        calibration = read_calibration(tmp_path / "cache" / f"{name}.json")
        assert calibration.network == name.partition(".")[0]
        assert calibration.samples > 1


def test_samples_can_be_kept_and_calibrate_the_same_again(photos: Path, tmp_path: Path) -> None:
    kept = tmp_path / "samples.npz"
    first = unface("calibrate", photos, "--out", tmp_path / "a", "--save-samples", kept)
    again = unface(
        "calibrate", "--samples", kept, "--out", tmp_path / "b", "--method", "percentile"
    )
    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    assert read_samples(kept).images == 2
    for cache in CACHES:
        name = f"{cache}.json"
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere"], 2, "nowhere does not exist"),
        (["--samples", "nowhere.npz"], 2, "does not hold calibration samples"),
        ([".", "--samples", "x.npz"], 2, "one of them is enough"),
        (["--method", "guess"], 2, "invalid choice"),
    ],
)
def test_a_wrong_use_of_calibrate_is_explained(
    tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    result = unface("calibrate", *arguments, "--out", tmp_path / "cache")
    assert result.returncode == code
    assert message in result.stderr
    assert not (tmp_path / "cache").exists()


def test_pictures_without_faces_calibrate_nothing(tmp_path: Path) -> None:
    Image.new("RGB", (80, 80)).save(tmp_path / "black.png")
    result = unface("calibrate", tmp_path, "--out", tmp_path / "cache")
    assert result.returncode == 1
    assert "show no face" in result.stderr


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """INT8 plans for two compute capabilities, as someone without a GPU builds them."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx comes with unface[rtx]")
    folder = tmp_path_factory.mktemp("plans") / "new"
    options = ("--precision", "int8", "--capability", "8.6", "--capability", "7.5")
    built = unface("engines", "build", folder, "--target", "tensorrt", *options)
    assert built.returncode == 0, built.stderr
    assert f"unface engines inspect {folder}" in built.stdout
    return folder


def test_plans_are_listed_with_the_verdict_on_their_models(plans: Path) -> None:
    result = unface("engines", "list", plans)
    assert result.returncode == 0
    sets = [line.split() for line in result.stdout.splitlines() if not line.startswith(" ")]
    assert [words[:2] for words in sets] == [
        ["int8", "tensorrt_rtx-sm75"],
        ["int8", "tensorrt_rtx-sm86"],
    ]
    assert all(words[-3:] == ["passed", "the", "gate"] for words in sets)


def test_what_tensorrt_fused_is_shown_layer_by_layer(plans: Path) -> None:
    result = unface("engines", "inspect", plans, "--network", "pnet")
    assert result.returncode == 0, result.stderr
    turing, ampere = result.stdout.strip().split("\n\n")
    assert turing.startswith("pnet.int8.tensorrt_rtx-sm75.plan: tensorrt_rtx ")
    head, source, *rows, last = ampere.splitlines()
    assert head.endswith("compute capability 8.6")
    assert source.startswith(("by the builder's log, for engine", "by the engine inspector"))
    assert len([row for row in rows if " convolution " in row]) == 5
    assert any("conv2/conv + conv2/relu" in row and "INT8 NHWC" in row for row in rows)
    assert last.startswith("5 convolutions, 5 take INT8; 2 with their ReLU, 0 ReLU apart")
    assert turing.splitlines()[-1].startswith("5 convolutions, 0 take INT8")


def test_one_plan_is_shown_by_its_file(plans: Path) -> None:
    result = unface("engines", "inspect", plans / "rnet.int8.tensorrt_rtx-sm86.plan")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count(".plan: tensorrt_rtx") == 1
    assert "dense4/conv + dense4/relu" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["inspect", "{plans}", "--precision", "fp8"], 2, "no such plan"),
        (["inspect", "{plans}/other.plan"], 1, "not in the manifest of its folder"),
        (["inspect", "nowhere"], 1, "nowhere is no folder of engines"),
        (["inspect", PREBUILT], 1, "holds no TensorRT plans: make engines TARGET=tensorrt"),
        (["build", "{new}", "--capability", "8.6"], 2, "are for --target tensorrt"),
        (["build", "{new}", "--target", "abacus"], 2, "invalid choice"),
        (
            ["build", "{new}", "--target", "tensorrt", *RTX, "--capability", "1.0"],
            2,
            "compute capability is '1.0'; tensorrt_rtx",
        ),
        (
            ["build", "{new}", "--target", "tensorrt", "--library", "tensorrt_tx"],
            2,
            "it must be tensorrt or tensorrt_rtx",
        ),
    ],
)
def test_a_wrong_use_of_plans_is_explained(
    plans: Path, tmp_path: Path, arguments: list[object], code: int, message: str
) -> None:
    given = [str(a).format(plans=plans, new=tmp_path / "new") for a in arguments]
    result = unface("engines", *given)
    assert result.returncode == code
    assert message in result.stderr
    assert not list(tmp_path.rglob("*.plan"))


@pytest.mark.slow
@pytest.mark.usefixtures("core")
def test_engines_of_ones_own_are_built_judged_and_used(tmp_path: Path, photos: Path) -> None:
    """Without pictures: the built-in set, as someone who tries it would."""
    cache, engines = tmp_path / "cache", tmp_path / "engines"
    calibrated = unface("calibrate", "--out", cache)
    assert calibrated.returncode == 0, calibrated.stderr
    assert "one person" in calibrated.stderr
    built = unface("engines", "build", engines, "--cache", cache)
    assert built.returncode in (0, 1), built.stderr
    manifest = json.loads((engines / "manifest.json").read_text())
    certificates = {(c["runtime"], c["precision"]): c for c in manifest["certificates"]}
    assert len(certificates) == 9
    assert certificates["tflite", "fp32"]["passed"]
    assert certificates["native", "fp32"]["passed"]
    assert all(c["data"] == "built-in scenes" for c in certificates.values())
    picture = photos / "0.png"
    fp32 = unface("detect", picture, "--engines", engines, "--json")
    assert len(json.loads(fp32.stdout)["faces"]) == 1
    for runtime, kernels in (("native", {}), ("tflite", {"UNFACE_KERNELS": "none"})):
        options = ("--engines", engines, "--precision", "int8", "--json")
        int8 = unface("detect", picture, *options, env={**os.environ, **kernels})
        if certificates[runtime, "int8"]["passed"]:
            assert len(json.loads(int8.stdout)["faces"]) == 1
            assert json.loads(int8.stdout)["backend"] == runtime
        else:
            assert "failed the gate" in int8.stderr


@pytest.fixture
def uncertified(tmp_path: Path) -> Path:
    folder = tmp_path / "engines"
    shutil.copytree(PREBUILT, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["certificates"] = []
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_uncertified_engines_are_refused_unless_allowed_aloud(
    uncertified: Path, photos: Path, runtime: str
) -> None:
    refused = unface("detect", photos / "0.png", "--engines", uncertified)
    assert refused.returncode == 1
    assert f"fp32 engines ({runtime}) have no certificate" in refused.stderr
    assert "1 face" not in refused.stdout
    allowed = unface("detect", photos / "0.png", "--engines", uncertified, "--allow-uncertified")
    assert allowed.returncode == 0
    assert "UNCERTIFIED ENGINES IN USE" in allowed.stderr
    assert "1 face" in allowed.stdout


def test_the_profile_fast_answers_from_int8_engines(photos: Path) -> None:
    result = unface("detect", photos / "0.png", "--profile", "fast", "--json")
    answer = json.loads(result.stdout)
    assert answer["precision"] == "int8"
    assert len(answer["faces"]) == 1


def test_the_profile_privacy_covers_more_than_the_others(photos: Path, tmp_path: Path) -> None:
    covered = {}
    for profile in ("accurate", "privacy"):
        out = tmp_path / f"{profile}.png"
        arguments = ("--method", "solid", "--profile", profile)
        assert unface("anonymize", photos / "0.png", "-o", out, *arguments).returncode == 0
        covered[profile] = int((np.array(Image.open(out)) == 0).all(axis=2).sum())
    assert covered["privacy"] > 1.2 * covered["accurate"]
    out = tmp_path / "said.png"  # what is said beats the profile
    arguments = ("--method", "solid", "--profile", "privacy", "--margin", "0.1")
    unface("anonymize", photos / "0.png", "-o", out, *arguments)
    said = int((np.array(Image.open(out)) == 0).all(axis=2).sum())
    assert abs(said - covered["accurate"]) < 0.1 * covered["accurate"]
