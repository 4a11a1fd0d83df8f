import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from unface.server.scheduler import Closed
from unface.server.streams import FRAMES_AHEAD, Streams


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 10))


class Peer:
    """A client's end: frames it sends, answers it gets, and how many frames are under way."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.read = 0
        self.answers: list[int] = []
        self.stop_after: int | None = None
        self.running = 0

    async def frames(self) -> AsyncIterator[int]:
        for number in range(self.count):
            if number == self.stop_after:
                await asyncio.Event().wait()
            self.read += 1
            assert self.read - len(self.answers) <= FRAMES_AHEAD
            yield number

    async def write(self, answer: int) -> None:
        await asyncio.sleep(0)
        self.answers.append(answer)

    async def answer(self, frame: int) -> int:
        self.running += 1
        try:
            await asyncio.sleep(0.002 * (frame % 3))  # later frames are often ready first
            return frame * 10
        finally:
            self.running -= 1


@pytest.mark.parametrize("count", [0, 1, 2, 20])
def test_answers_come_in_order_and_little_is_read_ahead(count: int) -> None:
    async def scenario() -> None:
        peer = Peer(count)
        await Streams().relay(peer.frames(), peer.answer, peer.write)
        assert peer.answers == [10 * n for n in range(count)]

    run(scenario())


def test_a_frame_is_answered_before_the_next_one_comes() -> None:
    async def scenario() -> None:
        peer = Peer(5)
        peer.stop_after = 1
        stream = asyncio.create_task(Streams().relay(peer.frames(), peer.answer, peer.write))
        while not peer.answers:
            await asyncio.sleep(0.001)
        stream.cancel()
        await asyncio.gather(stream, return_exceptions=True)

    run(scenario())


def test_a_slow_reader_of_answers_holds_the_sender() -> None:
    async def scenario() -> None:
        peer = Peer(20)
        never = asyncio.Event()

        async def blocked(answer: int) -> None:
            await never.wait()

        stream = asyncio.create_task(Streams().relay(peer.frames(), peer.answer, blocked))
        await asyncio.sleep(0.03)
        assert peer.read == FRAMES_AHEAD
        stream.cancel()
        await asyncio.gather(stream, return_exceptions=True)

    run(scenario())


def test_a_vanished_client_leaves_nothing_running() -> None:
    async def scenario() -> None:
        peer = Peer(20)
        never = asyncio.Event()

        async def endless(frame: int) -> int:
            peer.running += 1
            try:
                await never.wait()
            finally:
                peer.running -= 1
            return frame

        before = asyncio.all_tasks()
        stream = asyncio.create_task(Streams().relay(peer.frames(), endless, peer.write))
        await asyncio.sleep(0.01)
        assert peer.running == FRAMES_AHEAD
        stream.cancel()
        await asyncio.gather(stream, return_exceptions=True)
        assert peer.running == 0
        assert asyncio.all_tasks() == before

    run(scenario())


def test_an_error_while_reading_is_raised_once_what_was_read_is_answered() -> None:
    async def broken() -> AsyncIterator[int]:
        yield 1
        raise ConnectionError("gone")

    async def scenario() -> None:
        peer = Peer(0)
        with pytest.raises(ConnectionError):
            await Streams().relay(broken(), peer.answer, peer.write)
        assert peer.answers == [10]

    run(scenario())


def test_an_error_while_writing_ends_the_stream_and_what_is_under_way() -> None:
    async def broken(answer: int) -> None:
        raise ConnectionError("gone")

    async def scenario() -> None:
        peer = Peer(20)
        with pytest.raises(ConnectionError):
            await Streams().relay(peer.frames(), peer.answer, broken)
        assert peer.running == 0

    run(scenario())


def test_closing_ends_idle_streams_after_their_last_answer() -> None:
    async def scenario() -> None:
        streams, peer = Streams(), Peer(20)
        peer.stop_after = 3
        stream = asyncio.create_task(streams.relay(peer.frames(), peer.answer, peer.write))
        while peer.read < 3:
            await asyncio.sleep(0.001)
        streams.close()
        with pytest.raises(Closed, match="shutting down"):
            await stream
        assert peer.answers == [0, 10, 20]

    run(scenario())
