"""Tells the C library's allocator to give the memory of large pictures back to the system."""

from __future__ import annotations

import ctypes

# <malloc.h> of glibc
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8

LARGE_BYTES = 8 << 20  # above a 1080p picture (6 MB), whose pages are worth keeping
KEPT_BYTES = 32 << 20  # free memory that each arena may keep: a few pictures' worth
ARENAS = 2


def give_large_buffers_back() -> None:
    """Let every buffer of `LARGE_BYTES` or more be returned when it is freed.

    By default glibc raises that bound to 32 MiB as it meets larger buffers. Pillow decodes into
    blocks of 16 MiB, which would then stay with the process: hundreds of megabytes after one
    picture of 100 megapixels. Few arenas, since each thread's own would keep its leftovers. What is
    kept has to be said too: who sets the first bound gets a small second one, and the pages of
    every picture come and go, a third of the time of a 1080p picture. Other C libraries have no
    `mallopt`, or one that takes no notice; nothing is done then.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(M_ARENA_MAX, ARENAS)
