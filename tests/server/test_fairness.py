import asyncio
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unface.server.fairness import WEIGHTS, FairQueue
from unface.server.jobs import BULK, INTERACTIVE, OVERHEAD_PIXELS, Job

MEGAPIXEL = 1_000_000


async def _job(client: str, pixels: int, priority: str, bucket: object) -> Job:
    return Job("id", "Detect", b"", b"", None, pixels, client, priority, bucket=bucket)  # type: ignore[arg-type]


def job(
    client: str, pixels: int = MEGAPIXEL, priority: str = INTERACTIVE, bucket: object = 0
) -> Job:
    return asyncio.run(_job(client, pixels, priority, bucket))


def taken(queue: FairQueue, count: int) -> list[Job]:
    jobs = []
    for _ in range(count):
        first = queue.first()
        assert first is not None
        queue.take(first)
        jobs.append(first)
    return jobs


def filled(*jobs: Job) -> FairQueue:
    queue = FairQueue()
    for one in jobs:
        queue.push(one)
    return queue


def test_an_empty_queue_has_nobody_first() -> None:
    queue = FairQueue()
    assert queue.first() is None
    assert (len(queue), queue.cost, queue.pixels) == (0, 0, 0)


def test_one_client_is_served_in_the_order_it_asked() -> None:
    jobs = [job("a") for _ in range(5)]
    assert taken(filled(*jobs), 5) == jobs


def test_a_flood_does_not_starve_who_comes_later() -> None:
    queue = filled(*(job("flood") for _ in range(50)))
    taken(queue, 10)
    late = job("late")
    queue.push(late)
    assert late in taken(queue, 2)


def test_turns_are_counted_in_pixels_and_not_in_calls() -> None:
    """A client with pictures ten times as large gets a tenth of the calls."""
    queue = filled(
        *(job("large", 10 * MEGAPIXEL) for _ in range(50)),
        *(job("small", MEGAPIXEL) for _ in range(500)),
    )
    counts = Counter(one.client for one in taken(queue, 220))
    assert 9 < counts["small"] / counts["large"] < 11


def test_small_pictures_are_not_free() -> None:
    queue = filled(*(job("tiny", 1) for _ in range(100)), job("other", OVERHEAD_PIXELS))
    assert "other" in {one.client for one in taken(queue, 4)}


def test_who_was_away_does_not_save_up_turns() -> None:
    queue = filled(job("a"))
    taken(queue, 1)
    for _ in range(40):
        queue.push(job("b"))
    taken(queue, 20)
    for _ in range(40):
        queue.push(job("a"))
    counts = Counter(one.client for one in taken(queue, 20))
    assert abs(counts["a"] - counts["b"]) <= 1


def test_interactive_work_goes_before_bulk_but_bulk_gets_its_share() -> None:
    queue = filled(
        *(job("archive", priority=BULK) for _ in range(100)),
        *(job("person") for _ in range(200)),
    )
    counts = Counter(one.priority for one in taken(queue, 180))
    assert counts[INTERACTIVE] / counts[BULK] == pytest.approx(
        WEIGHTS[INTERACTIVE] / WEIGHTS[BULK], rel=0.1
    )


def test_interactive_work_that_comes_late_is_next_or_next_but_one() -> None:
    queue = filled(*(job("archive", priority=BULK) for _ in range(100)))
    taken(queue, 30)
    person = job("person")
    queue.push(person)
    assert person in taken(queue, 2)


def always(chosen: list[Job], mate: Job) -> bool:
    return True


def test_a_batch_takes_what_is_alike_from_all_clients_in_their_order() -> None:
    a = [job("a", bucket="small") for _ in range(3)]
    b = [job("b", bucket="small"), job("b", bucket="large"), job("b", bucket="small")]
    queue = filled(*a, *b)
    batch = queue.alike(a[0], 8, always)
    assert set(map(id, batch)) == {id(one) for one in (*a, b[0])}
    for one in batch:
        queue.take(one)
    assert taken(queue, 2) == b[1:]


def test_a_batch_is_no_larger_than_asked_and_no_larger_than_fits() -> None:
    jobs = [job("a") for _ in range(10)]
    queue = filled(*jobs)
    assert queue.alike(jobs[0], 4, always) == jobs[:4]
    fits: Callable[[list[Job], Job], bool] = lambda chosen, mate: len(chosen) < 2  # noqa: E731
    assert queue.alike(jobs[0], 4, fits) == jobs[:2]
    assert queue.alike(jobs[0], 1, always) == jobs[:1]


ASKED = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.integers(1, 10**8),
        st.sampled_from([INTERACTIVE, BULK]),
        st.sampled_from([1, 2]),
        st.integers(0, 3),
    ),
    max_size=40,
)


@given(ASKED)
def test_every_job_comes_out_once_and_each_client_s_in_order(
    asked: list[tuple[str, int, str, int, int]],
) -> None:
    """Whatever is pushed, taken in batches or removed in between."""
    queue, waiting, out, removed = FairQueue(), [], [], []
    for client, pixels, priority, bucket, action in asked:
        new = job(client, pixels, priority, bucket)
        queue.push(new)
        waiting.append(new)
        if action == 1 and (first := queue.first()):
            for one in queue.alike(first, 3, always):
                queue.take(one)
                out.append(one)
        if action == 2:
            gone = next(one for one in waiting if one not in out and one not in removed)
            queue.remove(gone)
            removed.append(gone)
    left = len(queue)
    out += taken(queue, left)
    assert queue.first() is None
    assert (len(queue), queue.cost, queue.pixels) == (0, 0, 0)
    assert sorted(map(id, out + removed)) == sorted(map(id, waiting))
    for client in "abc":
        for priority in (INTERACTIVE, BULK):
            mine = [j for j in out if (j.client, j.priority) == (client, priority)]
            assert mine == [j for j in waiting if j in mine]
