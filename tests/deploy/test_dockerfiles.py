"""The Dockerfiles: what they say is checked, and what can run without Docker is run."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import landlocked
import numpy as np
import pytest
from serving import free_port, started

import unface
from unface.server.config import PREFIX, ServerConfig

ROOT = Path(__file__).parents[2]
FILES = ("Dockerfile", "Dockerfile.gpu")
USER = "65532:65532"
READY_SECONDS = 30

Instruction = tuple[str, str]


def stages(name: str) -> list[list[Instruction]]:
    """Return the instructions of each stage; what precedes the first FROM is left out."""
    text = re.sub(r"^#.*\n", "", (ROOT / name).read_text(), flags=re.M).replace("\\\n", " ")
    found: list[list[Instruction]] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        keyword, _, rest = line.partition(" ")
        if keyword == "FROM":
            found.append([])
        if found:
            found[-1].append((keyword, re.sub(r" +", " ", rest)))
    return found


def said(name: str, keyword: str) -> list[str]:
    """Return what the last stage says after a keyword."""
    return [rest for key, rest in stages(name)[-1] if key == keyword]


def environment(name: str) -> dict[str, str]:
    words = [word.partition("=") for line in said(name, "ENV") for word in shlex.split(line)]
    return {key: value for key, _, value in words}


@pytest.mark.parametrize("name", FILES)
def test_the_last_stage_installs_nothing_and_runs_as_nobody(name: str) -> None:
    build, last = stages(name)
    assert any("pip" in rest for _, rest in build)
    assert not re.search(r"\b(pip|apt-get|gcc|curl|wget)\b", str(last))
    assert [rest for key, rest in last if key == "COPY"] == ["--from=build /opt/unface /opt/unface"]
    assert said(name, "USER") == [USER]
    assert said(name, "STOPSIGNAL") == ["SIGTERM"]


@pytest.mark.parametrize("name", FILES)
def test_the_base_has_a_version_that_unface_runs_on(name: str) -> None:
    base = re.search(
        r"^ARG PYTHON=python:(\d+\.\d+)\.\d+-slim-\w+$", (ROOT / name).read_text(), re.M
    )
    assert base
    assert [stage[0][1] for stage in stages(name)] == ["${PYTHON} AS build", "${PYTHON}"]
    assert (
        f"Python {base[1]}" in (ROOT / "deploy" / "constraints.txt").read_text().partition("==")[0]
    )


@pytest.mark.parametrize("name", FILES)
def test_its_options_are_options(name: str) -> None:
    given = {key for key in environment(name) if key.startswith("UNFACE")}
    known = {PREFIX + option.upper() for option in ServerConfig.model_fields}
    assert {PREFIX + "HOST", PREFIX + "METRICS_PORT"} <= given <= known


@pytest.mark.parametrize("name", FILES)
def test_its_extras_are_extras(name: str) -> None:
    extras = re.search(r"'\.\[([\w,]+)\]'", str(stages(name)[0]))
    assert extras
    project = (ROOT / "pyproject.toml").read_text()
    assert all(re.search(rf"^{extra} = \[$", project, re.M) for extra in extras[1].split(","))


def test_the_gpu_image_differs_where_it_must() -> None:
    alike = ("USER", "WORKDIR", "EXPOSE", "STOPSIGNAL", "ENTRYPOINT", "CMD", "COPY")
    assert all(said(FILES[0], key) == said(FILES[1], key) for key in alike)
    one, other = map(environment, FILES)
    assert one.items() < other.items()
    assert other[PREFIX + "DEVICE"] == "gpu"
    assert f"install -d -o 65532 -g 65532 {other['XDG_CACHE_HOME']}" in said(FILES[1], "RUN")


def test_the_build_sees_all_rooms_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    seen = {line[1:] for line in lines if line.startswith("!")}
    project = (ROOT / "pyproject.toml").read_text()
    rooms = {path.split("/")[0] for path in re.findall(r'^"unface[.\w]*" = "(.+)"', project, re.M)}
    files = {"pyproject.toml", "README.md", "LICENSE", "THIRD_PARTY_NOTICES.md"}
    assert seen == rooms | files | {"deploy/constraints.txt"}
    assert all((ROOT / path).exists() for path in seen)


def test_without_tls_and_tokens_the_image_does_not_serve() -> None:
    ended = run_as_image(FILES[0])
    assert ended.returncode == 2
    assert "set insecure" in ended.stderr


@pytest.mark.parametrize("name", FILES)
def test_the_image_prints_the_configuration_that_it_would_serve(name: str) -> None:
    ended = run_as_image(name, "--print-config", **{PREFIX + "INSECURE": "true"})
    assert ended.returncode == 0, ended.stderr
    assert 'host = "0.0.0.0"' in ended.stdout


@pytest.mark.skipif(not landlocked.is_possible(), reason="this kernel has no such Landlock")
def test_it_serves_read_only_without_a_home_and_its_health_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (options, check) = said(FILES[0], "HEALTHCHECK")[0].split("CMD ")
    assert "--start-period" in options
    port = free_port()
    health = [word.replace("9464", str(port)) for word in json.loads(check)]
    assert health[0] == "python"
    health[0] = sys.executable
    for key, value in environment(FILES[0]).items():
        if key != "PATH":
            monkeypatch.setenv(key, value)
    monkeypatch.setenv(PREFIX + "HOST", "127.0.0.1")
    monkeypatch.setenv(PREFIX + "PORT", "0")
    monkeypatch.setenv(PREFIX + "HTTP_HOST", "127.0.0.1")
    monkeypatch.setenv(PREFIX + "HTTP_PORT", "0")
    monkeypatch.setenv(PREFIX + "METRICS_PORT", str(port))
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.chdir("/")
    assert subprocess.run(health, stderr=subprocess.DEVNULL).returncode != 0
    with started(
        landlocked.__file__, unface_command(), *json.loads(said(FILES[0], "CMD")[0])
    ) as server:
        server.wait_until_announced()
        until_healthy(health)
        with unface.Client(server.target) as client:
            assert len(client.detect(np.zeros((60, 80, 3), np.uint8))) == 0
        assert server.terminate() == 0
    assert subprocess.run(health, stderr=subprocess.DEVNULL).returncode != 0


def until_healthy(health: list[str]) -> None:
    ends_at = time.monotonic() + READY_SECONDS
    while subprocess.run(health).returncode != 0:
        assert time.monotonic() < ends_at
        time.sleep(0.05)


def run_as_image(name: str, *flags: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run an image's command with its environment, and nothing else of this one but the path."""
    variables = {**environment(name), **more, "PATH": os.environ["PATH"]}
    command = [unface_command(), *json.loads(said(name, "CMD")[0]), *flags]
    return subprocess.run(command, env=variables, cwd="/", capture_output=True, text=True)


def unface_command() -> str:
    assert said(FILES[0], "ENTRYPOINT") == ['["unface"]']
    beside = Path(sys.executable).with_name("unface")
    return str(beside) if beside.exists() else shutil.which("unface") or pytest.skip("no command")
