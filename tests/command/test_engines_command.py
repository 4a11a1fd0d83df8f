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
    assert len(lines) == 7 + 21  # nothing serves ONNX


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
