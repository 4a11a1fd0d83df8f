import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from unface.errors import Overloaded
from unface.server.admission import Admission


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 10))


async def hold(admission: Admission, size: int, until: asyncio.Event, log: list[int]) -> None:
    async with admission.picture(size):
        log.append(size)
        await until.wait()


def test_pictures_beyond_the_places_wait_in_order() -> None:
    async def scenario() -> None:
        admission = Admission(requests=10, max_bytes=100, pictures=2, streams=1)
        done, log = asyncio.Event(), []  # type: ignore[var-annotated]
        tasks = [asyncio.create_task(hold(admission, size, done, log)) for size in (1, 2, 3, 4)]
        await asyncio.sleep(0.01)
        assert log == [1, 2]
        done.set()
        await asyncio.gather(*tasks)
        assert log == [1, 2, 3, 4]

    run(scenario())


def test_too_many_requests_are_refused_at_once_and_taken_again_later() -> None:
    async def scenario() -> None:
        admission = Admission(requests=2, max_bytes=100, pictures=1, streams=1)
        done = asyncio.Event()
        tasks = [asyncio.create_task(hold(admission, 1, done, [])) for _ in range(2)]
        await asyncio.sleep(0.01)
        with pytest.raises(Overloaded, match="2 requests are waiting already"):
            async with admission.picture(1):
                pass
        done.set()
        await asyncio.gather(*tasks)
        async with admission.picture(1):
            pass

    run(scenario())


def test_too_many_bytes_are_refused_but_one_request_always_gets_in() -> None:
    async def scenario() -> None:
        admission = Admission(requests=10, max_bytes=100, pictures=3, streams=1)
        async with admission.picture(1000):
            with pytest.raises(Overloaded, match=r"hold 1000 bytes and 1 more exceed .* 100"):
                async with admission.picture(1):
                    pass
        async with admission.picture(60), admission.picture(40):
            with pytest.raises(Overloaded):
                async with admission.picture(1):
                    pass

    run(scenario())


def test_a_cancelled_wait_gives_its_place_back() -> None:
    async def scenario() -> None:
        admission = Admission(requests=2, max_bytes=100, pictures=1, streams=1)
        done = asyncio.Event()
        first = asyncio.create_task(hold(admission, 1, done, []))
        waiting = asyncio.create_task(hold(admission, 1, done, []))
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        third = asyncio.create_task(hold(admission, 1, done, []))
        done.set()
        await asyncio.gather(first, third)

    run(scenario())


def test_streams_beyond_the_limit_are_refused() -> None:
    async def scenario() -> None:
        admission = Admission(requests=1, max_bytes=1, pictures=1, streams=1)
        with (
            admission.stream(),
            pytest.raises(Overloaded, match="1 streams are open"),
            admission.stream(),
        ):
            pass
        with admission.stream():
            pass

    run(scenario())


def test_idle_is_when_nothing_is_held_also_after_an_error() -> None:
    async def fail(admission: Admission) -> None:
        with admission.stream():
            async with admission.picture(1):
                await asyncio.sleep(0.02)
                raise ValueError("bad")

    async def scenario() -> None:
        admission = Admission(requests=1, max_bytes=1, pictures=1, streams=1)
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
