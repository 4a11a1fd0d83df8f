import argparse
import subprocess
import sys
from dataclasses import fields
from typing import Any

import pytest

from unface.errors import InvalidOption
from unface.server import config
from unface.server.config import ServerConfig, add_arguments, address, config_from_arguments


def parsed(*flags: str) -> ServerConfig:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return config_from_arguments(parser.parse_args(flags))


def test_no_flags_give_the_defaults() -> None:
    assert parsed() == ServerConfig()


def test_a_server_listens_to_this_machine_alone_unless_told() -> None:
    assert ServerConfig().host == "127.0.0.1"


def test_every_field_has_a_flag_and_a_help() -> None:
    for field in fields(ServerConfig):
        assert field.metadata["help"]
    flags = ["--host", "::1", "--port", "0", "--threads", "3", "--precision", "int8"]
    chosen = parsed(*flags, "--queue-size", "5", "--grace-seconds", "0.5")
    assert chosen == ServerConfig(
        host="::1", port=0, threads=3, precision="int8", queue_size=5, grace_seconds=0.5
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("host", ""),
        ("port", -1),
        ("port", 65536),
        ("device", "tpu"),
        ("threads", 0),
        ("threads", 65),
        ("max_message_bytes", 0),
        ("max_message_bytes", 1 << 31),
        ("max_pixels", 0),
        ("queue_size", 0),
        ("queue_bytes", 0),
        ("pictures", 0),
        ("max_streams", 0),
        ("grace_seconds", -1),
        ("grace_seconds", float("nan")),
    ],
)
def test_a_bad_value_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidOption, match=f"{field} is"):
        ServerConfig(**{field: value})


def test_the_devices_are_those_of_the_engines() -> None:
    from unface.engines.device import DEVICES

    assert config.DEVICES == DEVICES
    assert ServerConfig().device == "auto"
    assert parsed("--device", "gpu").device == "gpu"


def test_an_ipv6_address_gets_brackets() -> None:
    assert address("::1", 5) == "[::1]:5"
    assert address("127.0.0.1", 5) == "127.0.0.1:5"


def test_importing_the_package_or_its_configuration_brings_in_no_grpc() -> None:
    code = (
        "import sys, unface.server, unface.server.config; "
        "print([m for m in ('grpc', 'numpy', 'cv2') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
