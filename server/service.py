"""The RPCs of `unface.v1`: the thin door between gRPC and the pipeline."""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

import grpc

from unface.server.access import caller_of, request_id
from unface.server.admission import Admission
from unface.server.pipeline import Call, Pipeline
from unface.server.status import REQUEST_ID_KEY, Failure, failure_from_exception
from unface.server.streams import Streams
from unface.v1 import unface_pb2 as pb
from unface.v1.unface_pb2_grpc import AdminServicer, UnfaceServicer

Answer = TypeVar("Answer")
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Report = Callable[[pb.ReportRequest], Awaitable[pb.ReportResponse]]


class UnfaceService(UnfaceServicer):
    """Answers with the pipeline's results and turns its failures into gRPC statuses."""

    def __init__(
        self,
        pipeline: Pipeline,
        admission: Admission,
        info: Callable[[], pb.GetServerInfoResponse],
        report: Report,
    ) -> None:
        self._pipeline = pipeline
        self._admission = admission
        self._info = info
        self._report = report
        self.streams = Streams()

    async def Detect(self, request: pb.DetectRequest, context: Context) -> pb.DetectResponse:  # noqa: N802
        """Find the faces of one picture."""
        answer: pb.DetectResponse = await self._one("Detect", request, context)
        return answer

    async def Anonymize(  # noqa: N802
        self, request: pb.AnonymizeRequest, context: Context
    ) -> pb.AnonymizeResponse:
        """Cover the faces of one picture."""
        answer: pb.AnonymizeResponse = await self._one("Anonymize", request, context)
        return answer

    async def DetectStream(  # type: ignore[override]  # noqa: N802 - a coroutine that writes will do
        self, request_iterator: AsyncIterable[pb.DetectRequest], context: Context
    ) -> None:
        """Find the faces of frame after frame."""
        await self._many("DetectStream", pb.DetectStreamResponse, request_iterator, context)

    async def AnonymizeStream(  # type: ignore[override]  # noqa: N802 - a coroutine that writes will do
        self, request_iterator: AsyncIterable[pb.AnonymizeRequest], context: Context
    ) -> None:
        """Cover the faces of frame after frame."""
        await self._many("AnonymizeStream", pb.AnonymizeStreamResponse, request_iterator, context)

    async def GetServerInfo(  # noqa: N802
        self, request: pb.GetServerInfoRequest, context: Context
    ) -> pb.GetServerInfoResponse:
        """Tell what serves at this moment."""
        return self._info()

    async def Report(self, request: pb.ReportRequest, context: Context) -> pb.ReportResponse:  # noqa: N802
        """Keep what the operator is told of missed and false faces."""
        call = _call("Report", context)
        return await _or_abort(context, call.request_id, self._report(request))

    async def _one(self, method: str, request: Any, context: Context) -> Any:
        call = _call(method, context)
        answer = await self._pipeline.answer(request, call)
        if isinstance(answer, Failure):
            await _abort(context, answer, call.request_id)
        context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))
        return answer

    async def _many(
        self, method: str, kind: Any, frames: AsyncIterable[Any], context: Context
    ) -> None:
        call = _call(method, context)
        count = 0

        async def answer(frame: Any) -> Any:
            nonlocal count
            count += 1
            frame_id = frame.frame_id if frame.HasField("frame_id") else None
            own = Call(
                method,
                call.client,
                f"{call.request_id}.{count}",
                call.expires_at,
                call.trace_parent,
            )
            result = await self._pipeline.answer(frame, own)
            if isinstance(result, Failure):
                error = pb.FrameError(
                    code=result.number, message=result.message, reason=result.reason
                )
                return kind(frame_id=frame_id, error=error)
            return kind(frame_id=frame_id, response=result)

        async def relay() -> None:
            with self._admission.stream(call.client):
                await self.streams.relay(frames, answer, context.write)

        await _or_abort(context, call.request_id, relay())
        context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))


class AdminService(AdminServicer):
    """What an operator may do; who that is, `unface.server.access` has decided."""

    def __init__(self, reload: Callable[[], Awaitable[pb.GetServerInfoResponse]]) -> None:
        self._reload = reload

    async def Reload(self, request: pb.ReloadRequest, context: Context) -> pb.ReloadResponse:  # noqa: N802
        """Load the engines anew."""
        info = await _or_abort(context, _call("Reload", context).request_id, self._reload())
        return pb.ReloadResponse(
            backend=info.backend, precision=info.precision, engines=info.engines
        )


def _call(method: str, context: Context) -> Call:
    metadata = context.invocation_metadata() or ()
    left = context.time_remaining()
    expires_at = float("inf") if left is None else time.monotonic() + float(left)
    return Call(
        method,
        caller_of(context).name,
        request_id(metadata),
        expires_at,
        next((str(value) for key, value in metadata if key == "traceparent"), ""),
    )


async def _or_abort(context: Context, request_id: str, work: Awaitable[Answer]) -> Answer:
    """Return what the work returns, or end the RPC with the status of what it raised."""
    try:
        return await work
    except Exception as error:  # noqa: BLE001 - the boundary: logged and told by status.py
        failure = failure_from_exception(error, request_id)
    await _abort(context, failure, request_id)
    raise AssertionError("abort returned")  # it always raises


async def _abort(context: Context, failure: Failure, request_id: str) -> None:
    await context.abort(
        failure.code, failure.message, trailing_metadata=failure.metadata(request_id)
    )
