"""Uploads that are too large, too slow, not what they say, or that never end."""

from __future__ import annotations

import gzip
import io
import random
import socket
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from corpus import png_chunk
from hostile_files import damaged_file
from PIL import Image
from rest_calls import (
    ask,
    dialled,
    file,
    form,
    form_type,
    head,
    post,
    post_form,
    raw,
    read_answer,
    text,
)
from serving import ServerProcess, serving, serving_oddly

MOST = 200_000  # bytes of a picture
MAGIC = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def strict() -> Iterator[ServerProcess]:
    """A server with low limits."""
    limits = ("--max-message-bytes", str(MOST), "--max-pixels", "1000000", "--http-seconds", "2")
    with serving("--http-port", "0", *limits, "--metrics-port", "0") as running:
        yield running
        assert running.terminate() == 0
        assert "Traceback" not in running.log, running.log


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    ends_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.02)


def send_for_ever(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")


def picture(width: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, 60)).save(file, "PNG")
    return file.getvalue()


# --- too large ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/detect", "/v1/anonymize"])
def test_a_body_that_says_it_is_too_large_is_refused_before_it_comes(
    strict: ServerProcess, path: str
) -> None:
    for size in (MOST + 1, 1 << 60):
        sent = head(strict.http, "POST", path, f"content-length: {size}", "content-type: image/png")
        with dialled(strict.http) as connection:
            connection.sendall(sent)
            answer = read_answer(connection)
        assert (answer.status, answer.reason) == (413, "ImageTooLarge")
        assert f"the limit is {MOST} bytes" in answer.json["detail"]


def test_a_client_that_asks_first_is_not_told_to_go_on(strict: ServerProcess) -> None:
    lines = (f"content-length: {MOST + 1}", "expect: 100-continue", "content-type: image/png")
    answer = raw(strict.http, head(strict.http, "POST", "/v1/detect", *lines, "connection: close"))
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_body_that_says_nothing_of_its_size_is_refused_once_it_is_too_large(
    strict: ServerProcess,
) -> None:
    pieces = (b"x" * 10_000 for _ in range(MOST // 10_000 + 1))
    answer = ask(strict.http, "POST", "/v1/detect", pieces)
    assert (answer.status, answer.reason) == (413, "ImageTooLarge")


def test_a_body_without_end_is_answered_and_cut_off(strict: ServerProcess) -> None:
    lines = ("transfer-encoding: chunked", "content-type: image/png")
    sent = head(strict.http, "POST", "/v1/detect", *lines)
    with dialled(strict.http) as connection:
        connection.sendall(sent)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            send_for_ever(connection)


def test_a_file_in_a_form_is_held_to_the_same_limit(strict: ServerProcess, photo: bytes) -> None:
    answer = post_form(strict.http, "/v1/detect", text("min_face", "40"), file(b"x" * (MOST + 1)))
    assert (answer.status, answer.reason) == (413, "ImageTooLarge")
    large = post_form(strict.http, "/v1/detect", file(b"x" * (MOST + (5 << 20))))
    assert (large.status, large.reason) == (413, "ImageTooLarge")
    assert post_form(strict.http, "/v1/detect", file(photo)).status == 200


def test_a_body_that_lies_about_its_size_is_no_picture(strict: ServerProcess, photo: bytes) -> None:
    lines = ("content-type: image/jpeg", "connection: close")
    short = head(strict.http, "POST", "/v1/detect", f"content-length: {len(photo) // 2}", *lines)
    assert raw(strict.http, short + photo).startswith(b"HTTP/1.1 ")
    both = ("content-length: 5", "transfer-encoding: chunked", *lines)
    smuggled = head(strict.http, "POST", "/v1/detect", *both) + b"0\r\n\r\nGET / HTTP/1.1\r\n\r\n"
    assert raw(strict.http, smuggled).count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    "broken",
    [
        b"GET / HTTP/1.1\nHost: localhost\n\n\0",
        b"\x16\x03\x01\x02\x00\x01\x00",  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX" + b"x" * 70_000 + b": y\r\n\r\n",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n"
        b"Content-Length: 2\r\n\r\n",
        b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: upgrade, close\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    ],
)
def test_what_is_no_http_ends_one_connection_alone(strict: ServerProcess, broken: bytes) -> None:
    raw(strict.http, broken, then_close=True)
    assert ask(strict.http, "GET", "/v1/info").status == 200


# --- not what it says -----------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip"])
def test_a_body_that_is_compressed_is_refused(
    strict: ServerProcess, photo: bytes, encoding: str
) -> None:
    headers = {"content-encoding": encoding}
    answer = post(strict.http, "/v1/detect", gzip.compress(bytes(1 << 20)), headers)
    assert (answer.status, answer.reason) == (415, "UnsupportedMediaType")
    assert post(strict.http, "/v1/detect", photo, {"content-encoding": "identity"}).status == 200


@pytest.mark.parametrize(
    "kind",
    ["text/html", "application/json", "application/x-www-form-urlencoded", "multipart/mixed"],
)
def test_a_body_of_another_kind_is_refused(strict: ServerProcess, photo: bytes, kind: str) -> None:
    answer = post(strict.http, "/v1/detect", photo, {"content-type": kind})
    assert (answer.status, answer.reason) == (415, "UnsupportedMediaType")


def bombs() -> dict[str, bytes]:
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("photo.jpg", bytes(50 << 20))
    header = b"\0\0\xff\xff\0\0\xff\xff\x08\x02\0\0\0"
    return {
        "zip": zipped.getvalue(),
        "gzip": gzip.compress(bytes(50 << 20)),
        "pixels": MAGIC + png_chunk(b"IHDR", header) + png_chunk(b"IEND", b""),
        "html": b"<html><script>alert(1)</script>",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "gif": b"GIF89a" + bytes(100),
    }


@pytest.mark.parametrize("name", [*bombs()])
def test_what_is_no_picture_is_refused_and_unpacked_by_nobody(
    strict: ServerProcess, name: str
) -> None:
    for answer in (
        post(strict.http, "/v1/anonymize", bombs()[name]),
        post_form(strict.http, "/v1/anonymize", file(bombs()[name], "photo.jpg")),
    ):
        expected = (413, "ImageTooLarge") if name == "pixels" else (422, "InvalidImage")
        assert (answer.status, answer.reason) == expected
        assert "passwd" not in answer.body.decode()


def test_damaged_pictures_are_answered_or_refused(strict: ServerProcess) -> None:
    rng = random.Random(7)  # noqa: S311
    for _ in range(60):
        _, content = damaged_file(rng)
        answer = post(strict.http, "/v1/anonymize", content, format="png")
        assert answer.status in (200, 413, 422), answer.body
        if answer.status == 200:
            assert answer.body.startswith(MAGIC)


# --- forms ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (form(), "cannot be read|no file"),
        (form(text("profile", "fast")), "no file"),
        (form(text("image", "text")), "'image' is no option"),
        (form(file(b"x"), file(b"y")), "more than one file"),
        (form(file(b"x", field="photo")), "belongs into `image`"),
        (form(*[text("profile", "fast")] * 65), "more than 64 fields"),
        (form(*[text(f"x{n}", "") for n in range(10_000)]), "more than 64 fields"),
        (form(file(b"x"))[:-20], "last boundary"),
        (form(file(b"x", more="X: " + "y" * 20_000 + "\r\n")), "header size"),
        (form(file(b"x", more="X: y\r\n" * 1000)), "header"),
        (form(text("profile", "x" * 2000), file(b"x")), "longer than"),
        (form(b'Content-Disposition: form-data; name="profile"\r\n\r\n\xff'), "UTF-8"),
    ],
)
def test_odd_forms_are_refused(strict: ServerProcess, body: bytes, words: str) -> None:
    answer = post(strict.http, "/v1/detect", body, form_type())
    assert (answer.status, answer.reason) == (400, "InvalidOption")
    assert any(word in answer.json["detail"] for word in words.split("|")), answer.json


def test_a_form_without_a_boundary_is_refused(strict: ServerProcess, photo: bytes) -> None:
    for kind in ("multipart/form-data", "multipart/form-data; boundary=" + "x" * 300):
        answer = post(strict.http, "/v1/detect", form(file(photo)), {"content-type": kind})
        assert (answer.status, answer.reason) == (400, "InvalidOption")


@pytest.mark.parametrize(
    "query",
    ["keep=" + "[" * 10_000, "&" * 99, "%ff=1", "=", "a" * 5000, "profile=%ff", "keep=%00"],
)
def test_odd_queries_are_refused(strict: ServerProcess, photo: bytes, query: str) -> None:
    answer = ask(strict.http, "POST", f"/v1/anonymize?{query}", photo)
    assert (answer.status, answer.reason) == (400, "InvalidOption")


def test_names_of_files_do_no_harm_in_headers(strict: ServerProcess, photo: bytes) -> None:
    for name in ("a\u202egpj.jpg", "../../x.jpg", "a%0d%0aX: y.jpg", "\\..\\a.jpg", "é" * 3000):
        answer = post_form(strict.http, "/v1/anonymize", file(photo, name))
        assert answer.status == 200
        assert "x" not in answer.headers
        assert "/" not in answer.headers["content-disposition"].partition("''")[0]


# --- slow, and gone -------------------------------------------------------------------------------


def test_a_slow_body_is_given_up(strict: ServerProcess) -> None:
    sent = head(strict.http, "POST", "/v1/detect", "content-length: 100", "content-type: image/png")
    with dialled(strict.http) as connection:
        connection.sendall(sent + b"x")
        answer = read_answer(connection)
    assert (answer.status, answer.reason) == (408, "RequestTimeout")


def test_those_who_send_nothing_hold_nobody_up(strict: ServerProcess, photo: bytes) -> None:
    sent = head(strict.http, "POST", "/v1/detect", f"content-length: {MOST}")
    idle = [dialled(strict.http) for _ in range(40)]
    for connection in idle:
        connection.sendall(sent)
    assert post(strict.http, "/v1/detect", photo).status == 200
    for connection in idle:
        connection.close()


def test_a_client_that_leaves_takes_its_work_with_it() -> None:
    """The second one waits behind the first, and would wait for a minute."""
    wide = picture(77)
    flags = ("--http-port", "0", "--slow", "3", "--batch-size", "1", "--log-format", "json")
    with serving_oddly(*flags) as server:
        for path in ("/v1/detect", "/v1/anonymize"):
            lines = (f"content-length: {len(wide)}", "content-type: image/png")
            with dialled(server.http) as connection:
                connection.sendall(head(server.http, "POST", path, *lines) + wide)
                until(lambda: "slow detection" in server.log)
        until(lambda: server.log.count("CANCELLED") == 2)
        assert post(server.http, "/v1/detect", picture(60)).status == 200
        assert server.terminate() == 0
        assert "Traceback" not in server.log


def test_what_those_held_who_left_is_given_back(photo: bytes) -> None:
    """Each holds more than half of what all may hold together."""
    with serving("--http-port", "0", "--queue-bytes", "1000000") as server:
        sent = head(server.http, "POST", "/v1/detect", "content-length: 700000")
        for _ in range(5):
            with dialled(server.http) as connection:
                connection.sendall(sent + bytes(600_000))
                until(lambda: post(server.http, "/v1/detect", bytes(600_000)).status == 429)
            until(lambda: post(server.http, "/v1/detect", bytes(600_000)).status == 422)
        assert post(server.http, "/v1/detect", photo).status == 200


def test_a_thousand_misdeeds_leave_no_memory_behind(strict: ServerProcess, photo: bytes) -> None:
    process = psutil.Process(strict.process.pid)
    sent = head(strict.http, "POST", "/v1/anonymize", f"content-length: {MOST}")

    def misbehave(number: int) -> None:
        if number % 3 == 0:
            with dialled(strict.http) as connection:
                connection.sendall(sent + bytes(MOST // 2))
        elif number % 3 == 1:
            post_form(strict.http, "/v1/anonymize", file(bytes(MOST + 1)))
        else:
            post(strict.http, "/v1/detect", bytes(MOST))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(misbehave, range(200)))
        before = process.memory_info().rss
        list(threads.map(misbehave, range(800)))
    until(lambda: process.num_fds() < 40)
    assert process.memory_info().rss < before + (30 << 20)
    assert post(strict.http, "/v1/detect", photo).status == 200
