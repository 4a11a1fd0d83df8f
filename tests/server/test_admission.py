import asyncio
from collections.abc import Coroutine
from contextlib import ExitStack
from typing import Any

import pytest

from unface.errors import Overloaded
from unface.server.admission import BURST_SECONDS, Admission
from unface.server.config import ServerConfig
from unface.server.jobs import Job


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 10))


def job(client: str = "a", size: int = 0, pixels: int = 1) -> Job:
    return Job("id", "Detect", b"", bytes(size), None, pixels, client)


def refused(admission: Admission, one: Job, match: str) -> Overloaded:
    with pytest.raises(Overloaded, match=match) as caught, admission.request(one):
        pass
    return caught.value


def test_too_many_bytes_are_refused_but_one_request_always_gets_in() -> None:
    async def scenario() -> None:
        admission = Admission(ServerConfig(queue_bytes=1024))
        with admission.request(job(size=9000)):
            refused(admission, job(size=1), "hold 9000 bytes and 1 more exceed the limit of 1024")
        with admission.request(job(size=600)), admission.request(job(size=424)):
            refused(admission, job(size=1), "try again later")

    run(scenario())


def test_a_client_s_requests_are_bounded_and_others_are_not_touched() -> None:
    async def scenario() -> None:
        admission = Admission(ServerConfig(client_requests=2))
        with admission.request(job("a")), admission.request(job("a")):
            refused(admission, job("a"), "this client has 2 requests under way")
            with admission.request(job("b")):
                pass
        with admission.request(job("a")):
            pass

    run(scenario())


def test_streams_are_bounded_for_all_and_for_each_client() -> None:
    async def scenario() -> None:
        admission = Admission(ServerConfig(max_streams=3, client_streams=2))
        with ExitStack() as held:
            held.enter_context(admission.stream("a"))
            held.enter_context(admission.stream("a"))
            with pytest.raises(Overloaded, match="this client has 2 streams open"):
                held.enter_context(admission.stream("a"))
            held.enter_context(admission.stream("b"))
            with pytest.raises(Overloaded, match="3 streams are open already"):
                held.enter_context(admission.stream("c"))
            assert admission.streams == 3
        assert admission.streams == 0
        with admission.stream("a"):
            pass

    run(scenario())


def test_a_client_has_so_many_pixels_a_second_and_is_told_when_there_are_more() -> None:
    async def scenario() -> None:
        admission = Admission(ServerConfig(client_pixels_per_second=1000))
        burst = int(1000 * BURST_SECONDS)
        with admission.request(job(pixels=burst)):
            pass
        error = refused(admission, job(pixels=500), "has had its 1000 pixels a second")
        assert error.retry_ms is not None
        assert 400 <= error.retry_ms <= 500
        with admission.request(job("b", pixels=burst)):
            pass
        await asyncio.sleep(0.55)
        with admission.request(job(pixels=500)):
            pass

    run(scenario())


def test_a_picture_larger_than_the_burst_passes_once_and_is_paid_for_later() -> None:
    async def scenario() -> None:
        admission = Admission(ServerConfig(client_pixels_per_second=1000))
        with admission.request(job(pixels=50_000)):
            pass
        error = refused(admission, job(pixels=1), "send more slowly")
        assert error.retry_ms == 10_000  # the most that is told; it would be 48 s

    run(scenario())


def test_idle_is_when_nothing_is_held_also_after_an_error() -> None:
    async def fail(admission: Admission) -> None:
        with admission.stream("a"), admission.request(job()):
            await asyncio.sleep(0.02)
            raise ValueError("bad")

    async def scenario() -> None:
        admission = Admission(ServerConfig())
        await admission.idle()
        failing = asyncio.create_task(fail(admission))
        await asyncio.sleep(0.01)
        idle = asyncio.create_task(admission.idle())
        await asyncio.sleep(0)
        assert not idle.done()
        await idle
        with pytest.raises(ValueError, match="bad"):
            await failing

    run(scenario())
