"""A comparison in words: a table, what may be said of it, and the same for programs."""

from __future__ import annotations

import math
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any, NamedTuple

from unface.quality.comparison import LEVEL, MIN_ANSWERS, MIN_BLOCKS, Comparison, Shadow
from unface.quality.intervals import Interval


class _Words(NamedTuple):
    """How a figure is told: factor and unit, and what b does where it is lower and higher.

    `lower_is` and `higher_is` say whether that speaks for b (1), against it (-1) or neither.
    """

    factor: float
    unit: str
    lower: str
    higher: str
    lower_is: int = 1
    higher_is: int = -1


_WORDS = {
    "errors": _Words(100, "%", "fails less often", "fails more often"),
    # More faces may be more false ones; of fewer it must be shown first that none is missed.
    "faces a picture": _Words(1, "", "finds fewer faces", "finds more faces", -1, 0),
    "mean score": _Words(1, "", "scores faces lower", "scores faces higher", 0, 0),
    "latency, mean": _Words(1000, " ms", "is faster", "is slower"),
    "latency, P50": _Words(1000, " ms", "is faster at the median", "is slower at the median"),
    "latency, P95": _Words(1000, " ms", "is faster at P95", "is slower at P95"),
    "reports of missed faces": _Words(
        1000, " per 1000", "has fewer reports of missed faces", "has more reports of missed faces"
    ),
    "reports of false faces": _Words(
        1000, " per 1000", "has fewer reports of false faces", "has more reports of false faces"
    ),
}
_CONCLUSIONS = {  # what speaks for b, and against it
    (True, False): "b is better.",
    (False, True): "a is better.",
    (True, True): "Neither is better in everything.",
    (False, False): "Neither can be called better.",
}
_WHO_IS_RIGHT = (
    "Whether what only one of them finds are faces, labelled pictures tell: unface validate."
)


def to_text(comparison: Comparison) -> str:
    """Return the comparison for a terminal: its table, then the verdict."""
    trial = comparison.trial
    begin, end = (
        datetime.fromtimestamp(minute * 60, timezone.utc).strftime("%Y-%m-%d %H:%M")
        for minute in comparison.minutes
    )
    how = ", in the shadow" if trial.shadow else ""
    title = f"trial of {trial.profile} on {100 * trial.share:.3g}% of the requests{how}, "
    lines = [title + f"{begin} to {end} UTC"]
    rows = _arm_rows(comparison) if comparison.shadow is None else _shadow_rows(comparison.shadow)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join(cells).rstrip())
    if not comparison.lacking:
        differences = "" if trial.shadow else "; those of b - a hold all together"
        lines.append(f"In brackets: {LEVEL:.0%} confidence intervals{differences}.")
    return "\n".join([*lines, *verdict(comparison)])


def verdict(comparison: Comparison) -> list[str]:
    """Return what may be said of a trial, in sentences; the last says which arm is better."""
    if comparison.lacking:
        have = "; ".join(comparison.lacking)
        return [
            f"Too little data: {have}. At least {MIN_ANSWERS} pictures in {MIN_BLOCKS} different "
            "minutes are needed."
        ]
    if comparison.shadow is not None:
        return _shadow_verdict(comparison.shadow)
    sentences, speaks, unseen = [], set(), []
    for figure in comparison.figures:
        words, difference = _WORDS[figure.name], figure.difference
        if difference.excludes_zero:
            lower = difference.value < 0
            speaks.add(words.lower_is if lower else words.higher_is)
            what = words.lower if lower else words.higher
            sentences.append(f"b {what}, by {_shown(difference, figure.name, by=True)}.")
        elif not math.isnan(difference.low):
            unseen.append(figure.name)
        if figure.name == "faces a picture" and difference.excludes_zero:
            sentences.append(_WHO_IS_RIGHT)
    if unseen:
        sentences.append(f"No difference can be seen in: {'; '.join(unseen)}.")
    return [*sentences, _CONCLUSIONS[1 in speaks, -1 in speaks]]


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison as JSON values: seconds, parts of 1, minutes since 1970."""
    shadow = comparison.shadow
    return {
        "trial": asdict(comparison.trial),
        "minutes": list(comparison.minutes),
        "profiles": comparison.profiles,
        "answers": comparison.answers,
        "level": LEVEL,
        "figures": {
            name: {"a": _json(a), "b": _json(b), "difference": _json(difference)}
            for name, a, b, difference in comparison.figures
        },
        "shadow": shadow
        and {
            name: _json(value) if isinstance(value, Interval) else value
            for name, value in shadow._asdict().items()
        },
        "verdict": verdict(comparison),
    }


def _json(interval: Interval) -> dict[str, float | None]:
    return {k: None if math.isnan(v) else v for k, v in interval._asdict().items()}


def _arm_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    profiles = {arm: ", ".join(names) for arm, names in comparison.profiles.items()}
    answers = {arm: str(count) for arm, count in comparison.answers.items()}
    return [
        ("", f"a ({profiles['a']})", f"b ({profiles['b']})", "b - a"),
        ("answers", answers["a"], answers["b"], ""),
        *((f.name, *(_shown(interval, f.name) for interval in f[1:])) for f in comparison.figures),
    ]


def _shadow_rows(shadow: Shadow) -> list[tuple[str, ...]]:
    return [
        ("pictures that both saw", str(shadow.pictures)),
        ("faces that both found", _shown(shadow.agreement, "errors")),
        ("faces that a alone found", str(shadow.only_a)),
        ("faces that b alone found", str(shadow.only_b)),
        ("mean IoU of the same face", _shown(shadow.iou, "mean score")),
        ("latency, b - a", _shown(shadow.latency, "latency, mean")),
    ]


def _shadow_verdict(shadow: Shadow) -> list[str]:
    sentences = []
    if shadow.latency.excludes_zero:
        pace = "faster" if shadow.latency.value < 0 else "slower"
        by = _shown(shadow.latency, "latency, mean", by=True)
        sentences.append(f"b is {pace} on the same pictures, by {by}.")
    else:
        sentences.append("No difference can be seen in: latency.")
    if not math.isnan(shadow.agreement.value):
        found = _shown(shadow.agreement, "errors")
        sentences.append(f"Both find the same face in {found} of the cases.")
    return [*sentences, _WHO_IS_RIGHT]


def _shown(interval: Interval, name: str, *, by: bool = False) -> str:
    """Return an interval in the figure's unit; `by` as the size of a difference, without sign."""
    words = _WORDS[name]
    value, low, high = (words.factor * part for part in interval)
    if by and value < 0:
        value, low, high = -value, -high, -low
    if math.isnan(value):
        return "-"
    if math.isnan(low):
        return _number(value) + words.unit
    digits = _digits(high - low)
    value_text, low_text, high_text = (f"{part:.{digits}f}" for part in (value, low, high))
    level = f"{LEVEL:.0%} CI " if by else ""
    return f"{value_text}{words.unit} ({level}{low_text} to {high_text})"


def _digits(width: float) -> int:
    """Return how many decimals tell the ends of an interval apart: two figures of its width."""
    return max(0, 1 - math.floor(math.log10(width))) if width > 0 else 2


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
