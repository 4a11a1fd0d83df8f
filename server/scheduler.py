"""One thread that does the work, one piece after the other, behind a bounded queue."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from unface.errors import Overloaded, UnfaceError

Job = TypeVar("Job")
Result = TypeVar("Result")


class Expired(UnfaceError):
    """The deadline passed while the work was still waiting; it was not started."""


class Closed(UnfaceError):
    """The server is shutting down; the work was not started."""


@dataclass(eq=False)
class _Entry(Generic[Job, Result]):
    job: Job
    expires_at: float  # of time.monotonic()
    future: Future[Result] = field(default_factory=Future)


class Scheduler(Generic[Job, Result]):
    """Calls `work(job)` on one thread of its own, first come first served.

    `work` is never called twice at a time, so that it may own a device or an interpreter. At most
    `queue_size` jobs wait. A job whose caller has gone leaves the queue at once, one whose
    deadline has passed is dropped when its turn comes: neither reaches `work`.
    """

    def __init__(
        self, work: Callable[[Job], Result], queue_size: int, name: str = "unface-worker"
    ) -> None:
        self._work = work
        self._queue_size = queue_size
        self._waiting: deque[_Entry[Job, Result]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Job, expires_at: float = float("inf")) -> Future[Result]:
        """Queue a job and return its future; cancelling that takes it out of the queue.

        `expires_at` is a time of `time.monotonic()`. The future holds what `work` returned or
        raised, `Expired` or `Closed`. Raises `Overloaded` at once when the queue is full and
        `Closed` after `close`.
        """
        entry: _Entry[Job, Result] = _Entry(job, expires_at)
        with self._changed:
            if self._closed:
                raise Closed("the server is shutting down; try again later")
            if len(self._waiting) >= self._queue_size:
                raise Overloaded(
                    f"{self._queue_size} requests are waiting already; try again later"
                )
            self._waiting.append(entry)
            self._changed.notify()
        # By its future alone: a callback that holds the entry would make a cycle, and its picture
        # would live until the next garbage collection.
        entry.future.add_done_callback(self._forget)
        return entry.future

    async def run(self, job: Job, expires_at: float = float("inf")) -> Result:
        """Queue a job and wait for its result, see `submit`.

        Cancelled while the job waits, it leaves the queue; cancelled while `work` runs, this
        waits for `work` to end, so that the job's memory is free when this returns.
        """
        return await finish(self.submit(job, expires_at))

    def close(self, *, finish_queued: bool = True, timeout: float | None = None) -> bool:
        """Refuse new jobs, finish those queued (or fail them with `Closed`), end the thread.

        Returns whether the thread has ended: false when `work` still runs after `timeout` seconds.
        """
        with self._changed:
            self._closed = True
            dropped = [] if finish_queued else list(self._waiting)
            for entry in dropped:
                self._waiting.remove(entry)
            self._changed.notify()
        for entry in dropped:
            if entry.future.set_running_or_notify_cancel():
                entry.future.set_exception(Closed("the server is shutting down; try again later"))
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _forget(self, future: Future[Result]) -> None:
        if future.cancelled():
            with self._changed:
                self._waiting = deque(e for e in self._waiting if e.future is not future)

    def _next(self) -> _Entry[Job, Result] | None:
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            return self._waiting.popleft() if self._waiting else None

    def _run(self) -> None:
        while (entry := self._next()) is not None:
            self._serve(entry)
            del entry  # or its picture would live until the next one comes

    def _serve(self, entry: _Entry[Job, Result]) -> None:
        if not entry.future.set_running_or_notify_cancel():
            return
        if time.monotonic() >= entry.expires_at:
            entry.future.set_exception(Expired("the deadline passed while the request waited"))
            return
        try:
            result = self._work(entry.job)
        except BaseException as error:  # noqa: BLE001 - whatever it is belongs to the caller
            entry.future.set_exception(error)
        else:
            entry.future.set_result(result)


async def finish(future: Future[Result]) -> Result:
    """Await a thread's future; when cancelled, cancel it too or else wait until it has ended."""
    done = asyncio.wrap_future(future)
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        if not future.cancel():
            await asyncio.wait([done])
            if not done.cancelled():
                done.exception()  # marks it as seen: its caller has gone
        raise
