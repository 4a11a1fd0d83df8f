"""The life of the HTTP server: its socket, its connections, and its end. uvicorn does the rest."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from unface.server.access import MAX_NAME
from unface.server.guard import STALL_SECONDS

HEAD_SECONDS = 10.0  # for a request's line and headers, and for a TLS handshake
IDLE_SECONDS = 5  # between requests
MAX_HEAD = 64 << 10  # bytes of a request's line and headers; options may have many boxes
SLICE = 16 << 10  # bytes parsed at once; asyncio hands over up to 256 KiB
# Bytes around chunks: so many, and then one for 8 of the body. A chunk costs as much as a whole
# slice, and pieces of 40 bytes and less are sent by nobody who means it.
MAX_OVERHEAD = 8 << 10
OVERHEAD_RATIO = 8
BACKLOG = 128
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 1\r\n"
    b"connection: close\r\n\r\n"
)


class HttpServer:
    """Serves an application from `start` to `stop`, in the event loop that is there.

    `close` is called before the end. `connections` bounds how many are open at once; more are
    turned away with 503. What one that is closing has not taken after `stall_seconds` is lost.
    """

    def __init__(
        self,
        app: ASGIApp,
        close: Callable[[], None],
        listening: socket.socket,
        tls: ssl.SSLContext | None,
        connections: int,
        head_seconds: float = HEAD_SECONDS,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            loop="none",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=IDLE_SECONDS,
            h11_max_incomplete_event_size=MAX_HEAD,
            limit_concurrency=None,
        )
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)  # the guard tells defects
        limits = {"head_seconds": head_seconds, "stall_seconds": stall_seconds, "most": connections}
        self._server = _Server(config, listening, tls, limits)
        self._close = close
        self._serving: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Answer requests."""
        self._serving = asyncio.ensure_future(self._server.serve())

    async def stop(self, grace_seconds: float) -> None:
        """Take no more connections, and wait for the answers under way; then break them off."""
        if self._serving is None:
            return
        self._close()
        self._server.should_exit = True
        await asyncio.wait((self._serving,), timeout=grace_seconds)
        self._server.force_exit = True
        for task in set(self._server.server_state.tasks):
            task.cancel()
        await asyncio.wait((self._serving,), timeout=1)
        self._serving.cancel()


class _Server(uvicorn.Server):
    """uvicorn's, with a socket of ours, and without signal handlers: those are app.py's."""

    def __init__(
        self,
        config: uvicorn.Config,
        listening: socket.socket,
        tls: ssl.SSLContext | None,
        limits: dict[str, Any],
    ) -> None:
        super().__init__(config)
        self._listening = listening
        self._tls = tls
        self._limits = limits

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        found = await asyncio.get_running_loop().create_server(
            self._connection,
            sock=self._listening,
            ssl=self._tls,
            ssl_handshake_timeout=self._limits["head_seconds"] if self._tls else None,
            backlog=BACKLOG,
        )
        self.servers = [found]
        self.started = True

    def _connection(self) -> Connection:
        return Connection(self.config, self.server_state, {}, **self._limits)


class Connection(H11Protocol):
    """One connection: a request's head must come in time, and there are not too many of them.

    The application finds in `scope["state"]` what breaks the connection off ("cut") and the name in
    the client's certificate ("certified"), empty without one.
    """

    def __init__(
        self, *args: Any, most: int, head_seconds: float, stall_seconds: float, **named: Any
    ) -> None:
        super().__init__(*args, **named)
        self._head_seconds = head_seconds
        self._stall_seconds = stall_seconds
        self._most = most
        self._timer: asyncio.TimerHandle | None = None  # for a head to come
        self._ending: asyncio.TimerHandle | None = None  # for an answer to go
        self._body = self._overhead = 0  # bytes of the request's body, and around its chunks

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Turn it away where there are too many."""
        super().connection_made(transport)
        certificate = transport.get_extra_info("peercert") or {}
        self.app_state = {"cut": transport.abort, "certified": certified_name(certificate)}
        if len(self.connections) > self._most:
            transport.write(FULL)
            transport.close()
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Read on, as long as it is worth the work."""
        for start in range(0, len(data), SLICE):
            if self.transport.is_closing():
                return
            piece = data[start : start + SLICE]
            cycle, had = self.cycle, len(self.cycle.body) if self.cycle else 0
            super().data_received(piece)
            if self.cycle is not cycle or self.conn.their_state is not h11.SEND_BODY:
                self._body = self._overhead = 0
                continue
            body = len(self.cycle.body) - had
            self._body += body
            self._overhead += len(piece) - body
            if self._overhead > MAX_OVERHEAD + self._body // OVERHEAD_RATIO:
                self.transport.abort()
        self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._watch()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection on which no other request has come."""
        super().timeout_keep_alive_handler()
        self._watch()

    def shutdown(self) -> None:
        """Close it, or have it closed after the answer under way: the server ends."""
        if not self.transport.is_closing():
            super().shutdown()
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the timers."""
        self._unwatch()
        if self._ending is not None:
            self._ending.cancel()
        super().connection_lost(exc)
        # uvicorn leaves it running where the connection broke.
        self._unset_keepalive_if_required()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, and end the request that turned out to be none."""
        if self._is_waiting:
            super().send_400_response(msg)
        elif self.cycle.response_started:
            self.transport.abort()
        else:
            super().send_400_response(msg)
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._watch()

    @property
    def _is_waiting(self) -> bool:
        """Whether the next thing to come is a request's head."""
        return self.cycle is None or self.cycle.response_complete

    def _watch(self) -> None:
        """Have a head that does not come in time end the connection, or an answer that stays."""
        if self.transport.is_closing():
            self._unwatch()
            if self._ending is None:
                self._ending = self.loop.call_later(self._stall_seconds, self.transport.abort)
        elif not self._is_waiting:
            self._unwatch()
        elif self._timer is None:
            self._timer = self.loop.call_later(self._head_seconds, self.transport.abort)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def certified_name(certificate: dict[str, Any]) -> str:
    """Return the common name in a client's certificate, else its first other name."""
    for part in certificate.get("subject", ()):
        for key, value in part:
            if key == "commonName" and value:
                return str(value)[:MAX_NAME]
    others = certificate.get("subjectAltName", ())
    return next((str(value)[:MAX_NAME] for _, value in others if value), "")
