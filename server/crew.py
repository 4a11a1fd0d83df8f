"""The worker processes: started, watched, replaced when they end, exchanged when engines change."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from itertools import count
from typing import Any

from unface.errors import EngineError, UnfaceError
from unface.server.background import Background
from unface.server.config import ServerConfig
from unface.server.jobs import Answer, Job, WorkFailed
from unface.v1 import unface_pb2 as pb
from unface.worker import packets
from unface.worker.packets import Buffer, Packet
from unface.worker.settings import Settings

PROGRAM = (sys.executable, "-m", "unface.worker")
OPEN_SECONDS = 120  # for engines to load, a GPU's kernels to compile, and the warm-up
PAUSES = (0.0, 0.2, 1.0, 5.0, 30.0)  # seconds before the next start of one that keeps ending
STEADY_SECONDS = 60  # one that lived so long begins with the first pause again
AT_ONCE = 1 << 20  # bytes copied on the event loop; more are copied on a thread
CLOSE_SECONDS = 1.0

_log = logging.getLogger("unface.server")


class WorkerLost(UnfaceError):
    """The process that did the work ended before the answer was there."""


class NotReloaded(UnfaceError):
    """The new engines do not serve; those that were there go on."""


def settings_of(config: ServerConfig) -> Settings:
    """Return what a worker is told of the configuration."""
    return Settings(**{name: getattr(config, name) for name in Settings.__dataclass_fields__})


class Worker:
    """One process and the jobs that it has."""

    def __init__(
        self, program: Sequence[str], settings: Settings, changed: Callable[[], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = changed
        self._end, theirs = packets.pair()
        self._end.setblocking(False)
        with theirs:
            self._process = subprocess.Popen(
                [*program, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        self.born = time.monotonic()
        self.info: pb.GetServerInfoResponse | None = None  # set once it is warm
        self.jobs: dict[int, Job] = {}
        self.batches: list[set[int]] = []  # the numbers of jobs that are not done yet
        self.pixels = 0  # of all jobs
        self.last_word = self.born  # when it last answered
        self.gone: asyncio.Future[None] = self._loop.create_future()
        self._warm: asyncio.Future[None] = self._loop.create_future()
        self._numbers = count()
        self._loop.add_reader(self._end, self._read)
        self._send({"kind": "open", "settings": asdict(settings)})

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    async def warm(self) -> None:
        """Wait until it serves; raises `EngineError` with the reason when it does not."""
        done, _ = await asyncio.wait([self._warm], timeout=OPEN_SECONDS)
        if not done:
            self.kill()
            raise EngineError(f"the engines were not ready after {OPEN_SECONDS} s")
        self._warm.result()

    def start(self, batch: Sequence[Job]) -> None:
        """Give it a batch; the jobs' futures get the answers."""
        if not self.batches:
            self.last_word = time.monotonic()
        numbers = [next(self._numbers) for _ in batch]
        self.batches.append(set(numbers))
        described: list[dict[str, Any]] = []
        parts: list[Buffer] = []
        for number, job in zip(numbers, batch, strict=True):
            # Cancelled, it stays the worker's until that says that it is over.
            job.cancel = partial(self._send, {"kind": "cancel", "number": number})
            self.jobs[number] = job
            self.pixels += job.pixels
            described.append(_described(job, number))
            parts += [job.request, job.image]
        header = {"kind": "batch", "jobs": described}
        if sum(map(len, parts)) > AT_ONCE:
            self._loop.run_in_executor(None, self._send, header, parts)
        else:
            self._send(header, parts)

    async def close(self) -> None:
        """Let it finish what it has, and end it."""
        if self._end.fileno() >= 0:
            self._send({"kind": "close"})
        await asyncio.wait([self.gone], timeout=CLOSE_SECONDS)
        self.kill()
        await asyncio.wait([self.gone], timeout=CLOSE_SECONDS)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def _send(self, header: dict[str, Any], parts: Iterable[Buffer] = ()) -> None:
        try:
            packets.send(self._end, header, tuple(parts))
        except BlockingIOError:  # it reads nothing any more
            _log.error("worker %d takes no messages: it is replaced", self.pid)
            self.kill()
        except OSError as error:  # it has ended, which _read sees as well; or no memory is left
            _log.warning("worker %d cannot be sent to: %s", self.pid, error)
            self.kill()

    def _read(self) -> None:
        while True:
            try:
                packet = packets.receive(self._end)
            except BlockingIOError:
                return
            if packet is None:
                self._lost()
                return
            self._take(packet)

    def _take(self, packet: Packet) -> None:
        header, self.last_word = packet.header, time.monotonic()
        kind = header["kind"]
        if kind == "log":
            logging.getLogger(header["logger"]).log(header["level"], "%s", header["message"])
        elif kind == "serving":
            self.info = pb.GetServerInfoResponse.FromString(bytes(packet.body))
            if not self._warm.done():
                self._warm.set_result(None)
            self._changed()
        elif kind == "refused":
            if not self._warm.done():
                self._warm.set_exception(EngineError(header["message"]))
        elif len(packet.body) > AT_ONCE:
            copied = self._loop.run_in_executor(None, bytes, packet.body)
            copied.add_done_callback(lambda copy: self._settle(header, copy.result()))
        else:
            self._settle(header, bytes(packet.body))

    def _settle(self, header: dict[str, Any], body: bytes) -> None:
        """Give a job its answer or its error."""
        number = header["number"]
        job = self.jobs.pop(number, None)
        if job is None:
            return
        self.pixels -= job.pixels
        for batch in self.batches:
            batch.discard(number)
        self.batches = [batch for batch in self.batches if batch]
        if not job.future.done():
            if header["kind"] == "done":
                job.future.set_result(Answer(body))
            else:
                error = WorkFailed(header["error"], header["message"], header["steps_ms"])
                job.future.set_exception(error)
        self._changed()

    def _lost(self) -> None:
        """Fail the jobs of a process that has ended."""
        self._loop.remove_reader(self._end)
        self._end.close()
        self.info = None
        self.kill()  # it may have closed the socket and live on
        if not self._warm.done():
            self._warm.set_exception(EngineError("the worker ended while it was starting"))
        self._warm.exception()  # seen: nobody may be waiting for it any more
        lost, self.jobs, self.batches, self.pixels = list(self.jobs.values()), {}, [], 0
        for job in lost:
            if not job.future.done():
                job.future.set_exception(
                    WorkerLost("the process that worked on the request ended; try again")
                )
        waiting = self._loop.run_in_executor(None, self._process.wait)
        waiting.add_done_callback(lambda _: self._gone())

    def _gone(self) -> None:
        if not self.gone.done():
            self.gone.set_result(None)
        self._changed()


def _described(job: Job, number: int) -> dict[str, Any]:
    return {
        "number": number,
        "method": job.method,
        "request": len(job.request),
        "image": len(job.image),
        "raw": job.raw_size,
        "request_id": job.request_id,
        "expires_at": None if job.expires_at == float("inf") else job.expires_at,
    }


class Crew:
    """Keeps as many workers as were asked for.

    `changed` is called, on the event loop, when a worker is ready, has answered or has ended.
    """

    def __init__(
        self,
        config: ServerConfig,
        changed: Callable[[], None],
        lost: Callable[[], None],
        program: Sequence[str] = PROGRAM,
    ) -> None:
        self._config = config
        self._changed = changed
        self._lost = lost
        self._program = program
        self._workers: list[Worker] = []
        self._background = Background()  # what keeps workers, and what retires them
        self._reloading = asyncio.Lock()
        self._last_info = pb.GetServerInfoResponse()

    @property
    def ready(self) -> list[Worker]:
        """The workers that serve."""
        return [worker for worker in self._workers if worker.info]

    @property
    def info(self) -> pb.GetServerInfoResponse:
        """What serves; the last that was known while no worker does."""
        for worker in self._workers:
            if worker.info is not None:
                self._last_info = worker.info
                break
        return self._last_info

    async def open(self) -> None:
        """Start the workers and wait until they are warm; raises `EngineError`."""
        self._workers = await self._started()
        for worker in self._workers:
            self._keep(worker)
        self._changed()  # calls may be waiting already

    async def reload(self) -> pb.GetServerInfoResponse:
        """Exchange all workers for new ones, which read the engines anew, and return what serves.

        The old ones serve until the new ones are warm, and finish what they have. Raises
        `NotReloaded`, with the old ones still serving, when the new ones do not come up.
        """
        async with self._reloading:
            try:
                new = await self._started()
            except EngineError as error:
                raise NotReloaded(f"the old engines go on serving: {error}") from error
            old, self._workers = self._workers, new
            for worker in new:
                self._keep(worker)
            for worker in old:
                self._background.start(self._retire(worker))
            self._changed()
            return self.info

    async def close(self) -> None:
        """End all workers."""
        self._background.cancel()
        workers, self._workers = self._workers, []
        await asyncio.gather(*(worker.close() for worker in workers))

    def watch_time(self) -> None:
        """Kill workers that were silent for too long over a batch; to be called now and then."""
        for worker in self._workers:
            silent = time.monotonic() - worker.last_word
            if worker.batches and silent > self._config.worker_seconds:
                _log.error(
                    "worker %d gave no answer for %.0f s: it is replaced", worker.pid, silent
                )
                worker.kill()

    async def _started(self) -> list[Worker]:
        """Return new workers, warm; raises `EngineError` and leaves none behind."""
        settings = settings_of(self._config)
        new = [Worker(self._program, settings, self._changed) for _ in range(self._config.workers)]
        results = await asyncio.gather(*(w.warm() for w in new), return_exceptions=True)
        errors = [result for result in results if isinstance(result, BaseException)]
        if errors:
            await asyncio.gather(*(worker.close() for worker in new))
            raise errors[0]
        return new

    def _keep(self, worker: Worker) -> None:
        self._background.start(self._replace_when_gone(worker))

    async def _replace_when_gone(self, worker: Worker) -> None:
        """Have another worker take the place of one that ended, again and again."""
        ended = 0
        while True:
            await asyncio.wait([worker.gone])
            if worker not in self._workers:  # retired
                return
            lived = time.monotonic() - worker.born
            ended = 1 if lived > STEADY_SECONDS else ended + 1
            _log.error("worker %d ended; another one starts", worker.pid)
            self._lost()
            self._changed()
            await asyncio.sleep(PAUSES[min(ended, len(PAUSES)) - 1])
            place = self._workers.index(worker)
            worker = self._workers[place] = Worker(
                self._program, settings_of(self._config), self._changed
            )
            try:
                await worker.warm()
            except EngineError as error:
                _log.error("worker %d does not serve: %s", worker.pid, error)

    async def _retire(self, worker: Worker) -> None:
        """End a worker once it has nothing left to do."""
        while worker.jobs and not worker.gone.done():
            await asyncio.sleep(0.01)
        await worker.close()
