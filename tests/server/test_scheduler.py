import asyncio
import gc
import time
import weakref
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, cast

import pytest

from unface.errors import Overloaded
from unface.server.admission import Admission
from unface.server.config import ServerConfig
from unface.server.crew import Crew
from unface.server.jobs import BULK, Answer, Job
from unface.server.scheduler import BATCHES_AHEAD, Closed, Expired, Scheduler
from unface.v1 import unface_pb2 as pb


class Desk:
    """Stands for a worker: keeps its batches until a test lets it answer."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.batches: list[list[Job]] = []
        self.given: list[list[str]] = []  # request ids of each batch
        self.cancelled: list[str] = []

    @property
    def pixels(self) -> int:
        return sum(job.pixels for batch in self.batches for job in batch)

    @property
    def jobs(self) -> dict[int, Job]:
        return dict(enumerate(job for batch in self.batches for job in batch))

    def start(self, batch: Sequence[Job]) -> None:
        self.batches.append(list(batch))
        self.given.append([job.request_id for job in batch])
        for job in batch:
            job.cancel = partial(self.cancelled.append, job.request_id)

    def answer(self) -> None:
        """Answer the oldest batch."""
        for job in self.batches.pop(0):
            if not job.future.done():
                job.future.set_result(Answer(job.request_id.encode()))
        self._scheduler.pump()


class Desks:
    """Stands for the crew."""

    def __init__(self, scheduler: Scheduler, count: int) -> None:
        self.ready = [Desk(scheduler) for _ in range(count)]
        self.info = pb.GetServerInfoResponse()


class Office:
    """A scheduler with desks; `ask` asks for pictures."""

    def __init__(self, desks: int = 1, **config: Any) -> None:
        self.sizes: list[int] = []
        chosen = ServerConfig(**config)
        self.scheduler = Scheduler(chosen, Admission(chosen), self.sizes.append)
        crew = Desks(self.scheduler, desks)
        self.scheduler.crew = cast(Crew, crew)
        self.desks = crew.ready
        self.desk = crew.ready[0]

    async def ask(
        self, *names: str, pixels: int = 1000, bucket: object = 0, **job: Any
    ) -> list[asyncio.Task[Answer]]:
        tasks = [
            asyncio.create_task(
                self.scheduler.run(
                    Job(
                        name,
                        "Detect",
                        b"",
                        b"",
                        None,
                        pixels,
                        **{"client": "a", "bucket": bucket, **job},  # type: ignore[arg-type]
                    )
                )
            )
            for name in names
        ]
        await asyncio.sleep(0.001)
        return tasks


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_answers_come_back_to_who_asked() -> None:
    async def scenario() -> None:
        office = Office()
        tasks = await office.ask("1", "2", "3")
        while office.desk.batches:
            office.desk.answer()
            await asyncio.sleep(0)
        assert [(await task).body for task in tasks] == [b"1", b"2", b"3"]

    run(scenario)


def test_an_idle_worker_begins_at_once_and_later_ones_are_batched_while_it_works() -> None:
    async def scenario() -> None:
        office = Office(batch_size=4)
        await office.ask(*"abcdefg")
        assert office.desk.given == [["a"], ["b"]]  # one in the detector, one being decoded
        office.desk.answer()
        assert office.desk.given[2:] == [["c", "d", "e", "f"]]
        office.desk.answer()
        assert office.desk.given[3:] == [["g"]]
        assert office.sizes == [1, 1, 4, 1]

    run(scenario)


def test_no_worker_has_more_than_two_batches() -> None:
    async def scenario() -> None:
        office = Office(desks=2, batch_size=1)
        await office.ask(*"abcdefgh")
        assert [len(desk.batches) for desk in office.desks] == [BATCHES_AHEAD, BATCHES_AHEAD]
        assert len(office.scheduler.load._asdict()) == 6
        assert office.scheduler.load.waiting == 8 - 2 * BATCHES_AHEAD

    run(scenario)


def test_the_worker_with_the_least_to_do_is_next() -> None:
    async def scenario() -> None:
        office = Office(desks=2, batch_size=1)
        await office.ask("large", pixels=5_000_000)
        await office.ask("one", "two", pixels=1000)
        assert office.desks[0].given == [["large"]]
        assert office.desks[1].given == [["one"], ["two"]]

    run(scenario)


def test_pictures_of_other_sizes_or_options_are_in_other_batches() -> None:
    async def scenario() -> None:
        office = Office()
        await office.ask("x", "y")
        await office.ask("small1", bucket=1)
        await office.ask("large", bucket=2)
        await office.ask("small2", bucket=1)
        office.desk.answer()
        office.desk.answer()
        assert office.desk.given[2:] == [["small1"], ["large"]]  # one client's stay in order
        office.desk.answer()
        assert office.desk.given[4:] == [["small2"]]

    run(scenario)


@pytest.mark.parametrize(
    ("device", "threads", "together"), [("", 1, 1), ("", 2, 2), ("", 8, 4), ("simulator", 1, 4)]
)
def test_of_large_pictures_a_cpu_takes_one_for_each_thread_and_a_gpu_many(
    device: str, threads: int, together: int
) -> None:
    async def scenario() -> None:
        office = Office()
        office.scheduler.crew.info.device = device
        office.scheduler.crew.info.threads = threads
        await office.ask("x", "y", pixels=2_000_000)
        await office.ask("1", "2", "3", "4", pixels=2_000_000)
        office.desk.answer()
        assert len(office.desk.given[2]) == together

    run(scenario)


def test_decoded_pixels_are_bounded_but_one_picture_always_gets_in() -> None:
    async def scenario() -> None:
        office = Office(max_decoded_pixels=1_000_000, batch_size=1)
        await office.ask("huge", pixels=9_000_000)
        assert office.desk.given == [["huge"]]
        await office.ask("next", pixels=10)
        assert office.desk.given == [["huge"]]
        office.desk.answer()
        assert office.desk.given == [["huge"], ["next"]]

    run(scenario)


def test_with_a_delay_a_picture_waits_for_others_but_not_longer() -> None:
    async def scenario() -> None:
        office = Office(batch_delay_ms=50, batch_size=3)
        await office.ask("a", "b")
        assert office.desk.given == []
        await asyncio.sleep(0.08)
        assert office.desk.given == [["a", "b"]]
        await office.ask("c", "d", "e")  # a full batch has nothing to wait for
        assert office.desk.given[1:] == [["c", "d", "e"]]

    run(scenario)


def test_a_full_queue_refuses_at_once_and_says_when_to_come_again() -> None:
    async def scenario() -> None:
        office = Office(queue_size=2, batch_size=1)
        await office.ask("1", "2", "3", "4")
        (refused,) = await office.ask("5")
        with pytest.raises(Overloaded, match="2 requests are waiting already") as caught:
            await refused
        assert caught.value.retry_ms is not None
        assert caught.value.retry_ms >= 10
        office.desk.answer()
        await asyncio.sleep(0.001)
        (taken,) = await office.ask("6")
        assert not taken.done()

    run(scenario)


async def learn(office: Office, seconds: float, pixels: int, times: int = 6) -> None:
    """Have pictures of a size answered, each after so long."""
    for n in range(times):
        await office.ask(f"learn{n}", pixels=pixels)
        await asyncio.sleep(seconds)
        office.desk.answer()
        await asyncio.sleep(0.001)


def test_who_would_wait_too_long_is_refused_by_what_pictures_took_before() -> None:
    async def scenario() -> None:
        office = Office(queue_ms=80, batch_size=1)
        await learn(office, 0.05, 1_000_000)
        await office.ask("1", "2", pixels=1_000_000)  # the worker has them
        await office.ask("3", pixels=1_000_000)
        assert 0.08 < office.scheduler.expected_wait < 0.3
        (refused,) = await office.ask("4", pixels=1_000_000)
        with pytest.raises(Overloaded, match=r"would wait for \d+ ms"):
            await refused

    run(scenario)


def test_a_small_picture_after_a_large_one_does_not_seem_slow() -> None:
    async def scenario() -> None:
        office = Office(batch_size=1)
        await learn(office, 0.01, 1_000_000)
        await office.ask("large", pixels=20_000_000)
        await office.ask("small", pixels=1000)
        await asyncio.sleep(0.2)
        office.desk.answer()
        office.desk.answer()
        await asyncio.sleep(0.001)
        await office.ask("1", "2", "3", pixels=1_000_000)
        assert 0.01 < office.scheduler.expected_wait < 0.06

    run(scenario)


def test_nothing_is_refused_for_its_wait_before_the_speed_is_known() -> None:
    async def scenario() -> None:
        office = Office(queue_ms=1, batch_size=1)
        tasks = await office.ask(*map(str, range(20)), pixels=10_000_000)
        assert not any(task.done() for task in tasks)

    run(scenario)


def test_a_cancelled_request_leaves_the_queue_at_once() -> None:
    async def scenario() -> None:
        office = Office(batch_size=1, queue_size=1)
        await office.ask("1", "2")
        (waiting,) = await office.ask("3")
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert office.scheduler.load.waiting == 0
        await office.ask("4")
        office.desk.answer()
        office.desk.answer()
        assert office.desk.given == [["1"], ["2"], ["4"]]
        assert office.desk.cancelled == []

    run(scenario)


def test_a_request_that_is_cancelled_just_as_its_turn_comes_harms_no_other() -> None:
    """Its future is cancelled at once, its own coroutine learns of it a moment later."""

    async def scenario() -> None:
        for expires_in in (3600.0, 0.05):
            office = Office(batch_size=1)
            await office.ask("1", "2")
            expires_at = time.monotonic() + expires_in
            (gone,) = await office.ask("3", expires_at=expires_at)
            (kept,) = await office.ask("4")
            time.sleep(0.06)  # the event loop sees nothing of it
            gone.cancel()
            office.desk.answer()  # in the same turn of the event loop
            office.desk.answer()
            await asyncio.sleep(0.001)
            with pytest.raises(asyncio.CancelledError):
                await gone
            office.desk.answer()
            assert (await kept).body == b"4"
            assert office.desk.given == [["1"], ["2"], ["4"]]
            assert office.scheduler.load.waiting == 0

    run(scenario)


def test_a_worker_is_told_of_a_cancelled_request_that_it_has() -> None:
    async def scenario() -> None:
        office = Office()
        (task,) = await office.ask("1")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert office.desk.cancelled == ["1"]
        office.desk.answer()

    run(scenario)


def test_a_request_whose_deadline_passes_in_the_queue_is_never_started() -> None:
    async def scenario() -> None:
        office = Office(batch_size=1)
        await office.ask("1", "2")
        (late,) = await office.ask("3", expires_at=time.monotonic() + 0.01)
        await asyncio.sleep(0.02)
        office.desk.answer()
        with pytest.raises(Expired, match="deadline passed"):
            await late
        assert office.desk.given == [["1"], ["2"]]

    run(scenario)


def test_interactive_requests_overtake_bulk_ones() -> None:
    async def scenario() -> None:
        office = Office(batch_size=1)
        await office.ask(*"abcdef", priority=BULK)
        await office.ask("person")
        office.desk.answer()
        office.desk.answer()
        assert ["person"] in office.desk.given[2:4]

    run(scenario)


def test_what_waits_is_finished_while_no_worker_is_ready_and_one_comes() -> None:
    async def scenario() -> None:
        office = Office()
        desks, office.scheduler.crew.ready[:] = list(office.desks), []
        (task,) = await office.ask("1")
        assert not task.done()
        office.scheduler.crew.ready[:] = desks
        office.scheduler.pump()
        desks[0].answer()
        assert (await task).body == b"1"

    run(scenario)


def test_closing_fails_what_waits_and_refuses_what_comes() -> None:
    async def scenario() -> None:
        office = Office(batch_size=1)
        begun = await office.ask("1", "2")
        (waiting,) = await office.ask("3")
        office.scheduler.close()
        with pytest.raises(Closed, match="shutting down"):
            await waiting
        (late,) = await office.ask("4")
        with pytest.raises(Closed, match="shutting down"):
            await late
        office.desk.answer()
        office.desk.answer()
        assert [(await task).body for task in begun] == [b"1", b"2"]

    run(scenario)


def test_a_picture_is_freed_without_garbage_collection_once_it_is_answered() -> None:
    async def scenario() -> None:
        office = Office()
        job = Job("1", "Detect", b"", b"", None, 1, "a")
        alive = weakref.ref(job)
        task = asyncio.create_task(office.scheduler.run(job))
        del job
        await asyncio.sleep(0.001)
        office.desk.answer()
        await task
        del task
        await asyncio.sleep(0)
        assert alive() is None

    gc.collect()
    gc.disable()
    try:
        run(scenario)
    finally:
        gc.enable()
