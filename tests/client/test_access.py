"""Tokens and TLS: what is sent to whom, and what is refused before anything is."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from issuing import Authority, Pair, key_pem
from scripted_server import Failure, Script, scripted

import unface
from unface.connection import connection_choices, is_loopback, token_from_file
from unface.errors import Forbidden, InvalidOption, Unauthenticated, Unavailable
from unface.v1 import unface_pb2 as pb

TOKEN = "eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl"  # noqa: S105 - nobody takes it
INFO = pb.GetServerInfoResponse(version="7")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def ca(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The PEM file of the authority."""
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    path.write_bytes(authority.pem)
    return path


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    """The server's."""
    return authority.issue()


def server_credentials(pair: Pair, client_ca: bytes | None = None) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [(pair.key, pair.certificate)], client_ca, client_ca is not None
    )


def ask(script: Script, **options: Any) -> str:
    with unface.Client(script.target, retries=0, **options) as client:
        return client.info().version


async def ask_async(script: Script, **options: Any) -> str:
    async with unface.AsyncClient(script.target, retries=0, **options) as client:
        return (await client.info()).version


def test_without_a_token_none_is_sent() -> None:
    with scripted(INFO) as script:
        ask(script)
    assert "authorization" not in script.seen[0].metadata


def test_a_token_is_sent_to_this_machine_without_tls() -> None:
    with scripted(INFO) as script:
        ask(script, token=TOKEN)
        asyncio.run(ask_async(script, token=TOKEN))
    assert [s.metadata["authorization"] for s in script.seen] == [f"Bearer {TOKEN}"] * 2


def test_a_token_is_sent_over_tls_to_who_the_ca_vouches_for(ca: Path, pair: Pair) -> None:
    with scripted(INFO, credentials=server_credentials(pair)) as script:
        for tls in (ca, str(ca)):
            assert ask(script, token=TOKEN, tls=tls) == "7"
            assert asyncio.run(ask_async(script, token=lambda: TOKEN, tls=tls)) == "7"
    assert {s.metadata["authorization"] for s in script.seen} == {f"Bearer {TOKEN}"}


def test_streams_and_reports_carry_the_token_too() -> None:
    def empty(requests: Any, context: Any) -> Any:
        return iter(())

    with scripted(empty) as script:
        with unface.Client(script.target, token=TOKEN) as client:
            assert list(client.detect_stream([])) == []

        async def run() -> None:
            async with unface.AsyncClient(script.target, token=TOKEN) as client:
                assert [a async for a in client.detect_stream([])] == []

        asyncio.run(run())
        script.steps = [pb.ReportResponse(report_id=3)]
        with unface.Client(script.target, token=TOKEN) as client:
            assert client.report(b"picture").report_id == 3
    assert [s.metadata["authorization"] for s in script.seen] == [f"Bearer {TOKEN}"] * 3


@pytest.mark.parametrize("target", ["example.com:443", "10.0.0.1:50051", "0.0.0.0:50051"])
def test_a_token_goes_nowhere_else_in_the_clear(target: str) -> None:
    with pytest.raises(InvalidOption, match=r"for all to read; give tls=True"):
        unface.Client(target, token=TOKEN)

    async def make() -> None:
        unface.AsyncClient(target, token=lambda: TOKEN)

    with pytest.raises(InvalidOption, match=r"for all to read; give tls=True"):
        asyncio.run(make())
    unface.Client(target).close()  # without a token nothing is given away
    unface.Client(target, token=TOKEN, tls=True).close()


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("localhost:50051", True),
        ("LOCALHOST", True),
        ("127.0.0.1:50051", True),
        ("127.8.9.1", True),
        ("[::1]:50051", True),
        ("::1", True),
        ("dns:localhost:1", True),
        ("dns:///localhost:1", True),
        ("ipv4:127.0.0.1:1", True),
        ("ipv4:127.0.0.1:1,127.0.0.2:1", True),
        ("ipv6:[::1]:1", True),
        ("unix:/run/unface.sock", True),
        ("unix-abstract:unface", True),
        ("", False),
        ("example.com:1", False),
        ("localhost.example.com:1", False),
        ("localhost@example.com:1", False),
        ("127.0.0.1.example.com:1", False),
        ("example.com:1,localhost:1", False),
        ("ipv4:127.0.0.1:1,10.0.0.1:1", False),
        ("dns://192.0.2.1/localhost:1", False),  # another machine says what localhost is
        ("dns://localhost/example.com:1", False),
        ("xds:///localhost:1", False),
        ("http://localhost:1", False),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("[fe80::1]:1", False),
        ("192.168.1.1:1", False),
        ("0x7f.1:1", False),
        (" localhost:1", False),
        ("localhost:1\n", False),
    ],
)
def test_what_is_this_machine_and_what_may_not_be(target: str, expected: bool) -> None:
    assert is_loopback(target) is expected


@pytest.mark.parametrize("token", ["", " ", "a b", "a\nb", "a\r\nx: y", "é", "a=b", TOKEN + "\n"])
def test_what_is_no_token_is_refused_and_not_quoted(token: str) -> None:
    with pytest.raises(InvalidOption, match="token is empty or has characters") as caught:
        unface.Client(token=token)
    assert not token.strip() or token not in str(caught.value)
    with (
        scripted(INFO) as script,
        unface.Client(script.target, token=lambda: token) as client,
        pytest.raises(InvalidOption, match="token is empty or has characters"),
    ):
        client.info()
    assert script.seen == []


def test_a_token_does_not_show(caplog: pytest.LogCaptureFixture) -> None:
    refused = Failure(grpc.StatusCode.UNAUTHENTICATED, "the token expired", "Unauthenticated")
    with scripted(refused) as script, unface.Client(script.target, token=TOKEN) as client:
        with pytest.raises(Unauthenticated) as caught:
            client.info()
        assert TOKEN not in f"{client!r} {caught.value!r} {caught.value.__cause__!r} {caplog.text}"


def test_a_file_gives_the_token_that_is_in_it_by_then(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("one.a.b\n")
    with (
        scripted(INFO) as script,
        unface.Client(script.target, token=token_from_file(path)) as client,
    ):
        client.info()
        path.write_text("two.a.b")
        client.info()
        path.unlink()
        with pytest.raises(InvalidOption, match=r"token in .*token cannot be read: No such file"):
            client.info()
    sent = [seen.metadata["authorization"] for seen in script.seen]
    assert sent == ["Bearer one.a.b", "Bearer two.a.b"]


@pytest.mark.parametrize(
    ("code", "reason", "error"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, "Unauthenticated", Unauthenticated),
        (grpc.StatusCode.PERMISSION_DENIED, "Forbidden", Forbidden),
    ],
)
def test_a_refused_token_is_an_error_of_its_own_in_the_servers_words(
    code: grpc.StatusCode, reason: str, error: type[Exception]
) -> None:
    with (
        scripted(Failure(code, 'scope "admin" is missing', reason)) as script,
        unface.Client(script.target, token=TOKEN) as client,
        pytest.raises(error, match=r'^scope "admin" is missing$'),
    ):
        client.reload()


def test_a_server_of_another_ca_gets_nothing(ca: Path, pair: Pair, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(Authority("another CA").pem)
    with scripted(INFO, credentials=server_credentials(pair)) as script:
        for tls in (other, True):
            with pytest.raises(Unavailable, match=r"no TLS with the server at .*; see that tls"):
                ask(script, token=TOKEN, tls=tls)
        with pytest.raises(Unavailable):
            ask(script)
    with scripted(INFO) as script, pytest.raises(Unavailable):
        ask(script, token=TOKEN, tls=ca)
    assert script.seen == []


def test_true_trusts_what_the_system_trusts(
    ca: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    with scripted(INFO, credentials=server_credentials(pair)) as script:
        assert ask(script, token=TOKEN, tls=True) == "7"


def test_a_system_that_trusts_nobody_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    with pytest.raises(InvalidOption, match="no CA was found"):
        unface.Client(tls=True)


def test_mutual_tls_needs_a_certificate_that_the_server_knows(
    authority: Authority, ca: Path, pair: Pair, tmp_path: Path
) -> None:
    own = authority.issue("client").write(tmp_path, "client")
    stranger = Authority("another CA").issue("stranger").write(tmp_path, "stranger")
    with scripted(INFO, credentials=server_credentials(pair, authority.pem)) as script:
        assert ask(script, tls=ca, client_certificate=own) == "7"
        with pytest.raises(Unavailable):
            ask(script, tls=ca)
        with pytest.raises(Unavailable):
            ask(script, tls=ca, client_certificate=stranger)
        assert len(script.seen) == 1


def test_files_that_are_no_certificates_are_named(
    authority: Authority, ca: Path, pair: Pair, tmp_path: Path
) -> None:
    certificate, key = pair.write(tmp_path, "own")
    other, _ = authority.issue("other").write(tmp_path, "other")
    locked, noise = tmp_path / "locked.key", tmp_path / "noise.pem"
    locked.write_bytes(key_pem(load_pem_private_key(pair.key, None), b"a password"))
    noise.write_text("no certificate")
    for tls in (noise, tmp_path / "missing.pem", tmp_path, Path(key)):
        with pytest.raises(InvalidOption, match=rf"tls is .*{tls.name}"):
            unface.Client(tls=tls)
    for files in (
        (other, key),
        (noise, noise),
        (certificate, tmp_path / "missing.key"),
        (certificate, locked),
    ):
        with pytest.raises(InvalidOption, match=r"client_certificate is .*without a password"):
            unface.Client(tls=ca, client_certificate=files)
    with pytest.raises(InvalidOption, match="client_certificate is for TLS"):
        unface.Client(client_certificate=(certificate, key))


def test_a_command_line_says_token_and_tls(ca: Path, tmp_path: Path) -> None:
    said = {"token_file": None, "tls": False, "tls_ca": None, "tls_certificate": None}
    nothing = argparse.Namespace(**said, tls_key=None)
    expected: dict[str, Any] = {"token": None, "tls": False, "client_certificate": None}
    assert connection_choices(nothing) == expected
    everything = argparse.Namespace(
        token_file=tmp_path / "token", tls=True, tls_ca=ca, tls_certificate="a.pem", tls_key="a.key"
    )
    (tmp_path / "token").write_text(TOKEN)
    choices = connection_choices(everything)
    assert choices.pop("token")() == TOKEN
    assert choices == {"tls": ca, "client_certificate": ("a.pem", "a.key")}
    with pytest.raises(InvalidOption, match="belong together"):
        connection_choices(argparse.Namespace(**{**said, "tls_certificate": "a.pem"}, tls_key=None))
