"""Real workers: killed, hung, refused, exchanged."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest
from serving import ODD_SERVER

from unface.errors import EngineError
from unface.server.config import ServerConfig
from unface.server.crew import Crew, NotReloaded, WorkerLost
from unface.server.jobs import Job, WorkFailed
from unface.v1 import unface_pb2 as pb


def program(*flags: str) -> list[str]:
    return [sys.executable, str(ODD_SERVER), *flags]


class Shift:
    """A crew and what it told."""

    def __init__(self, *flags: str, **config: Any) -> None:
        self.changes = 0
        self.lost = 0
        chosen = ServerConfig(device="cpu", **config)
        self.crew = Crew(chosen, self._changed, self._lost, program(*flags))

    def _changed(self) -> None:
        self.changes += 1

    def _lost(self) -> None:
        self.lost += 1

    async def __aenter__(self) -> "Shift":
        await self.crew.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.crew.close()

    async def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < end, "it does not happen"
            await asyncio.sleep(0.01)


def raw(width: int, height: int = 20) -> Job:
    pixels = np.full((height, width, 3), 99, np.uint8)
    request = pb.DetectRequest().SerializeToString()
    return Job("id", "Detect", request, pixels.tobytes(), (width, height), width * height, "a")


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 60))


async def width_of(crew: Crew, job: Job) -> int:
    crew.ready[0].start([job])
    return pb.DetectResponse.FromString((await job.future).body).width


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_workers_answer_batches_and_end_with_the_crew() -> None:
    async def scenario() -> None:
        async with Shift(workers=2, threads=1) as shift:
            pids = {worker.pid for worker in shift.crew.ready}
            assert len(pids) == 2
            for worker in shift.crew.ready:
                jobs = [raw(width) for width in (20, 21, 22)]
                worker.start(jobs)
                answers = [pb.DetectResponse.FromString((await j.future).body) for j in jobs]
                assert [answer.width for answer in answers] == [20, 21, 22]
                assert (worker.jobs, worker.batches, worker.pixels) == ({}, [], 0)
        assert not any(map(is_running, pids))

    run(scenario)


def test_an_error_is_its_picture_s_alone() -> None:
    async def scenario() -> None:
        async with Shift() as shift:
            jobs = [raw(20), raw(78), raw(79), raw(21)]
            jobs.append(Job("id", "Detect", b"", b"no picture", None, 1, "a"))
            bad_options = pb.DetectRequest(detect_options=pb.DetectOptions(min_face=1))
            jobs.append(
                Job("id", "Detect", bad_options.SerializeToString(), bytes(3), (1, 1), 1, "a")
            )
            shift.crew.ready[0].start(jobs)
            results = await asyncio.gather(*(j.future for j in jobs), return_exceptions=True)
            kinds = [r.kind if isinstance(r, WorkFailed) else "answer" for r in results]
            assert kinds == [
                "answer",
                "Internal",
                "EngineError",
                "answer",
                "InvalidImage",
                "InvalidOption",
            ]
            assert "secret" not in str(results[1])

    run(scenario)


def test_a_killed_worker_fails_its_own_jobs_and_is_replaced() -> None:
    async def scenario() -> None:
        async with Shift("--slow=30") as shift:
            (first,) = shift.crew.ready
            jobs = [raw(77), raw(77)]
            first.start(jobs)
            os.kill(first.pid, signal.SIGKILL)
            results = await asyncio.gather(*(j.future for j in jobs), return_exceptions=True)
            assert [type(result) for result in results] == [WorkerLost, WorkerLost]
            await shift.until(lambda: bool(shift.crew.ready))
            assert shift.lost == 1
            assert shift.crew.ready[0].pid != first.pid
            assert await width_of(shift.crew, raw(20)) == 20

    run(scenario)


def test_a_picture_that_kills_workers_is_not_given_to_the_next_one() -> None:
    async def scenario() -> None:
        async with Shift() as shift:
            poison = raw(74)
            shift.crew.ready[0].start([poison])
            with pytest.raises(WorkerLost, match="try again"):
                await poison.future
            await shift.until(lambda: bool(shift.crew.ready))
            assert await width_of(shift.crew, raw(20)) == 20
            assert shift.lost == 1

    run(scenario)


def test_a_worker_that_hangs_is_replaced() -> None:
    async def scenario() -> None:
        async with Shift("--slow=1000", worker_seconds=1) as shift:
            (first,) = shift.crew.ready
            shift.crew.watch_time()
            hung = raw(77)
            first.start([hung])
            await asyncio.sleep(1.1)
            shift.crew.watch_time()
            with pytest.raises(WorkerLost):
                await hung.future
            await shift.until(lambda: bool(shift.crew.ready))
            assert await width_of(shift.crew, raw(20)) == 20

    run(scenario)


def test_a_stopped_worker_is_replaced_too() -> None:
    """SIGSTOP: it reads nothing and answers nothing, but its socket is open."""

    async def scenario() -> None:
        async with Shift(worker_seconds=1) as shift:
            (first,) = shift.crew.ready
            os.kill(first.pid, signal.SIGSTOP)
            job = raw(20)
            first.start([job])
            await asyncio.sleep(1.1)
            shift.crew.watch_time()
            with pytest.raises(WorkerLost):
                await job.future

    run(scenario)


def test_an_idle_worker_is_left_alone_however_long_it_has_nothing_to_do() -> None:
    async def scenario() -> None:
        async with Shift(worker_seconds=1) as shift:
            (first,) = shift.crew.ready
            await asyncio.sleep(1.2)
            shift.crew.watch_time()
            assert await width_of(shift.crew, raw(20)) == 20
            assert shift.crew.ready == [first]

    run(scenario)


def test_a_cancelled_job_stops_before_it_is_detected(capfd: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> None:
        async with Shift("--slow=0.4") as shift:
            (worker,) = shift.crew.ready
            first, second = raw(77), raw(77)
            worker.start([first])
            worker.start([second])
            await asyncio.sleep(0.1)
            assert second.cancel is not None
            second.cancel()
            with pytest.raises(WorkFailed) as caught:
                await second.future
            assert caught.value.kind == "Gone"
            await first.future
        assert capfd.readouterr().err.count("slow detection") == 1

    run(scenario)


def test_a_job_whose_deadline_passes_in_the_worker_stops_too() -> None:
    async def scenario() -> None:
        async with Shift("--slow=0.4") as shift:
            (worker,) = shift.crew.ready
            first, second = raw(77), raw(77)
            second.expires_at = time.monotonic() + 0.2
            worker.start([first])
            worker.start([second])
            with pytest.raises(WorkFailed, match="deadline passed") as caught:
                await second.future
            assert caught.value.kind == "Expired"
            await first.future

    run(scenario)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--broken",), "the warm-up detection failed: engine pnet"),
        (("--blind",), "found 0 faces in a picture of one"),
    ],
)
def test_engines_that_cannot_see_never_serve(flags: tuple[str, ...], message: str) -> None:
    async def scenario() -> None:
        shift = Shift(*flags)
        with pytest.raises(EngineError, match=message):
            await shift.crew.open()
        assert shift.crew.ready == []

    run(scenario)


def test_a_worker_that_cannot_even_start_is_an_error_and_no_wait() -> None:
    async def scenario() -> None:
        crew = Crew(ServerConfig(), lambda: None, lambda: None, [sys.executable, "-c", "0"])
        with pytest.raises(EngineError, match="ended while it was starting"):
            await crew.open()

    run(scenario)


def test_a_reload_exchanges_all_workers_and_loses_nothing() -> None:
    async def scenario() -> None:
        async with Shift("--slow=0.5", workers=2, threads=1) as shift:
            before = {worker.pid for worker in shift.crew.ready}
            under_way = raw(77)
            shift.crew.ready[0].start([under_way])
            info = await shift.crew.reload()
            assert info.backend
            assert before.isdisjoint(worker.pid for worker in shift.crew.ready)
            assert len(shift.crew.ready) == 2
            await under_way.future
            assert await width_of(shift.crew, raw(20)) == 20
            await shift.until(lambda: not any(map(is_running, before)))
            assert shift.lost == 0

    run(scenario)


def test_engines_that_do_not_pass_leave_the_old_ones_in_place(tmp_path: Any) -> None:
    """The folder of engines is emptied under the running server."""

    async def scenario() -> None:
        import shutil
        from pathlib import Path

        prebuilt = Path(ODD_SERVER).parents[2] / "engines" / "prebuilt"
        folder = tmp_path / "engines"
        shutil.copytree(prebuilt, folder)
        async with Shift(engines=str(folder)) as shift:
            before = [worker.pid for worker in shift.crew.ready]
            damaged = next(folder.glob("pnet.fp32.*"))
            for path in folder.glob("pnet.fp32.*"):
                path.write_bytes(path.read_bytes()[:-1] + b"x")
            with pytest.raises(NotReloaded, match="old engines go on serving: engine pnet"):
                await shift.crew.reload()
            assert damaged.exists()
            assert [worker.pid for worker in shift.crew.ready] == before
            assert await width_of(shift.crew, raw(20)) == 20

    run(scenario)


def test_long_bodies_go_both_ways() -> None:
    async def scenario() -> None:
        async with Shift() as shift:
            pixels = np.random.default_rng(1).integers(0, 256, (1500, 1000, 3), np.uint8)
            request = pb.AnonymizeRequest(
                anonymize_options=pb.AnonymizeOptions(format=pb.OUTPUT_FORMAT_RAW),
                detect_options=pb.DetectOptions(min_face=900),
            ).SerializeToString()
            job = Job("id", "Anonymize", request, pixels.tobytes(), (1000, 1500), 1, "a")
            shift.crew.ready[0].start([job])
            answer = pb.AnonymizeResponse.FromString((await job.future).body)
            assert answer.image.raw.rgb == pixels.tobytes()

    run(scenario)
