"""What is said of a trial: a real difference is found, and none is invented."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from unface.quality.comparison import FIGURES, compare_arms, compare_trials
from unface.quality.latencies import bin_of
from unface.quality.places import Place, Report
from unface.quality.store import Store
from unface.quality.trials import Arm, Outcome, Pairs, Trial
from unface.quality.verdict import to_json, to_text, verdict

TRIAL = Trial("fast", 0.3)
SHADOW = Trial("fast", 0.3, shadow=True)
PROFILES: dict[Arm, str] = {"a": "accurate", "b": "fast"}
BEGIN = 28_000_000  # a minute of 2023
MISSED, FALSE = Place("missed", 0, 0, 9, 9), Place("false", 0, 0, 9, 9)


def traffic(
    seed: int,
    minutes: int = 60,
    pace: int = 60,
    *,
    faster: float = 1.0,
    faces: float = 1.0,
    errors: float = 1.0,
) -> list[Outcome]:
    """Return a trial of `pace` requests a minute; the factors are those of b."""
    rng = np.random.default_rng(seed)
    outcomes = []
    for minute in range(BEGIN, BEGIN + minutes):
        busy, crowd = rng.lognormal(0, 0.3), rng.gamma(4, 0.5)
        for arm, part in (("a", 0.7), ("b", 0.3)):
            own = (faster, faces, errors) if arm == "b" else (1.0, 1.0, 1.0)
            count = int(rng.poisson(pace * part))
            seconds = own[0] * 0.04 * busy * rng.lognormal(0, 0.4, count)
            found = int(rng.poisson(own[1] * crowd, count).sum())
            scores = float(rng.beta(18, 2, found).sum())
            failed = int(rng.poisson(own[2] * 0.01 * count))
            outcome = Outcome(minute, arm, PROFILES[arm], count, failed, float(seconds.sum()))  # type: ignore[arg-type]
            outcome.faces, outcome.scores = found, scores
            outcome.latencies.update(map(bin_of, seconds.tolist()))
            outcomes.append(outcome)
    return outcomes


def said(outcomes: Sequence[Outcome], reports: Sequence[Report] = ()) -> str:
    return " ".join(verdict(compare_arms(TRIAL, outcomes, [], reports)))


def test_a_faster_arm_is_found_and_by_how_much() -> None:
    comparison = compare_arms(TRIAL, traffic(1, faster=0.75), [])
    mean = next(f for f in comparison.figures if f.name == "latency, mean")
    truth = 0.04 * math.exp(0.3**2 / 2 + 0.4**2 / 2)
    assert mean.a.low < truth < mean.a.high
    assert mean.difference.low < -0.25 * truth < mean.difference.high < 0
    sentences = verdict(comparison)
    assert sentences[0].startswith("b is faster, by ")
    assert " ms (95% CI " in sentences[0]
    assert sentences[-1] == "b is better."


@pytest.mark.parametrize(
    ("factors", "sentence", "conclusion"),
    [
        ({"faster": 1.3}, "b is slower, by ", "a is better."),
        ({"errors": 4.0}, "b fails more often, by ", "a is better."),
        ({"errors": 0.1}, "b fails less often, by ", "b is better."),
        ({"faces": 0.8}, "b finds fewer faces, by ", "a is better."),
        ({"faces": 1.2}, "b finds more faces, by ", "Neither can be called better."),
        (
            {"faces": 0.8, "faster": 0.7},
            "b finds fewer faces, by ",
            "Neither is better in everything.",
        ),
    ],
)
def test_each_difference_is_found_and_weighed(
    factors: dict[str, float], sentence: str, conclusion: str
) -> None:
    text = said(traffic(2, **factors))
    assert sentence in text
    assert text.endswith(conclusion)


def test_between_equal_arms_a_difference_is_seldom_seen() -> None:
    """All figures together may be wrong in one trial of twenty: of 40, seldom more than 5 are."""
    invented = 0
    for seed in range(40):
        differences = [f.difference for f in compare_arms(TRIAL, traffic(100 + seed), []).figures]
        invented += any(difference.excludes_zero for difference in differences)
    assert invented <= 5
    assert "No difference can be seen in: errors; faces a picture;" in said(traffic(100))


@pytest.mark.parametrize(("minutes", "pace"), [(1, 3000), (5, 600), (60, 1)])
def test_too_little_data_is_called_so_and_gives_no_interval(minutes: int, pace: int) -> None:
    comparison = compare_arms(TRIAL, traffic(3, minutes, pace, faster=0.2), [])
    assert verdict(comparison)[0].startswith("Too little data: ")
    assert all(math.isnan(f.difference.low) for f in comparison.figures)
    assert "In brackets" not in to_text(comparison)


def test_an_arm_without_answers_is_too_little_data() -> None:
    only_a = [outcome for outcome in traffic(4) if outcome.arm == "a"]
    text = to_text(compare_arms(TRIAL, only_a, []))
    assert "b has 0 pictures in 0 different times" in text


def test_a_burst_of_failures_in_one_minute_is_not_taken_for_a_worse_arm() -> None:
    outcomes = [replace(outcome, errors=0) for outcome in traffic(5)]
    outcomes[1] = replace(outcomes[1], errors=30)  # a worker was lost while b's requests ran
    assert "fails more often" not in said(outcomes)


def test_minutes_of_several_replicas_add_up() -> None:
    outcomes = traffic(6)
    both = compare_arms(TRIAL, [*outcomes, *traffic(7)], [])
    one = compare_arms(TRIAL, outcomes, [])
    assert both.answers["a"] > 1.9 * one.answers["a"]
    assert both.minutes == one.minutes == (BEGIN, BEGIN + 59)


# Reports ----------------------------------------------------------------------------------------


def ids(arm: Arm, count: int) -> list[str]:
    """Return request ids of an arm."""
    found = [f"r{n}" for n in range(50 * count) if TRIAL.arm_of(f"r{n}") == arm]
    return found[:count]


def reports(arm: Arm, count: int, *places: Place) -> list[Report]:
    return [Report(id, PROFILES[arm], None, None, places) for id in ids(arm, count)]


def reported(given: Sequence[Report]) -> dict[str, tuple[int, int]]:
    """Return the answers of a and b that were reported, by kind."""
    outcomes = traffic(8)
    comparison = compare_arms(TRIAL, outcomes, [], given)
    count = comparison.answers
    return {
        f.name: (round(f.a.value * count["a"]), round(f.b.value * count["b"]))
        for f in comparison.figures[-2:]
    }


def test_reports_are_counted_by_arm_and_kind() -> None:
    given = [*reports("a", 5, MISSED), *reports("b", 3, MISSED, MISSED, FALSE)]
    assert reported(given) == {
        "reports of missed faces": (5, 3),
        "reports of false faces": (0, 3),
    }


def test_an_answer_that_is_reported_again_counts_once() -> None:
    assert reported(reports("b", 1, MISSED) * 9)["reports of missed faces"] == (0, 1)


def test_without_a_request_id_the_profile_tells_the_arm_and_without_both_nothing() -> None:
    given = [
        Report("", "fast", None, None, (MISSED,), id=1),
        Report("", "fast", None, None, (MISSED,), id=2),
        Report("", "", None, None, (MISSED,), id=3),
        Report("", "privacy", None, None, (MISSED,), id=4),
    ]
    assert reported(given)["reports of missed faces"] == (0, 2)


def test_a_request_that_named_its_profile_is_in_no_arm() -> None:
    """Its answer came from b's profile, but its id is one of a's."""
    given = [Report(id, "fast", None, None, (MISSED,)) for id in ids("a", 4)]
    assert reported(given)["reports of missed faces"] == (0, 0)


def test_more_reports_of_one_arm_are_found() -> None:
    text = said(traffic(9), [*reports("a", 10, MISSED), *reports("b", 40, MISSED)])
    assert "b has more reports of missed faces, by " in text
    assert text.endswith("a is better.")


# Shadow -----------------------------------------------------------------------------------------


def shadowed(seed: int, minutes: int = 40, *, slower: float = 0.0) -> list[Pairs]:
    rng = np.random.default_rng(seed)
    pairs = []
    for minute in range(BEGIN, BEGIN + minutes):
        count = int(rng.poisson(20))
        faces = int(rng.poisson(3 * count))
        matched = int(rng.binomial(faces, 0.9))
        only_a = int(rng.binomial(faces - matched, 0.5))
        seconds = float(rng.lognormal(-3, 0.5, count).sum())
        other = seconds + float(rng.normal(slower, 0.004, count).sum())
        only_b = faces - matched - only_a
        pairs.append(Pairs(minute, count, matched, only_a, only_b, 0.8 * matched, seconds, other))
    return pairs


def test_the_shadow_says_how_far_both_agree_and_which_is_faster() -> None:
    comparison = compare_arms(SHADOW, [], shadowed(1, slower=-0.01))
    shadow = comparison.shadow
    assert shadow is not None
    assert shadow.agreement.low < 0.9 < shadow.agreement.high
    assert shadow.iou.value == pytest.approx(0.8)
    assert shadow.latency.low < -0.01 < shadow.latency.high < 0
    text = to_text(comparison)
    assert "b is faster on the same pictures, by " in text
    assert "in the shadow" in text


def test_the_shadow_invents_no_difference() -> None:
    seen = 0
    for seed in range(100):
        shadow = compare_arms(SHADOW, [], shadowed(200 + seed)).shadow
        assert shadow is not None
        seen += shadow.latency.excludes_zero
    assert seen <= 12


def test_a_short_shadow_is_too_little_data() -> None:
    assert "Too little data" in to_text(compare_arms(SHADOW, [], shadowed(2, minutes=4)))


def test_a_shadow_in_which_there_was_no_face_is_no_reason_to_fail() -> None:
    pairs = [Pairs(BEGIN + n, 20, seconds_a=1, seconds_b=1 + n % 2) for n in range(40)]
    assert "faces that both found      -" in to_text(compare_arms(SHADOW, [], pairs))


# The file and the words -------------------------------------------------------------------------


def test_trials_of_a_file_are_told_apart_with_the_reports_of_their_time(tmp_path: Path) -> None:
    clock = [60.0 * (BEGIN + 5)]
    second = Trial("privacy", 0.5)
    with Store(tmp_path / "quality.db", clock=lambda: clock[0]) as store:
        later = [replace(o, minute=o.minute + 1000) for o in traffic(11)]
        store.put_counts(second, [replace(o, profile="privacy") for o in later], [])
        store.put_counts(TRIAL, traffic(10), [])
        store.put_counts(Trial("fast", 0.9), [], [])  # counted nothing
        for report in reports("b", 7, MISSED):
            store.add_report(report)
        clock[0] += 60.0 * 1000
        store.add_report(Report("", "privacy", None, None, (MISSED,)))
        first, last = compare_trials(store)
    assert (first.trial, last.trial) == (TRIAL, second)
    assert round(first.figures[-2].b.value * first.answers["b"]) == 7
    assert last.figures[-2].b.value == 0  # both arms served "privacy" there


def test_json_holds_all_figures_and_the_verdict() -> None:
    record = to_json(compare_arms(TRIAL, traffic(12), []))
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert tuple(record["figures"]) == FIGURES
    assert set(record["figures"]["latency, P95"]["difference"]) == {"value", "low", "high"}
    shadow = to_json(compare_arms(SHADOW, [], shadowed(3)))
    assert json.dumps(shadow, allow_nan=False)
    assert shadow["shadow"]["agreement"]["low"] > 0.8


def test_the_table_shows_every_figure_with_its_interval() -> None:
    lines = to_text(compare_arms(TRIAL, traffic(13), [])).splitlines()
    assert "a (accurate)" in lines[1]
    for name in FIGURES:
        (line,) = (line for line in lines if line.startswith(name + " "))
        assert line.count(" to ") == 3
