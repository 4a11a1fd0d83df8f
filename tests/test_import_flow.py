"""Imports flow one way: a room uses only the rooms that the architecture lets it use."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = {
    "v1": "proto/unface/v1",
    "kernels": "kernels",
    "mtcnn": "mtcnn",
    "anonymize": "anonymize",
    "gpu": "gpu",
    "engines": "engines",
    "calibration": "calibration",
    "quality": "quality",
    "worker": "worker",
    "web": "web",
    "server": "server",
    "api": "api",
}
MAY_USE: dict[str, set[str]] = {
    "v1": set(),
    "kernels": set(),
    "mtcnn": {"kernels"},
    "anonymize": set(),
    "gpu": {"mtcnn"},
    "engines": {"kernels", "mtcnn", "gpu"},
    "calibration": {"kernels", "mtcnn", "engines"},
    "quality": {"mtcnn", "anonymize", "calibration"},
    "worker": {"v1", "kernels", "mtcnn", "anonymize", "engines"},
    "web": {"v1", "anonymize"},
    "server": {"v1", "mtcnn", "anonymize", "engines", "quality", "worker", "web"},
    "api": {
        "v1",
        "kernels",
        "mtcnn",
        "anonymize",
        "gpu",
        "engines",
        "calibration",
        "quality",
        "worker",
        "web",
        "server",
    },
}
LIBRARIES: dict[str, set[str]] = {
    "v1": {"google", "grpc"},
    "kernels": {"numpy"},
    "mtcnn": {"numpy", "cv2"},
    "anonymize": {"numpy", "cv2", "PIL"},
    "gpu": {"numpy"},
    "engines": {"numpy", "cv2", "ai_edge_litert"},
    "calibration": {"numpy", "cv2", "tqdm"},
    "quality": {"numpy"},
    "worker": {"numpy", "google"},
    "web": {"google", "python_multipart", "starlette"},
    "server": {
        "fastapi",
        "starlette",
        "uvicorn",
        "h11",
        "grpc",
        "grpc_health",
        "grpc_reflection",
        "google",
        "typing_extensions",
        "pydantic",
        "pydantic_settings",
        "prometheus_client",
    },
    "api": {"numpy", "grpc", "grpc_health", "tqdm", "typing_extensions"},
}
# What comes with unface[engines] stays in the files that build, calibrate and judge engines, and
# what comes with unface[gpu] in those that open a GPU: a detection may not need it.
ENGINE_LIBRARIES = {"torch", "safetensors", "flatbuffers", "onnx", "onnxruntime"}
ENGINE_FILES: dict[str, set[str]] = {
    "api/sealing.py": {"cryptography"},
    "api/audit.py": {"cryptography"},
    "server/tokens.py": {"jwt"},
    "server/tracing.py": {"opentelemetry"},
    "server/cards.py": {"pynvml"},
    "gpu/arrays.py": {"cuda"},
    "gpu/cuda.py": {"cuda"},
    "gpu/program.py": {"cuda"},
    "mtcnn/networks.py": {"torch", "safetensors"},
    "engines/weights.py": {"torch", "safetensors"},
    "calibration/ranges.py": {"torch"},
    "calibration/tune.py": {"torch"},
    "calibration/weights.py": {"safetensors"},
    "calibration/tflite_writer.py": {"ai_edge_litert", "flatbuffers"},
    "calibration/onnx_writer.py": {"onnx"},
    "calibration/onnx_network.py": {"onnxruntime"},
}
BARE = {*ROOMS, "proto"} - {"v1"}
EVERYBODY = {"errors", "sealing", "audit"}  # import no room


def imported(source: str) -> list[str]:
    """Return the full names of all modules that a source file imports."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            module = node.module or ""
            names += [f"{module}.{a.name}" for a in node.names] if module == "unface" else [module]
    return names


def violations(room: str, file: str, source: str) -> list[str]:
    """Return the imports of a file that its room may not make."""
    allowed = LIBRARIES[room] | ENGINE_FILES.get(file, set())
    wrong = []
    for name in imported(source):
        top, *rest = name.split(".")
        if top == "unface":
            part = rest[0] if rest and rest[0] in ROOMS else "api"
            own = part == room or part in MAY_USE[room]
            if not own and not (rest and rest[0] in EVERYBODY):
                wrong.append(f"{file}: {name}")
        elif top not in allowed and top not in sys.stdlib_module_names:
            wrong.append(f"{file}: {name}")
    return wrong


def bare_names(source: str) -> list[str]:
    """Return imports of rooms by their folders' names: a second copy of the module."""
    return [name for name in imported(source) if name.split(".")[0] in BARE]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    files = sorted((ROOT / ROOMS[room]).rglob("*.py"))
    assert files
    wrong = []
    for path in files:
        file = str(path.relative_to(ROOT))
        wrong += violations(room, file, path.read_text())
    assert wrong == []


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("kernels", "from unface.mtcnn import boxes"),
        ("kernels", "from unface.mtcnn.network import UInt8Array"),
        ("kernels", "import unface.engines.shelf"),
        ("kernels", "from unface import Faces"),
        ("kernels", "import cv2"),
        ("kernels", "from kernels import library"),
        ("anonymize", "from unface.kernels import library"),
        ("v1", "import unface.kernels"),
        ("mtcnn", "from unface.engines import open_networks"),
        ("mtcnn", "import torch"),
        ("anonymize", "from unface.mtcnn.faces import Faces"),
        ("engines", "import unface.server.app"),
        ("server", "from unface.detector import Detector"),
        ("server", "import unface"),
        ("calibration", "from PIL import Image"),
        ("calibration", "import torch"),
        ("calibration", "import ai_edge_quantizer"),
        ("gpu", "from unface.engines.shelf import read_shelf"),
        ("gpu", "import cuda.core"),
        ("engines", "from cuda.bindings import driver"),
        ("mtcnn", "from unface.gpu.device import Device"),
        ("engines", "import onnx"),
        ("engines", "import torch"),
        ("engines", "def f():\n    import grpc"),
        ("engines", "from mtcnn import boxes"),
        ("server", "import api.errors"),
        ("mtcnn", "from unface import engines"),
        ("v1", "import unface.mtcnn"),
        ("anonymize", "if True:\n    from unface import Detector"),
    ],
)
def test_a_wrong_import_would_be_seen(room: str, source: str) -> None:
    assert violations(room, "planted.py", source)


@pytest.mark.parametrize("folder", [*ROOMS.values(), "tests", "benchmarks", "docs"])
def test_nobody_imports_a_room_by_the_name_of_its_folder(folder: str) -> None:
    for path in sorted((ROOT / folder).rglob("*.py")):
        assert bare_names(path.read_text()) == [], path


@pytest.mark.parametrize(
    "source", ["import mtcnn", "from api.errors import EngineError", "import proto.unface.v1"]
)
def test_a_bare_name_would_be_seen(source: str) -> None:
    assert bare_names(source)


def test_a_relative_import_would_be_seen() -> None:
    with pytest.raises(AssertionError, match="absolute"):
        imported("from . import boxes")


def test_every_package_is_a_room_with_its_rules() -> None:
    """A new room must be given its rules here."""
    listed = re.search(r'^"unface\.?.*?^\[', (ROOT / "pyproject.toml").read_text(), re.M | re.S)
    assert listed
    folders = set(re.findall(r'^"unface[.\w]*" = "(.+)"', listed[0], re.M))
    assert folders == set(ROOMS.values())
    assert ROOMS.keys() == MAY_USE.keys() == LIBRARIES.keys()


def engine_libraries(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path.read_text())} & ENGINE_LIBRARIES


def test_what_builds_engines_is_imported_where_it_is_listed_and_nowhere_else() -> None:
    found = {
        str(path.relative_to(ROOT)): engine_libraries(path)
        for folder in ROOMS.values()
        for path in (ROOT / folder).rglob("*.py")
    }
    listed = {file: libraries & ENGINE_LIBRARIES for file, libraries in ENGINE_FILES.items()}
    assert {f: names for f, names in found.items() if names} == {
        f: names for f, names in listed.items() if names
    }


def test_the_libraries_that_build_engines_are_those_of_the_extra() -> None:
    extra = re.search(r"^engines = \[$(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.M | re.S)
    assert extra
    assert set(re.findall(r'^    "([\w-]+)', extra[1], re.M)) == ENGINE_LIBRARIES


def test_errors_import_nothing() -> None:
    assert imported((ROOT / "api" / "errors.py").read_text()) == []


def run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_import_unface_loads_no_library() -> None:
    heavy = ("numpy", "cv2", "PIL", "grpc", "torch", "ai_edge_litert")
    code = f"import sys, unface; print([m for m in {heavy} if m in sys.modules])"
    assert run(code).strip() == "[]"


def test_detection_needs_neither_torch_nor_grpc() -> None:
    code = (
        "import sys\nfrom skimage import data\nimage = data.astronaut()\n"
        "for name in ('torch', 'safetensors', 'flatbuffers', 'onnx', 'onnxruntime', 'grpc'):\n"
        "    assert name not in sys.modules\n    sys.modules[name] = None\n"
        "import unface\nprint(len(unface.Detector().detect(image)))\n"
    )
    assert run(code).strip() == "1"


@pytest.mark.parametrize(
    "module",
    [
        "gate",
        "labels",
        "scenes",
        "report",
        "outputs",
        "cost",
        "samples",
        "scales",
        "graph",
        "rewrite",
    ],
)
def test_judging_engines_and_harvesting_samples_need_none_of_what_builds_them(module: str) -> None:
    code = (
        f"import sys\nfor name in {sorted(ENGINE_LIBRARIES)}:\n    sys.modules[name] = None\n"
        f"import unface.calibration.{module}\nprint('imported')\n"
    )
    assert run(code).strip() == "imported"
