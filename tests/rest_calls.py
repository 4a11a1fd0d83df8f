"""Calls of REST as any program makes them, and the odd ones that no library would send."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from io import BytesIO
from typing import Any
from urllib.parse import urlencode, urlsplit

BOUNDARY = "a-boundary-of-tests"
SECONDS = 30


@dataclass(frozen=True)
class Answer:
    """What came back; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, which must be JSON."""
        assert "json" in self.headers["content-type"], self.headers
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        """The word of a problem; the whole answer must be one."""
        problem = self.json
        assert self.headers["content-type"] == "application/problem+json"
        assert problem["status"] == self.status
        assert problem["type"] == f"/v1/docs#{problem['reason']}"
        assert problem["title"]
        assert problem["request_id"] == self.headers["unface-request-id"]
        return str(problem["reason"])


def ask(
    url: str,
    verb: str,
    path: str,
    body: bytes | Iterable[bytes] | None = None,
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
    **query: str,
) -> Answer:
    """Make one call over a connection of its own; a body of several pieces is sent in chunks."""
    where = urlsplit(url)
    assert where.hostname
    connection = (
        HTTPSConnection(where.hostname, where.port, timeout=SECONDS, context=tls)
        if where.scheme == "https"
        else HTTPConnection(where.hostname, where.port, timeout=SECONDS)
    )
    try:
        connection.request(
            verb, path + ("?" + urlencode(query) if query else ""), body, dict(headers or {})
        )
        return _answer(connection.getresponse())
    finally:
        connection.close()


def post(
    url: str, path: str, body: bytes, headers: Mapping[str, str] | None = None, **query: str
) -> Answer:
    """POST a picture, or whatever the headers say."""
    return ask(url, "POST", path, body, {"content-type": "image/jpeg", **(headers or {})}, **query)


def post_form(url: str, path: str, *parts: bytes, **query: str) -> Answer:
    """POST a form of these parts."""
    return post(url, path, form(*parts), form_type(), **query)


def form(*parts: bytes, end: bytes = b"--") -> bytes:
    """Return a form of parts, as of `text` and `file`."""
    whole = b"".join(b"--" + BOUNDARY.encode() + b"\r\n" + part + b"\r\n" for part in parts)
    return whole + b"--" + BOUNDARY.encode() + end + b"\r\n"


def form_type() -> dict[str, str]:
    return {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


def text(name: str, value: str) -> bytes:
    """Return a part of text."""
    return f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode()


def file(content: bytes, name: str = "photo.jpg", field: str = "image", more: str = "") -> bytes:
    """Return a part that is a file; `more` are header lines, each with its end."""
    head = f'Content-Disposition: form-data; name="{field}"; filename="{name}"\r\n{more}\r\n'
    return head.encode() + content


def raw(url: str, sent: bytes, then_close: bool = False) -> bytes:
    """Send bytes and return all that comes back until the server closes, or answers in full."""
    with dialled(url) as connection:
        connection.sendall(sent)
        if then_close:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        try:
            while piece := connection.recv(1 << 16):
                received += piece
        except ConnectionResetError:
            pass
        return received


def dialled(url: str) -> socket.socket:
    """Return a connection."""
    where = urlsplit(url)
    assert where.hostname
    assert where.port
    return socket.create_connection((where.hostname, where.port), timeout=SECONDS)


def read_answer(connection: socket.socket) -> Answer:
    """Read one answer from a connection."""
    response = HTTPResponse(connection)
    response.begin()
    return _answer(response)


def head(url: str, verb: str, path: str, *lines: str) -> bytes:
    """Return the head of a request with a Host header and these lines."""
    return "\r\n".join(
        [f"{verb} {path} HTTP/1.1", f"Host: {urlsplit(url).netloc}", *lines, "", ""]
    ).encode()


def as_file(content: bytes) -> BytesIO:
    return BytesIO(content)


def _answer(response: HTTPResponse) -> Answer:
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, response.read())
