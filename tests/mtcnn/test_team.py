from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unface.mtcnn.team import ALONE, Team, cores, shares


@pytest.fixture
def team() -> Iterator[Team]:
    opened = Team(3)
    yield opened
    opened.close()


def helpers() -> int:
    return sum(thread.name.startswith("unface-team") for thread in threading.enumerate())


def test_results_come_in_order_whoever_is_first(team: Team) -> None:
    def slow_at_first(n: int) -> int:
        time.sleep(0.02 if n < 3 else 0)
        return n * n

    assert team.map(slow_at_first, range(20)) == [n * n for n in range(20)]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 50])
def test_every_item_is_done_once(team: Team, count: int) -> None:
    done: list[int] = []
    team.map(done.append, range(count))
    assert sorted(done) == list(range(count))


def test_the_caller_works_too_and_so_do_all_threads(team: Team) -> None:
    """Three items that wait for one another: fewer than three threads would wait for ever."""
    meeting = threading.Barrier(3, timeout=10)
    names = team.map(lambda _: (meeting.wait(), threading.current_thread().name)[1], range(3))
    assert len(set(names)) == 3
    assert threading.current_thread().name in names


def test_one_thread_or_one_item_starts_no_thread(team: Team) -> None:
    before = helpers()
    assert team.map(str, []) == []
    assert team.map(str, [1]) == ["1"]
    assert Team(1).map(str, range(9)) == ALONE.map(str, range(9))
    assert helpers() == before
    team.map(str, range(2))
    assert helpers() > before


@pytest.mark.parametrize("bad", range(6))
def test_an_exception_of_any_item_reaches_the_caller_and_the_team_goes_on(
    team: Team, bad: int
) -> None:
    def picky(n: int) -> int:
        time.sleep(0.002)
        if n == bad:
            raise KeyError(n)
        return n

    for _ in range(3):
        with pytest.raises(KeyError, match=str(bad)):
            team.map(picky, range(6))
        assert team.map(str, range(6)) == [*"012345"]


def test_an_exception_in_another_thread_reaches_the_caller(team: Team) -> None:
    caller = threading.current_thread()
    meeting = threading.Barrier(3, timeout=10)

    def only_helpers_fail(n: int) -> int:
        meeting.wait()  # so that each thread has one
        if threading.current_thread() is not caller:
            raise MemoryError(n)
        return n

    with pytest.raises(MemoryError):
        team.map(only_helpers_fail, range(3))


def test_nobody_works_any_more_when_the_caller_hears_of_an_exception(team: Team) -> None:
    """They work on arrays of the caller, which may change them as soon as it has control."""
    working = 0
    lock = threading.Lock()

    def work(n: int) -> None:
        nonlocal working
        with lock:
            working += 1
        time.sleep(0.005 * (n + 1))
        with lock:
            working -= 1
        if n == 0:
            raise ValueError(n)

    with pytest.raises(ValueError, match="0"):
        team.map(work, range(9))
    assert working == 0


def test_a_closed_team_may_be_used_again(team: Team) -> None:
    before = helpers()
    for _ in range(2):
        assert team.map(str, range(5)) == [*"01234"]
        team.close()
        assert helpers() == before
        team.close()  # twice is once


@given(st.integers(0, 1000), st.integers(-3, 70))
def test_shares_are_runs_of_nearly_equal_length_that_leave_nothing_out(
    length: int, count: int
) -> None:
    runs = shares(length, count)
    assert [n for run in runs for n in range(*run)] == list(range(length))
    assert 1 <= len(runs) <= max(count, 1)
    sizes = [end - begin for begin, end in runs]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) > 0 or runs == [(0, 0)]  # of nothing: one run, empty


FORKED = """
import os, signal
from unface.mtcnn.team import Team
team = Team(3)
assert team.map(abs, range(-9, 0)) == list(range(9, 0, -1))
if os.fork() == 0:
    signal.alarm(20)  # ends a process that waits for threads it has not
    assert team.map(abs, range(-9, 0)) == list(range(9, 0, -1))
    team.close()
    os._exit(7)
assert os.WEXITSTATUS(os.wait()[1]) == 7
team.close()
"""


def test_a_forked_process_has_threads_of_its_own() -> None:
    """As `multiprocessing` and many web servers make them, after a detection or before."""
    command = [sys.executable, "-W", "ignore", "-c", FORKED]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("quota", "most"),
    [("100000 100000", 1), ("50000 100000", 1), ("max 100000", 64), ("nonsense", 64), ("", 64)],
)
def test_a_container_s_share_of_the_cores_is_all_there_is(
    quota: str, most: int, tmp_path: Path
) -> None:
    file = tmp_path / "cpu.max"
    assert cores(file) == len(os.sched_getaffinity(0))  # there is no such file yet
    file.write_text(quota)
    assert cores(file) == min(len(os.sched_getaffinity(0)), most)
