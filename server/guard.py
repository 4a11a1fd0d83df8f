"""What stands before every HTTP request: whose page asks, by which name, and what answers carry.

A page of another site can have a browser send requests to this machine, with no word to its user:
by a form or a script (CSRF), or by a name of its own that leads here (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unface.errors import InvalidOption, UnfaceError
from unface.server.access import request_id
from unface.server.config import ServerConfig
from unface.server.status import REQUEST_ID_KEY, Failure, failure_from_exception
from unface.web.problems import CrossSite, Misdirected
from unface.web.responses import problem_response
from unface.web.uploads import ClientLeft

# Of a refused request's body, so much time is given to come: a client reads no answer before it
# has sent its body, and learns nothing of one whose connection breaks (RFC 9112, 9.6).
LINGER_SECONDS = 3.0
STALL_SECONDS = 30.0  # a client that takes nothing of its answer for so long has left
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(:[0-9]{1,5})?")  # RFC 9110, 7.2
OPEN_PATHS = ("/", "/v1/docs")  # to which other sites may link
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "content-security-policy": POLICY,
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
}
PREFLIGHT = {
    "access-control-allow-methods": "GET, POST, DELETE",
    "access-control-allow-headers": "authorization, content-type, traceparent, unface-request-id",
    "access-control-max-age": "600",
}
EXPOSED = (
    "content-disposition, retry-after, unface-backend, unface-faces, unface-kept, "
    "unface-request-id, unface-residual"
)


class Guard:
    """An ASGI application around another.

    An answer of which nothing is taken for `stall_seconds` ends, and its connection with it.
    """

    def __init__(
        self, app: ASGIApp, config: ServerConfig, stall_seconds: float = STALL_SECONDS
    ) -> None:
        self._app = app
        self._stall_seconds = stall_seconds
        own = config.http_host.lower()
        bracketed = f"[{own}]" if ":" in own and not own.startswith("[") else own
        self._names = {"localhost", "127.0.0.1", "[::1]", bracketed, *config.http_names}
        self._origins = config.http_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; the connection's own defects are logged here."""
        headers = Headers(scope=scope)
        number = request_id([(key, value) for key, value in headers.items()])
        scope["state"]["request_id"] = number
        origin = headers.get("origin", "")
        allowed = origin if origin.lower() in self._origins else ""
        exchange = _Exchange(receive, send, headers, allowed, self._stall_seconds)
        try:
            await self._answer(scope, headers, exchange)
            await exchange.finish()
        except (asyncio.CancelledError, ClientLeft):  # the grace time is over; nobody reads
            exchange.is_cut = True
        if exchange.is_cut:
            scope["state"]["cut"]()

    async def _answer(self, scope: Scope, headers: Headers, exchange: _Exchange) -> None:
        number = scope["state"]["request_id"]
        try:
            answer = self._refusal(scope, headers, number)
            if answer is None and exchange.is_allowed and scope["method"] == "OPTIONS":
                answer = Response(status_code=204, headers=PREFLIGHT)
            await (answer or self._app)(scope, exchange.receive, exchange.send)
        except ClientLeft:
            raise
        except Exception as error:  # noqa: BLE001 - the boundary: logged and told by status.py
            failure = failure_from_exception(error, number)
            if exchange.has_begun:
                exchange.is_cut = True
            else:
                await told(failure, number)(scope, exchange.receive, exchange.send)

    def _refusal(self, scope: Scope, headers: Headers, number: str) -> Response | None:
        try:
            self._check(scope, headers)
        except UnfaceError as error:
            closed = {"connection": "close"} if isinstance(error, InvalidOption) else None
            return told(failure_from_exception(error, number), number, closed)
        return None

    def _check(self, scope: Scope, headers: Headers) -> None:
        """Raise `Misdirected` or `CrossSite` for a request that another site has made up.

        Raises `InvalidOption` for one whose end two programs may see in two places.
        """
        if "transfer-encoding" in headers and "content-length" in headers:  # RFC 9112, 6.1
            raise InvalidOption("give Content-Length or Transfer-Encoding, not both")
        host = headers.get("host", "").lower()
        name = host_name(host)
        if name is None or name not in (*self._names, _own_address(scope)):
            raise Misdirected(
                f"this server does not go by the name {(name or host)[:100]!r}; its operator can "
                "add it with http_names"
            )
        origins = headers.getlist("origin")
        if origins:
            own = f"{scope['scheme']}://{host}"
            if len(origins) > 1 or origins[0].lower() not in (own, *self._origins):
                raise CrossSite(
                    f"a page of {origins[0][:100]!r} may not ask this; the operator can allow it "
                    "with http_origins"
                )
            return
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not _is_link(
            scope, headers
        ):
            raise CrossSite("another web page may not ask this; open the page itself")


class _Exchange:
    """One request and its answer: knows how far both have come, and completes the headers."""

    def __init__(
        self, receive: Receive, send: Send, headers: Headers, allowed: str, stall_seconds: float
    ) -> None:
        self._receive = receive
        self._send = send
        self._stall_seconds = stall_seconds
        self._has_more = has_body(headers)
        self._is_asking = "expect" in headers  # whether its body is wanted
        self._allowed = allowed  # the origin of a page that may ask
        self._last: Message | None = None
        self.has_begun = self.is_cut = False

    @property
    def is_allowed(self) -> bool:
        """Whether a page of another site asks, and may."""
        return self._allowed != ""

    async def receive(self) -> Message:
        """Return the next piece of the request."""
        self._is_asking = False
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._has_more = False
        return message

    async def send(self, message: Message) -> None:
        """Send a piece of the answer; its end waits while the request is still coming.

        Raises `ClientLeft` where the client takes nothing.
        """
        if message["type"] == "http.response.start":
            self.has_begun = True
            headers = MutableHeaders(raw=message.setdefault("headers", []))
            self._complete(headers)
            if self._has_more and self._is_asking:  # it will not come (RFC 9110, 10.1.1)
                self._has_more = False
                headers["connection"] = "close"
        elif self._has_more and not message.get("more_body", False):
            self._last = {**message, "body": b"", "more_body": False}
            message = {**message, "more_body": True}
        await self._hand(message)

    async def finish(self) -> None:
        """End the answer, once what the client still sends has come; raises as `send` does."""
        if self._last is None or self.is_cut:
            return
        ends_at = time.monotonic() + LINGER_SECONDS
        try:
            while self._has_more:
                await asyncio.wait_for(self.receive(), ends_at - time.monotonic())
        except asyncio.TimeoutError:
            self.is_cut = True
        await self._hand(self._last)

    async def _hand(self, message: Message) -> None:
        """Send; the connection waits until the client has taken most of what went before."""
        try:
            await asyncio.wait_for(self._send(message), self._stall_seconds)
        except asyncio.TimeoutError:
            self.is_cut = True
            raise ClientLeft from None

    def _complete(self, headers: MutableHeaders) -> None:
        for name, value in HEADERS.items():
            headers[name] = value
        headers.setdefault("cache-control", "no-store")
        if self._allowed:
            headers["access-control-allow-origin"] = self._allowed
            headers["access-control-expose-headers"] = EXPOSED
            headers.add_vary_header("Origin")
            headers["cross-origin-resource-policy"] = "cross-origin"
        else:
            headers["cross-origin-resource-policy"] = "same-origin"


def told(failure: Failure, number: str, headers: dict[str, str] | None = None) -> Response:
    """Return the answer that tells a failure."""
    told = {REQUEST_ID_KEY: number, **(headers or {})}
    more = {}
    if failure.retry_ms is not None:
        told["retry-after"] = str(math.ceil(failure.retry_ms / 1000))
        more["retry_ms"] = failure.retry_ms
    if failure.http == HTTPStatus.UNAUTHORIZED:
        told["www-authenticate"] = "Bearer"
    if failure.reason == "Closed":
        told["connection"] = "close"
    return problem_response(failure.reason, failure.http, failure.message, number, told, **more)


def host_name(host: str) -> str | None:
    """Return the name in a Host header, in lower case, without its port; None if it has no form.

    An IPv6 address keeps its brackets.
    """
    parts = HOST.fullmatch(host)
    return parts[1] if parts else None


def has_body(headers: Headers) -> bool:
    """Say whether a request has a body (RFC 9112, 6)."""
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def _own_address(scope: Scope) -> str:
    """Return the address that the connection was made to: no name of another site."""
    address = str((scope.get("server") or ("",))[0])
    return f"[{address}]" if ":" in address else address


def _is_link(scope: Scope, headers: Headers) -> bool:
    """Say whether a person followed a link, or typed an address, and sees a page of ours."""
    return (
        scope["method"] == "GET"
        and scope["path"] in OPEN_PATHS
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )
