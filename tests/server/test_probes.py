"""The HTTP side of the server, asked over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from unface.errors import UnfaceError
from unface.server.probes import MAX_HEAD, MAX_THREADS, CannotServeProbes, Heartbeat, Probes

TEXT = b"unface_workers 1.0\n" * 100


@contextmanager
def probes(
    metrics: Callable[[], bytes] = lambda: TEXT,
    alive: Callable[[], bool] = lambda: True,
    ready: Callable[[], str | None] = lambda: None,
    host: str = "127.0.0.1",
) -> Iterator[Probes]:
    opened = Probes(host, 0, metrics, alive, ready)
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with probes() as opened:
        yield opened.port


class Reply:
    def __init__(self, port: int, method: str, path: str, headers: dict[str, str]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        self.status = answer.status
        self.headers = {name.lower(): value for name, value in answer.getheaders()}
        self.body = answer.read()
        connection.close()


def ask(port: int, path: str, method: str = "GET", **headers: str) -> Reply:
    return Reply(port, method, path, {k.replace("_", "-"): v for k, v in headers.items()})


def say(port: int, words: bytes) -> bytes:
    """Send bytes as they are and return the whole answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(words)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer


def test_metrics_are_served_as_prometheus_reads_them(port: int) -> None:
    reply = ask(port, "/metrics")
    assert (reply.status, reply.body) == (200, TEXT)
    assert reply.headers["content-type"].startswith("text/plain; version=")


def test_metrics_are_zipped_for_those_who_take_that(port: int) -> None:
    reply = ask(port, "/metrics", accept_encoding="deflate, gzip")
    assert reply.headers["content-encoding"] == "gzip"
    assert gzip.decompress(reply.body) == TEXT
    refusing = ask(port, "/metrics", accept_encoding="gzip;q=0, identity")
    assert (refusing.headers.get("content-encoding"), refusing.body) == (None, TEXT)


def test_a_query_does_not_change_the_page(port: int) -> None:
    assert ask(port, "/metrics?name[]=unface_workers").body == TEXT


def test_healthz_says_whether_the_event_loop_turns() -> None:
    alive = [True]
    with probes(alive=lambda: alive[0]) as opened:
        reply = ask(opened.port, "/healthz")
        assert (reply.status, reply.body) == (200, b"ok\n")
        alive[0] = False
        reply = ask(opened.port, "/healthz")
        assert (reply.status, reply.body) == (503, b"the event loop is stuck\n")


def test_readyz_says_why_the_server_is_not_ready() -> None:
    reason: list[str | None] = ["the engines are not warm yet"]
    with probes(ready=lambda: reason[0]) as opened:
        reply = ask(opened.port, "/readyz")
        assert (reply.status, reply.body) == (503, b"the engines are not warm yet\n")
        reason[0] = None
        reply = ask(opened.port, "/readyz")
        assert (reply.status, reply.body) == (200, b"ok\n")


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/nothing"])
def test_head_gives_what_get_gives_without_the_body(port: int, path: str) -> None:
    got, head = ask(port, path), ask(port, path, method="HEAD")
    assert head.status == got.status
    assert head.headers["content-length"] == got.headers["content-length"] == str(len(got.body))
    assert head.body == b""


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PRI", "get"])
def test_other_methods_are_not_allowed(port: int, method: str) -> None:
    reply = ask(port, "/metrics", method=method)
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/", "/metric", "/metrics/", "/../metrics", "/%6detrics", "*"])
def test_there_are_no_other_pages(port: int, path: str) -> None:
    assert ask(port, path).status == 404


@pytest.mark.parametrize("path", ["/metrics", "/nothing<script>"])
def test_no_answer_names_software_or_repeats_what_was_asked(port: int, path: str) -> None:
    reply = ask(port, path, method="PURGE" if "script" in path else "GET")
    assert "server" not in reply.headers
    assert b"script" not in reply.body
    assert reply.headers["connection"] == "close"


@pytest.mark.parametrize(
    "words",
    [
        b"nonsense\r\n\r\n",
        b"GET /metrics HTTP/9.9\r\n\r\n",
        b"GET /metrics HTTP/x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n" + b"x: y\r\n" * 200 + b"\r\n",
        b"GET /" + b"a" * MAX_HEAD + b" HTTP/1.1\r\n\r\n",
        b"\r\n\r\n",
    ],
)
def test_what_is_no_request_gets_a_refusal_or_nothing(
    port: int, words: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    try:
        answer = say(port, words)
    except ConnectionResetError:  # closed with bytes of ours unread
        answer = b""
    assert answer == b"" or answer.split()[1] in (b"400", b"431", b"505")
    assert ask(port, "/healthz").status == 200
    assert not [entry for entry in caplog.records if entry.levelname == "ERROR"]


def test_who_trickles_or_says_nothing_does_not_keep_others_from_asking() -> None:
    """Twice as many connections as there are threads, none of which ever ends its request."""
    with probes() as opened:
        slow = [
            socket.create_connection(("127.0.0.1", opened.port), timeout=10)
            for _ in range(2 * MAX_THREADS)
        ]
        enough = threading.Event()

        def trickle() -> None:
            while not enough.wait(0.2):
                for connection in slow[::2]:
                    with suppress(OSError):
                        connection.sendall(b"G")

        trickling = threading.Thread(target=trickle)
        trickling.start()
        try:
            assert ask(opened.port, "/healthz").status == 200
            threads = [t for t in threading.enumerate() if "process_request_thread" in t.name]
            assert len(threads) <= MAX_THREADS
            for connection in slow[1::2]:
                assert connection.recv(1) == b""  # cut off
        finally:
            enough.set()
            trickling.join()
            for connection in slow:
                connection.close()


def test_a_page_that_fails_is_a_500_and_an_entry_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken() -> bytes:
        raise KeyError("secret")

    with probes(metrics=broken) as opened:
        reply = ask(opened.port, "/metrics")
        assert (reply.status, reply.body) == (500, b"Internal Server Error\n")
        assert ask(opened.port, "/healthz").status == 200
    assert [entry.getMessage() for entry in caplog.records] == ["/metrics failed"]


def test_many_ask_at_once_and_all_are_answered(port: int) -> None:
    bodies: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: bodies.append(ask(port, "/metrics").body))
        for _ in range(3 * MAX_THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bodies == [TEXT] * len(threads)


def test_a_port_that_is_taken_is_named() -> None:
    with probes() as opened:
        with pytest.raises(CannotServeProbes, match=f"127.0.0.1:{opened.port}: .*in use") as told:
            Probes("127.0.0.1", opened.port, lambda: b"", lambda: True, lambda: None)
        assert isinstance(told.value, UnfaceError)
        assert "metrics_port" in str(told.value)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_named(host: str) -> None:
    with pytest.raises(CannotServeProbes, match=host):
        Probes(host, 0, lambda: b"", lambda: True, lambda: None)


def test_ipv6_is_served() -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    with probes(host="::1") as opened:
        connection = http.client.HTTPConnection("::1", opened.port, timeout=10)
        connection.request("GET", "/readyz")
        assert connection.getresponse().read() == b"ok\n"
        connection.close()


def test_after_close_nobody_listens() -> None:
    with probes() as opened:
        pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", opened.port), timeout=10).close()


def test_a_stuck_event_loop_is_seen_from_outside_and_seen_to_recover() -> None:
    heartbeat = Heartbeat(stuck_seconds=0.3)
    seen: list[int] = []

    async def serve(port: int) -> None:
        beating = asyncio.create_task(heartbeat.beat())
        asking = asyncio.to_thread(watch, port)
        waiting = asyncio.create_task(asking)
        await asyncio.sleep(0)
        while len(seen) < 1:
            await asyncio.sleep(0.01)
        while len(seen) < 2:
            time.sleep(0.01)
        await waiting
        beating.cancel()

    def watch(port: int) -> None:
        for expected in (200, 503, 200):
            while ask(port, "/healthz").status != expected:
                time.sleep(0.01)
            seen.append(expected)

    with probes(alive=heartbeat.alive) as opened:
        asyncio.run(asyncio.wait_for(serve(opened.port), 30))
    assert seen == [200, 503, 200]
