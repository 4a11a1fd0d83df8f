"""The RPCs of `unface.v1`: the thin door between gRPC and the pipeline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, Awaitable, Callable
from functools import partial
from typing import Any, TypeAlias, TypeVar

import grpc

from unface.errors import InvalidOption
from unface.server.access import caller_of, request_id
from unface.server.admission import Admission
from unface.server.health import SERVICE
from unface.server.pipeline import Call, Pipeline
from unface.server.status import REQUEST_ID_KEY, Failure, failure_from_exception
from unface.server.streams import Streams
from unface.server.wire import Parts, parsed, split
from unface.v1 import unface_pb2 as pb
from unface.v1.unface_pb2_grpc import AdminServicer

Message: TypeAlias = Any  # of unface.v1
Answer = TypeVar("Answer")
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Report = Callable[[pb.ReportRequest], Awaitable[pb.ReportResponse]]


class UnfaceService:
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

    def add_to(self, server: grpc.aio.Server) -> None:
        """Have a server answer the RPCs of `unface.v1.Unface`."""
        one, many = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        detect = partial(split, pb.DetectRequest)
        anonymize = partial(split, pb.AnonymizeRequest)
        info = partial(parsed, pb.GetServerInfoRequest)
        report = partial(parsed, pb.ReportRequest)
        handlers: dict[str, Any] = {
            "Detect": one(partial(self._one, "Detect"), detect, _bytes),
            "Anonymize": one(partial(self._one, "Anonymize"), anonymize, _bytes),
            "DetectStream": many(
                partial(self._many, "DetectStream", pb.DetectStreamResponse), detect, _bytes
            ),
            "AnonymizeStream": many(
                partial(self._many, "AnonymizeStream", pb.AnonymizeStreamResponse),
                anonymize,
                _bytes,
            ),
            "GetServerInfo": one(self._get_server_info, info, _bytes),
            "Report": one(self._keep_report, report, _bytes),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    async def _get_server_info(
        self, request: pb.GetServerInfoRequest | InvalidOption, context: Context
    ) -> pb.GetServerInfoResponse:
        if isinstance(request, InvalidOption):
            await _refuse(context, request, "GetServerInfo")
        request_id = _call("GetServerInfo", context).request_id
        context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))
        return self._info()

    async def _keep_report(
        self, request: pb.ReportRequest | InvalidOption, context: Context
    ) -> pb.ReportResponse:
        call = _call("Report", context)
        if isinstance(request, InvalidOption):
            await _refuse(context, request, "Report")
            raise request  # _refuse has raised
        answer = await _or_abort(context, call.request_id, self._report(request))
        context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))
        return answer

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
            frame_id = None
            if isinstance(frame, Parts) and frame.request.HasField("frame_id"):
                frame_id = frame.request.frame_id
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

        async def write(message: Any) -> None:
            try:
                await context.write(message)
            except grpc.aio.BaseError as error:  # the client has gone, and gRPC's words are many
                raise asyncio.CancelledError from error

        async def relay() -> None:
            with self._admission.stream(call.client):
                await self.streams.relay(frames, answer, write)

        await _or_abort(context, call.request_id, relay())
        context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))


class AdminService(AdminServicer):
    """What an operator may do; who that is, `unface.server.access` has decided."""

    def __init__(self, reload: Callable[[], Awaitable[pb.GetServerInfoResponse]]) -> None:
        self._reload = reload

    async def Reload(self, request: pb.ReloadRequest, context: Context) -> pb.ReloadResponse:  # noqa: N802
        """Load the engines anew."""
        request_id = _call("Reload", context).request_id
        info = await _or_abort(context, request_id, self._reload())
        context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))
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


async def _refuse(context: Context, error: InvalidOption, method: str) -> None:
    request_id = _call(method, context).request_id
    await _abort(context, failure_from_exception(error, request_id), request_id)


def _bytes(message: Message) -> bytes:
    data: bytes = message.SerializeToString()
    return data


async def _abort(context: Context, failure: Failure, request_id: str) -> None:
    await context.abort(
        failure.code, failure.message, trailing_metadata=failure.metadata(request_id)
    )
