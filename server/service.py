"""The RPCs of `unface.v1.Unface`: the thin door between gRPC and the pipeline."""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

import grpc

from unface.server.pipeline import Pipeline
from unface.server.status import REASON_KEY, failure_from_exception
from unface.server.streams import Streams
from unface.v1 import unface_pb2 as pb
from unface.v1.unface_pb2_grpc import UnfaceServicer

Answer = TypeVar("Answer")
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class UnfaceService(UnfaceServicer):
    """Answers with the pipeline's results and turns its errors into gRPC statuses."""

    def __init__(self, pipeline: Pipeline, info: Callable[[], pb.GetServerInfoResponse]) -> None:
        self._pipeline = pipeline
        self._info = info
        self.streams = Streams()

    async def Detect(self, request: pb.DetectRequest, context: Context) -> pb.DetectResponse:  # noqa: N802
        """Find the faces of one picture."""
        return await _or_abort(
            context, self._pipeline.detect(request, time.monotonic() + _seconds_left(context))
        )

    async def Anonymize(  # noqa: N802
        self, request: pb.AnonymizeRequest, context: Context
    ) -> pb.AnonymizeResponse:
        """Cover the faces of one picture."""
        return await _or_abort(
            context, self._pipeline.anonymize(request, time.monotonic() + _seconds_left(context))
        )

    async def DetectStream(  # type: ignore[override]  # noqa: N802 - a coroutine that writes will do
        self, request_iterator: AsyncIterable[pb.DetectRequest], context: Context
    ) -> None:
        """Find the faces of frame after frame."""
        expires_at = time.monotonic() + _seconds_left(context)

        async def answer(frame: pb.DetectRequest) -> pb.DetectStreamResponse:
            frame_id = frame.frame_id if frame.HasField("frame_id") else None
            try:
                response = await self._pipeline.detect(frame, expires_at)
            except Exception as error:  # noqa: BLE001 - the boundary: logged and told by status.py
                return pb.DetectStreamResponse(frame_id=frame_id, error=_frame_error(error))
            return pb.DetectStreamResponse(frame_id=frame_id, response=response)

        await _or_abort(context, self._relay(request_iterator, answer, context))

    async def AnonymizeStream(  # type: ignore[override]  # noqa: N802 - a coroutine that writes will do
        self, request_iterator: AsyncIterable[pb.AnonymizeRequest], context: Context
    ) -> None:
        """Cover the faces of frame after frame."""
        expires_at = time.monotonic() + _seconds_left(context)

        async def answer(frame: pb.AnonymizeRequest) -> pb.AnonymizeStreamResponse:
            frame_id = frame.frame_id if frame.HasField("frame_id") else None
            try:
                response = await self._pipeline.anonymize(frame, expires_at)
            except Exception as error:  # noqa: BLE001 - the boundary: logged and told by status.py
                return pb.AnonymizeStreamResponse(frame_id=frame_id, error=_frame_error(error))
            return pb.AnonymizeStreamResponse(frame_id=frame_id, response=response)

        await _or_abort(context, self._relay(request_iterator, answer, context))

    async def GetServerInfo(  # noqa: N802
        self, request: pb.GetServerInfoRequest, context: Context
    ) -> pb.GetServerInfoResponse:
        """Tell what serves at this moment."""
        return self._info()

    async def _relay(self, frames: AsyncIterable[Any], answer: Any, context: Context) -> None:
        with self._pipeline.admission.stream():
            await self.streams.relay(frames, answer, context.write)


async def _or_abort(context: Context, work: Awaitable[Answer]) -> Answer:
    """Return what the work returns, or end the RPC with the status of what it raised."""
    try:
        return await work
    except Exception as error:  # noqa: BLE001 - the boundary: logged and told by status.py
        failure = failure_from_exception(error)
    await context.abort(
        failure.code, failure.message, trailing_metadata=((REASON_KEY, failure.reason),)
    )
    raise AssertionError("abort returned")  # it always raises


def _frame_error(error: Exception) -> pb.FrameError:
    failure = failure_from_exception(error)
    return pb.FrameError(code=failure.number, message=failure.message, reason=failure.reason)


def _seconds_left(context: Context) -> float:
    """Return the seconds until the client's deadline; infinity when it set none."""
    left = context.time_remaining()
    return float("inf") if left is None else float(left)
