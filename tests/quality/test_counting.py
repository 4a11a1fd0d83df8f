"""What is counted of a trial reaches the file: now and then, at the end, and after trouble."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from unface.quality import store as store_module
from unface.quality.counting import MAX_MINUTES, Trials
from unface.quality.latencies import bin_of
from unface.quality.store import Store
from unface.quality.trials import Agreement, Outcome, Pairs, Trial

TRIAL = Trial("fast", 0.5)
NEVER = 3600.0


class Clock:
    def __init__(self) -> None:
        self.now = 6000.0

    def __call__(self) -> float:
        return self.now


def counted(path: Path) -> tuple[list[Outcome], list[Pairs]]:
    with Store(path) as store:
        ((_, outcomes, pairs),) = store.trials()
    return outcomes, pairs


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "quality.db"


def test_answers_and_failures_are_summed_by_minute_arm_and_profile(path: Path) -> None:
    clock = Clock()
    trials = Trials(Store(path), TRIAL, flush_seconds=NEVER, clock=clock)
    trials.observe("a", "accurate", "OK", 0.25, (0.9, 0.8))
    trials.observe("a", "accurate", "OK", 0.5, ())
    trials.observe("b", "fast", "OK", 0.125, (0.7,))
    trials.observe("b", "", "INTERNAL", 0.1, ())
    clock.now += 60
    trials.observe("a", "accurate", "DEADLINE_EXCEEDED", 9, ())
    trials.close()
    outcomes, _ = counted(path)
    first = Outcome(100, "a", "accurate", 2, 0, 0.75, 2, pytest.approx(1.7))
    first.latencies.update([bin_of(0.25), bin_of(0.5)])
    second = Outcome(100, "b", "fast", 1, 0, 0.125, 1, 0.7)
    second.latencies.update([bin_of(0.125)])
    assert sorted(outcomes, key=lambda o: (o.minute, o.arm, -o.answers)) == [
        first,
        second,
        Outcome(100, "b", "", 0, 1),
        Outcome(101, "a", "accurate", 0, 1),
    ]


@pytest.mark.parametrize(
    "code", ["CANCELLED", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED"]
)
def test_what_the_client_did_wrong_is_no_failure_of_an_arm(path: Path, code: str) -> None:
    trials = Trials(Store(path), TRIAL, flush_seconds=NEVER)
    trials.observe("a", "", code, 0.1, ())
    trials.observe("a", "accurate", "OK", 0.1, ())
    trials.close()
    ((outcome,), _) = counted(path)
    assert (outcome.answers, outcome.errors) == (1, 0)


def test_pairs_are_summed_by_minute(path: Path) -> None:
    trials = Trials(Store(path), Trial("fast", 1, shadow=True), flush_seconds=NEVER, clock=Clock())
    trials.observe_pair(Agreement(3, 1, 0, 2.5), 0.5, 0.25)
    trials.observe_pair(Agreement(1, 0, 2, 0.75), 0.5, 0.25)
    trials.close()
    assert counted(path)[1] == [Pairs(100, 2, 4, 1, 2, 3.25, 1.0, 0.5)]


def test_counts_are_written_while_the_trial_runs(path: Path) -> None:
    trials = Trials(Store(path), TRIAL, flush_seconds=0.01)
    reader = Store(path)
    for answers in (1, 2):
        trials.observe("a", "accurate", "OK", 0.1, ())
        wait_until(
            lambda want=answers: want == sum(o.answers for _, os, _ in reader.trials() for o in os)
        )
    reader.close()
    trials.close()


def test_a_minute_that_is_over_stays_as_it_was_when_others_follow(path: Path) -> None:
    clock = Clock()
    trials = Trials(Store(path), TRIAL, flush_seconds=NEVER, clock=clock)
    for _ in range(5):
        trials.observe("a", "accurate", "OK", 0.1, ())
        trials.flush()
        trials.observe("a", "accurate", "OK", 0.1, ())
        clock.now += 60
        trials.flush()
    trials.close()
    assert [o.answers for o in counted(path)[0]] == [2] * 5


def test_a_clock_that_goes_back_loses_nothing(path: Path) -> None:
    clock = Clock()
    trials = Trials(Store(path), TRIAL, flush_seconds=NEVER, clock=clock)
    for step in (0, 60, -120, 60):
        clock.now += step
        trials.observe("a", "accurate", "OK", 0.1, ())
        trials.flush()
    trials.close()
    assert sum(o.answers for o in counted(path)[0]) == 4


def test_nothing_is_lost_when_many_threads_count_while_it_is_written(path: Path) -> None:
    trials = Trials(Store(path), TRIAL, flush_seconds=0.001)
    with ThreadPoolExecutor(4) as threads:
        for _ in range(2000):
            threads.submit(trials.observe, "a", "accurate", "OK", 0.1, (0.5,))
    trials.close()
    outcomes, _ = counted(path)
    assert sum(o.answers for o in outcomes) == 2000
    assert sum(sum(o.latencies.values()) for o in outcomes) == 2000


def test_a_locked_file_is_logged_once_and_written_when_it_is_free(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "BUSY_SECONDS", 0.01)
    clock = Clock()
    trials = Trials(Store(path), TRIAL, flush_seconds=NEVER, clock=clock)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            trials.observe("a", "accurate", "OK", 0.1, ())
            clock.now += 60
            trials.flush()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "is locked" in caplog.text
    other.execute("COMMIT")
    other.close()
    trials.close()
    assert [o.answers for o in counted(path)[0]] == [1, 1, 1]


def test_while_nothing_can_be_written_memory_is_bounded(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "BUSY_SECONDS", 0.0)
    clock = Clock()
    trials = Trials(Store(path), TRIAL, flush_seconds=NEVER, clock=clock)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for _ in range(3 * MAX_MINUTES):
        trials.observe("a", "accurate", "OK", 0.1, ())
        trials.observe_pair(Agreement(1, 0, 0, 1.0), 0.1, 0.1)
        trials.flush()
        clock.now += 60
    other.execute("COMMIT")
    other.close()
    trials.close()
    outcomes, pairs = counted(path)
    assert len(outcomes) == len(pairs) == MAX_MINUTES + 1
    assert outcomes[-1].minute == (clock.now - 60) // 60
