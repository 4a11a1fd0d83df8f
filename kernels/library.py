"""The compiled core: its C structures, functions and the instruction sets it can use."""

from __future__ import annotations

import ctypes
import importlib.util
import os
from functools import cache

import numpy as np

from unface.errors import EngineError

# The instruction sets by the numbers of `src/module.c`, slowest first.
ISAS = ("none", "avx2", "avxvnni", "avx512")
NO_ISA = -2  # as `src/kernels.h` has it
LIMIT = "UNFACE_KERNELS"  # environment: the best of ISAS to use; "none" leaves everything to LiteRT

_INT, _LONG = ctypes.c_int32, ctypes.c_int64
_POINTER = ctypes.c_void_p


class Picture(ctypes.Structure):
    """`picture` of `src/kernels.h`."""

    _fields_ = (("pixels", _POINTER), ("width", _INT), ("height", _INT))


class Layer(ctypes.Structure):
    """`layer` of `src/kernels.h`."""

    _fields_ = (
        *(
            (name, _INT)
            for name in ("vectors", "out", "kernel", "pool", "pool_stride", "pool_ceil")
        ),
        *((name, _POINTER) for name in ("weights", "start", "factor", "bias", "slope")),
        ("zero", ctypes.c_float),
    )


class Head(ctypes.Structure):
    """`head` of `src/kernels.h`."""

    _fields_ = (("channels", _INT), ("out", _INT), ("weights", _POINTER), ("bias", _POINTER))


class Network(ctypes.Structure):
    """`network` of `src/kernels.h`."""

    _fields_ = (
        ("size", _INT),
        ("layers", _INT),
        ("layer", ctypes.POINTER(Layer)),
        ("head", ctypes.POINTER(Head)),
    )


class PNet(ctypes.Structure):
    """`pnet` of `src/kernels.h`."""

    _fields_ = (("conv1", Layer), ("conv2", Layer), ("conv3", Layer), ("heads", Layer))


HIT = np.dtype([("row", "<i4"), ("column", "<i4"), ("logit", "<f4"), ("box", "<f4", 4)])

CUT = np.dtype(
    [("x", "<f8"), ("y", "<f8"), ("width", "<f8"), ("height", "<f8"), ("picture", "<i4")],
    align=True,
)

_SIGNATURES = {
    "unface_isa": (_INT, (_INT,)),
    "unface_scan": (
        _LONG,
        (*2 * (_INT,), *2 * (_POINTER,), *4 * (_INT,), ctypes.c_float, _POINTER),
    ),
    "unface_classify": (_INT, (*2 * (_INT,), *3 * (_POINTER,), _INT, _POINTER)),
    "unface_resize": (_INT, (_POINTER, _POINTER, _INT, _INT, _INT, _INT)),
    "unface_crops": (_INT, (_POINTER, _POINTER, _INT, _INT, _POINTER)),
    "unface_suppress": (_LONG, (_POINTER, _LONG, ctypes.c_double, _INT, _POINTER)),
}


@cache
def library() -> ctypes.CDLL:
    """Return the compiled core; raises `EngineError` where it was not built."""
    found = importlib.util.find_spec("unface.kernels._kernels")
    if found is None or found.origin is None:
        raise EngineError(
            "the compiled core of unface is missing: install a wheel, or gcc and unface"
        )
    core = ctypes.CDLL(found.origin)
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(core, name)
        function.restype, function.argtypes = result, arguments
    return core


def instruction_set() -> str:
    """Return the fastest instruction set that there is a core for on this machine, or "none"."""
    limit = os.environ.get(LIMIT, ISAS[-1])
    best = ISAS.index(limit) if limit in ISAS else len(ISAS) - 1
    try:
        return ISAS[library().unface_isa(best)]
    except (EngineError, OSError):
        return "none"


def check(result: int) -> int:
    """Return what a function of the core returned.

    Raises `MemoryError` and, on a processor there is no core for, `EngineError` where it says so.
    """
    if result == NO_ISA:
        raise EngineError("the compiled core has nothing for this processor, or is switched off")
    if result < 0:
        raise MemoryError("no memory for the compiled core")
    return result
