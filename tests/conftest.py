"""Fixtures for all rooms."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from unface.engines import open_networks
from unface.mtcnn import Cascade

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"

# `python -m pytest` has the root on its path, for `benchmarks`; `pytest` alone has not.
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))


@pytest.fixture(scope="session")
def cascade() -> Iterator[Cascade]:
    """The cascade over the TFLite FP32 engines that ship."""
    opened = Cascade(open_networks("fp32", threads=2))
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of labelled pictures beside the repository; most machines do not have it."""
    if not SHARED.is_dir():
        pytest.skip("the labelled pictures (../shared/data) are not on this machine")
    return SHARED
