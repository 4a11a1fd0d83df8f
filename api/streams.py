"""Streams of frames over one call: requests go out, answers come back in their order."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Iterable,
    Iterator,
)
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar

import grpc

from unface.arguments import Image, is_file
from unface.calls import error_from_frame
from unface.errors import ServerError, UnfaceError
from unface.requests import Exchange

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class _Sent:
    number: int
    is_file: bool


@dataclass(frozen=True)
class _Broken:
    """The caller's frames raised an error of their own."""

    error: BaseException


_LAST_FRAME, _CALL_OVER = object(), object()
_Became = _Sent | _Broken | UnfaceError | object
_ENDED_EARLY = "the server ended the stream before its last frame"
_TOO_MANY = "the server gave more answers than there were frames"


def stream(
    rpc: Any,
    frames: Iterable[Image],
    exchange: Exchange[Answer],
    **call_options: Any,
) -> Iterator[Answer | UnfaceError]:
    """Send a request for each frame and yield an answer for each, in order.

    A frame of which no request can be made is not sent; its error takes its place among the
    answers. gRPC takes requests on a thread of its own, which tells this one what each frame
    became. Raises `grpc.RpcError` when the call as a whole fails.
    """
    became: SimpleQueue[_Became] = SimpleQueue()

    def requests() -> Iterator[Any]:
        try:
            for number, frame in enumerate(frames):
                try:
                    message = _request(exchange, frame, number)
                except UnfaceError as error:
                    became.put(error)
                    continue
                became.put(_Sent(number, is_file(frame)))
                yield message
        except Exception as error:  # noqa: BLE001 - raised again on the caller's thread
            became.put(_Broken(error))
        became.put(_LAST_FRAME)

    call = rpc(requests(), **call_options)
    call.add_callback(lambda: became.put(_CALL_OVER))  # wakes us when the call fails between frames
    try:
        while (frame := became.get()) not in (_LAST_FRAME, _CALL_OVER):
            if isinstance(frame, _Broken):
                raise frame.error
            if isinstance(frame, UnfaceError):
                yield frame
            elif isinstance(frame, _Sent):
                yield _answer(exchange, next(call, None), frame)
        if next(call, None) is not None:
            raise ServerError(_TOO_MANY)
        if frame is _CALL_OVER:
            raise ServerError(_ENDED_EARLY)
    finally:
        call.cancel()


async def stream_async(
    rpc: Any,
    frames: AsyncIterable[Image] | Iterable[Image],
    exchange: Exchange[Answer],
    **call_options: Any,
) -> AsyncGenerator[Answer | UnfaceError, None]:
    """Do what `stream` does in a coroutine; a task sends while this one reads."""
    became: asyncio.Queue[_Became] = asyncio.Queue()
    call = rpc(**call_options)
    call._cython_call = _FirstStatus(call._cython_call)

    async def send() -> None:
        number = 0
        try:
            async for frame in _each(frames):
                try:
                    message = await asyncio.to_thread(_request, exchange, frame, number)
                except UnfaceError as error:
                    became.put_nowait(error)
                else:
                    became.put_nowait(_Sent(number, is_file(frame)))
                    if not await _done(call.write(message)):
                        became.put_nowait(_CALL_OVER)
                        return
                number += 1
        except Exception as error:  # noqa: BLE001 - raised again in the caller's coroutine
            became.put_nowait(_Broken(error))
        else:
            became.put_nowait(_LAST_FRAME)
            await _done(call.done_writing())

    sender = asyncio.create_task(send())
    call.add_done_callback(lambda _: became.put_nowait(_CALL_OVER))
    try:
        while (frame := await became.get()) not in (_LAST_FRAME, _CALL_OVER):
            if isinstance(frame, _Broken):
                raise frame.error
            if isinstance(frame, UnfaceError):
                yield frame
            elif isinstance(frame, _Sent):
                response = await _read(call)
                yield await asyncio.to_thread(_answer, exchange, response, frame)
        if await _read(call) is not None:
            raise ServerError(_TOO_MANY)
        if frame is _CALL_OVER:
            raise ServerError(_ENDED_EARLY)
    finally:
        call.cancel()
        sender.cancel()
        await asyncio.wait([sender])  # it may be in the middle of the caller's frames


def _request(exchange: Exchange[Any], frame: Image, number: int) -> Any:
    message = exchange.request(frame)
    message.frame_id = number
    return message


def _answer(exchange: Exchange[Any], response: Any | None, frame: _Sent) -> Any:
    """Return what a response says of the frame it must belong to."""
    if response is None:
        raise ServerError(_ENDED_EARLY)
    if response.frame_id != frame.number:
        raise ServerError(
            f"frame {frame.number} was answered as {response.frame_id}: the server broke the order"
        )
    result = response.WhichOneof("result")
    if result is None:
        raise ServerError(f"the answer to frame {frame.number} is empty")
    if result == "error":
        return error_from_frame(response.error)
    return exchange.answer(response.response, frame.is_file)


async def _each(frames: AsyncIterable[Image] | Iterable[Image]) -> AsyncIterator[Image]:
    if isinstance(frames, AsyncIterable):
        async for frame in frames:
            yield frame
        return
    for frame in frames:
        yield frame


async def _done(writing: Awaitable[None]) -> bool:
    """Wait until it is sent; False once the call is over, of which the reader learns the reason."""
    try:
        await writing
    except (grpc.RpcError, asyncio.InvalidStateError):
        return False
    return True


async def _read(call: Any) -> Any | None:
    """Return the next response, None after the last."""
    response = await call.read()
    return None if response is grpc.aio.EOF else response  # type: ignore[attr-defined]


class _FirstStatus:
    """grpc.aio's inner call, without the status that a failed write makes up.

    A write fails when the server has ended the call. grpc.aio then says INTERNAL, drops the
    answers that are not read yet, and hides the server's own status:
    https://github.com/grpc/grpc/issues/36066.
    """

    def __init__(self, call: Any) -> None:
        self._call = call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def set_internal_error(self, words: str) -> None:
        """Fail the write, and leave the status to the server's."""
        raise asyncio.InvalidStateError(words)
