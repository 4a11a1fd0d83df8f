"""From waiting jobs to batches, and from batches to workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from unface.errors import UnfaceError
from unface.server.admission import Admission, overloaded
from unface.server.config import ServerConfig
from unface.server.crew import Crew, Worker
from unface.server.fairness import FairQueue
from unface.server.jobs import OVERHEAD_PIXELS, Answer, Job, WorkFailed
from unface.server.record import Load

BATCHES_AHEAD = 2  # in a worker: one is detected while the next is decoded
# Together; larger ones are at most as many as a worker has threads, each of which takes one. More
# would only make a batch's pictures wait for each other. A GPU has room for many at once.
BATCH_PIXELS = {"cpu": 1_000_000, "gpu": 32_000_000}
MEMORY = 0.95  # of the measured speed: how much an answer counts once the next one is there
FIRST_ANSWERS = 2  # not learned from: they find everything cold


class Expired(UnfaceError):
    """The deadline passed before the answer was there."""


class Closed(UnfaceError):
    """The server is shutting down; the work was not started."""


class Scheduler:
    """Lets jobs in, has them wait their turn, and gives them to workers in batches.

    Jobs of one bucket are done together, as many as have come while the workers were busy, and no
    more than `batch_size`; `batch_delay_ms` makes an idle worker wait for more. Everything happens
    on the event loop. `batched` is told the size of every batch.
    """

    def __init__(
        self, config: ServerConfig, admission: Admission, batched: Callable[[int], None]
    ) -> None:
        self._config = config
        self._admission = admission
        self._batched = batched
        self._queue = FairQueue()
        self._speed = _Speed()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self.crew: Crew  # set by whoever makes both: each calls the other

    async def run(self, job: Job) -> Answer:
        """Return a worker's answer.

        Raises `Overloaded` at once when there is no room, `Closed` after `close`, `Expired` when
        the deadline passes while the job waits, `WorkerLost`, and `WorkFailed` with a worker's
        error. Cancelled, the job leaves the queue, or its worker stops at the next step.
        """
        self.check_room()
        with self._admission.request(job):
            self._queue.push(job)
            job.is_waiting = True
            self.pump()
            try:
                answer = await job.future
            except asyncio.CancelledError:
                self._cancel(job)
                raise
            except WorkFailed:
                self._speed.note(job, OVERHEAD_PIXELS)  # most fail before they cost much
                raise
            self._speed.note(job, job.cost)
            return answer

    def check_room(self) -> None:
        """Raise `Overloaded` or `Closed` if no job would be let in now."""
        if self._closed:
            raise Closed("the server is shutting down; try again later")
        waiting, wait = len(self._queue), self.expected_wait
        if waiting >= self._config.queue_size:
            raise overloaded(f"{waiting} requests are waiting already; try again later", wait)
        if wait * 1000 > self._config.queue_ms:
            raise overloaded(
                f"a request would wait for {wait * 1000:.0f} ms; try again later", wait / 2
            )

    @property
    def expected_wait(self) -> float:
        """Seconds that a job would wait that came now; 0 while nothing is known of the speed."""
        begun = sum(job.cost for worker in self.crew.ready for job in worker.jobs.values())
        return self._speed.seconds(self._queue.cost + begun // 2)

    @property
    def load(self) -> Load:
        """How much there is to do."""
        return Load(
            waiting=len(self._queue),
            waiting_pixels=self._queue.pixels,
            in_flight=sum(len(worker.jobs) for worker in self.crew.ready),
            streams=self._admission.streams,
            workers=len(self.crew.ready),
            expected_wait_seconds=self.expected_wait,
        )

    def close(self) -> None:
        """Refuse new jobs, and fail those that wait with `Closed`."""
        self._closed = True
        while job := self._queue.first():
            self._take(job)
            if not job.future.done():
                job.future.set_exception(Closed("the server is shutting down; try again later"))

    def pump(self) -> None:
        """Give workers what they have room for."""
        while (first := self._next()) and (worker := self._free(first)):
            batch = self._queue.alike(first, self._config.batch_size, self._fits)
            if self._worth_waiting(first, batch):
                return
            for job in batch:
                self._take(job)
                job.started = time.monotonic()
            wanted = [job for job in batch if not job.future.done()]
            self._batched(len(wanted))
            worker.start(wanted)

    def _take(self, job: Job) -> None:
        self._queue.take(job)
        job.is_waiting = False

    def _next(self) -> Job | None:
        """Return the job whose turn it is; those that are over leave the queue.

        A job is cancelled a moment before its caller's `run` learns of it.
        """
        while job := self._queue.first():
            if job.future.done():
                self._take(job)
            elif time.monotonic() >= job.expires_at:
                self._take(job)
                job.future.set_exception(Expired("the deadline passed while the request waited"))
            else:
                return job
        return None

    def _free(self, job: Job) -> Worker | None:
        """Return the worker with the least to do, if it has room for a job."""
        workers = [w for w in self.crew.ready if len(w.batches) < BATCHES_AHEAD]
        decoded = sum(worker.pixels for worker in self.crew.ready)
        if decoded and decoded + job.pixels > self._config.max_decoded_pixels:
            return None
        return min(workers, key=lambda worker: worker.pixels, default=None)

    def _fits(self, chosen: list[Job], job: Job) -> bool:
        """Say whether a job may join a batch."""
        together = sum(mate.pixels for mate in chosen) + job.pixels
        decoded = sum(worker.pixels for worker in self.crew.ready)
        if decoded + together > self._config.max_decoded_pixels:
            return False
        info = self.crew.info
        return (
            together <= BATCH_PIXELS["gpu" if info.device else "cpu"] or len(chosen) < info.threads
        )

    def _worth_waiting(self, first: Job, batch: list[Job]) -> bool:
        """Say whether a batch that could begin waits for more jobs; it is looked at again then."""
        if len(batch) >= self._config.batch_size:
            return False
        left = first.entered + self._config.batch_delay_ms / 1000 - time.monotonic()
        if left <= 0:
            return False
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(left, self._look_again)
        return True

    def _look_again(self) -> None:
        self._timer = None
        self.pump()

    def _cancel(self, job: Job) -> None:
        if job.is_waiting:
            self._queue.remove(job)
            job.is_waiting = False
        elif job.cancel is not None:
            job.cancel()


class _Speed:
    """How many seconds a pixel takes, measured from one answer to the next while there is work.

    Old answers count less and less: of the seconds and of the pixels alike, so that a small
    picture answered after a large one does not seem slow.
    """

    def __init__(self) -> None:
        self._seconds = self._cost = 0.0
        self._last = 0.0  # when something was answered
        self._answers = 0

    def note(self, job: Job, cost: int) -> None:
        """Learn from a job that has just been answered, and was so much work."""
        now = time.monotonic()
        passed, self._last = now - max(self._last, job.started), now
        self._answers += 1
        if self._answers > FIRST_ANSWERS:
            self._seconds = self._seconds * MEMORY + passed
            self._cost = self._cost * MEMORY + cost

    def seconds(self, cost: int) -> float:
        """Return how long so much work takes all workers together."""
        if not self._cost:
            return 0.0
        return self._seconds / self._cost * cost
