from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from bad_tokens import EC, ED, GOOD, HMAC, OF_KEYS, OF_SECRET, RSA
from desk import ADMIN, DETECT, UNFACE, Served, call, called, serving
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from hypothesis import given
from hypothesis import strategies as st
from issuing import SECRET, Authority, Issuer, Pair, key_set

from unface.errors import Overloaded
from unface.server.access import ANYBODY, SCOPES, Access, Caller, request_id
from unface.server.config import ServerConfig
from unface.server.record import Record
from unface.server.tls import server_credentials
from unface.server.tokens import Tokens
from unface.v1.unface_pb2 import DESCRIPTOR

HEALTH = "grpc.health.v1.Health"
STREAM = f"/{UNFACE}/DetectStream"


def refused(served: Served, method: str, *metadata: tuple[str, str], body: bytes = b"") -> Any:
    """Return the error of a call that must neither be read nor reach its handler."""
    read, calls = served.desk.read, served.desk.calls
    with pytest.raises(grpc.RpcError) as caught:
        call(served, method, *metadata, body=body)
    assert (served.desk.read, served.desk.calls) == (read, calls)
    return caught.value


def trailing(error: Any) -> dict[str, str]:
    return dict(error.trailing_metadata())


def bearer(token: str) -> tuple[str, str]:
    return ("authorization", f"Bearer {token}")


def tokens_of(folder: Path, content: str, option: str = "jwt_secret_file") -> Tokens:
    path = folder / option
    path.write_text(content)
    tokens = Tokens.from_config(ServerConfig(**{option: str(path)}))
    assert tokens is not None
    return tokens


@pytest.fixture(scope="module")
def of_secret(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    tokens = tokens_of(tmp_path_factory.mktemp("secret"), SECRET)
    with serving(Access(tokens, admin_open=True)) as served:
        yield served


@pytest.fixture(scope="module")
def of_keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    content = key_set(RSA, EC, ED)
    tokens = tokens_of(tmp_path_factory.mktemp("keys"), content, "jwt_jwks_file")
    with serving(Access(tokens, admin_open=False)) as served:
        yield served


def sendable(authorization: str | None) -> bool:
    """Tell whether gRPC lets it out: ASCII, and headers of 8 KiB together."""
    value = authorization or ""
    return value.isascii() and value.isprintable() and len(value) < 7000


@pytest.mark.parametrize("case", [case for case in OF_SECRET if sendable(OF_SECRET[case][0])])
def test_a_bad_token_reaches_nothing(of_secret: Served, case: str) -> None:
    authorization = OF_SECRET[case][0]
    metadata = [] if authorization is None else [("authorization", authorization)]
    error = refused(of_secret, DETECT, *metadata)
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED, error.details()
    assert trailing(error)["unface-reason"] == "Unauthenticated"
    assert len(trailing(error)["unface-request-id"]) == 16
    assert error.details()


@pytest.mark.parametrize("case", OF_KEYS)
def test_a_bad_token_for_public_keys_reaches_nothing(of_keys: Served, case: str) -> None:
    error = refused(of_keys, STREAM, bearer(OF_KEYS[case][0]))
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert trailing(error)["unface-reason"] == "Unauthenticated"


def test_most_of_the_bad_tokens_were_sent() -> None:
    assert sum(sendable(sent) for sent, _ in OF_SECRET.values()) + len(OF_KEYS) > 80


@pytest.mark.parametrize("issuer", [RSA, EC, ED], ids=lambda issuer: issuer.algorithm)
def test_a_good_token_of_each_kind_passes(of_keys: Served, issuer: Issuer) -> None:
    answer = call(of_keys, DETECT, bearer(issuer.token(sub="zoe")))
    assert answer == b"zoe|admin anonymize detect"


@pytest.mark.parametrize(
    ("method", "good", "bad"),
    [
        ("Detect", "detect", "anonymize admin detect-all detector Detect"),
        ("DetectStream", "detect", "anonymize admin"),
        ("Report", "detect", "anonymize admin report"),
        ("Anonymize", "anonymize", "detect admin"),
        ("AnonymizeStream", "anonymize", "detect admin"),
        ("Reload", "admin", "detect anonymize root"),
    ],
)
def test_each_method_needs_its_scope(of_secret: Served, method: str, good: str, bad: str) -> None:
    path = f"/{ADMIN if method == 'Reload' else UNFACE}/{method}"
    assert call(of_secret, path, bearer(HMAC.token(scope=good))) == f"alice|{good}".encode()
    for scope in (bad, "", None, ["admin" if good != "admin" else "detect"]):
        error = refused(of_secret, path, bearer(HMAC.token(scope=scope)))
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        assert trailing(error)["unface-reason"] == "Forbidden"
        assert f'"{good}"' in error.details()


def test_server_info_needs_a_token_and_no_scope(of_secret: Served) -> None:
    assert call(of_secret, f"/{UNFACE}/GetServerInfo", bearer(HMAC.token(scope=None))) == b"alice|"
    error = refused(of_secret, f"/{UNFACE}/GetServerInfo")
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("second", [GOOD, "x"])
def test_two_authorization_headers_are_refused_though_one_is_good(
    of_secret: Served, second: str
) -> None:
    for headers in ([bearer(GOOD), bearer(second)], [bearer(second), bearer(GOOD)]):
        error = refused(of_secret, DETECT, *headers)
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        assert "several" in error.details()


@pytest.mark.parametrize(
    "method",
    [
        f"/{UNFACE}/Unlisted",  # there is a handler for it
        "/unface.v2.Unface/Detect",  # there, too
        f"/{UNFACE}/detect",
        f"/{UNFACE}/",
        f"/{UNFACE}/Detect/",
        f"//{UNFACE}/Detect",
        f"/{UNFACE}/../{HEALTH}/Check",
        f"/{HEALTH}/../{UNFACE}/Detect",
        f"/{ADMIN}/Nothing",
        "/grpc.health.v1.HealthX/Check",
        "/other.Service/Method",
        "/",
    ],
)
@pytest.mark.parametrize("token", [[], [bearer(GOOD)]], ids=["stranger", "administrator"])
def test_what_is_not_listed_is_not_served(
    of_secret: Served, method: str, token: list[tuple[str, str]]
) -> None:
    assert refused(of_secret, method, *token).code() is grpc.StatusCode.UNIMPLEMENTED


def test_health_and_reflection_are_open(of_secret: Served) -> None:
    with grpc.insecure_channel(of_secret.target) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert check.status == health_pb2.HealthCheckResponse.SERVING
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = stub.ServerReflectionInfo(iter([question]))
        assert [s.name for s in answer.list_services_response.service] == [UNFACE]


def test_every_method_of_the_contract_has_a_scope() -> None:
    for service in DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            whole = f"/{service.full_name}/"
            assert (SCOPES.get(whole + method.name) or SCOPES.get(whole)) not in (None, ANYBODY)


class Wire(socketserver.ThreadingTCPServer):
    """A proxy that counts the bytes a client sends."""

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), Relay)
        host, _, port = target.rpartition(":")
        self.behind = host, int(port)
        self.sent = 0


class Relay(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Wire)
        wire, front = self.server, self.request
        with socket.create_connection(wire.behind) as behind, ThreadPoolExecutor(1) as other:
            other.submit(list, pump(behind, front))
            for size in pump(front, behind):
                wire.sent += size


def pump(source: socket.socket, sink: socket.socket) -> Iterator[int]:
    """Pass bytes on until one side hangs up; yields how many."""
    with contextlib.suppress(ConnectionError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
            yield len(data)
        sink.shutdown(socket.SHUT_WR)


@contextmanager
def counting(served: Served) -> Iterator[tuple[Served, Wire]]:
    with Wire(served.target) as wire:
        thread = threading.Thread(target=wire.serve_forever)
        thread.start()
        try:
            yield Served(served.desk, f"127.0.0.1:{wire.server_address[1]}"), wire
        finally:
            wire.shutdown()
            thread.join()


@pytest.mark.parametrize("method", [DETECT, STREAM])
def test_the_body_of_a_strangers_call_is_not_read(of_secret: Served, method: str) -> None:
    body = b"x" * (48 << 20)
    with counting(of_secret) as (served, wire):
        assert refused(served, method, body=body).code() is grpc.StatusCode.UNAUTHENTICATED
    assert wire.sent < len(body) / 4  # what flow control lets out before anybody has read
    with counting(of_secret) as (served, wire):
        assert call(served, method, bearer(GOOD), body=body)
    assert wire.sent > len(body)


def test_without_tokens_everybody_may_detect_and_anonymize() -> None:
    with serving(Access(None, admin_open=False)) as served:
        assert call(served, DETECT) == b"127.0.0.1|anonymize detect"
        assert call(served, DETECT, bearer("nonsense")) == b"127.0.0.1|anonymize detect"
        error = refused(served, f"/{ADMIN}/Reload")
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "tokens" in error.details()


def test_without_tokens_a_local_server_has_an_administrator() -> None:
    with serving(Access(None, admin_open=True)) as served:
        assert call(served, f"/{ADMIN}/Reload") == b"127.0.0.1|admin anonymize detect"
        assert refused(served, f"/{UNFACE}/Unlisted").code() is grpc.StatusCode.UNIMPLEMENTED


def test_an_open_administration_does_not_open_it_to_tokens_without_the_scope(
    of_secret: Served,
) -> None:
    error = refused(of_secret, f"/{ADMIN}/Reload", bearer(HMAC.token(scope="detect")))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("address", "name"), [("127.0.0.1:0", b"127.0.0.1"), ("[::1]:0", b"::1"), ("unix:", b"local")]
)
def test_a_caller_without_token_is_named_by_address(
    tmp_path: Path, address: str, name: bytes
) -> None:
    address = f"unix:{tmp_path}/socket" if address == "unix:" else address
    with serving(Access(None, admin_open=False), address) as served:
        assert call(served, DETECT).startswith(name + b"|")


@pytest.mark.parametrize(
    ("common_name", "name"),
    [("camera-7", "camera-7"), ("Zoë", "Zoë"), ("", "localhost"), ("x" * 64, "x" * 64)],
)
def test_a_caller_without_token_is_named_by_certificate(
    tmp_path: Path, common_name: str, name: str
) -> None:
    authority = Authority()
    certificate, key = authority.issue().write(tmp_path, "server")
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    config = ServerConfig(
        tls_certificate=certificate, tls_key=key, tls_client_ca=str(tmp_path / "ca.pem")
    )
    pair: Pair = authority.issue(common_name)
    mine = grpc.ssl_channel_credentials(authority.pem, pair.key, pair.certificate)
    access = Access(None, admin_open=False)
    with (
        serving(access, credentials=server_credentials(config)) as served,
        grpc.secure_channel(served.target, mine) as channel,
    ):
        assert called(channel, DETECT).decode() == f"{name}|anonymize detect"


@pytest.mark.parametrize("method", ["Detect", "DetectStream", "AnonymizeStream"])
def test_every_kind_of_handler_sees_its_own_caller(of_secret: Served, method: str) -> None:
    def one(number: int) -> bytes:
        return call(of_secret, f"/{UNFACE}/{method}", bearer(HMAC.token(sub=f"client-{number}")))

    with ThreadPoolExecutor(8) as pool:
        for number, answer in enumerate(pool.map(one, range(40))):
            assert answer.startswith(f"client-{number}|".encode())


def test_without_access_nobody_has_a_name() -> None:
    with serving(None) as served, pytest.raises(grpc.RpcError) as caught:
        call(served, DETECT)
    assert caught.value.code() is grpc.StatusCode.UNKNOWN


def only(method: str, error: Exception) -> Callable[[str], Exception | None]:
    return lambda name: error if name == method else None


def test_a_call_can_be_refused_before_it_is_read(tmp_path: Path) -> None:
    full = Overloaded("all places are taken")
    access = Access(tokens_of(tmp_path, SECRET), False, only("Detect", full))
    with serving(access) as served:
        error = refused(served, DETECT, bearer(GOOD), body=b"x" * (8 << 20))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error.details() == "all places are taken"
        assert trailing(error)["unface-reason"] == "Overloaded"
        assert call(served, STREAM, bearer(GOOD))
        # Strangers do not learn how much there is to do.
        assert refused(served, DETECT).code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_defect_in_the_check_lets_nobody_in_and_tells_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    access = Access(None, False, only("Detect", ZeroDivisionError("inner words")))
    with serving(access) as served:
        error = refused(served, DETECT, ("unface-request-id", "mine"))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "inner words" not in error.details()
    assert "mine" in error.details()
    assert "inner words" in caplog.text


def test_refused_calls_are_observed(tmp_path: Path) -> None:
    records: list[Record] = []
    full = Overloaded("all places are taken")
    access = Access(tokens_of(tmp_path, SECRET), False, only("Report", full), records.append)
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with serving(access) as served:
        refused(served, DETECT, ("unface-request-id", "a.1"), ("traceparent", trace))
        refused(served, f"/{ADMIN}/Reload", bearer(HMAC.token(scope="detect")))
        refused(served, f"/{UNFACE}/Report", bearer(GOOD))
        assert call(served, DETECT, bearer(GOOD))
    first, second, third = records
    assert (first.request_id, first.method, first.client) == ("a.1", "Detect", "127.0.0.1")
    assert (first.code, first.reason) == ("UNAUTHENTICATED", "Unauthenticated")
    assert first.trace_parent == trace
    assert first.began > 0
    assert (second.method, second.reason) == ("Reload", "Forbidden")
    assert (third.reason, third.client) == ("Overloaded", "alice")


@pytest.mark.parametrize("given", ["a", "A-z_0.9", "x" * 64])
def test_a_clients_request_id_is_kept(given: str) -> None:
    assert request_id([("other", "b"), ("unface-request-id", given)]) == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\n", "é", "a/b", "{}", "a;b", b"ab"])
def test_a_request_id_that_could_harm_a_log_is_replaced(given: str | bytes) -> None:
    made = request_id([("unface-request-id", given)])
    assert made != given
    assert len(made) == 16
    assert made.isalnum()


def test_two_request_ids_or_none_give_a_new_one() -> None:
    made = {request_id([("unface-request-id", "a")] * 2) for _ in range(9)}
    made |= {request_id([]) for _ in range(9)}
    assert len(made) == 18


@given(st.text())
def test_a_request_id_is_always_safe(given: str) -> None:
    assert set(request_id([("unface-request-id", given)])) <= set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
    )


def test_a_refusal_carries_the_clients_request_id(of_secret: Served) -> None:
    error = refused(of_secret, DETECT, ("unface-request-id", "my-1"))
    assert trailing(error)["unface-request-id"] == "my-1"


def test_a_caller_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Caller("a", frozenset()).name = "b"  # type: ignore[misc]
