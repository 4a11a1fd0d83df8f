"""What a person gets who installs the wheel, away from the repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of what git tracks, so that nothing is written here."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=True
    ).stdout
    for name in filter(None, tracked.decode().split("\0")):
        if (REPOSITORY / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((REPOSITORY / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", target, source]
    subprocess.run(command, check=True, timeout=300)
    (built,) = target.glob("unface-*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_carries_engines_weights_contract_and_types(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for network in ("pnet", "rnet", "onet"):
        for precision in ("fp32", "fp16", "dynamic", "int8", "mixed"):
            assert f"unface/engines/prebuilt/{network}.{precision}.tflite" in names
        assert f"unface/mtcnn/weights/{network}.safetensors" in names
        assert f"unface/calibration/cache/{network}.json" in names
    for folder in ("calibration/tuned", "calibration/pictures"):
        files = {path.name for path in (REPOSITORY / folder).iterdir()}
        assert files
        assert {f"unface/{folder}/{name}" for name in files} <= names
    assert "unface/engines/prebuilt/manifest.json" in names
    assert not [name for name in names if name.endswith(".onnx")]  # for other runtimes: build them
    assert "unface/v1/unface.proto" in names
    assert "unface/py.typed" in names
    assert any(name.endswith("licenses/THIRD_PARTY_NOTICES.md") for name in names)
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"unface"}


@pytest.mark.slow
def test_the_wheel_works_away_from_the_repository(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    photo = REPOSITORY / "docs" / "images" / "astronaut.jpg"
    command = [sys.executable, "-m", "unface.command", "detect", "--json", str(photo)]
    code = "import unface; print(unface.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    where = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert str(tmp_path) in where.stdout, where.stderr
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    assert len(json.loads(result.stdout)["faces"]) == 1
