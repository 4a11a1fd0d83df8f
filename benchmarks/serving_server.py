"""The server under load, as the operating system sees it: its processes, their memory and work."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from serving import ServerProcess, serving  # type: ignore[import-not-found]

__all__ = ["Memory", "ServerProcess", "Watch", "serving", "watching"]

WORKER_MODULE = "unface.worker"
SAMPLE_SECONDS = 0.25
IDLE_SHARE = 0.05  # of one core


class Memory(NamedTuple):
    """Resident bytes of all processes of a server at a time of `time.monotonic()`."""

    at: float
    resident: int


def processes(server: ServerProcess) -> list[psutil.Process]:
    """Return the server's process and all below it."""
    front = psutil.Process(server.process.pid)
    return [front, *front.children(recursive=True)]


def workers(server: ServerProcess) -> list[psutil.Process]:
    """Return the processes that do the work; none where the server does it itself."""
    return [one for one in processes(server)[1:] if _is_worker(one)]


def worker_ids(server: ServerProcess) -> set[int]:
    """Return the process ids of the workers."""
    return {worker.pid for worker in workers(server)}


def resident_bytes(server: ServerProcess) -> int:
    """Return the resident memory of all processes; pages that they share count in each."""
    return sum(_resident(one) for one in processes(server))


def open_files(server: ServerProcess) -> int:
    """Return how many files and sockets all processes have open."""
    return sum(one.num_fds() for one in processes(server))


def busy(server: ServerProcess, seconds: float = 1.0) -> float:
    """Return the share of one core that all processes take, measured for so long."""
    before = _cpu_seconds(server)
    time.sleep(seconds)
    return (_cpu_seconds(server) - before) / seconds


def is_serving(server: ServerProcess, timeout: float = 5.0) -> bool:
    """Ask the health service, over a new connection."""
    with grpc.insecure_channel(server.target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(), timeout=timeout
        )
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def tracebacks(server: ServerProcess) -> list[str]:
    """Return the exceptions whose tracebacks are in the server's log."""
    found, open_ = [], False
    for line in server.lines:
        if open_ and line and not line.startswith(" "):
            found.append(line[:200])
        open_ = line.startswith("Traceback") or (open_ and (not line or line.startswith(" ")))
    return found


def wait_until_idle(server: ServerProcess, seconds: float = 20.0) -> float:
    """Wait until the server does next to nothing; returns the share of a core it takes then."""
    end = time.monotonic() + seconds
    while (share := busy(server)) > IDLE_SHARE and time.monotonic() < end:
        pass
    return share


class Watch:
    """Notes a server's memory again and again, on a thread."""

    def __init__(self, server: ServerProcess) -> None:
        self.samples: list[Memory] = []
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take no more samples."""
        self._stop.set()
        self._thread.join()

    def between(self, begin: float, end: float) -> list[int]:
        """Return the resident bytes noted between two times of `time.monotonic()`."""
        return [sample.resident for sample in self.samples if begin <= sample.at <= end]

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            try:
                self.samples.append(Memory(time.monotonic(), resident_bytes(self._server)))
            except psutil.NoSuchProcess:  # noqa: PERF203 - the server has ended
                return


@contextmanager
def watching(server: ServerProcess) -> Iterator[Watch]:
    """Watch a server's memory for the time of a block."""
    watch = Watch(server)
    try:
        yield watch
    finally:
        watch.stop()


def _is_worker(process: psutil.Process) -> bool:
    try:
        return any(WORKER_MODULE in word for word in process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return 0


def _cpu_seconds(server: ServerProcess) -> float:
    times = [one.cpu_times() for one in processes(server)]
    return float(sum(time.user + time.system for time in times))
