"""NVIDIA's own cuda-core between the cascade and a driver that is the simulator."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import on_driver
import pytest
from simulated import SimulatedDevice, driver_folder
from workbench import needs_simulator

from unface.gpu.cuda import open_cuda
from unface.gpu.device import DeviceFailure

pytestmark = needs_simulator


@pytest.fixture(scope="module")
def environment(kernel_cache: Path) -> dict[str, str]:
    """Of a process that has the driver, and kernels that were compiled without it."""
    return {
        **os.environ,
        "XDG_CACHE_HOME": str(kernel_cache),
        "LD_LIBRARY_PATH": str(driver_folder()),
    }


def on(environment: dict[str, str], function: str, *numbers: int) -> Any:
    """What a function of `on_driver.py` returns in a process of its own."""
    command = [sys.executable, on_driver.__file__, function, *map(str, numbers)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@cache
def expected() -> list[Any]:
    """What `on_driver.detect` finds, by the simulator without a driver."""
    cascade = on_driver.cascade_on(SimulatedDevice())
    pictures = (on_driver.portrait(), on_driver.portrait(4), on_driver.portrait())
    found = [on_driver.as_numbers(cascade.detect(p, on_driver.OPTIONS)) for p in pictures]
    assert all(len(scores) == 1 for _, scores, _ in found)
    return found


def assert_expected(found: Any) -> None:
    assert not isinstance(found, str), found
    for mine, wanted in zip(found, expected(), strict=True):
        for a, b in zip(mine, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)


def test_through_cuda_core_it_finds_what_the_simulator_finds(
    environment: dict[str, str],
) -> None:
    assert_expected(on(environment, "once"))


@pytest.mark.parametrize("step", [29, pytest.param(4, marks=pytest.mark.slow)])
def test_whichever_call_of_the_driver_fails_it_is_a_device_failure_and_passes(
    step: int, environment: dict[str, str]
) -> None:
    """Never another error, never other faces; opened again, it works.

    The last call is that of `close`, which asks whether the context is sound and makes it anew.
    """
    calls = on(environment, "calls")
    assert calls > 200
    for number, (failed, again) in on(environment, "fail", 1, calls - 1, step).items():
        assert isinstance(failed, str), f"call {number} fails and nobody notices"
        assert failed.startswith("DeviceFailure: "), f"call {number}: {failed}"
        assert_expected(again)


def test_memory_that_cannot_be_had_is_a_device_failure_and_passes(
    environment: dict[str, str],
) -> None:
    for starved, again in on(environment, "starve", 1000, 30_000, 300_000, 1_000_000).values():
        assert starved.startswith("DeviceFailure: ")
        assert "memory cannot be had: CUDA_ERROR_OUT_OF_MEMORY" in starved
        assert_expected(again)


def test_a_device_that_does_not_come_to_an_end_is_given_up(environment: dict[str, str]) -> None:
    hung, again = on(environment, "hang")
    assert "hangs" in hung
    assert_expected([again, *expected()[1:]])


def test_any_thread_may_use_the_device(environment: dict[str, str]) -> None:
    for faces in on(environment, "in_threads"):
        assert_expected([faces, *expected()[1:]])


def test_arrays_on_the_device_are_taken_or_refused(environment: dict[str, str]) -> None:
    found = on(environment, "arrays")
    for name in ("as it is", "strides", "a stream"):
        assert_expected([found.pop(name), *expected()[1:]])
    for name in ("lost at once", "lost a little later"):
        assert found.pop(name).startswith("DeviceFailure: "), name
    for name, part in {
        "gray": "shape",
        "four channels": "shape",
        "empty": "shape",
        "floats": "float32",
        "every second": "contiguous",
        "mirrored": "contiguous",
    }.items():
        assert found[name].startswith("InvalidImage: "), name
        assert part in found.pop(name)
    assert not found


def test_a_driver_that_is_too_old_is_named_with_what_is_needed(
    environment: dict[str, str],
) -> None:
    message = on(environment, "of_version", 12080)
    assert "12.8" in message
    assert "13.0 is needed" in message


def test_a_card_that_is_too_old_is_named_with_what_is_needed(environment: dict[str, str]) -> None:
    message = on(environment, "of_capability", 70)
    assert "Simulated GPU has compute capability 7.0; 7.5 or newer" in message


@pytest.mark.parametrize("ordinal", [1, -1])
def test_a_number_that_no_gpu_has_is_named(ordinal: int, environment: dict[str, str]) -> None:
    assert f"no GPU {ordinal}; this process sees 1" in on(environment, "by_number", ordinal)


def test_a_machine_without_a_driver_is_told_so() -> None:
    pytest.importorskip("cuda.core", reason="cuda-core comes with unface[gpu]")
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        pass
    else:
        pytest.skip("this machine has a driver")
    with pytest.raises(DeviceFailure, match="driver"):
        open_cuda()


@pytest.mark.parametrize("missing", ["cuda.core", "cuda.bindings", "cuda"])
def test_what_is_not_installed_is_named_with_how_to_get_it(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n == missing or n.startswith(missing + ".")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(DeviceFailure, match=r"cuda.* pip install 'unface\[gpu\]'"):
        open_cuda()
