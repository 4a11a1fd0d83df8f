"""What both clients are told: where the server is, how it is reached, and how long to try."""

from __future__ import annotations

import argparse
import ipaddress
import os
import re
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc

from unface.errors import InvalidOption
from unface.requests import Priority, priority_number
from unface.v1.unface_pb2_grpc import AdminStub, UnfaceStub

SERVICE = "unface.v1.Unface"

Token = str | Callable[[], str]
FilePath = str | os.PathLike[str]

_CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),  # the server's limit is the one that counts
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),  # pictures go to the server named and nowhere else
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.keepalive_time_ms", 60_000),  # finds a server that vanished under a stream
    ("grpc.service_config_disable_resolution", 1),  # no DNS record says how we try again
)
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, section 2.1


class Connection(ABC):
    """A channel to a server, and how its calls are made."""

    def __init__(
        self,
        target: str = "localhost:50051",
        *,
        timeout: float | None = 30.0,
        token: Token | None = None,
        tls: bool | FilePath = False,
        client_certificate: tuple[FilePath, FilePath] | None = None,
        retries: int = 3,
        priority: Priority | None = None,
    ) -> None:
        if timeout is not None and not timeout > 0:
            raise InvalidOption(f"timeout is {timeout}; seconds above 0, or None, are needed")
        if retries < 0:
            raise InvalidOption(f"retries is {retries}; 0 or more are needed")
        priority_number(priority)
        credentials = _credentials(tls, client_certificate)
        if token is not None and credentials is None and not is_loopback(target):
            raise InvalidOption(
                f"a token would go to {target} for all to read; give tls=True, or tls=FILE of the "
                "server's CA"
            )
        if isinstance(token, str):
            _check_token(token)
        self.target = target
        self.timeout = timeout
        self._token = token
        self._retries = retries
        self._priority = priority
        self._channel: Any = self._open(credentials, _CHANNEL_OPTIONS)
        self._unface = UnfaceStub(self._channel)
        self._admin = AdminStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)

    @abstractmethod
    def _open(
        self, credentials: grpc.ChannelCredentials | None, options: tuple[tuple[str, int], ...]
    ) -> Any:
        """Return the channel, without TLS where there are no credentials."""

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        """Return what a try sends along. Asks for the token: one that expired may be new by now."""
        if self._token is None:
            return ()
        token = self._token if isinstance(self._token, str) else self._token()
        _check_token(token)
        return (("authorization", f"Bearer {token}"),)


def token_from_file(path: FilePath) -> Callable[[], str]:
    """Return what reads a token from a file whenever one is needed, so that it may be renewed."""

    def read() -> str:
        try:
            return Path(path).read_text(encoding="ascii", errors="replace").strip()
        except OSError as error:
            raise InvalidOption(
                f"the token in {os.fspath(path)} cannot be read: {error.strerror}"
            ) from error

    return read


def connection_choices(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of a client that a command line says.

    Of `--token-file`, `--tls`, `--tls-ca` and, for mutual TLS, `--tls-certificate` and `--tls-key`.
    Raises `InvalidOption`.
    """
    pair = (arguments.tls_certificate, arguments.tls_key)
    if any(pair) and not all(pair):
        raise InvalidOption("--tls-certificate and --tls-key belong together")
    return {
        "token": token_from_file(arguments.token_file) if arguments.token_file else None,
        "tls": arguments.tls_ca or arguments.tls,
        "client_certificate": pair if all(pair) else None,
    }


def is_loopback(target: str) -> bool:
    """Return whether a gRPC target is on this machine for sure.

    The forms: https://github.com/grpc/grpc/blob/master/doc/naming.md. Of what is not known, no.
    """
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    address = re.sub(r"^(dns:(///)?|ipv4:|ipv6:)", "", target)
    return all(_is_loopback_host(part) for part in address.split(","))


def _is_loopback_host(address: str) -> bool:
    found = re.fullmatch(r"\[([^\]]*)\](:\d+)?|([^:/]*)(:\d+)?|([^/]*)", address)
    host = next((found[n] for n in (1, 3, 5) if found[n] is not None), "") if found else ""
    if host.lower() == "localhost":  # RFC 6761, section 6.3: always loopback
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_token(token: str) -> None:
    """Raise `InvalidOption`, which does not quote it, for what no header can carry."""
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise InvalidOption(
            "token is empty or has characters that no bearer token has (RFC 6750); a JWT is "
            "three parts of letters, digits, - and _ with dots between"
        )


def _credentials(
    tls: bool | FilePath, client_certificate: tuple[FilePath, FilePath] | None
) -> grpc.ChannelCredentials | None:
    """Return TLS credentials, None without TLS; raises `InvalidOption` for unusable files."""
    if tls is False:
        if client_certificate is not None:
            raise InvalidOption("client_certificate is for TLS; give tls=True or tls=FILE too")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if tls is True:
            context.load_default_certs()
        else:
            context.load_verify_locations(tls)
    except OSError as error:  # ssl.SSLError is one
        raise InvalidOption(f"tls is {tls!r}, which is no PEM file of a CA: {error}") from error
    roots = context.get_ca_certs(binary_form=True)
    if not roots:
        raise InvalidOption(f"tls is {tls!r}, but no CA was found there; tls=FILE names one")
    pem = "".join(map(ssl.DER_cert_to_PEM_cert, roots)).encode()
    if client_certificate is None:
        return grpc.ssl_channel_credentials(pem)
    certificate, key = client_certificate
    try:
        # The password is not asked for on a terminal: gRPC could not use such a key.
        context.load_cert_chain(certificate, key, password=lambda: "")
        return grpc.ssl_channel_credentials(
            pem, Path(key).read_bytes(), Path(certificate).read_bytes()
        )
    except OSError as error:
        raise InvalidOption(
            f"client_certificate is {client_certificate!r}; PEM files of a certificate and of its "
            f"private key, without a password, are needed: {error}"
        ) from error
