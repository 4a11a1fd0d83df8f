"""/metrics, /healthz and /readyz over HTTP, on a port and threads of their own.

A probe must answer while the event loop is busy or stuck, so nothing here touches it.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import logging
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST

from unface.errors import UnfaceError
from unface.server.config import address

MAX_THREADS = 16  # connections answered at once; more wait in the system's queue
MAX_HEAD = 16 << 10  # bytes of a request's line and headers
HEAD_SECONDS = 2.0  # for all of them, however they trickle in
SEND_SECONDS = 5.0  # for the whole answer
STUCK_SECONDS = 10.0  # an event loop that has not turned for so long is no more alive
PLAIN = "text/plain; charset=utf-8"

_log = logging.getLogger("unface.server")


class CannotServeProbes(UnfaceError):
    """The address of the probes is taken, not allowed, or not of this machine."""


class Heartbeat:
    """Tells other threads whether the event loop turns."""

    def __init__(self, stuck_seconds: float = STUCK_SECONDS) -> None:
        self._stuck_seconds = stuck_seconds
        self._beat_at = time.monotonic()

    async def beat(self) -> None:
        """Run in the event loop as long as it runs."""
        while True:
            self._beat_at = time.monotonic()
            await asyncio.sleep(self._stuck_seconds / 10)

    def alive(self) -> bool:
        """Whether the loop has turned of late; before the first beat, as if it had at the start."""
        return time.monotonic() - self._beat_at < self._stuck_seconds


class Probes:
    """Serves from its creation until `close`.

    `metrics`, `alive` and `ready` are called on other threads; `ready` returns why the server is
    not, in a line, or None. Port 0 takes a free one; `port` is what it became. Raises
    `CannotServeProbes` when the address cannot be had.
    """

    def __init__(
        self,
        host: str,
        port: int,
        metrics: Callable[[], bytes],
        alive: Callable[[], bool],
        ready: Callable[[], str | None],
    ) -> None:
        def healthz() -> tuple[HTTPStatus, str, bytes]:
            return _state(None if alive() else "the event loop is stuck")

        pages = {
            "/metrics": lambda: (HTTPStatus.OK, CONTENT_TYPE_LATEST, metrics()),
            "/healthz": healthz,
            "/readyz": lambda: _state(ready()),
        }
        handler = type("Handler", (_Handler,), {"pages": pages})
        try:
            family, *_, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            self._server = _Server(family, where[:2], handler)
        except OSError as error:
            raise CannotServeProbes(
                f"cannot serve metrics on {address(host, port)}: {error.strerror or error}; "
                "choose another metrics_host or metrics_port"
            ) from error
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="unface-probes", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Answer no more, and free the port."""
        self._server.shutdown()
        self._server.server_close()


def _state(wrong: str | None) -> tuple[HTTPStatus, str, bytes]:
    if wrong is None:
        return HTTPStatus.OK, PLAIN, b"ok\n"
    return HTTPStatus.SERVICE_UNAVAILABLE, PLAIN, f"{wrong}\n".encode()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, family: int, where: tuple[Any, ...], handler: type[_Handler]) -> None:
        self.address_family = family
        self._places = threading.Semaphore(MAX_THREADS)
        super().__init__(where, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._places.acquire()  # the deadlines of those before end the wait
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread to be had
            self._places.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell of defects, and softly of clients that left or were too slow."""
        level = logging.DEBUG if isinstance(sys.exc_info()[1], OSError) else logging.ERROR
        _log.log(level, "a probe's connection broke", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    """One request, one answer: HTTP/1.0, RFC 1945; the connection then closes."""

    default_request_version = "HTTP/1.0"  # 0.9 would be answered without a status line
    pages: dict[str, Callable[[], tuple[HTTPStatus, str, bytes]]]

    def setup(self) -> None:
        super().setup()
        # A timeout for each read would let a byte a second hold the thread for hours.
        self.rfile = io.BytesIO(_read_head(self.request))
        self.request.settimeout(SEND_SECONDS)

    def do_GET(self) -> None:
        """Answer with a page, or say that there is none."""
        page = self.pages.get(self.path.partition("?")[0])
        if page is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        try:
            answer = page()
        except Exception:  # noqa: BLE001 - the boundary: logged, and told as a status
            _log.exception("%s failed", self.path.partition("?")[0])
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR)
            return
        self._answer(*answer)

    do_HEAD = do_GET  # noqa: N815 - `_answer` leaves the body out

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer with the status alone; the base class would repeat the client's words as HTML."""
        if code == HTTPStatus.NOT_IMPLEMENTED:  # what the base class says of other methods
            code = HTTPStatus.METHOD_NOT_ALLOWED
        status = HTTPStatus(code)
        self._answer(status, PLAIN, f"{status.phrase}\n".encode())

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        zipped = len(body) > 1024 and "gzip" in self._accepted_encodings()
        if zipped:
            body = gzip.compress(body, 5, mtime=0)
        self.send_response_only(status)  # without the banner that names software and version
        self.send_header("Date", self.date_time_string())
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        if zipped:
            self.send_header("Content-Encoding", "gzip")
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")  # RFC 9110, 15.5.6
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _accepted_encodings(self) -> list[str]:
        headers = getattr(self, "headers", None)  # None where the request line was wrong
        accepted = headers.get("Accept-Encoding", "") if headers else ""
        return [word.strip() for word in accepted.lower().split(",")]

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing: probes come every few seconds."""


def _read_head(connection: socket.socket) -> bytes:
    """Return the request's line and headers; raises `TimeoutError` after `HEAD_SECONDS`."""
    ends_at = time.monotonic() + HEAD_SECONDS
    head = b""
    while b"\r\n\r\n" not in head:
        connection.settimeout(max(ends_at - time.monotonic(), 0.001))
        part = connection.recv(4096)
        head += part
        if not part or len(head) > MAX_HEAD:
            raise ConnectionError("no whole request")
    return head
