"""GPUs as NVML tells of them, with a library of two GPUs in its place."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "nvml.c"
READ = "from unface.server.cards import Cards; print([tuple(card) for card in Cards().read()])"


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or pytest.skip("there is no gcc on this machine")
    folder = tmp_path_factory.mktemp("nvml")
    library = folder / "libnvidia-ml.so.1"
    command = [
        compiler,
        "-shared",
        "-fPIC",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-stringop-truncation",
    ]
    subprocess.run([*command, str(SOURCE), "-o", str(library)], check=True)
    return folder


def read(code: str = READ, **environment: str) -> object:
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return ast.literal_eval(result.stdout)


@pytest.fixture(scope="module")
def _with_pynvml() -> None:
    pytest.importorskip("pynvml")


@pytest.mark.usefixtures("_with_pynvml")
def test_a_gpu_tells_how_busy_and_how_full_it_is_and_a_lost_one_is_left_out(
    libraries: Path,
) -> None:
    assert read(LD_LIBRARY_PATH=str(libraries)) == [
        (0, "NVIDIA H200", 0.37, 5_000_000_000, 150_000_000_000)
    ]


@pytest.mark.usefixtures("_with_pynvml")
def test_what_a_part_of_a_gpu_does_not_say_is_none(libraries: Path) -> None:
    cards = read(LD_LIBRARY_PATH=str(libraries), PARTS="1")
    assert isinstance(cards, list)
    assert cards[1] == (1, "NVIDIA H200 MIG 1g.18gb", None, 5_000_000_000, 18_000_000_000)


def test_without_a_driver_there_are_no_figures(libraries: Path) -> None:
    assert read(LD_LIBRARY_PATH=str(libraries), NO_DRIVER="1") == []


def test_without_the_library_there_are_no_figures() -> None:
    assert read(f"import sys; sys.modules['pynvml'] = None; {READ}") == []


@pytest.mark.usefixtures("_with_pynvml")
def test_who_asks_while_another_waits_for_the_driver_gets_nothing(libraries: Path) -> None:
    code = (
        "from unface.server.cards import Cards; cards = Cards(); cards._reading.acquire(); "
        "held = cards.read(); cards._reading.release(); print([held, len(cards.read())])"
    )
    assert read(code, LD_LIBRARY_PATH=str(libraries)) == [[], 1]
