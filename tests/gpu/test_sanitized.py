"""The kernels touch no memory but their own, shared or not, and do nothing C++ leaves undefined."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import on_sanitizers
import pytest
from workbench import needs_simulator

pytestmark = [needs_simulator, pytest.mark.slow]


@pytest.fixture(scope="module")
def library() -> str:
    command = ["g++", "-print-file-name=libasan.so"]
    path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if not Path(path).is_absolute():
        pytest.skip("g++ on this machine has no sanitizers")
    return path


def watched(library: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LD_PRELOAD": library, "ASAN_OPTIONS": "detect_leaks=0"}
    command = [sys.executable, on_sanitizers.__file__, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_sanitizers_find_nothing_in_the_kernels(library: str) -> None:
    run = watched(library)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "done\n"


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("writes_beyond", "heap-buffer-overflow"),
        ("reads_before", "heap-buffer-overflow"),
        ("writes_beyond_shared_memory", "global-buffer-overflow"),
        ("reads_a_word_across_a_boundary", "misaligned address"),
        ("overflows", "signed integer overflow"),
    ],
)
def test_a_kernel_that_is_wrong_is_found(kernel: str, message: str, library: str) -> None:
    run = watched(library, kernel)
    assert run.returncode != 0
    assert message in run.stderr


def test_a_kernel_that_is_sound_is_left_alone(library: str) -> None:
    assert watched(library, "sound").returncode == 0
