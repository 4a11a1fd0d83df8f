from __future__ import annotations

import logging
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from desk import DETECT, Served, called, serving
from issuing import Authority, Pair, key_pem

from unface.errors import InvalidOption
from unface.server.access import Access
from unface.server.config import ServerConfig
from unface.server.tls import check_exposure, is_local, server_context, server_credentials

MANUAL = Path(__file__).parents[2] / "docs" / "security.md"
WAIT_SECONDS = 20
ANSWER = b"127.0.0.1|anonymize detect"


@pytest.fixture
def authority() -> Authority:
    return Authority()


def configured(folder: Path, pair: Pair, client_ca: bytes | None = None) -> ServerConfig:
    certificate, key = pair.write(folder, "server")
    options: dict[str, Any] = {"tls_certificate": certificate, "tls_key": key}
    if client_ca is not None:
        (folder / "clients.pem").write_bytes(client_ca)
        options["tls_client_ca"] = str(folder / "clients.pem")
    return ServerConfig(**options)


@contextmanager
def securely(config: ServerConfig) -> Iterator[Served]:
    credentials = server_credentials(config)
    assert credentials is not None
    with serving(Access(None, admin_open=False), credentials=credentials) as served:
        yield served


def dialled(served: Served, roots: bytes, pair: Pair | None = None) -> grpc.Channel:
    """Return a channel with a connection of its own."""
    chain, key = (pair.certificate, pair.key) if pair else (None, None)
    credentials = grpc.ssl_channel_credentials(roots, key, chain)
    options = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.secure_channel(served.target, credentials, options)


def reached(served: Served, roots: bytes, pair: Pair | None = None) -> bool:
    with dialled(served, roots, pair) as channel:
        try:
            called(channel, DETECT)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False
        return True


def until_reached(served: Served, roots: bytes, pair: Pair | None = None) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not reached(served, roots, pair):
        assert time.monotonic() < deadline, "the new certificate is not served"


def test_without_a_certificate_there_are_no_credentials() -> None:
    assert server_credentials(ServerConfig()) is None


def test_a_client_that_knows_the_authority_is_served(tmp_path: Path, authority: Authority) -> None:
    with securely(configured(tmp_path, authority.issue())) as served:
        assert reached(served, authority.pem)
        assert not reached(served, Authority().pem)
        with grpc.insecure_channel(served.target) as plain, pytest.raises(grpc.RpcError):
            called(plain, DETECT)


def test_a_new_pair_serves_new_connections_and_open_ones_go_on(
    tmp_path: Path, authority: Authority
) -> None:
    other = Authority()
    with (
        securely(configured(tmp_path, authority.issue())) as served,
        dialled(served, authority.pem) as channel,
    ):
        assert called(channel, DETECT) == ANSWER
        requests: list[bytes] = [b"first", b"second"]
        stream = channel.stream_stream("/unface.v1.Unface/DetectStream")(iter(requests))
        assert next(stream) == ANSWER
        other.issue().write(tmp_path, "server")
        until_reached(served, other.pem)
        assert not reached(served, authority.pem)
        assert next(stream) == ANSWER
        assert called(channel, DETECT) == ANSWER  # over the connection from before


@pytest.mark.parametrize("broken", ["another key", "nonsense", "missing", "expired"])
def test_a_broken_new_pair_keeps_the_old_one_and_is_logged(
    tmp_path: Path, authority: Authority, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    other = Authority()
    with securely(configured(tmp_path, authority.issue())) as served:
        if broken == "another key":
            (tmp_path / "server.pem").write_bytes(other.issue().certificate)
        elif broken == "nonsense":
            (tmp_path / "server.key").write_text("nonsense")
        elif broken == "missing":
            (tmp_path / "server.pem").unlink()
        else:
            other.issue(days=(-9, -1)).write(tmp_path, "server")
        deadline = time.monotonic() + WAIT_SECONDS
        with caplog.at_level(logging.ERROR, "unface.server"):
            while "stays in use" not in caplog.text:
                assert time.monotonic() < deadline, "the broken pair is not noticed"
                assert reached(served, authority.pem)
        assert reached(served, authority.pem)


def test_mutual_tls_serves_those_whom_the_authority_signed(
    tmp_path: Path, authority: Authority
) -> None:
    clients, strangers = Authority(), Authority()
    with securely(configured(tmp_path, authority.issue(), clients.pem)) as served:
        assert reached(served, authority.pem, clients.issue("camera"))
        assert not reached(served, authority.pem)
        assert not reached(served, authority.pem, strangers.issue("camera"))
        assert not reached(served, authority.pem, authority.issue("camera"))
        assert not reached(served, authority.pem, clients.issue("camera", days=(-9, -1)))
        assert served.desk.calls == 1


def test_the_clients_authority_changes_without_a_restart(
    tmp_path: Path, authority: Authority
) -> None:
    old, new = Authority(), Authority()
    with securely(configured(tmp_path, authority.issue(), old.pem)) as served:
        assert reached(served, authority.pem, old.issue())
        (tmp_path / "clients.pem").write_bytes(new.pem)
        until_reached(served, authority.pem, new.issue())
        assert not reached(served, authority.pem, old.issue())


def damaged(pem: bytes) -> bytes:
    lines = pem.splitlines(keepends=True)
    return lines[0] + b"AAAA" + b"".join(lines[2:])


GOOD = Authority().issue()
WEAK = rsa.generate_private_key(65537, 1024)  # noqa: S505


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (Pair(b"", GOOD.key), "tls_certificate: .* has no certificate in PEM"),
        (Pair(GOOD.key, GOOD.key), "tls_certificate: .* has no certificate in PEM"),
        (Pair(damaged(GOOD.certificate), GOOD.key), "tls_certificate: .* is damaged"),
        (Pair(GOOD.certificate + damaged(GOOD.certificate), GOOD.key), "is damaged"),
        (Pair(GOOD.certificate, b""), "tls_key: .* has no private key in PEM"),
        (Pair(GOOD.certificate, b"nonsense"), "tls_key: .* has no private key in PEM"),
        (Pair(GOOD.certificate, GOOD.certificate), "tls_key: .* has no private key in PEM"),
        (Pair(GOOD.certificate, Authority().issue().key), "tls_key: .* does not belong to"),
        (Pair(GOOD.certificate, key_pem(WEAK)), "tls_key: .* does not belong to"),
        (
            Pair(GOOD.certificate, key_pem(ec.generate_private_key(ec.SECP256R1()), b"words")),
            "tls_key: .* is encrypted",
        ),
        (Authority().issue(days=(-9, -1)), "tls_certificate: .* certificate has expired"),
        (Authority().issue(days=(1, 2)), "tls_certificate: .* certificate is not yet valid"),
        (Authority().issue(key=WEAK), "tls_certificate: .* cannot serve: EE_KEY_TOO_SMALL"),
        (Authority().issue(server=False), "tls_certificate: .* purpose"),
    ],
)
def test_a_pair_that_cannot_serve_is_refused_at_the_start(
    tmp_path: Path, pair: Pair, words: str
) -> None:
    with pytest.raises(InvalidOption, match=words):
        server_credentials(configured(tmp_path, pair))


@pytest.mark.parametrize("missing", ["server.pem", "server.key", "clients.pem"])
def test_a_missing_file_is_refused_at_the_start(
    tmp_path: Path, authority: Authority, missing: str
) -> None:
    config = configured(tmp_path, authority.issue(), authority.pem)
    (tmp_path / missing).unlink()
    with pytest.raises(InvalidOption, match=f"tls_.*: cannot read .*{missing}: No such file"):
        server_credentials(config)


@pytest.mark.parametrize("content", [b"", b"nonsense", GOOD.key, damaged(GOOD.certificate)])
def test_an_authority_that_is_none_is_refused_at_the_start(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InvalidOption, match=r"tls_client_ca: .*clients\.pem"):
        server_credentials(configured(tmp_path, GOOD, content))


def test_a_chain_with_words_between_is_read(tmp_path: Path, authority: Authority) -> None:
    pair = authority.issue()
    chain = "Zertifikat für localhost\n".encode() + pair.certificate + b"the CA\n" + authority.pem
    with securely(configured(tmp_path, Pair(chain, pair.key))) as served:
        assert reached(served, authority.pem)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not on this machine")
@pytest.mark.parametrize(("mutual", "served"), [(False, True), (True, False)])
def test_where_certificates_say_who_calls_http_speaks_tls_1_3_alone(
    tmp_path: Path, authority: Authority, mutual: bool, served: bool
) -> None:
    """A session of TLS 1.2 would be resumed when the client's authority is no more."""
    config = configured(tmp_path, authority.issue(), authority.pem if mutual else None)
    context = server_context(config)
    assert context is not None
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(cadata=authority.pem.decode())
    client.load_cert_chain(*authority.issue("camera").write(tmp_path, "camera"))
    client.check_hostname = False
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(back, there)
    far = context.wrap_bio(there, back, server_side=True)
    assert all(goes_on(end) for end in (near, far, near, far, near)) is served


def goes_on(end: ssl.SSLObject) -> bool:
    """Take a handshake as far as it goes now; returns whether it may still succeed."""
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return True
    except ssl.SSLError:
        return False
    return True


def test_the_commands_of_the_manual_make_what_serves(tmp_path: Path) -> None:
    for block in re.findall(r"```sh\n(.*?)```", MANUAL.read_text(), re.DOTALL):
        subprocess.run(["sh", "-ec", block], cwd=tmp_path, check=True, capture_output=True)
    made = {name.name: name.read_bytes() for name in tmp_path.iterdir()}
    client = Pair(made["camera-7.pem"], made["camera-7.key"])
    config = configured(tmp_path, Pair(made["server.pem"], made["server.key"]), made["ca.pem"])
    with securely(config) as served:
        assert not reached(served, made["ca.pem"])
        with dialled(served, made["ca.pem"], client) as channel:
            assert called(channel, DETECT).startswith(b"camera-7|")


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("127.1", True),
        ("::1", True),
        ("[::1]", True),
        ("0:0:0:0:0:0:0:1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("unix:/run/unface.sock", True),
        ("unix:relative", True),
        ("unix-abstract:unface", True),
        ("0.0.0.0", False),  # noqa: S104
        ("0", False),
        ("::", False),
        ("[::]", False),
        ("::ffff:0.0.0.0", False),
        ("::ffff:192.0.2.1", False),
        ("10.0.0.1", False),
        ("192.168.1.2", False),
        ("169.254.1.1", False),
        ("fe80::1", False),
        ("128.0.0.1", False),
        ("2130706433", True),  # 127.0.0.1 as one number
    ],
)
def test_what_is_local(host: str, local: bool) -> None:
    assert is_local(host) is local


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a b", "127.0.0.1.1", "x" * 300])
def test_a_host_that_is_none_is_refused(host: str) -> None:
    with pytest.raises(InvalidOption, match="is no address"):
        check_exposure(ServerConfig(host=host))


TLS = {"tls_certificate": "c", "tls_key": "k"}
SECRET, JWKS = {"jwt_secret_file": "s"}, {"jwt_jwks_file": "j"}
CLIENTS = {"tls_client_ca": "a"}


@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        ({}, False),
        (TLS, False),
        (SECRET, False),
        (JWKS, False),
        ({**TLS, **SECRET}, True),
        ({**TLS, **JWKS}, True),
        ({**TLS, **CLIENTS}, True),
        ({**TLS, **CLIENTS, **SECRET}, True),
        ({"insecure": True}, True),
        ({**SECRET, "insecure": True}, True),
    ],
)
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])  # noqa: S104
def test_other_machines_are_served_with_tls_and_authentication(
    host: str, options: dict[str, Any], allowed: bool
) -> None:
    check_exposure(ServerConfig(host="127.0.0.1", **options))
    config = ServerConfig(host=host, **options)
    if allowed:
        check_exposure(config)
        return
    with pytest.raises(InvalidOption) as caught:
        check_exposure(config)
    for word in (host, "tls_certificate", "jwt_secret_file", "tls_client_ca", "insecure"):
        assert word in str(caught.value)


def test_the_name_of_this_machine_is_looked_up() -> None:
    addresses = {str(entry[4][0]) for entry in socket.getaddrinfo(socket.gethostname(), None)}
    assert is_local(socket.gethostname()) is all(map(is_local, addresses))


def test_metrics_may_be_read_from_elsewhere() -> None:
    check_exposure(ServerConfig(metrics_host="0.0.0.0", metrics_port=0))  # noqa: S104
