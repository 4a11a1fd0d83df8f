"""Pages of other sites, which a browser lets speak to this machine, get nothing from it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from issuing import Authority
from rest_calls import ask, dialled, head, raw, read_answer
from serving import ServerProcess, serving
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from unface.server.config import ServerConfig
from unface.server.guard import Guard
from unface.server.http import HttpServer
from unface.server.listening import listen_for_http
from unface.web.responses import Pieces, cut
from unface.web.uploads import Held

ALLOWED = "https://photos.example"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@pytest.fixture(scope="module")
def known() -> Iterator[ServerProcess]:
    """A server with another name, which a page of another site may call."""
    names = ("--http-names", "faces.example,[fd00::1]", "--http-origins", ALLOWED)
    with serving("--http-port", "0", *names) as running:
        yield running
        assert running.terminate() == 0


def port_of(server: ServerProcess) -> str:
    return server.http.rpartition(":")[2]


# --- names (DNS rebinding) ------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "[::1]", "localhost:{0}"])
def test_its_own_names_are_answered_by_whatever_port(door: ServerProcess, host: str) -> None:
    for name in (host.format(port_of(door)), host.partition(":{0}")[0] + ":9999"):
        assert ask(door.http, "GET", "/v1/info", headers={"host": name}).status == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "evil.example:8080"),
        *("10.0.0.1", "[::2]", "127.0.0.2", "localhost.", "faces.example", "@", "a b"),
        *("", ":8080", "[", "[::1", "localhost@evil.example", "localhost, evil.example"),
        *("[::1]evil.example:80", "[::1]:evil", "localhost:evil", "localhost:80:evil"),
        *("localhost:", "localhost:123456", "[localhost]"),
    ],
)
def test_no_other_name_is(door: ServerProcess, host: str) -> None:
    for path in ("/", "/v1/info", "/page/docs.css", "/v1/docs", "/v1/openapi.json", "/nothing"):
        answer = ask(door.http, "GET", path, headers={"host": host})
        assert (answer.status, answer.reason) == (421, "Misdirected")


def test_a_request_without_a_name_is_refused(door: ServerProcess) -> None:
    assert raw(door.http, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 421 ")
    two = b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"
    assert raw(door.http, two).startswith(b"HTTP/1.1 400 ")


def test_names_that_the_operator_gave_it_are_answered(known: ServerProcess) -> None:
    for host in ("faces.example", "Faces.Example:443", "[fd00::1]:8080", "localhost"):
        assert ask(known.http, "GET", "/v1/info", headers={"host": host}).status == 200


def test_a_request_whose_end_can_be_seen_in_two_places_is_refused(door: ServerProcess) -> None:
    lines = ("content-length: 5", "transfer-encoding: chunked")
    sent = head(door.http, "POST", "/v1/detect", *lines) + b"0\r\n\r\n"
    answer = raw(door.http, sent + head(door.http, "GET", "/v1/info"))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in answer


# --- other sites (CSRF) ---------------------------------------------------------------------------


def test_its_own_page_may_ask(door: ServerProcess, photo: bytes) -> None:
    own = {"origin": door.http, "sec-fetch-site": "same-origin", "content-type": "image/jpeg"}
    answer = ask(door.http, "POST", "/v1/detect", photo, own)
    assert answer.status == 200
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "", "http://localhost", "http://127.0.0.1:1", "https://{0}"],
)
def test_no_other_page_may(door: ServerProcess, photo: bytes, origin: str) -> None:
    headers = {"origin": origin.format(door.http.removeprefix("http://"))}
    for kind in ("image/jpeg", "multipart/form-data; boundary=x", "text/plain"):
        answer = ask(door.http, "POST", "/v1/anonymize", photo, {**headers, "content-type": kind})
        assert (answer.status, answer.reason) == (403, "CrossSite")
        assert "access-control-allow-origin" not in answer.headers
    assert ask(door.http, "GET", "/v1/info", headers=headers).status == 403
    assert ask(door.http, "GET", "/", headers=headers).status == 403
    assert ask(door.http, "POST", "/v1/archives", headers=headers).status == 403


def test_two_origins_are_none_of_its_own(door: ServerProcess) -> None:
    line = f"origin: {door.http}"
    sent = head(door.http, "GET", "/v1/info", line, line, "connection: close")
    assert raw(door.http, sent).startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_another_page_loads_is_refused(door: ServerProcess, site: str) -> None:
    """As an image, a script or a frame: such requests have no Origin."""
    for mode, kind in (("no-cors", "image"), ("no-cors", "script"), ("navigate", "iframe")):
        headers = {"sec-fetch-site": site, "sec-fetch-mode": mode, "sec-fetch-dest": kind}
        for path in ("/", "/page/docs.css", "/v1/info", "/v1/docs"):
            answer = ask(door.http, "GET", path, headers=headers)
            assert (answer.status, answer.reason) == (403, "CrossSite")


def test_a_person_may_follow_a_link_to_a_page_and_to_nothing_else(door: ServerProcess) -> None:
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    link["sec-fetch-dest"] = "document"
    assert ask(door.http, "GET", "/", headers=link).status == 200
    assert ask(door.http, "GET", "/v1/docs", headers=link).status == 200
    assert ask(door.http, "GET", "/v1/info", headers=link).status == 403
    assert ask(door.http, "POST", "/", headers=link).status == 403
    typed = {**link, "sec-fetch-site": "none"}
    assert ask(door.http, "GET", "/v1/info", headers=typed).status == 200


# --- CORS -----------------------------------------------------------------------------------------


def test_a_page_that_the_operator_allows_may_ask(known: ServerProcess, photo: bytes) -> None:
    headers = {"origin": ALLOWED, "sec-fetch-site": "cross-site", "content-type": "image/jpeg"}
    answer = ask(known.http, "POST", "/v1/anonymize", photo, headers)
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == ALLOWED
    assert "unface-faces" in answer.headers["access-control-expose-headers"]
    assert answer.headers["vary"] == "Origin"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert "access-control-allow-credentials" not in answer.headers
    wrong = ask(known.http, "POST", "/v1/detect", b"", headers)  # may be read too
    assert wrong.headers["access-control-allow-origin"] == ALLOWED


def test_a_preflight_is_answered_for_it_and_for_nobody_else(known: ServerProcess) -> None:
    asked = {"access-control-request-method": "POST"}
    allowed = ask(known.http, "OPTIONS", "/v1/detect", headers={"origin": ALLOWED, **asked})
    assert (allowed.status, allowed.body) == (204, b"")
    assert allowed.headers["access-control-allow-origin"] == ALLOWED
    assert "authorization" in allowed.headers["access-control-allow-headers"]
    for origin in ("https://evil.example", ALLOWED + ".evil.example", "http://photos.example"):
        refused = ask(known.http, "OPTIONS", "/v1/detect", headers={"origin": origin, **asked})
        assert (refused.status, refused.reason) == (403, "CrossSite")
        assert not [name for name in refused.headers if name.startswith("access-control")]
    elsewhere = {"origin": ALLOWED, "host": "evil.example", **asked}
    assert ask(known.http, "OPTIONS", "/v1/detect", headers=elsewhere).status == 421


# --- what every answer carries --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "path"),
    [
        *[("GET", path) for path in ("/", "/v1/docs", "/v1/info", "/page/docs.css", "/nothing")],
        *[("POST", path) for path in ("/v1/detect", "/v1/anonymize", "/v1/archives/0/close")],
    ],
)
def test_every_answer_says_how_little_may_be_done_with_it(
    door: ServerProcess, verb: str, path: str
) -> None:
    answer = ask(door.http, verb, path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert answer.headers["content-security-policy"] == POLICY
    assert "camera=(self)" in answer.headers["permissions-policy"]
    assert answer.headers["cache-control"] in ("no-store", "no-cache")
    assert "server" not in answer.headers


def test_pictures_are_kept_by_nobody_on_the_way(door: ServerProcess, photo: bytes) -> None:
    answer = ask(door.http, "POST", "/v1/anonymize", photo)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_refused_request_is_answered_though_its_body_has_not_come(door: ServerProcess) -> None:
    """A client that reads nothing before it has sent everything must learn of it too."""
    sent = head(door.http, "POST", "/v1/nothing", "content-length: 5000000", "connection: close")
    with dialled(door.http) as connection:
        connection.sendall(sent + b"x" * 2_000_000)
        connection.sendall(b"x" * 3_000_000)
        assert read_answer(connection).reason == "NotFound"
        assert connection.recv(1) == b""


# --- answers that nobody reads --------------------------------------------------------------------

LARGE = bytes(8 << 20)  # more than a connection holds on its way
GET, POST = (verb + b" /large HTTP/1.1\r\nHost: localhost\r\n" for verb in (b"GET", b"POST"))
CLOSE = b"Connection: close\r\n"


class Unread:
    """A server with one place, and a client in it that takes nothing of its answer."""

    def __init__(self, in_pieces: bool, tls: ssl.SSLContext | None) -> None:
        self.in_pieces = in_pieces
        self.tls = tls
        self.held = Held(len(LARGE))
        self.begun = asyncio.Event()

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/small":
            await Response("small")(scope, receive, send)
            return
        self.begun.set()
        if not self.in_pieces:
            await Response(LARGE)(scope, receive, send)
            return
        share = self.held.share()
        share.add(len(LARGE))
        await Pieces(cut(LARGE), len(LARGE), {}, share)(scope, receive, send)

    async def talk(self, sent: bytes, client: ssl.SSLContext | None) -> None:
        listening = listen_for_http("127.0.0.1", 0)
        app = Guard(self.answer, ServerConfig(), stall_seconds=0.2)
        server = HttpServer(app, lambda: None, listening, self.tls, 1, stall_seconds=0.2)
        server.start()
        there = listening.getsockname()
        with socket.socket() as stuck:
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            stuck.connect(there)
            named = {"ssl": client, "server_hostname": "localhost"} if client else {}
            _, writer = await asyncio.open_connection(sock=stuck, limit=1, **named)  # type: ignore[arg-type]
            writer.write(sent)
            await self.begun.wait()
            while self.held.total or not await self.has_room(there, client):
                await asyncio.sleep(0.05)
            writer.transport.abort()
        await server.stop(1)

    async def has_room(self, there: tuple[str, int], client: ssl.SSLContext | None) -> bool:
        reader, writer = await asyncio.open_connection(*there, ssl=client)
        writer.write(b"GET /small HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        try:
            answer = await reader.read()
        except ConnectionError:
            return False
        writer.close()
        return answer.startswith(b"HTTP/1.1 200 ")


ONE, THREE = GET + CLOSE + b"\r\n", 3 * (GET + b"\r\n")


@pytest.mark.parametrize("in_pieces", [False, True], ids=["whole", "in pieces"])
@pytest.mark.parametrize(
    "sent",
    [ONE, THREE, POST + CLOSE + b"Content-Length: 2\r\n\r\nok"],
    ids=["one", "three", "after its body"],
)
def test_an_answer_that_nobody_reads_gives_its_place_back(in_pieces: bool, sent: bytes) -> None:
    talk = Unread(in_pieces, None).talk(sent, None)
    asyncio.run(asyncio.wait_for(talk, 20))


@pytest.mark.parametrize("in_pieces", [False, True], ids=["whole", "in pieces"])
@pytest.mark.parametrize("sent", [ONE, THREE], ids=["one", "three"])
def test_so_does_one_over_tls(tmp_path: Path, in_pieces: bool, sent: bytes) -> None:
    authority = Authority()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(*authority.issue().write(tmp_path, "server"))
    client = ssl.create_default_context(cadata=authority.pem.decode())
    client.check_hostname = False
    talk = Unread(in_pieces, server).talk(sent, client)
    asyncio.run(asyncio.wait_for(talk, 20))
