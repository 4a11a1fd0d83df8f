import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path

import pytest

from unface.v1 import unface_pb2, unface_pb2_grpc

ROOT = Path(__file__).parents[2]
PROTO = ROOT / "proto" / "unface" / "v1" / "unface.proto"
GENERATED = ("unface_pb2.py", "unface_pb2.pyi", "unface_pb2_grpc.py", "unface_pb2_grpc.pyi")


def test_generated_code_is_what_the_contract_says(tmp_path: Path) -> None:
    """Regenerate with the compilers that made it; others write other code for the same contract."""
    made_with = unface_pb2_grpc.GRPC_GENERATED_VERSION
    try:
        found = version("grpcio-tools")
        version("mypy-protobuf")
    except PackageNotFoundError:
        pytest.skip("grpcio-tools or mypy-protobuf is not installed")
    if found != made_with:
        pytest.skip(f"made with grpcio-tools {made_with}, installed is {found}")
    plugins = Path(sys.executable).parent
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}"]
    command += [
        f"--plugin=protoc-gen-{n}={plugins / f'protoc-gen-{n}'}" for n in ("mypy", "mypy_grpc")
    ]
    command += [f"--{n}_out={tmp_path}" for n in ("python", "grpc_python", "mypy", "mypy_grpc")]
    subprocess.run([*command, str(PROTO)], check=True, capture_output=True)
    for name in GENERATED:
        fresh = (tmp_path / "unface" / "v1" / name).read_text()
        assert fresh == (PROTO.parent / name).read_text(), f"{name} is old: run `make proto`"


def test_every_message_field_and_call_is_documented() -> None:
    told_by_their_message = ("float x", "float y", "Point ", "DetectResponse response")
    told_by_their_message += ("AnonymizeResponse response", "FrameError error", "oneof ")
    lines = [line.strip() for line in PROTO.read_text().splitlines()]
    for before, line in pairwise(lines):
        if line.endswith((";", "{")) and not line.startswith(("//", "package ")):
            assert before.startswith("//") or line.startswith(told_by_their_message), line


def test_all_options_of_a_detection_know_whether_they_were_set() -> None:
    for field in unface_pb2.DetectOptions.DESCRIPTOR.fields:
        assert field.has_presence, field.name
