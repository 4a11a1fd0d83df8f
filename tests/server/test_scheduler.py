import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest

from unface.errors import Overloaded
from unface.server.scheduler import Closed, Expired, Scheduler


class Gate:
    """Work that waits to be let through, and remembers what it was given."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.begun = threading.Event()
        self.seen: list[int] = []

    def __call__(self, job: int) -> int:
        self.begun.set()
        assert self.open.wait(10)
        self.seen.append(job)
        return job * 10


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


def held(gate: Gate, queue_size: int) -> tuple[Scheduler[int, int], Future[int]]:
    """Return a scheduler whose thread is busy with job 0."""
    scheduler = Scheduler(gate, queue_size)
    first = scheduler.submit(0)
    assert gate.begun.wait(10)
    return scheduler, first


def test_results_come_back_to_who_asked_in_the_order_asked(gate: Gate) -> None:
    scheduler, first = held(gate, 10)
    others = [scheduler.submit(job) for job in range(1, 6)]
    gate.open.set()
    assert [future.result(10) for future in (first, *others)] == [0, 10, 20, 30, 40, 50]
    assert gate.seen == [0, 1, 2, 3, 4, 5]
    assert scheduler.close()


def test_work_is_never_done_twice_at_a_time_and_always_on_one_thread() -> None:
    busy = threading.Lock()
    threads = set()

    def work(job: int) -> int:
        threads.add(threading.get_ident())
        assert busy.acquire(blocking=False)
        time.sleep(0.001)
        busy.release()
        return job

    scheduler = Scheduler(work, 100)
    submitters = [
        threading.Thread(target=lambda: [scheduler.submit(i).result(10) for i in range(5)])
        for _ in range(4)
    ]
    for thread in submitters:
        thread.start()
    for thread in submitters:
        thread.join()
    scheduler.close()
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_a_full_queue_refuses_at_once_and_takes_again_when_there_is_room(gate: Gate) -> None:
    scheduler, _ = held(gate, 2)
    scheduler.submit(1)
    second = scheduler.submit(2)
    with pytest.raises(Overloaded, match="2 requests are waiting already; try again later"):
        scheduler.submit(3)
    gate.open.set()
    second.result(10)
    assert scheduler.submit(4).result(10) == 40
    assert gate.seen == [0, 1, 2, 4]
    scheduler.close()


def test_a_cancelled_job_is_never_started_and_frees_its_place_at_once(gate: Gate) -> None:
    scheduler, _ = held(gate, 1)
    cancelled = scheduler.submit(1)
    assert cancelled.cancel()
    kept = scheduler.submit(2)
    gate.open.set()
    assert kept.result(10) == 20
    assert gate.seen == [0, 2]
    scheduler.close()


def test_an_expired_job_is_never_started(gate: Gate) -> None:
    scheduler, _ = held(gate, 2)
    late = scheduler.submit(1, expires_at=time.monotonic() + 0.01)
    in_time = scheduler.submit(2, expires_at=time.monotonic() + 60)
    time.sleep(0.02)
    gate.open.set()
    with pytest.raises(Expired, match="deadline passed"):
        late.result(10)
    assert in_time.result(10) == 20
    assert gate.seen == [0, 2]
    scheduler.close()


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt()])
def test_what_work_raises_goes_to_who_asked_and_the_thread_lives_on(error: BaseException) -> None:
    def work(job: int) -> int:
        if job == 1:
            raise error
        return job

    scheduler = Scheduler(work, 10)
    with pytest.raises(type(error)):
        scheduler.submit(1).result(10)
    assert scheduler.submit(2).result(10) == 2
    scheduler.close()


def test_close_finishes_what_is_queued_and_refuses_what_comes(gate: Gate) -> None:
    scheduler, first = held(gate, 5)
    queued = scheduler.submit(1)
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    gate.open.set()
    closing.join(10)
    assert (first.result(0), queued.result(0)) == (0, 10)
    with pytest.raises(Closed, match="shutting down"):
        scheduler.submit(2)


def test_close_in_a_hurry_fails_what_is_queued_and_says_whether_work_still_runs(gate: Gate) -> None:
    scheduler, first = held(gate, 5)
    queued = scheduler.submit(1)
    assert not scheduler.close(finish_queued=False, timeout=0.01)
    with pytest.raises(Closed):
        queued.result(0)
    gate.open.set()
    assert first.result(10) == 0
    assert scheduler.close()
    assert gate.seen == [0]


def test_closing_an_idle_scheduler_twice_is_fine() -> None:
    scheduler: Scheduler[int, int] = Scheduler(lambda job: job, 1)
    assert scheduler.close()
    assert scheduler.close()


def test_a_job_is_freed_without_garbage_collection_once_it_is_done() -> None:
    class Picture:
        pass

    def work(job: Picture) -> None:
        return None

    scheduler = Scheduler(work, 1)
    gc.collect()
    gc.disable()
    try:
        picture = Picture()
        alive = weakref.ref(picture)
        scheduler.submit(picture).result(10)
        del picture
        assert _soon(lambda: alive() is None)
    finally:
        gc.enable()
        scheduler.close()


def _soon(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 5
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


def test_awaiting_gives_the_result_and_what_was_raised() -> None:
    def work(job: int) -> float:
        return 1 / job

    async def scenario() -> float:
        with pytest.raises(ZeroDivisionError):
            await scheduler.run(0)
        return await scheduler.run(4)

    scheduler = Scheduler(work, 1)
    assert asyncio.run(scenario()) == 0.25
    scheduler.close()


def test_a_cancelled_await_takes_a_waiting_job_out_of_the_queue(gate: Gate) -> None:
    async def scenario() -> None:
        task = asyncio.create_task(scheduler.run(1))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        scheduler.submit(2)

    scheduler, _ = held(gate, 1)
    asyncio.run(scenario())
    gate.open.set()
    scheduler.close()
    assert gate.seen == [0, 2]


def test_a_cancelled_await_of_running_work_returns_only_when_the_work_has_ended(gate: Gate) -> None:
    async def scenario() -> None:
        task = asyncio.create_task(scheduler.run(1))
        while not gate.begun.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.sleep(0.02)
        assert not task.done()
        gate.open.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert gate.seen == [1]

    scheduler = Scheduler(gate, 1)
    asyncio.run(scenario())
    scheduler.close()
