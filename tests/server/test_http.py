"""The life of the HTTP server: where it listens, TLS, its connections, and its end."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import landlocked
import pytest
from issuing import Authority
from PIL import Image
from rest_calls import Answer, ask, dialled, file, head, post, post_form, raw, text
from serving import ServerProcess, serving, serving_oddly, started
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from unface.errors import InvalidOption
from unface.server.access import Access
from unface.server.config import ServerConfig
from unface.server.http import HttpServer, certified_name
from unface.server.listening import listen_for_http
from unface.server.record import Record
from unface.server.rest import Rest
from unface.server.scheduler import Closed
from unface.server.tls import check_exposure
from unface.v1 import unface_pb2 as pb


def picture(width: int) -> bytes:
    file = BytesIO()
    Image.new("RGB", (width, 60)).save(file, "PNG")
    return file.getvalue()


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    ends_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.02)


# --- where it listens -----------------------------------------------------------------------------


def test_the_page_is_announced_before_the_server(door: ServerProcess) -> None:
    lines = [line.partition(" on ")[0] for line in door.lines]
    assert lines == ["unface metrics", "unface page", "unface serving"]
    assert door.http.startswith("http://127.0.0.1:")


def test_without_a_port_nothing_of_http_is_there() -> None:
    with serving() as server:
        assert server.http == ""
        assert "page" not in server.log
    code = "import sys, unface.server.app; print({'fastapi', 'uvicorn'} & sys.modules.keys())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


def test_http_needs_nothing_that_looks_at_pixels() -> None:
    heavy = "{'numpy', 'cv2', 'PIL', 'jwt', 'cryptography', 'torch'}"
    code = (
        f"import sys, unface.server.rest, unface.server.http; print({heavy} & sys.modules.keys())"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


def test_a_port_that_is_taken_is_said_in_one_line(door: ServerProcess) -> None:
    port = door.http.rpartition(":")[2]
    with started("-m", "unface.server", "--port", "0", "--http-port", port) as second:
        assert second.wait() == 1
        (line,) = second.lines
    assert line.startswith(f"unface: cannot listen on 127.0.0.1:{port}: Address already in use; ")
    assert "http_port" in line
    assert "--http-port none" in line


def test_small_answers_do_not_wait_for_acknowledgements() -> None:
    """asyncio sets TCP_NODELAY on what a socket accepts only where that says it is TCP."""
    with listen_for_http("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP


def test_it_listens_on_ipv6_too(photo: bytes) -> None:
    with serving("--http-port", "0", "--http-host", "::1") as server:
        assert server.http.startswith("http://[::1]:")
        assert post(server.http, "/v1/detect", photo).status == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])  # noqa: S104
def test_other_machines_are_served_with_tls_and_tokens_alone(host: str) -> None:
    with pytest.raises(InvalidOption, match=f"http_host {host} serves other machines"):
        check_exposure(ServerConfig(http_host=host))
    check_exposure(ServerConfig(http_host=host, http_port=None))
    check_exposure(ServerConfig(http_host=host, insecure=True))
    check_exposure(
        ServerConfig(http_host=host, tls_certificate="c", tls_key="k", tls_client_ca="a")
    )
    check_exposure(ServerConfig(http_host="localhost"))


# --- TLS ------------------------------------------------------------------------------------------


def context(authority: Authority) -> ssl.SSLContext:
    made = ssl.create_default_context(cadata=authority.pem.decode())
    made.check_hostname = False
    return made


def test_with_a_certificate_http_is_tls_and_reads_it_again(tmp_path: Path, photo: bytes) -> None:
    old, new = Authority(), Authority()
    certificate, key = old.issue().write(tmp_path, "server")
    flags = ("--tls-certificate", certificate, "--tls-key", key)
    with serving("--http-port", "0", *flags) as server:
        assert server.http.startswith("https://")
        answer = ask(server.http, "POST", "/v1/detect", photo, tls=context(old))
        assert len(answer.json["faces"]) == 1
        own = {"origin": server.http, "content-type": "image/jpeg"}
        assert ask(server.http, "POST", "/v1/detect", photo, own, tls=context(old)).status == 200
        plain = raw(server.http, head(server.http, "GET", "/"), then_close=True)
        assert b"HTTP/1.1 200" not in plain
        new.issue().write(tmp_path, "server")
        until(lambda: is_reached(server, context(new)))
        assert not is_reached(server, context(old))
        assert server.terminate() == 0
        assert "Traceback" not in server.log


def is_reached(server: ServerProcess, tls: ssl.SSLContext) -> bool:
    try:
        return ask(server.http, "GET", "/v1/info", tls=tls).status == 200
    except ssl.SSLError:
        return False


def test_clients_show_a_certificate_where_they_must(tmp_path: Path, photo: bytes) -> None:
    authority, stranger = Authority(), Authority()
    certificate, key = authority.issue().write(tmp_path, "server")
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    flags = ("--tls-certificate", certificate, "--tls-key", key)
    with serving("--http-port", "0", *flags, "--tls-client-ca", str(tmp_path / "ca.pem")) as server:
        good = context(authority)
        good.load_cert_chain(*authority.issue("alice").write(tmp_path, "alice"))
        assert ask(server.http, "POST", "/v1/detect", photo, tls=good).status == 200
        bad = context(authority)
        bad.load_cert_chain(*stranger.issue("mallory").write(tmp_path, "mallory"))
        for tls in (context(authority), bad):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                ask(server.http, "GET", "/v1/info", tls=tls)


def test_the_name_in_a_certificate_is_its_common_name_or_another() -> None:
    assert certified_name({"subject": ((("commonName", "alice"),),)}) == "alice"
    assert certified_name({"subject": (), "subjectAltName": (("DNS", "a.example"),)}) == "a.example"
    assert certified_name({}) == ""
    assert len(certified_name({"subject": ((("commonName", "x" * 1000),),)})) == 128


# --- its end --------------------------------------------------------------------------------------


def calling(threads: ThreadPoolExecutor, server: ServerProcess) -> Future[Answer]:
    """Return a call that a slow detection answers, once that has begun."""
    call = threads.submit(post, server.http, "/v1/anonymize", picture(77))
    until(lambda: "slow detection" in server.log)
    return call


def test_what_is_under_way_is_answered_after_sigterm_and_nothing_else() -> None:
    flags = ("--http-port", "0", "--slow", "2", "--drain-seconds", "0.5")
    with serving_oddly(*flags) as server, ThreadPoolExecutor() as threads:
        call = calling(threads, server)
        ended = threads.submit(server.terminate)
        assert call.result().status == 200
        assert ended.result() == 0
        with pytest.raises(ConnectionRefusedError):
            dialled(server.http)
        assert "Traceback" not in server.log


class Silent:
    """Observers that nobody listens to."""

    def refused(self, record: Record) -> None:
        pass


def test_new_calls_are_refused_while_others_end() -> None:
    def early(method: str) -> Exception:
        return Closed("the server is shutting down; try again later")

    async def talk() -> bytes:
        access = Access(None, admin_open=False, early=early)
        rest = Rest(ServerConfig(), Silent(), access, pb.GetServerInfoResponse)  # type: ignore[arg-type]
        listening = listen_for_http("127.0.0.1", 0)
        server = HttpServer(rest, rest.close, listening, None, 9)
        server.start()
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        writer.write(b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        answer = await reader.read()  # it ends: the connection is closed
        writer.close()
        await server.stop(1)
        return answer

    answer = asyncio.run(asyncio.wait_for(talk(), 20))
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b'"reason":"Closed"' in answer
    assert b"connection: close" in answer


def test_after_the_grace_time_calls_are_broken_off() -> None:
    flags = ("--http-port", "0", "--slow", "20", "--grace-seconds", "0.3")
    with serving_oddly(*flags) as server, ThreadPoolExecutor() as threads:
        call = calling(threads, server)
        assert server.terminate() == 0
        assert isinstance(call.exception(), ConnectionError) or call.result().status == 503
        assert "Traceback" not in server.log


def test_those_who_only_listen_hold_no_end_up() -> None:
    with serving("--http-port", "0", "--grace-seconds", "60") as server:
        idle = [dialled(server.http) for _ in range(3)]
        idle[0].sendall(b"GET / HT")
        idle[1].sendall(head(server.http, "GET", "/v1/info"))
        archive = post(server.http, "/v1/archives", b"").json["id"]
        idle[2].sendall(head(server.http, "GET", f"/v1/archives/{archive}"))
        assert idle[1].recv(100).startswith(b"HTTP/1.1 200 ")
        assert idle[2].recv(100).startswith(b"HTTP/1.1 200 ")
        began = time.monotonic()
        assert server.terminate() == 0
        assert time.monotonic() - began < 30  # half of the grace time
        for connection in idle:
            connection.close()


# --- nothing on a disk ----------------------------------------------------------------------------


@pytest.mark.skipif(
    not landlocked.is_possible(), reason="this kernel has no Landlock that covers truncation"
)
def test_nothing_is_written_to_any_disk(photo: bytes) -> None:
    command = (landlocked.__file__, sys.executable, "-m", "unface.server", "--port", "0")
    with started(*command, "--http-port", "0") as server:
        server.wait_until_announced()
        large = BytesIO()
        Image.effect_noise((2300, 1700), 100).convert("RGB").save(large, "PNG")
        assert len(large.getvalue()) > 5 << 20  # more than what others keep in memory
        for answer in (
            post(server.http, "/v1/detect", photo),
            post(server.http, "/v1/anonymize", large.getvalue()),
            post_form(server.http, "/v1/anonymize", text("answer", "json"), file(photo)),
            post_form(server.http, "/v1/anonymize", file(large.getvalue())),
            post_form(server.http, "/v1/batch", file(photo), file(large.getvalue())),
        ):
            assert answer.status == 200
        assert server.terminate() == 0
        assert "Traceback" not in server.log


TRACED = """
import asyncio
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter = InMemorySpanExporter()
trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(exporter))

from unface.server.access import Access
from unface.server.config import ServerConfig
from unface.server.rest import Rest
from unface.v1 import unface_pb2 as pb

async def receive():
    return {"type": "http.request"}

async def send(message):
    print(message.get("status", ""))

rest = Rest(ServerConfig(), None, Access(None, False), pb.GetServerInfoResponse)
headers = [(b"host", b"localhost")]
scope = {"type": "http", "method": "GET", "path": "/v1/info", "query_string": b"name=SECRET",
         "headers": headers, "scheme": "http", "state": {"certified": ""}}
asyncio.run(rest(scope, receive, send))
print(len(exporter.get_finished_spans()))
"""


def test_no_library_tells_others_of_requests() -> None:
    """FastAPI would, where OpenTelemetry is set up for what unface itself tells."""
    pytest.importorskip("opentelemetry.sdk")
    printed = subprocess.check_output([sys.executable, "-c", TRACED], text=True)
    assert printed.split() == ["200", "0"]


# --- connections ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def few() -> Iterator[ServerProcess]:
    with serving("--http-port", "0", "--queue-size", "1") as running:
        yield running


def test_too_many_connections_are_turned_away_and_the_others_served(few: ServerProcess) -> None:
    most = 1 + 256
    held = [dialled(few.http) for _ in range(most)]
    until(lambda: turned_away(few))
    held.pop().close()
    until(lambda: not turned_away(few))
    for connection in held:
        connection.close()
    assert ask(few.http, "GET", "/v1/info").status == 200


def turned_away(server: ServerProcess) -> bool:
    try:
        answer = raw(server.http, head(server.http, "GET", "/v1/info", "connection: close"))
    except BrokenPipeError:
        return True
    return not answer.startswith(b"HTTP/1.1 200 ")


def test_a_connection_that_sends_no_whole_head_is_closed() -> None:
    """Each byte comes in time, the head does not; one that was answered may wait a little."""

    async def hello(scope: Scope, receive: Receive, send: Send) -> None:
        await Response("hello")(scope, receive, send)

    async def talk() -> list[bytes]:
        listening = listen_for_http("127.0.0.1", 0)
        server = HttpServer(hello, lambda: None, listening, None, 9, head_seconds=0.3)
        server.start()
        there = listening.getsockname()
        pairs = [await asyncio.open_connection(*there) for _ in range(3)]
        (_, slow), (answered, asking) = pairs[1:]
        asking.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in await answered.readuntil(b"hello")
        while not slow.is_closing():
            slow.write(b"G")
            await asyncio.sleep(0.02)
        rest = [await reader.read() for reader, _ in pairs[::2]]
        await server.stop(1)
        for _, writer in pairs:
            writer.close()
        return rest

    assert asyncio.run(asyncio.wait_for(talk(), 20)) == [b"", b""]


HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def sizes_read(sent: bytes) -> tuple[list[int], bytes]:
    """Return how many bytes of body each request had, whole or not, and all that was answered."""
    sizes: list[int] = []

    async def count(scope: Scope, receive: Receive, send: Send) -> None:
        sizes.append(0)
        more = True
        while more:
            message = await receive()
            sizes[-1] += len(message.get("body", b""))
            more = message.get("more_body", False)
        await Response("read")(scope, receive, send)

    async def talk() -> bytes:
        listening = listen_for_http("127.0.0.1", 0)
        server = HttpServer(count, lambda: None, listening, None, 9)
        server.start()
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        writer.write(sent)
        answered = b""
        try:
            while piece := await reader.read(1 << 16):
                answered += piece
        except ConnectionResetError:
            pass
        writer.transport.abort()
        await server.stop(1)
        return answered

    return sizes, asyncio.run(asyncio.wait_for(talk(), 20))


@pytest.mark.parametrize("chunk", [b"1\r\nx\r\n", b"9;" + b"y" * 99 + b"\r\n" + b"x" * 9 + b"\r\n"])
def test_chunks_that_are_little_but_work_end_the_connection(chunk: bytes) -> None:
    sizes, answered = sizes_read(CHUNKED + chunk * ((4 << 20) // len(chunk)))
    assert answered == b""
    assert sizes[0] < 20_000


def test_chunks_of_any_sensible_size_are_read_and_what_comes_behind_them() -> None:
    many = CHUNKED + (b"80\r\n" + b"x" * 128 + b"\r\n") * 10_000 + b"0\r\n\r\n"
    few = CHUNKED + b"1\r\nx\r\n" * 1000 + b"0\r\n\r\n"
    sized = HEAD + b"Content-Length: 1000000\r\n\r\n" + bytes(1_000_000)
    small = HEAD + b"Content-Length: 1\r\n\r\nx"
    last = HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\nxx"
    sizes, answered = sizes_read(many + few + sized + small * 1000 + many + last)
    assert sizes == [1_280_000, 1000, 1_000_000, *[1] * 1000, 1_280_000, 2]
    assert answered.count(b"HTTP/1.1 200 OK") == len(sizes)


@pytest.mark.parametrize("path", ["/v1/detect", "/v1/info", "/v1/batch", "/nothing"])
def test_a_body_that_breaks_off_at_once_is_answered_once_and_is_no_defect(
    door: ServerProcess, path: str
) -> None:
    before = len(door.log)
    sent = head(door.http, "POST", path, "transfer-encoding: chunked") + b"ZZ\r\n"
    answer = raw(door.http, sent)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert ask(door.http, "GET", "/v1/info").status == 200
    assert "Traceback" not in door.log[before:]
