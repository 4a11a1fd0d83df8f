"""`unface serve` as a person configures it, and what the other commands do not pay for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from unface.server.config import FILE_VARIABLE, PREFIX, ServerConfig, load_config

COMMANDS = [("unface.command", "serve"), ("unface.server",)]


def run(module: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("UNFACE")} | variables
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)


@pytest.mark.parametrize(
    "arguments", [("--help",), ("detect", "--help"), ("anonymize", "--help"), ("info",)]
)
def test_other_commands_do_not_import_what_serves(arguments: tuple[str, ...]) -> None:
    code = (
        "import atexit, sys\n"
        "from unface.command import main\n"
        "names = ('pydantic', 'pydantic_settings', 'prometheus_client', 'cryptography')\n"
        "atexit.register(lambda: print('IMPORTED', [n for n in names if n in sys.modules]))\n"
        f"main({arguments!r})\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "IMPORTED []"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_lists_every_option(command: tuple[str, ...]) -> None:
    result = run(*command, "--help")
    assert result.returncode == 0
    for name in ServerConfig.model_fields:
        assert f"--{name.replace('_', '-')}" in result.stdout
    assert "--config" in result.stdout
    assert "--print-config" in result.stdout


def test_the_list_of_commands_names_serve() -> None:
    assert "serve gRPC calls until stopped" in run("unface.command", "--help").stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_printed_is_what_would_be_served(tmp_path: Path, command: tuple[str, ...]) -> None:
    file, printed = tmp_path / "unface.toml", tmp_path / "printed.toml"
    file.write_text('workers = 3\nqueue_size = 5\nformats = ["png"]\n')
    variables = {FILE_VARIABLE: str(file), PREFIX + "QUEUE_SIZE": "6"}
    result = run(*command, "--print-config", "--threads", 2, "--insecure", **variables)
    assert result.returncode == 0, result.stderr
    printed.write_text(result.stdout)
    wanted = {"workers": 3, "queue_size": 6, "formats": ("png",), "threads": 2, "insecure": True}
    assert load_config(str(printed)) == ServerConfig(**wanted)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        (["--port", "70000"], {}, "port is '70000'"),
        (["--wurkers", "3"], {}, "unrecognized arguments: --wurkers"),
        (["--config", "nowhere.toml"], {}, "nowhere.toml is no file"),
        ([], {PREFIX + "WURKERS": "3"}, f"{PREFIX}WURKERS is set in the environment"),
        (["--tls-key", "key.pem"], {}, "tls_certificate and tls_key belong together"),
    ],
)
def test_a_wrong_configuration_is_wrong_usage_and_explained(
    command: tuple[str, ...], arguments: list[str], variables: dict[str, str], message: str
) -> None:
    result = run(*command, *arguments, **variables)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
