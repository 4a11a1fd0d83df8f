"""Threads that share the work of one detection."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TypeVar

MAX_THREADS = 64
QUOTA = Path("/sys/fs/cgroup/cpu.max")

Item = TypeVar("Item")
Result = TypeVar("Result")


class Team:
    """The caller's thread and `threads - 1` more, for functions that let go of Python's lock.

    Threads start with the first work there is for them. One caller at a time.
    """

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads
        self._others: ThreadPoolExecutor | None = None
        self._process = 0  # whose threads they are: one that was forked has none

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Return the function's results for all items, in order; raises what it raises.

        Items are begun in order, by whichever thread is free.
        """
        if self.threads == 1 or len(items) < 2:
            return [function(item) for item in items]
        results: dict[int, Result] = {}
        turn = itertools.count()  # its next() is atomic

        def work() -> None:
            while (index := next(turn)) < len(items):
                results[index] = function(items[index])

        if self._others is None or self._process != os.getpid():
            self._others = ThreadPoolExecutor(self.threads - 1, "unface-team")
            self._process = os.getpid()
        helpers = min(self.threads, len(items)) - 1
        futures = [self._others.submit(work) for _ in range(helpers)]
        try:
            work()
        finally:
            wait(futures)  # they work on memory of the caller
        for future in futures:
            future.result()
        return [results[index] for index in range(len(items))]

    def close(self) -> None:
        """End the threads; the next work starts new ones."""
        if self._others is not None:
            self._others.shutdown()
            self._others = None


ALONE = Team()


def cores(quota: Path = QUOTA) -> int:
    """Return how many CPU cores this process may use: there are, and a container may have."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    return max(1, min(count, _allowed(quota), MAX_THREADS))


def _allowed(quota: Path) -> int:
    """Return a container's CPU time in whole cores, rounded up (Linux, cgroup-v2.rst, cpu.max)."""
    try:
        microseconds, period = quota.read_text().split()
        return -(-int(microseconds) // int(period))
    except (OSError, ValueError):  # no such file, or "max"
        return MAX_THREADS


def shares(length: int, count: int) -> list[tuple[int, int]]:
    """Cut `length` into at most `count` runs `(begin, end)` of nearly equal length, none empty."""
    count = max(1, min(count, length))
    edges = [length * n // count for n in range(count + 1)]
    return list(itertools.pairwise(edges))
