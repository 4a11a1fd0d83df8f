"""`unface validate` as a person types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from unface.calibration.scenes import labelled_scenes
from unface.engines.shelf import read_shelf


def validate(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "unface.command", "validate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a few labelled pictures, as a user would have one."""
    folder = tmp_path_factory.mktemp("data") / "my <pictures>"
    (folder / "images").mkdir(parents=True)
    lines = []
    for scene in labelled_scenes()[3:20:4]:
        assert cv2.imwrite(str(folder / "images" / f"{scene.name}.png"), scene.load()[..., ::-1])
        faces = [
            {"box": [x1, y1, x2 - x1, y2 - y1], "ignore": False, "landmarks": marks.tolist()}
            for (x1, y1, x2, y2), marks in zip(scene.faces.tolist(), scene.landmarks, strict=True)
        ]
        lines.append(json.dumps({"image": f"{scene.name}.png", "faces": faces}))
    (folder / "labels.jsonl").write_text("\n".join(lines))
    return folder


def test_an_engine_passes_beside_itself_and_the_reports_are_written(
    labelled: Path, tmp_path: Path
) -> None:
    json_file, html_file = tmp_path / "out" / "report.json", tmp_path / "report.html"
    options = ("--data", labelled, "--json", json_file, "--html", html_file, "--no-speed")
    result = validate("fp32", "fp32", *options, "--threads", 1)
    assert result.returncode == 0, result.stderr
    assert "PASSED" in result.stdout
    assert "on my <pictures>" in result.stdout
    assert "peak memory" not in result.stdout
    record = json.loads(json_file.read_text())
    assert record["passed"] is True
    assert record["data"] == "my <pictures>"
    assert len(record["candidate"]["hashes"]) == 3
    assert "my &lt;pictures&gt;" in html_file.read_text()


@pytest.mark.parametrize("candidate", ["int8.native", "int8.tflite"])
def test_engines_of_a_runtime_are_judged_by_their_name(
    labelled: Path, tmp_path: Path, candidate: str, request: pytest.FixtureRequest
) -> None:
    if candidate.endswith(".native"):
        request.getfixturevalue("core")
    options = ("--data", labelled, "--json", tmp_path / "report.json", "--no-speed")
    result = validate("fp32.tflite", candidate, *options)
    assert result.returncode == 0, result.stdout + result.stderr
    record = json.loads((tmp_path / "report.json").read_text())
    precision, runtime = candidate.split(".")
    wanted = {name: e.sha256 for name, e in read_shelf().of(precision, runtime).items()}
    assert record["candidate"]["hashes"] == wanted


@pytest.mark.slow
def test_without_a_folder_the_scenes_that_ship_are_used_and_cost_is_measured(
    tmp_path: Path,
) -> None:
    result = validate("fp32", "fp32", "--json", tmp_path / "report.json")
    assert result.returncode == 0, result.stderr
    assert "the scenes that ship with unface (no --data was given)" in result.stdout
    record = json.loads((tmp_path / "report.json").read_text())
    assert all(0.2 < pace["ratio"] < 5 for pace in record["speed"].values())
    assert record["candidate"]["peak_mib"] > 40
    assert all(band["faces"] >= 100 for band in record["equal_false_positives"]["bands"].values())


def test_damaged_labels_are_named_and_never_pass(tmp_path: Path) -> None:
    (tmp_path / "labels.jsonl").write_text('{"image": 3}')
    result = validate("fp32", "fp32", "--data", tmp_path)
    assert result.returncode == 2
    assert "labels.jsonl, line 1: image is missing" in result.stderr
    assert result.stdout == ""


def test_a_damaged_picture_is_named_and_never_passes(labelled: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"\x89PNG")
    face = {"box": [1, 1, 50, 50]}
    (tmp_path / "labels.jsonl").write_text(json.dumps({"image": "a.png", "faces": [face]}))
    result = validate("fp32", "fp32", "--data", tmp_path, "--no-speed")
    assert result.returncode == 1
    assert "a.png cannot be read" in result.stderr
    assert "PASSED" not in result.stdout


def test_a_picture_in_which_nothing_is_found_never_passes(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    assert cv2.imwrite(str(tmp_path / "images" / "a.png"), np.zeros((200, 200, 3), np.uint8))
    face = {"box": [1, 1, 50, 50]}
    (tmp_path / "labels.jsonl").write_text(json.dumps({"image": "a.png", "faces": [face]}))
    result = validate("fp32", "fp32", "--data", tmp_path, "--no-speed")
    assert result.returncode == 2
    assert "the first engine finds none of 1 labelled faces" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("fp32",), "the following arguments are required: QUANT"),
        (("fp32", "fp32", "--data", "/nowhere"), "/nowhere is no folder"),
        (("fp32", "fp32", "--threads", "0"), "threads is 0"),
        (("fp32", "int8.onnx"), "there are no int8 engines for 'onnx'"),
        (("fp32", "fp32", "--json", "/"), "/ is a folder"),
    ],
)
def test_wrong_usage_is_refused_with_2(arguments: tuple[str, ...], said: str) -> None:
    result = validate(*arguments)
    assert result.returncode == 2
    assert said in result.stderr
