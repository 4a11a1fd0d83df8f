"""`unface.AsyncClient` against a real server: what `unface.Client` does, in coroutines."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from serving import ServerProcess, free_port, serving_oddly

import unface
from unface.anonymize import encode
from unface.errors import InvalidImage, InvalidOption, ServerError, Unavailable

Image = NDArray[np.uint8]
Test = Callable[[unface.AsyncClient], Coroutine[Any, Any, None]]


def run(target: str, test: Test) -> None:
    async def main() -> None:
        async with unface.AsyncClient(target) as client:
            await test(client)

    asyncio.run(main(), debug=True)


def public(kind: type) -> dict[str, Any]:
    return {
        name: member
        for name, member in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
    }


def test_both_clients_offer_the_same_with_the_same_arguments() -> None:
    one, other = public(unface.Client), public(unface.AsyncClient)
    assert one.keys() == other.keys()
    assert len(one) == 10
    for name in one:
        here = inspect.signature(one[name]).parameters
        there = inspect.signature(other[name]).parameters
        assert [(p.name, p.kind, p.default) for p in here.values()] == [
            (p.name, p.kind, p.default) for p in there.values()
        ], name
    assert inspect.signature(unface.Client) == inspect.signature(unface.AsyncClient)


def test_both_clients_give_the_same_answers(
    server: ServerProcess, client: unface.Client, face: Image
) -> None:
    png = encode(face, "png")

    async def test(other: unface.AsyncClient) -> None:
        await other.wait_until_serving(5)
        faces = await other.detect(face)
        assert np.array_equal(faces.boxes, client.detect(face).boxes)
        assert len(faces) == 1
        assert [len(found) for found in await other.detect([face, png])] == [1, 1]
        assert await other.detect([]) == []
        clean = await other.anonymize(face, method="solid")
        assert np.array_equal(clean, client.anonymize(face, method="solid"))
        assert await other.anonymize(png, margin=0.5) == client.anonymize(png, margin=0.5)
        assert await other.info() == client.info()

    run(server.target, test)


def test_errors_are_the_same(server: ServerProcess, face: Image) -> None:
    async def test(client: unface.AsyncClient) -> None:
        for image in (b"", b"no picture", "/no/such/file.jpg", np.zeros((5, 5)), None):
            with pytest.raises(InvalidImage):
                await client.detect(image)  # type: ignore[arg-type]
        with pytest.raises(InvalidOption, match="min_face"):
            await client.detect(face, min_face=0)
        with pytest.raises(InvalidOption, match="for files"):
            await client.anonymize(face, quality=5)
        with pytest.raises(TypeError, match="smile"):
            await client.detect(face, smile=True)  # type: ignore[call-overload]

    run(server.target, test)


def test_many_calls_may_be_under_way(server: ServerProcess, face: Image) -> None:
    async def test(client: unface.AsyncClient) -> None:
        frames = [np.ascontiguousarray(face[: 150 + n]) for n in range(12)]
        found = await asyncio.gather(*map(client.detect, frames))
        assert [faces.height for faces in found] == list(range(150, 162))

    run(server.target, test)


def test_frames_come_from_either_kind_of_iterable(server: ServerProcess, face: Image) -> None:
    frames = [np.ascontiguousarray(face[: 150 + n]) for n in range(6)]

    async def camera() -> AsyncIterator[Image]:
        for frame in frames:
            await asyncio.sleep(0)
            yield frame

    async def test(client: unface.AsyncClient) -> None:
        for source in (frames, iter(frames), camera()):
            answers = [answer async for answer in client.detect_stream(source)]
            assert [a.height for a in answers if isinstance(a, unface.Faces)] == [*range(150, 156)]
        assert [a async for a in client.anonymize_stream([])] == []

    run(server.target, test)


def test_a_bad_frame_gives_its_error_in_its_place(server: ServerProcess, face: Image) -> None:
    frames: list[Any] = [face, b"bad", np.zeros((2, 2)), "/no/such/file", encode(face, "png")]

    async def test(client: unface.AsyncClient) -> None:
        answers = [answer async for answer in client.anonymize_stream(frames)]
        first, *bad, last = answers
        assert [type(answer) for answer in bad] == [InvalidImage] * 3
        assert not isinstance(first, Exception)
        assert not isinstance(last, Exception)
        assert isinstance(first.image, np.ndarray)
        assert isinstance(last.image, bytes)

    run(server.target, test)


def test_a_frame_is_asked_for_when_the_one_before_was_answered(
    server: ServerProcess, face: Image
) -> None:
    async def test(client: unface.AsyncClient) -> None:
        answered = asyncio.Semaphore(1)

        async def camera() -> AsyncIterator[Image]:
            for _ in range(4):
                await answered.acquire()
                yield face

        async for answer in client.detect_stream(camera()):
            assert isinstance(answer, unface.Faces)
            answered.release()

    run(server.target, test)


def test_what_the_frames_raise_is_raised_after_the_answers(
    server: ServerProcess, face: Image
) -> None:
    async def camera() -> AsyncIterator[Image]:
        yield face
        raise RuntimeError("unplugged")

    async def test(client: unface.AsyncClient) -> None:
        stream = client.detect_stream(camera())
        assert isinstance(await anext(stream), unface.Faces)
        with pytest.raises(RuntimeError, match="unplugged"):
            await anext(stream)

    run(server.target, test)


def test_a_stream_left_early_stops_its_camera_and_leaves_the_client_usable(
    server: ServerProcess, face: Image
) -> None:
    shown = []

    async def camera() -> AsyncIterator[Image]:
        while True:
            shown.append(True)
            yield face
            await asyncio.sleep(0)

    async def test(client: unface.AsyncClient) -> None:
        stream = client.detect_stream(camera())
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        before = len(shown)
        assert len(await client.detect(face)) == 1
        assert len(shown) == before

    run(server.target, test)


def test_a_task_that_is_cancelled_ends_its_stream(server: ServerProcess, face: Image) -> None:
    async def test(client: unface.AsyncClient) -> None:
        begun, never = asyncio.Event(), asyncio.Event()

        async def camera() -> AsyncIterator[Image]:
            yield face
            await never.wait()

        async def read() -> None:
            async for _ in client.detect_stream(camera()):
                begun.set()

        task = asyncio.create_task(read())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(await client.detect(face)) == 1

    run(server.target, test)


def test_a_timeout_bounds_a_whole_stream(server: ServerProcess, face: Image) -> None:
    async def test(client: unface.AsyncClient) -> None:
        with pytest.raises(ServerError, match=r"within 0.3 s"):
            async for _ in client.detect_stream((face for _ in range(10_000)), timeout=0.3):
                pass

    run(server.target, test)


def test_a_server_that_dies_ends_a_stream_that_waits_for_its_camera(face: Image) -> None:
    with serving_oddly() as running:

        async def test(client: unface.AsyncClient) -> None:
            async def camera() -> AsyncIterator[Image]:
                yield face
                await asyncio.Event().wait()

            stream = client.detect_stream(camera())
            assert isinstance(await anext(stream), unface.Faces)
            running.process.kill()
            with pytest.raises(Unavailable, match=running.target):
                await anext(stream)

        run(running.target, test)


def test_waiting_for_no_server_ends_with_what_to_do() -> None:
    async def test(client: unface.AsyncClient) -> None:
        with pytest.raises(Unavailable, match=r"has not answered after 0.3 s; .*unface serve"):
            await client.wait_until_serving(0.3)
        with pytest.raises(Unavailable, match="no server answers"):
            await client.detect(b"picture")

    run(f"127.0.0.1:{free_port()}", test)


def test_the_loop_goes_on_while_a_token_is_fetched(server: ServerProcess) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ticked = asyncio.Event()

        def fetch() -> str:  # only answers once the loop has done something else
            asyncio.run_coroutine_threadsafe(tick(), loop).result(10)
            return "a.b.c"

        async def tick() -> None:
            ticked.set()

        async with unface.AsyncClient(server.target, token=fetch) as client:
            await client.info()
        assert ticked.is_set()

    asyncio.run(main())


def test_it_is_made_where_a_loop_runs() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        unface.AsyncClient()
