"""What is read from files of secrets, and read again when they change: nothing is restarted."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from unface.errors import InvalidOption, UnfaceError

CHECK_SECONDS = 1.0  # a change is seen after at most so long
MAX_BYTES = 1 << 20  # a set of a thousand RSA keys has half of it

Value = TypeVar("Value")
Stamp = tuple[tuple[int, int, int] | None, ...]

_log = logging.getLogger("unface.server")


class Rotated(Generic[Value]):
    """The value of `read()`, taken anew once one of the files it reads has changed.

    Raises what `read` raises, once, at the start. Later an `UnfaceError` of it is logged and the
    value from before stays: a half-written file locks nobody out. For any thread.
    """

    def __init__(
        self,
        read: Callable[[], Value],
        *paths: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._paths = paths
        self._clock = clock
        self._lock = threading.Lock()
        # Before reading: a file that changes meanwhile is read again at the next look.
        self._stamp = _stamp(paths)
        self._value = read()
        self._next_look = clock() + CHECK_SECONDS

    @property
    def current(self) -> Value:
        """The value; looks at the files, at most once in `CHECK_SECONDS`."""
        with self._lock:
            if self._clock() >= self._next_look:
                self._next_look = self._clock() + CHECK_SECONDS
                self._look()
            return self._value

    def _look(self) -> None:
        stamp = _stamp(self._paths)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._value = self._read()
        except UnfaceError as error:
            _log.error("%s; what was read before stays in use", error)
        else:
            _log.info("read again: %s", ", ".join(self._paths))


def read_file(option: str, path: str) -> bytes:
    """Return what is in the file that an option names; raises `InvalidOption` naming both."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidOption(f"{option}: cannot read {path}: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise InvalidOption(f"{option}: {path} has more than {MAX_BYTES} bytes; wrong file?")
    return content


def _stamp(paths: tuple[str, ...]) -> Stamp:
    """Return what tells one state of the files from another; None for one that is not there."""
    return tuple(map(_stamp_of_one, paths))


def _stamp_of_one(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
