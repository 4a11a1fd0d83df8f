"""Fixtures for all rooms."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from unface.engines.shelf import open_named
from unface.kernels.library import LIMIT, instruction_set
from unface.mtcnn import Cascade

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"
SERVES = "tflite" if instruction_set() == "none" else "native"

# `python -m pytest` has the root on its path, for `benchmarks`; `pytest` alone has not.
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))


@pytest.fixture(scope="session", params=["native", "tflite"])
def cascade(request: pytest.FixtureRequest) -> Iterator[Cascade]:
    """The cascade over the FP32 engines that ship, of either runtime."""
    if request.param == "native":
        needs_the_core()
    opened = Cascade(open_named(f"fp32.{request.param}", threads=2))
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def backend() -> str:
    """What serves on this machine."""
    return SERVES


@pytest.fixture(scope="session")
def core() -> None:
    """Leave out what needs the compiled core where it does not run."""
    needs_the_core()


@pytest.fixture(params=["native", "tflite"])
def runtime(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Either runtime, as if it were what serves on this machine; processes started inherit it."""
    if request.param == "native":
        needs_the_core()
    else:
        monkeypatch.setenv(LIMIT, "none")
    return str(request.param)


@pytest.fixture(scope="module", params=["the core", "numpy and OpenCV"])
def arithmetic(request: pytest.FixtureRequest) -> Iterator[str]:
    """What computes on pixels and boxes: both ways give the same, rounding aside."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "the core":
            needs_the_core()
        else:
            patch.setenv(LIMIT, "none")
        yield str(request.param)


def needs_the_core() -> None:
    if SERVES != "native":
        pytest.skip("the compiled core does not run on this machine")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of labelled pictures beside the repository; most machines do not have it."""
    if not SHARED.is_dir():
        pytest.skip("the labelled pictures (../shared/data) are not on this machine")
    return SHARED
