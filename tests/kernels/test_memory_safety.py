"""The compiled core touches no memory but its own and what it is given."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from native_networks import available

HERE = Path(__file__).parent
TESTS, SOURCES = HERE.parent, HERE.parents[1] / "kernels" / "src"
SANITIZERS = "-fsanitize=address,undefined,float-cast-overflow"


def build(target: Path, *sources: Path) -> subprocess.CompletedProcess[str]:
    compiler = shutil.which("gcc") or pytest.skip("there is no gcc on this machine")
    options = ["-g", "-O1", SANITIZERS, "-fno-sanitize-recover=all", f"-I{SOURCES}"]
    wraps = ["-Wl,--wrap=malloc", "-Wl,--wrap=calloc"]
    command = [compiler, *options, *map(str, sources), "-o", str(target), *wraps, "-lm"]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
def test_sanitizers_find_nothing_in_the_core(tmp_path: Path) -> None:
    """See `memory_safety.c`: pictures of exact sizes, odd boxes, memory that runs out."""
    empty = tmp_path / "empty.c"
    empty.write_text(
        "#include <stdlib.h>\n"
        "void *__wrap_malloc(size_t n) { return 0; }\n"
        "void *__wrap_calloc(size_t n, size_t m) { return 0; }\n"
        "int main(void) { return 0; }\n"
    )
    if build(tmp_path / "empty", empty).returncode:
        pytest.skip("gcc on this machine has no sanitizers")
    core = [path for path in sorted(SOURCES.glob("*.c")) if path.name != "module.c"]
    built = build(tmp_path / "core", HERE / "memory_safety.c", *core)
    assert built.returncode == 0, built.stderr
    run = subprocess.run([tmp_path / "core", *available()], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "done\n"


CODE = """
import hashlib, sys
import numpy as np
sys.path.insert(0, {tests!r})
from native_networks import NETWORKS, available, limited_to, noise, open_native, random_arrays
digest = hashlib.sha256()
for isa in available():
    for network in NETWORKS:
        for quantized in (False, True):
            rng = np.random.default_rng(7)
            arrays = random_arrays(network, rng, quantized=quantized)
            with limited_to(isa):
                outputs = open_native(arrays, network)(noise(network, 5, rng))
            for name in sorted(outputs):
                digest.update(outputs[name].tobytes())
print(digest.hexdigest())
"""


def test_results_do_not_depend_on_what_memory_held_before() -> None:
    """glibc fills memory with a byte of choice when it is asked for; others take no notice."""
    code, printed = CODE.format(tests=str(TESTS)), set()
    for byte in ("0", "170", "255"):
        environment = {**os.environ, "MALLOC_PERTURB_": byte}
        run = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment
        )
        assert run.returncode == 0, run.stderr
        printed.add(run.stdout)
    assert len(printed) == 1
