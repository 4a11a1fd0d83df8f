"""Pages of other sites, which a browser lets speak to this machine, get nothing from it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rest_calls import ask, dialled, head, raw, read_answer
from serving import ServerProcess, serving

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
