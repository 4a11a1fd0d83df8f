"""Fixtures of the GPU's tests; their helpers lie beside them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # pytest adds `tests` alone


@pytest.fixture(scope="session")
def kernel_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder, for `XDG_CACHE_HOME`, that has the kernels compiled for sm_90."""
    pytest.importorskip("cuda.core", reason="cuda-core comes with unface[gpu]")
    pytest.importorskip("cuda.bindings.nvrtc", reason="NVRTC comes with unface[gpu]")
    from unface.gpu.program import compile_kernels

    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        compile_kernels("sm_90")
    return folder
