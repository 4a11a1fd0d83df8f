from __future__ import annotations

import pytest
from native_networks import available, limited_to

from unface.kernels.library import ISAS, instruction_set


@pytest.fixture(autouse=True)
def _core() -> None:
    if instruction_set() == "none":
        pytest.skip("the compiled core does not run on this machine")


@pytest.fixture(params=ISAS[1:], scope="module")
def isa(request: pytest.FixtureRequest) -> object:
    """Each instruction set that this machine has, in force."""
    if request.param not in available():
        pytest.skip(f"this machine has no {request.param}")
    with limited_to(request.param):
        yield request.param
