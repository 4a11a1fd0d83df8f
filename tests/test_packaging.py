"""What a person gets who installs the wheel, away from the repository."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which(os.environ.get("CC", "cc")) is None:
        pytest.skip("there is no compiler here")
    return build(tmp_path_factory.mktemp("with"))


@pytest.fixture(scope="module")
def pure_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as a machine without a compiler builds it."""
    return build(tmp_path_factory.mktemp("without"), CC="/bin/false")


def build(folder: Path, **environment: str) -> Path:
    """Build the wheel from a copy of what git tracks, so that nothing is written here."""
    source, target = folder / "source", folder / "wheel"
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=True
    ).stdout
    for name in filter(None, tracked.decode().split("\0")):
        if (REPOSITORY / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((REPOSITORY / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", target, source]
    subprocess.run(command, check=True, timeout=300, env={**os.environ, **environment})
    (built,) = target.glob("unface-*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_is_one_for_every_python_from_3_10_on_this_platform(wheel: Path) -> None:
    assert re.fullmatch(rf"unface-[\d.]+-cp310-abi3-linux_{platform.machine()}\.whl", wheel.name)
    names = zipfile.ZipFile(wheel).namelist()
    assert "unface/kernels/_kernels.abi3.so" in names
    assert len([name for name in names if name.endswith(".so")]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "pure_wheel"])
def test_the_wheel_carries_engines_weights_contract_and_types(
    kind: str, request: pytest.FixtureRequest
) -> None:
    names = set(zipfile.ZipFile(request.getfixturevalue(kind)).namelist())
    for network in ("pnet", "rnet", "onet"):
        for precision in ("fp32", "int8"):
            assert f"unface/engines/prebuilt/{network}.{precision}.npz" in names
        for precision in ("fp32", "fp16", "dynamic", "int8", "mixed"):
            assert f"unface/engines/prebuilt/{network}.{precision}.tflite" in names
        assert f"unface/mtcnn/weights/{network}.safetensors" in names
        assert f"unface/calibration/cache/{network}.json" in names
    for folder in ("calibration/tuned", "calibration/pictures"):
        files = {path.name for path in (REPOSITORY / folder).iterdir()}
        assert files
        assert {f"unface/{folder}/{name}" for name in files} <= names
    caches = {path.name for path in (REPOSITORY / "calibration" / "cache").iterdir()}
    assert {f"unface/calibration/cache/{name}" for name in caches} <= names
    assert "pnet.native.json" in caches
    assert "unface/engines/prebuilt/manifest.json" in names
    assert "unface/kernels/library.py" in names
    assert not [name for name in names if name.endswith((".c", ".h"))]
    assert not [name for name in names if name.endswith(".onnx")]  # for other runtimes: build them
    assert "unface/v1/unface.proto" in names
    assert "unface/py.typed" in names
    assert any(name.endswith("licenses/THIRD_PARTY_NOTICES.md") for name in names)
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"unface"}


@pytest.mark.slow
def test_the_wheel_works_away_from_the_repository(
    wheel: Path, tmp_path: Path, backend: str
) -> None:
    site = unpacked(wheel, tmp_path)
    assert str(tmp_path) in away(site, "import unface; print(unface.__file__)")
    assert detected(site) == backend


@pytest.mark.slow
def test_without_a_compiler_a_wheel_is_built_that_runs_on_litert(
    pure_wheel: Path, tmp_path: Path
) -> None:
    assert not [name for name in zipfile.ZipFile(pure_wheel).namelist() if name.endswith(".so")]
    site = unpacked(pure_wheel, tmp_path)
    assert detected(site) == "tflite"
    assert detected(site, "--precision", "int8") == "tflite"
    code = "from unface.kernels.library import instruction_set; print(instruction_set())"
    assert away(site, code).strip() == "none"


def unpacked(wheel: Path, folder: Path) -> Path:
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def detected(site: Path, *options: str) -> str:
    """Detect the face of a photo with an unpacked wheel; returns the backend that did."""
    photo = REPOSITORY / "docs" / "images" / "astronaut.jpg"
    arguments = ["detect", "--json", str(photo), *options]
    code = f"from unface.command import main; sys.exit(main({arguments}))"
    record = json.loads(away(site, code))
    assert len(record["faces"]) == 1
    return str(record["backend"])


def away(site: Path, code: str) -> str:
    """Run a program with an unpacked wheel and without the repository; returns what it prints.

    An editable install finds there what the wheel lacks.
    """
    program = f"""import sys
sys.meta_path = [f for f in sys.meta_path if "__editable__" not in getattr(f, "__module__", "")]
{code}"""
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=site.parent,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
