"""The kernels as NVIDIA's compiler takes them, for every generation of cards; no GPU is needed."""

from __future__ import annotations

import io
import re
import shutil
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from simulated import SOURCES, kernels_in_sources
from workbench import Bench, needs_simulator, noise

from unface.gpu.masks import KERNELS as COVERING
from unface.gpu.masks import THREADS
from unface.mtcnn.options import DetectOptions

pytest.importorskip("cuda.core", reason="cuda-core comes with unface[gpu]")
pytest.importorskip("cuda.bindings.nvrtc", reason="NVRTC comes with unface[gpu]")

from unface.gpu.program import KERNELS, OLDEST, compile_kernels, source

FIRST = "sm_90"
OTHERS = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_100", "sm_120")
ARCHITECTURES = (FIRST, *(pytest.param(arch, marks=pytest.mark.slow) for arch in OTHERS))
SHARED_MEMORY = 48 << 10  # bytes a block may have without asking for more
REGISTERS = 1 << 16  # of a multiprocessor
MOST_SPILLED = 64  # bytes a thread
BOUNDS = re.compile(r"KERNEL\w*\((\w+)[\w, ]*\) (\w+)\(")


class Needs(NamedTuple):
    registers: int
    spilled: int  # bytes a thread, stored and loaded
    shared: int  # bytes a block


@cache
def needs(arch: str) -> dict[str, Needs]:
    """What each kernel needs, by the compiler's own account."""
    log = io.StringIO()
    assert compile_kernels(arch, log=log).code
    found = {}
    for part in log.getvalue().split("Compiling entry function '")[1:]:
        name = part[: part.index("'")]
        spilled = sum(map(int, re.findall(r"(\d+) bytes spill", part)))
        shared = re.search(r"(\d+) bytes smem", part)
        registers = re.search(r"Used (\d+) registers", part)
        assert registers, part
        found[name] = Needs(int(registers[1]), spilled, int(shared[1]) if shared else 0)
    return found


def bounds() -> dict[str, int]:
    """The threads of a block that each kernel is compiled for."""
    text = "".join(file.read_text() for file in sorted(SOURCES.glob("*.cu")))
    sizes = {m[1]: int(m[2]) for m in re.finditer(r"#define (\w*THREADS) (\d+)", text)}
    return {name: sizes.get(count) or int(count) for count, name in BOUNDS.findall(text)}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_kernels_compile_and_fit_on_a_multiprocessor(arch: str) -> None:
    assert set(needs(arch)) == set(KERNELS)
    for kernel, (registers, spilled, shared) in needs(arch).items():
        in_eights = -(-registers // 8) * 8  # as they are handed out
        assert in_eights * bounds()[kernel] <= REGISTERS, kernel
        assert spilled <= MOST_SPILLED, f"{kernel} spills {spilled} bytes"
        assert shared <= SHARED_MEMORY, kernel


def test_what_is_launched_is_what_the_sources_have() -> None:
    assert sorted(KERNELS) == sorted(kernels_in_sources())
    assert len(set(KERNELS)) == len(KERNELS)
    assert set(bounds()) == set(KERNELS)


@needs_simulator
@pytest.mark.parametrize("scale_factor", [0.709, 0.9])
def test_a_block_has_as_many_threads_as_its_kernel_is_compiled_for(scale_factor: float) -> None:
    """A GPU refuses more, and a kernel that shares its work among its warps needs them all."""
    bench = Bench()
    bench.load(noise(64, 64), DetectOptions(scale_factor=scale_factor))
    for kernel, blocks, threads, arguments in bench.launches:
        assert threads == bounds()[kernel], kernel
        assert len(arguments) == 1 + kernels_in_sources()[kernel], kernel
        assert blocks >= 1
    assert {bounds()[kernel] for names in COVERING.values() for kernel in names} == {THREADS}


def test_each_file_is_in_the_source_once() -> None:
    text = source()
    assert "#include" not in text
    assert "#pragma once" not in text
    for file in sorted(Path(SOURCES).iterdir()):
        if file.name == "kernels.cu":
            continue
        first = file.read_text().splitlines()[0]
        assert text.count(first) == 1, file.name


def test_the_oldest_card_is_the_oldest_that_is_tested() -> None:
    assert f"sm_{OLDEST[0]}{OLDEST[1]}" == OTHERS[0]


def test_kernels_are_compiled_once_for_a_card(
    kernel_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in the cache is taken, whatever it is."""
    shutil.copytree(kernel_cache, tmp_path / "copy")
    (kept,) = [f for f in (tmp_path / "copy").rglob("*") if f.is_file() and f.stat().st_size]
    kept.write_bytes(kept.read_bytes() + b"read again")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "copy"))
    assert bytes(compile_kernels(FIRST).code) == kept.read_bytes()


@pytest.mark.slow
def test_kernels_are_compiled_anew_where_nothing_can_be_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/nowhere")
    assert compile_kernels(FIRST).code
