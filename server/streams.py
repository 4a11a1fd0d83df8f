"""Bidirectional streams: one answer for each frame, in order, reading little ahead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from unface.server.scheduler import Closed

FRAMES_AHEAD = 2  # one in the detector, one being decoded; more only adds delay and memory

Frame = TypeVar("Frame")
Answer = TypeVar("Answer")


class Streams:
    """Relays streams and can end them all, so that an idle one never delays a shutdown."""

    def __init__(self) -> None:
        self._readers: set[asyncio.Task[None]] = set()

    async def relay(
        self,
        frames: AsyncIterable[Frame],
        answer: Callable[[Frame], Coroutine[Any, Any, Answer]],
        write: Callable[[Answer], Awaitable[None]],
    ) -> None:
        """Write `answer(frame)` for each frame, in order, with `FRAMES_AHEAD` of them under way.

        A frame is read only when there is room for it, so that flow control holds the sender.
        When this ends, however it ends, no answer is under way. Raises what reading or writing
        raised, and `Closed` after `close`, once the frames already read are answered.
        """
        room = asyncio.Semaphore(FRAMES_AHEAD)
        under_way: asyncio.Queue[asyncio.Task[Answer] | None] = asyncio.Queue()
        tasks: set[asyncio.Task[Answer]] = set()

        async def read() -> None:
            try:
                await room.acquire()
                async for frame in frames:
                    task = asyncio.create_task(answer(frame))
                    tasks.add(task)
                    under_way.put_nowait(task)
                    del frame, task
                    await room.acquire()
            finally:
                under_way.put_nowait(None)

        reader = asyncio.create_task(read())
        self._readers.add(reader)
        try:
            while (task := await under_way.get()) is not None:
                await write(await task)
                tasks.discard(task)
                room.release()
            await asyncio.wait([reader])
            if reader.cancelled():
                raise Closed("the server is shutting down; send the next frames later")
            reader.result()
        finally:
            self._readers.discard(reader)
            for left in (reader, *tasks):
                left.cancel()
            await asyncio.gather(reader, *tasks, return_exceptions=True)

    def close(self) -> None:
        """Stop reading from all streams: each answers what it has read and ends."""
        for reader in self._readers:
            reader.cancel()
