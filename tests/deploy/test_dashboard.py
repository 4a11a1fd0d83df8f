"""The Grafana dashboard asks for what the server has, and a real Prometheus answers."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from counted import full_metrics, see_everything
from promql import asked, exposed, families, grouped, wrong_names
from serving import free_port

from unface.server.probes import Probes

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "unface.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [
    pytest.param(panel, target["expr"], id=f"{panel['title']} {target['refId']}")
    for panel in PANELS
    for target in panel["targets"]
]
ANSWER_SECONDS = 30


@pytest.fixture(scope="module")
def known() -> dict[str, set[str]]:
    return exposed()


@pytest.mark.parametrize(("panel", "query"), QUERIES)
def test_every_query_asks_for_metrics_and_labels_that_the_server_has(
    panel: dict[str, Any], query: str, known: dict[str, set[str]]
) -> None:
    assert asked(query), "it asks for nothing"
    assert wrong_names(query, known) == []


@pytest.mark.parametrize(
    "query",
    [
        "unface_request_total",
        'unface_requests_total{status="OK"}',
        "sum by (stage) (rate(unface_step_seconds_bucket[5m]))",
        "unface_step_seconds",
    ],
)
def test_a_wrong_name_would_be_seen(query: str, known: dict[str, set[str]]) -> None:
    assert wrong_names(query, known)


@pytest.mark.parametrize(("panel", "query"), QUERIES)
def test_every_query_keeps_to_the_servers_that_were_chosen(
    panel: dict[str, Any], query: str
) -> None:
    assert query.count('{job=~"$job", instance=~"$instance"') == len(
        re.findall(r"\b(?:unface_\w+|up)\b", query)
    )


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_legends_name_labels_that_the_answer_has(
    panel: dict[str, Any], known: dict[str, set[str]]
) -> None:
    for target in panel["targets"]:
        query = target["expr"]
        has = grouped(query) or set().union(*(known[name] for name in asked(query)))
        assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= has


def test_every_metric_of_the_server_is_shown(known: dict[str, set[str]]) -> None:
    shown = families(
        name for panel in PANELS for t in panel["targets"] for name in asked(t["expr"])
    )
    assert families(known) - shown == set()


def test_panels_lie_side_by_side_and_have_numbers_of_their_own() -> None:
    every = DASHBOARD["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in every):
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        taken |= cells


def test_variables_are_those_that_the_queries_use() -> None:
    declared = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(DASHBOARD["panels"])))
    assert used == declared


def test_grafana_finds_the_dashboard_and_its_data() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    sources = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())
    (source,) = sources["datasources"]
    assert (source["type"], source["isDefault"]) == ("prometheus", True)
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]
    boards = yaml.safe_load((provisioning / "dashboards" / "unface.yml").read_text())
    assert boards["providers"][0]["options"]["path"] == "/var/lib/grafana/dashboards"


class Prometheus:
    """A real one, which scrapes a server's probes; `ask` gives what a query answers."""

    def __init__(self, folder: Path, scraped: int) -> None:
        program = shutil.which("prometheus") or pytest.skip("there is no prometheus here")
        config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "200ms", "evaluation_interval": "200ms"}
        (job,) = config["scrape_configs"]
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": [f"127.0.0.1:{scraped}"]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        shutil.copy(DEPLOY / "prometheus" / "alerts.yml", folder)
        self.url = f"http://127.0.0.1:{free_port()}"
        self.process = subprocess.Popen(
            [
                program,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={self.url.removeprefix('http://')}",
                "--log.level=warn",
            ]
        )

    def get(self, path: str, **query: str) -> Any:
        try:
            where = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
            with urllib.request.urlopen(where, timeout=10) as answer:  # noqa: S310 - our own
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            pytest.fail(f"{query}: {error.read().decode()}")

    def ask(self, query: str) -> list[float]:
        query = query.replace("$__rate_interval", "5s").replace("$job", "unface")
        found = self.get("query", query=query.replace("$instance", ".*"))["result"]
        return [float(sample["value"][1]) for sample in found]

    def wait_until_up(self) -> None:
        ends_at = time.monotonic() + ANSWER_SECONDS
        while not self.is_ready() or self.ask("up") != [1]:
            assert self.process.poll() is None, "prometheus has ended"
            assert time.monotonic() < ends_at, "prometheus has not scraped the server"
            time.sleep(0.1)

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=10):  # noqa: S310 - our own
                return True
        except urllib.error.URLError:  # does not listen yet, or says 503
            return False


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has scraped a server to which everything keeps happening."""
    metrics = full_metrics()
    probes = Probes("127.0.0.1", 0, metrics.text, lambda: True, lambda: None)
    running = Prometheus(tmp_path_factory.mktemp("prometheus"), probes.port)
    try:
        running.wait_until_up()
        ends_at = time.monotonic() + ANSWER_SECONDS
        while not all(running.ask("rate(unface_trial_shadow_faces_total[5s]) > 0") or [0]):
            assert time.monotonic() < ends_at, "prometheus sees no rates"
            see_everything(metrics)
            time.sleep(0.1)
        yield running
    finally:
        running.process.terminate()
        running.process.wait(20)
        probes.close()


def test_prometheus_answers_every_query(prometheus: Prometheus) -> None:
    """Those that look a week back have nothing to find yet; all others give numbers."""
    empty = []
    for panel in PANELS:
        for target in panel["targets"]:
            values = prometheus.ask(target["expr"])
            if not values or any(math.isnan(value) for value in values):
                empty.append(target["expr"])
    assert all("offset 7d" in query for query in empty), empty
    assert len(empty) <= 2


def test_a_query_that_is_none_would_be_seen(prometheus: Prometheus) -> None:
    with pytest.raises(pytest.fail.Exception, match="parse error"):
        prometheus.ask("sum by (le (unface_workers)")


def test_prometheus_evaluates_every_alert(prometheus: Prometheus) -> None:
    ends_at = time.monotonic() + ANSWER_SECONDS
    rules: list[dict[str, Any]] = []
    while {rule["health"] for rule in rules} != {"ok"} or "firing" not in states(rules).values():
        assert time.monotonic() < ends_at, rules
        time.sleep(0.1)
        rules = prometheus.get("rules")["groups"][0]["rules"]
    assert states(rules)["UnfaceDown"] == "inactive"
    assert states(rules)["UnfaceReloadFailed"] == "firing"  # everything happens, that as well


def states(rules: list[dict[str, Any]]) -> dict[str, str]:
    return {rule["name"]: rule["state"] for rule in rules}
