"""A GPU that may be missing, fail in mid-run and come back; what it does not do, the CPU does."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from unface.engines.device import OpenDevice, discard
from unface.errors import EngineError, InvalidImage, InvalidOption
from unface.gpu.cascade import GpuCascade
from unface.gpu.device import Device
from unface.gpu.plan import BeyondDevice

PAUSES = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)  # seconds, before each try to open it again
CLOSE_SECONDS = 1.0  # for an attempt that is under way; it then cleans up behind itself

log = logging.getLogger("unface.engines")
Answer = TypeVar("Answer")


class Gpu:
    """A GPU in use, or the wait for one.

    `open_cascade` is given what `open_device` returns, and closes it when it raises. `wanted`: a
    GPU that is not there from the beginning is worth a warning and waiting for, as is one that was
    reached once in any case. `run` is for one caller at a time; the rest for any thread.
    """

    def __init__(
        self,
        open_device: OpenDevice,
        open_cascade: Callable[[Device], GpuCascade],
        *,
        wanted: bool,
        pauses: Sequence[float] = PAUSES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cascade: GpuCascade | None = None  # what serves now
        self.reason = ""  # why there is none
        self.changed: Callable[[], None] = lambda: None  # called when one of them has
        self._open_device, self._open_cascade = open_device, open_cascade
        self._expected = wanted
        self._pauses, self._clock = pauses, clock
        self._failures = 0  # in a row, and so the place in `pauses`
        self._since = clock()  # when it began to serve
        self._handing = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._open_first()

    def run(self, work: Callable[[GpuCascade], Answer], *, alone: bool = False) -> Answer | None:
        """Return what the work gives; None when the CPU has to do it.

        That is when there is no GPU, when it fails, and when the work is `BeyondDevice`, which is
        raised if `alone`: the CPU cannot do it. Raises `InvalidImage` and `InvalidOption`.
        """
        cascade = self.cascade
        if cascade is None:
            return None
        try:
            return work(cascade)
        except (InvalidImage, InvalidOption):
            raise
        except BeyondDevice as error:
            if alone:
                raise
            log.info("the CPU does what the GPU does not take: %s", error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the CPU answers
            self._failed(cascade, error)
        return None

    def close(self) -> None:
        """Let go of the GPU, and wait for it no longer."""
        self._closed.set()
        with self._handing:
            cascade, self.cascade = self.cascade, None
        if cascade is not None:
            discard(cascade)
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)

    def _open_first(self) -> None:
        try:
            self.cascade = self._open()
        except Exception as error:  # a driver may raise anything; the CPU serves
            self.reason = _words(error)
            if not self._expected:
                log.info("the CPU serves: %s", self.reason)
                return
            log.warning("NO GPU IN USE, the CPU serves: %s", self.reason, exc_info=_defect(error))
            self._wait_for_it(None)
        else:
            log.info("the GPU serves: %s", self.cascade.device.name)

    def _open(self) -> GpuCascade:
        device = self._open_device()
        self._expected = True
        return self._open_cascade(device)

    def _failed(self, cascade: GpuCascade, error: Exception) -> None:
        self.reason = _words(error)
        with self._handing:
            self.cascade = None
        log.error(
            "THE GPU FAILED, the CPU serves until it is back: %s",
            self.reason,
            exc_info=_defect(error),
        )
        if self._clock() - self._since > self._pauses[-1]:
            self._failures = 0  # it served well in between
        self._wait_for_it(cascade)
        self.changed()

    def _wait_for_it(self, failed: GpuCascade | None) -> None:
        """Open it again on a thread of its own, so that no request waits."""
        self._thread = threading.Thread(
            target=self._bring_back, args=(failed,), name="unface-gpu", daemon=True
        )
        self._thread.start()

    def _bring_back(self, failed: GpuCascade | None) -> None:
        if failed is not None:
            discard(failed)  # here, because a lost device may take its time
        while not self._closed.wait(self._next_pause()):
            if (cascade := self._opened_again()) is not None:
                self._hand_over(cascade)
                return

    def _opened_again(self) -> GpuCascade | None:
        try:
            return self._open()
        except Exception as error:  # noqa: BLE001 - as when it was first opened
            self.reason = _words(error)
            log.info("the GPU is still not in use: %s", self.reason)
            return None

    def _next_pause(self) -> float:
        pause = self._pauses[min(self._failures, len(self._pauses) - 1)]
        self._failures += 1
        return pause

    def _hand_over(self, cascade: GpuCascade) -> None:
        """Let the next call have the cascade; close it when there will be none."""
        with self._handing:
            closed = self._closed.is_set()
            if not closed:
                self.cascade, self._since = cascade, self._clock()
        if closed:
            discard(cascade)
            return
        log.warning("THE GPU IS BACK and serves: %s", cascade.device.name)
        self.changed()


def _words(error: Exception) -> str:
    return str(error) or repr(error)


def _defect(error: Exception) -> Exception | None:
    """Return an error that nobody foresaw, for the log to show where it comes from."""
    return None if isinstance(error, EngineError) else error
