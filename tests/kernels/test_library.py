from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
from native_networks import available

from unface.errors import EngineError
from unface.kernels.library import (
    CUT,
    HIT,
    ISAS,
    LIMIT,
    NO_ISA,
    Layer,
    check,
    instruction_set,
    library,
)

FLAGS = {  # of the processor, as Linux names them
    "avx2": {"avx2", "fma"},
    "avxvnni": {"avx2", "fma", "avx_vnni"},
    "avx512": {"avx2", "fma", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"},
}


def test_a_limit_is_kept_and_what_is_not_there_gives_way_to_something_slower() -> None:
    """The sets are no ladder: some processors have AVX-512, but not AVX-VNNI."""
    found = [ISAS[library().unface_isa(limit)] for limit in range(len(ISAS))]
    for limit, isa in zip(ISAS, found, strict=True):
        slower = [name for name in available() if ISAS.index(name) <= ISAS.index(limit)]
        assert isa == (slower[-1] if slower else "none")
    assert library().unface_isa(99) == library().unface_isa(len(ISAS) - 1)


def test_an_instruction_set_is_one_of_the_processor() -> None:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = set(next(line for line in lines if line.startswith("flags")).split())
    for isa in available():
        assert flags >= FLAGS[isa]


@pytest.mark.parametrize("name", ["", "avx1024", "None"])
def test_what_is_no_instruction_set_limits_nothing(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    fastest = available()[-1]
    monkeypatch.setenv(LIMIT, name)
    assert instruction_set() == fastest


def test_none_switches_the_core_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT, "none")
    assert instruction_set() == "none"


def test_records_lie_in_memory_as_c_lays_them_out() -> None:
    assert HIT.itemsize == 2 * 4 + 5 * 4
    assert CUT.itemsize == 5 * 8
    assert ctypes.sizeof(Layer) == 6 * 4 + 5 * 8 + 8


def test_what_a_call_returns_is_checked() -> None:
    assert check(0) == 0
    assert check(7) == 7
    with pytest.raises(MemoryError):
        check(-1)
    with pytest.raises(EngineError, match="switched off"):
        check(NO_ISA)
