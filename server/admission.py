"""Who is let in: bounds on what waits, on streams, and on what one client may ask for."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from unface.errors import Overloaded
from unface.server.config import ServerConfig
from unface.server.jobs import Job

BURST_SECONDS = 2.0  # of its pixels a second, a client may take so many at once
MOST_CLIENTS = 10_000  # whose rate is remembered; a rate forgotten is a full one
LEAST_RETRY_MS, MOST_RETRY_MS = 10, 10_000


class Admission:
    """Counts requests, bytes and streams, of all clients and of each. Belongs to one event loop.

    What is beyond a bound is refused at once with `Overloaded`, whose `retry_ms` says when there
    may be room.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._requests = 0
        self._bytes = 0
        self._streams = 0
        self._of_client: Counter[str] = Counter()  # requests
        self._streams_of_client: Counter[str] = Counter()
        self._rates: dict[str, _Bucket] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def streams(self) -> int:
        """How many are open."""
        return self._streams

    @contextmanager
    def request(self, job: Job) -> Iterator[None]:
        """Hold a place for a request and its bytes."""
        self._check_request(job)
        size = job.size
        self._requests += 1
        self._bytes += size
        self._of_client[job.client] += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._requests -= 1
            self._bytes -= size
            _one_less(self._of_client, job.client)
            self._note_idle()

    @contextmanager
    def stream(self, client: str) -> Iterator[None]:
        """Hold a place for an open stream."""
        if self._streams >= self._config.max_streams:
            raise overloaded(f"{self._streams} streams are open already; try again later", 1)
        most = self._config.client_streams
        if most is not None and self._streams_of_client[client] >= most:
            raise overloaded(f"this client has {most} streams open already; close one", 1)
        self._streams += 1
        self._streams_of_client[client] += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._streams -= 1
            _one_less(self._streams_of_client, client)
            self._note_idle()

    async def idle(self) -> None:
        """Wait until there is no request and no stream."""
        await self._idle.wait()

    def _check_request(self, job: Job) -> None:
        most = self._config.client_requests
        if most is not None and self._of_client[job.client] >= most:
            raise overloaded(f"this client has {most} requests under way; wait for one", 0.1)
        # One request is always let in, however large: gRPC's own limit has let it pass.
        if self._requests and self._bytes + job.size > self._config.queue_bytes:
            raise overloaded(
                f"the requests that wait hold {self._bytes} bytes and {job.size} more exceed the "
                f"limit of {self._config.queue_bytes}; try again later",
                0.1,
            )
        if self._config.client_pixels_per_second is not None:
            self._spend(job, self._config.client_pixels_per_second)

    def _spend(self, job: Job, rate: int) -> None:
        """Take a request's pixels from what its client may have."""
        if len(self._rates) >= MOST_CLIENTS and job.client not in self._rates:
            self._rates.pop(next(iter(self._rates)))
        bucket = self._rates.setdefault(job.client, _Bucket(rate * BURST_SECONDS))
        if wait := bucket.take(job.pixels, rate):
            raise overloaded(
                f"this client has had its {rate} pixels a second; send more slowly", wait
            )

    def _note_idle(self) -> None:
        if not self._requests and not self._streams:
            self._idle.set()


class _Bucket:
    """A token bucket of pixels. A picture larger than the whole bucket passes when it is full."""

    def __init__(self, most: float) -> None:
        self._most = self._left = most
        self._at = time.monotonic()

    def take(self, pixels: int, rate: float) -> float:
        """Take so many pixels and return 0, or how many seconds to wait for them."""
        now = time.monotonic()
        self._left = min(self._most, self._left + (now - self._at) * rate)
        self._at = now
        missing = min(pixels, self._most) - self._left
        if missing > 0:
            return missing / rate
        self._left -= pixels
        return 0.0


def overloaded(message: str, seconds: float) -> Overloaded:
    """Return the error that says when to come again."""
    error = Overloaded(message)
    error.retry_ms = round(min(max(seconds * 1000, LEAST_RETRY_MS), MOST_RETRY_MS))
    return error


def _one_less(counter: Counter[str], name: str) -> None:
    counter[name] -= 1
    if not counter[name]:
        del counter[name]
