"""Runs a kernel of a library that a test built, in a process of its own: the simulator may end it.

`python planted.py LIBRARY KERNEL SEED` prints what the kernel left in memory.
"""

from __future__ import annotations

import ctypes
import sys

BLOCKS, THREADS = 4, 64


def outcome(library: str, kernel: str, seed: int) -> list[int]:
    """Return what a kernel leaves where every pointer of its lane points to."""
    loaded = ctypes.CDLL(library)
    values = (ctypes.c_int * (BLOCKS * THREADS))()
    lane = (ctypes.c_void_p * 128)(*[ctypes.addressof(values)] * 128)
    function = ctypes.cast(getattr(loaded, kernel), ctypes.c_void_p)
    loaded.simulate(function, BLOCKS, THREADS, lane, 0, 0, ctypes.c_uint(seed))
    return list(values)


if __name__ == "__main__":
    print(outcome(sys.argv[1], sys.argv[2], int(sys.argv[3])))
