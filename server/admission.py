"""How much may wait in the server, and how many decoded pictures may live at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from unface.errors import Overloaded


class Admission:
    """Bounds memory: requests and their bytes, decoded pictures, open streams.

    Requests beyond the bounds are refused at once with `Overloaded`; a picture's place is waited
    for, first come first served. Belongs to one event loop.

    `requests` counts those waiting and those worked on; `max_bytes` is what they hold together;
    `pictures` is how many may be decoded at once, 300 MB each at 100 megapixels.
    """

    def __init__(self, requests: int, max_bytes: int, pictures: int, streams: int) -> None:
        self._max_requests = requests
        self._max_bytes = max_bytes
        self._max_streams = streams
        self._places = asyncio.Semaphore(pictures)
        self._bytes = 0
        self._requests = 0
        self._streams = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @asynccontextmanager
    async def picture(self, size: int) -> AsyncIterator[None]:
        """Hold a place for one request of `size` bytes and its decoded picture."""
        with self._request(size):
            async with self._places:
                yield

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Hold a place for one open stream."""
        if self._streams >= self._max_streams:
            raise Overloaded(f"{self._streams} streams are open already; try again later")
        self._streams += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._streams -= 1
            self._note_idle()

    async def idle(self) -> None:
        """Wait until there is no request and no stream."""
        await self._idle.wait()

    @contextmanager
    def _request(self, size: int) -> Iterator[None]:
        if self._requests >= self._max_requests:
            raise Overloaded(f"{self._requests} requests are waiting already; try again later")
        # One request is always let in, however large: gRPC's own limit has let it pass.
        if self._requests and self._bytes + size > self._max_bytes:
            raise Overloaded(
                f"the requests that wait hold {self._bytes} bytes and {size} more exceed the "
                f"limit of {self._max_bytes}; try again later"
            )
        self._requests += 1
        self._bytes += size
        self._idle.clear()
        try:
            yield
        finally:
            self._requests -= 1
            self._bytes -= size
            self._note_idle()

    def _note_idle(self) -> None:
        if not self._requests and not self._streams:
            self._idle.set()
