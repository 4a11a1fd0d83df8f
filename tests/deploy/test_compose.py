"""The compose files fit the server, nginx, Prometheus and Grafana that they start."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from unface.server.config import PREFIX, ServerConfig

DEPLOY = Path(__file__).parents[2] / "deploy"
FILES = ("compose.yaml", "compose.secure.yaml", "compose.gpu.yaml")
VARIABLE = re.compile(r"\$\{(\w+):([-?])([^}]*)\}")


class Loader(yaml.SafeLoader):
    """Knows compose's !override, which takes the place of what is merged otherwise."""


Loader.add_constructor("!override", lambda loader, node: loader.construct_sequence(node))


def filled(found: re.Match[str]) -> str:
    return found[3] if found[2] == "-" else f"/given/{found[1].lower()}"


def read(name: str) -> Any:
    """Return a file as compose reads it where no variable is set but those that must be."""
    return yaml.load(VARIABLE.sub(filled, (DEPLOY / name).read_text()), Loader)  # noqa: S506 - safe


BASE = read("compose.yaml")
SERVICES = BASE["services"]


def seconds(text: str) -> float:
    return float(re.fullmatch(r"(\d+)s", text)[1])  # type: ignore[index]


def configured(*files: str) -> str:
    """Return what the server prints as its configuration, with these files' environment."""
    own = {
        k: v for name in files for k, v in read(name)["services"]["unface"]["environment"].items()
    }
    inherited = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    command = [sys.executable, "-m", "unface.server", "--print-config"]
    ended = subprocess.run(
        command, env=inherited | {k: str(v) for k, v in own.items()}, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_may_do_as_little_as_possible(service: str) -> None:
    options = SERVICES[service]
    assert options["read_only"] is True
    assert options["cap_drop"] == ["ALL"]
    assert options["security_opt"] == ["no-new-privileges:true"]
    assert {"mem_limit", "pids_limit"} <= options.keys()
    assert not {"privileged", "cap_add", "network_mode", "pid", "devices"} & options.keys()


@pytest.mark.parametrize("service", SERVICES)
def test_every_image_has_a_version(service: str) -> None:
    options = SERVICES[service]
    assert "build" in options or re.search(r":v?\d+\.\d+\.\d+", options["image"])


def test_pictures_go_to_no_disk() -> None:
    for service in ("unface", "nginx"):
        options = SERVICES[service]
        assert options["memswap_limit"] == options["mem_limit"]
        assert options["ulimits"] == {"core": 0}
        assert all(volume.endswith(":ro") for volume in options.get("volumes", ()))
    assert "tmpfs" not in SERVICES["unface"]
    assert [re.search("size=1m", place) is not None for place in SERVICES["nginx"]["tmpfs"]] == [
        True
    ]


def test_servers_are_reached_through_nginx_alone() -> None:
    assert SERVICES["unface"]["networks"] == ["inside"]
    assert BASE["networks"]["inside"] == {"internal": True}
    published = {name: options["ports"] for name, options in SERVICES.items() if "ports" in options}
    assert published.keys() == {"nginx", "grafana"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


def test_other_machines_are_served_with_tls_and_tokens_alone() -> None:
    services = read("compose.secure.yaml")["services"]
    assert services["nginx"]["ports"] == ["0.0.0.0:50051:50051"]
    assert (
        "./nginx/listen-tls.conf:/etc/nginx/unface/listen.conf:ro" in services["nginx"]["volumes"]
    )
    door = (DEPLOY / "nginx" / "listen-tls.conf").read_text()
    assert set(re.findall(r"^ssl_certificate\w* /run/secrets/(\S+);", door, re.M)) == set(
        services["nginx"]["secrets"]
    )
    assert 'jwt_jwks_file = "/run/secrets/jwks.json"' in configured(*FILES[:2])
    assert services["unface"]["secrets"] == ["jwks.json"]
    assert read("compose.secure.yaml")["secrets"].keys() == {"jwks.json", "tls.crt", "tls.key"}


def test_the_servers_take_their_options() -> None:
    given = SERVICES["unface"]["environment"]
    assert given.keys() <= {PREFIX + name.upper() for name in ServerConfig.model_fields}
    assert "insecure = true" in configured("compose.yaml")
    assert str(SERVICES["unface"]["cpus"]) == str(given[PREFIX + "THREADS"])


def test_a_server_is_given_the_time_to_finish() -> None:
    given = SERVICES["unface"]["environment"]
    defaults = ServerConfig()
    drain = float(given.get(PREFIX + "DRAIN_SECONDS", defaults.drain_seconds))
    grace = float(given.get(PREFIX + "GRACE_SECONDS", defaults.grace_seconds))
    assert seconds(SERVICES["unface"]["stop_grace_period"]) >= drain + grace + 2


def test_nginx_is_given_the_time_to_finish_and_waits_longer_than_the_servers_work() -> None:
    text = (DEPLOY / "nginx" / "nginx.conf").read_text()
    shutdown = re.search(r"^worker_shutdown_timeout (\w+);", text, re.M)
    reads = re.search(r"^        grpc_read_timeout (\w+);", text, re.M)
    assert shutdown
    assert reads
    assert SERVICES["nginx"]["stop_signal"] == "SIGQUIT"
    assert seconds(SERVICES["nginx"]["stop_grace_period"]) > seconds(shutdown[1])
    assert seconds(reads[1]) > ServerConfig().worker_seconds


@pytest.mark.parametrize("name", FILES)
def test_what_is_mounted_is_there(name: str) -> None:
    content = read(name)
    for options in content["services"].values():
        for volume in options.get("volumes", ()):
            source = volume.split(":")[0]
            assert (
                (DEPLOY / source).exists()
                if source.startswith(".")
                else source in content["volumes"]
            )


def test_everybody_calls_the_others_by_their_names() -> None:
    image = (DEPLOY.parent / "Dockerfile").read_text()
    upstream = (DEPLOY / "nginx" / "upstream.conf").read_text()
    assert re.search(r"^ *server (\S+):(\d+) ", upstream, re.M).groups() == ("unface", "50051")  # type: ignore[union-attr]
    assert f"{PREFIX}PORT=50051" in image
    prometheus = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    (found,) = prometheus["scrape_configs"][0]["dns_sd_configs"]
    assert found["names"] == ["unface"]
    assert f"{PREFIX}METRICS_PORT={found['port']}" in image
    sources = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text()
    )
    assert sources["datasources"][0]["url"] == "http://prometheus:9090"
    assert {"unface", "nginx", "prometheus", "grafana"} == SERVICES.keys()


def test_the_gpu_file_changes_the_image_and_gives_it_a_card() -> None:
    options = read("compose.gpu.yaml")["services"]["unface"]
    assert options["build"] == {"dockerfile": "Dockerfile.gpu"}
    assert (DEPLOY / SERVICES["unface"]["build"]["context"] / "Dockerfile.gpu").exists()
    assert options["deploy"]["resources"]["reservations"]["devices"] == [
        {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    ]
    cache = (DEPLOY.parent / "Dockerfile.gpu").read_text()
    assert f"XDG_CACHE_HOME={options['volumes'][0].partition(':')[2]} " in cache


@pytest.mark.parametrize("name", FILES)
def test_the_manual_has_every_variable(name: str) -> None:
    manual = (DEPLOY.parent / "docs" / "deploy.md").read_text()
    for variable in {found[0] for found in VARIABLE.findall((DEPLOY / name).read_text())}:
        assert f"`{variable}`" in manual, variable
