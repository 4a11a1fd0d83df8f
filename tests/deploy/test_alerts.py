"""The alert rules, run by Prometheus' own tool over series in which things go wrong."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from promql import asked, exposed, wrong_names

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"
TESTS = ("alerts_test.yml", "alerts_long_test.yml")


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


RULES = {rule["alert"]: rule for group in read("alerts.yml")["groups"] for rule in group["rules"]}


def promtool(*arguments: str, folder: Path = FOLDER) -> subprocess.CompletedProcess[str]:
    program = shutil.which("promtool") or pytest.skip("there is no promtool on this machine")
    return subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True)


def test_the_rules_are_valid() -> None:
    checked = promtool("check", "rules", "alerts.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(RULES)} rules found" in checked.stdout


def test_the_configuration_is_valid() -> None:
    checked = promtool("check", "config", "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_each_alert_fires_when_it_should_and_only_then() -> None:
    checked = promtool("test", "rules", *TESTS)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_rule_that_never_fires_would_be_seen(tmp_path: Path) -> None:
    rules = read("alerts.yml")
    rules["groups"][0]["rules"][0]["expr"] = "up < 0"
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(rules))
    shutil.copy(FOLDER / TESTS[0], tmp_path)
    assert promtool("test", "rules", TESTS[0], folder=tmp_path).returncode != 0


@pytest.mark.parametrize("alert", RULES)
def test_each_alert_is_tried_both_ways(alert: str) -> None:
    tried = [
        bool(case.get("exp_alerts"))
        for name in TESTS
        for test in read(name)["tests"]
        for case in test["alert_rule_test"]
        if case["alertname"] == alert
    ]
    assert set(tried) == {True, False}


@pytest.mark.parametrize("alert", RULES)
def test_each_alert_asks_for_what_the_server_has(alert: str) -> None:
    query = RULES[alert]["expr"]
    assert asked(query)
    assert wrong_names(query, exposed()) == []


@pytest.mark.parametrize("alert", RULES)
def test_each_alert_says_how_bad_it_is_and_what_to_look_at(alert: str) -> None:
    rule = RULES[alert]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"].endswith((".", "?"))


def test_the_documentation_lists_the_alerts() -> None:
    text = (FOLDER.parents[1] / "docs" / "monitoring.md").read_text()
    assert re.findall(r"^\| `(Unface\w+)` \|", text, re.M) == list(RULES)
