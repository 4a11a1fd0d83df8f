"""Answers on their way out: in pieces, as fast as the client reads, counted until they are gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Iterable, Iterator
from contextlib import aclosing
from typing import Any, TypeAlias, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from unface.web.answers import to_json
from unface.web.problems import PROBLEM, problem
from unface.web.uploads import ClientLeft, Share

PIECE = 256 << 10  # bytes handed to the connection at once
Result = TypeVar("Result")
Some: TypeAlias = "Iterable[bytes | memoryview] | AsyncGenerator[bytes | memoryview, None]"


class CutOff(Exception):
    """An answer that has begun cannot be finished: the connection is to break."""


class Pieces(Response):
    """An answer sent piece by piece; without a length it is chunked.

    It holds on to `share` until it is sent. What ends it early breaks the connection, so that
    nothing looks whole that is not.
    """

    def __init__(
        self,
        pieces: Some,
        length: int | None,
        headers: dict[str, str],
        share: Share | None = None,
    ) -> None:
        sized = {} if length is None else {"content-length": str(length)}
        super().__init__(headers={**headers, **sized})
        if length is None:
            del self.headers["content-length"]
        self._pieces = pieces
        self._share = share

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        start = {"type": "http.response.start", "status": self.status_code}
        try:
            await send({**start, "headers": self.raw_headers})
            await while_there(receive, self._send(send))
        except ClientLeft:
            pass
        except CutOff:
            scope["state"]["cut"]()
            await until_left(receive)
        finally:
            if self._share is not None:
                self._share.release()

    async def _send(self, send: Send) -> None:
        async with aclosing(_each(self._pieces)) as pieces:
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def json_response(value: Any, headers: dict[str, str], status: int = 200) -> Response:
    """Return an answer in JSON."""
    return Response(to_json(value), status, headers, media_type="application/json")


def problem_response(
    reason: str, status: int, detail: str, request_id: str, headers: dict[str, str], **more: Any
) -> Response:
    """Return an answer that says what was wrong."""
    told = {**problem(reason, status, detail, request_id), **more}
    return Response(to_json(told), status, headers, media_type=PROBLEM)


def cut(image: bytes) -> Iterator[memoryview]:
    """Yield a file in pieces, without copying it."""
    view = memoryview(image)
    for start in range(0, len(view), PIECE):
        yield view[start : start + PIECE]


async def while_there(receive: Receive, work: Awaitable[Result]) -> Result:
    """Return what the work returns; once the client leaves, cancel it and raise `ClientLeft`.

    The body must have been read.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(until_left(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientLeft
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def until_left(receive: Receive) -> None:
    """Wait until the client has left, or has been answered."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _each(pieces: Some) -> AsyncGenerator[bytes | memoryview, None]:
    if isinstance(pieces, AsyncGenerator):
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece
    else:
        for piece in pieces:
            yield piece
