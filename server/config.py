"""What an operator may choose, in one table: field, default, help."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, fields
from typing import Any

from unface.errors import InvalidOption

MAX_MESSAGE_BYTES = 1 << 30  # gRPC counts in 31 bits
DEVICES = ("auto", "cpu", "gpu")  # as `unface.engines.device`, which needs numpy


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class ServerConfig:
    """The configuration of a server; raises `InvalidOption` naming the field."""

    host: str = _option("127.0.0.1", "address to listen on; 0.0.0.0 for all, without encryption")
    port: int = _option(50051, "port to listen on; 0 takes a free one")
    threads: int | None = _option(None, "CPU threads of one detection; default: all cores")
    device: str = _option("auto", "auto: a GPU if there is one; gpu: warn without one; or cpu")
    plans: str | None = _option(None, "folder[:precision] of TensorRT plans for the GPU")
    precision: str = _option("fp32", "engines of calls whose profile names none: fp32 or int8")
    engines: str | None = _option(None, "folder of your own engines; default: those that ship")
    allow_uncertified: bool = _option(False, "use engines that have not passed the gate")
    max_message_bytes: int = _option(64 * 1024 * 1024, "bytes of the largest picture, each way")
    max_pixels: int = _option(100_000_000, "width x height of the largest picture")
    queue_size: int = _option(64, "requests that may wait; more are refused at once")
    queue_bytes: int = _option(512 * 1024 * 1024, "bytes that all requests may hold together")
    pictures: int = _option(4, "pictures decoded at once; 100 megapixels take 300 MB each")
    max_streams: int = _option(16, "streams open at once; more are refused")
    grace_seconds: float = _option(10.0, "time to finish what is under way when told to stop")

    def __post_init__(self) -> None:
        if not self.host:
            raise InvalidOption("host is empty; give an address such as 127.0.0.1")
        if self.device not in DEVICES:
            raise InvalidOption(f"device is {self.device!r}; there are {', '.join(DEVICES)}")
        self._check("port", 0, 65535)
        self._check("max_message_bytes", 1024, MAX_MESSAGE_BYTES)
        self._check("max_pixels", 1, 1 << 40)
        self._check("queue_size", 1, 100_000)
        self._check("queue_bytes", 1024, 1 << 50)
        self._check("pictures", 1, 64)
        self._check("max_streams", 1, 10_000)
        self._check("grace_seconds", 0, 3600)
        if self.threads is not None:
            self._check("threads", 1, 64)

    @property
    def address(self) -> str:
        """`host:port` as gRPC wants it."""
        return address(self.host, self.port)

    def _check(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if not low <= value <= high:
            raise InvalidOption(f"{name} is {value}; it must be {low} to {high}")


def address(host: str, port: int) -> str:
    """Return `host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each field, such as `--queue-size`."""
    words = ("host", "device", "precision", "engines", "plans")
    kinds = {**dict.fromkeys(words, str), "grace_seconds": float}
    for option in fields(ServerConfig):
        flag = "--" + option.name.replace("_", "-")
        if isinstance(option.default, bool):
            parser.add_argument(flag, action="store_true", help=option.metadata["help"])
            continue
        parser.add_argument(
            flag,
            type=kinds.get(option.name, int),
            default=option.default,
            metavar=option.name.rsplit("_", 1)[-1].upper(),
            help=option.metadata["help"] + ("" if option.default is None else " (%(default)s)"),
        )


def config_from_arguments(arguments: argparse.Namespace) -> ServerConfig:
    """Return the configuration that the flags of `add_arguments` say."""
    return ServerConfig(**{f.name: getattr(arguments, f.name) for f in fields(ServerConfig)})
