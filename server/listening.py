"""Where the server listens: addresses are bound here, before anything is started."""

from __future__ import annotations

import socket

import grpc

from unface.errors import UnfaceError
from unface.server.config import ServerConfig, address
from unface.server.tls import server_credentials

# Beyond the largest picture: options, and a little more, so that a picture just too large gets
# the codec's message instead of gRPC's.
MESSAGE_HEADROOM = 1 << 20
FRAME_BYTES = 4 << 20  # of HTTP/2; the usual 16 KiB cut a raw 1080p picture into 380
BACKLOG = 128  # connections that wait to be taken


class CannotListen(UnfaceError):
    """The address is taken, not allowed, or not of this machine."""


def grpc_options(config: ServerConfig) -> list[tuple[str, int]]:
    """Return what gRPC is told of messages and connections."""
    return [
        ("grpc.max_receive_message_length", config.max_message_bytes + MESSAGE_HEADROOM),
        ("grpc.max_send_message_length", config.max_message_bytes + MESSAGE_HEADROOM),
        ("grpc.http2.max_frame_size", FRAME_BYTES),
        ("grpc.so_reuseport", 0),  # or a second server would share the port in silence
        ("grpc.keepalive_time_ms", 60_000),  # finds clients that vanished without a word
        ("grpc.keepalive_timeout_ms", 20_000),
        # Clients may ping as often as every 10 s, also between calls.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]


def listen_for_grpc(server: grpc.aio.Server, config: ServerConfig) -> int:
    """Bind the address of gRPC and return the port; raises `CannotListen`."""
    # gRPC's own words are several lines.
    _bound(config.host, config.port, "choose another host or port").close()
    credentials = server_credentials(config)
    try:
        if credentials is None:
            return server.add_insecure_port(config.address)
        return server.add_secure_port(config.address, credentials)
    except RuntimeError as error:
        raise CannotListen(f"cannot listen on {config.address}: {error}") from error


def listen_for_http(host: str, port: int) -> socket.socket:
    """Return a socket that listens for HTTP; raises `CannotListen`."""
    listening = _bound(
        host, port, "choose another http_host or http_port, or --http-port none for gRPC alone"
    )
    listening.listen(BACKLOG)
    listening.setblocking(False)
    return listening


def _bound(host: str, port: int, remedy: str) -> socket.socket:
    """Return a socket bound to an address, or say in the system's words why there is none."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        # With its protocol: asyncio sets TCP_NODELAY only where that is said.
        bound = socket.socket(*found[:3])
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(found[4])
        except OSError:
            bound.close()
            raise
    except OSError as error:
        raise CannotListen(
            f"cannot listen on {address(host, port)}: {error.strerror or error}; {remedy}"
        ) from error
    return bound
