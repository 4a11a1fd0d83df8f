"""What a query of Prometheus asks for: names of metrics and of labels."""

from __future__ import annotations

import re
from collections.abc import Iterable

from counted import full_metrics
from prometheus_client.parser import text_string_to_metric_families

TARGET_LABELS = {"job", "instance"}  # Prometheus adds them
_SELECTOR = re.compile(r"\b((?:unface_\w+)|up)\b(?:\{([^}]*)\})?")
_GROUPING = re.compile(r"\b(?:by|without)\s*\(([^)]*)\)")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"')


def exposed() -> dict[str, set[str]]:
    """Return the labels of each sample that a server exposes, by the sample's name."""
    labels: dict[str, set[str]] = {"up": set(TARGET_LABELS)}
    for family in text_string_to_metric_families(full_metrics().text().decode()):
        for sample in family.samples:
            labels.setdefault(sample.name, set(TARGET_LABELS)).update(sample.labels)
    return labels


def asked(query: str) -> dict[str, set[str]]:
    """Return the labels that a query selects by, by the name of the sample."""
    found: dict[str, set[str]] = {}
    for name, matchers in _SELECTOR.findall(query):
        found.setdefault(name, set()).update(_MATCHER.findall(matchers))
    return found


def grouped(query: str) -> set[str]:
    """Return the labels that a query groups by."""
    groups = _GROUPING.findall(query)
    return {label.strip() for group in groups for label in group.split(",")}


def wrong_names(query: str, known: dict[str, set[str]]) -> list[str]:
    """Return what a query asks for that no server exposes."""
    names = asked(query)
    wrong = [name for name in names if name not in known]
    wrong += [
        f"{name}{{{label}}}"
        for name, labels in names.items()
        for label in labels - known.get(name, labels)
    ]
    there = set().union(*(known.get(name, set()) for name in names))
    return wrong + sorted(grouped(query) - there)


def families(names: Iterable[str]) -> set[str]:
    """Return names of samples without what a histogram adds to its own."""
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}
