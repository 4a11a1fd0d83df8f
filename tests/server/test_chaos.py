"""Clients that cancel, stall, freeze and vanish; a worker killed; SIGTERM: each under load."""

import random
from collections.abc import Iterator

import pytest
from serving import ServerProcess, serving

from benchmarks import serving_http2 as http2
from benchmarks.serving_chaos import GROWTH, SPARE_FILES, Chaos, half_request, misbehave
from benchmarks.serving_kill import around, failures, killed_worker, terminated
from benchmarks.serving_server import IDLE_SHARE, is_serving, worker_ids


@pytest.fixture
def running() -> Iterator[ServerProcess]:
    with serving() as server:
        yield server


def lived_through(found: Chaos) -> None:
    assert failures(found.honest.calls) == {}
    assert found.honest.calls
    assert found.wrong == []
    assert found.idle_share <= IDLE_SHARE
    before, after = found.files
    assert after <= before + SPARE_FILES


def test_honest_clients_do_not_notice_those_that_misbehave(running: ServerProcess) -> None:
    found = misbehave(running, 5)
    lived_through(found)
    assert {"cancelled", "half a request", "answer never read", "slow readers", "frozen"} <= set(
        found.misdeeds
    )
    assert running.terminate() == 0


@pytest.mark.slow
def test_a_minute_of_misdeeds_leaves_no_memory_behind(running: ServerProcess) -> None:
    found = misbehave(running, 60)
    lived_through(found)
    assert found.end_bytes <= found.warm_bytes * (1 + GROWTH)


def test_a_killed_worker_costs_only_what_it_was_doing(running: ServerProcess) -> None:
    ids = worker_ids(running)
    calls, event = killed_worker(running, 5)
    under_way, after = around(calls, event)
    lost = failures(under_way)
    assert set(lost) <= {"UNAVAILABLE"}
    assert failures(calls) == lost, "calls failed that were not under way"
    assert after
    assert is_serving(running)
    assert worker_ids(running).isdisjoint(ids)


def test_sigterm_under_load_fails_nothing_that_was_sent_before(running: ServerProcess) -> None:
    calls, event, code = terminated(running, 3)
    assert code == 0
    before = [call for call in calls if call.sent < event]
    assert before
    assert failures(before) == {}
    # CANCELLED: gRPC's word for calls that arrive in the very moment it stops.
    assert set(failures(calls)) <= {"UNAVAILABLE", "CANCELLED"}


def test_half_requests_are_http2_up_to_where_they_end() -> None:
    rng = random.Random(1)  # noqa: S311
    said = dict(half_request(rng, b"message") for _ in range(300))
    assert len(said) == 10
    whole = said["request, then gone"]
    assert whole.startswith(http2.PREFACE)
    assert whole.startswith(said["half a preface"])
    assert len(said["half a request"]) < len(whole)
