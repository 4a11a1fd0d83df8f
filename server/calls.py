"""What a client needs around gRPC's own calls: errors in unface's types, ordered streams."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar

import grpc

from unface.errors import (
    EngineError,
    ImageTooLarge,
    InvalidImage,
    InvalidOption,
    Overloaded,
    ServerError,
    UnfaceError,
)
from unface.server.status import REASON_KEY
from unface.v1 import unface_pb2 as pb

Frame = TypeVar("Frame")
Answer = TypeVar("Answer")

KINDS: dict[str, type[UnfaceError]] = {
    kind.__name__: kind
    for kind in (InvalidImage, ImageTooLarge, InvalidOption, Overloaded, EngineError)
}


def error_from_rpc(error: grpc.RpcError, target: str, timeout: float | None) -> UnfaceError:
    """Return an RPC's error as one of `unface.errors`, in the server's words where it has any."""
    code, details = error.code(), error.details() or ""
    reason = _reason(error)
    if reason in KINDS:
        return KINDS[reason](details)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        return ImageTooLarge(f"the picture is larger than the server at {target} takes: {details}")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:  # noticed here or by the server
        return ServerError(
            f"the server at {target} gave no answer within {timeout} s; raise timeout, or see "
            "whether `unface serve` still runs"
        )
    if reason is not None:
        return ServerError(f"the server at {target}: {details}")
    if code is grpc.StatusCode.UNAVAILABLE:
        return ServerError(
            f"no server answers at {target} ({details}); start one with `unface serve`"
        )
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return ServerError(f"what listens at {target} is no unface server, or an older one")
    return ServerError(f"the server at {target} failed with {code.name}: {details}")


def error_from_frame(error: pb.FrameError) -> UnfaceError:
    """Return the error of one frame of a stream as one of `unface.errors`."""
    return KINDS.get(error.reason, ServerError)(error.message)


def _reason(error: grpc.RpcError) -> str | None:
    metadata: Any = error.trailing_metadata() or ()
    return next((str(value) for key, value in metadata if key == REASON_KEY), None)


@dataclass(frozen=True)
class _Sent:
    number: int
    is_file: bool


@dataclass(frozen=True)
class _Broken:
    """The caller's frames raised an error of their own."""

    error: BaseException


_LAST_FRAME, _CALL_OVER = object(), object()


def stream(
    rpc: Any,
    frames: Iterable[Frame],
    request: Callable[[Frame, int], Any],
    answer: Callable[[Any, bool], Answer],
    is_file: Callable[[Frame], bool],
    timeout: float | None,
) -> Iterator[Answer | UnfaceError]:
    """Send a request for each frame and yield an answer for each, in order.

    `request(frame, number)` may raise `UnfaceError`: the frame is not sent, and the error takes
    its place among the answers. gRPC takes requests on a thread of its own, which tells this one
    what each frame became. Raises `grpc.RpcError` when the call as a whole fails.
    """
    became: SimpleQueue[_Sent | UnfaceError | _Broken | object] = SimpleQueue()

    def requests() -> Iterator[Any]:
        try:
            for number, frame in enumerate(frames):
                try:
                    message = request(frame, number)
                except UnfaceError as error:
                    became.put(error)
                    continue
                became.put(_Sent(number, is_file(frame)))
                yield message
        except Exception as error:  # noqa: BLE001 - raised again on the caller's thread
            became.put(_Broken(error))
        became.put(_LAST_FRAME)

    call = rpc(requests(), timeout=timeout)
    call.add_callback(lambda: became.put(_CALL_OVER))  # wakes us when the call fails between frames
    try:
        while (frame := became.get()) not in (_LAST_FRAME, _CALL_OVER):
            if isinstance(frame, _Broken):
                raise frame.error
            if isinstance(frame, UnfaceError):
                yield frame
            elif isinstance(frame, _Sent):
                response = next(call, None)
                if response is None:
                    raise ServerError("the server ended the stream before its last frame")
                if response.frame_id != frame.number:
                    raise ServerError(
                        f"frame {frame.number} was answered as {response.frame_id}: "
                        "the server broke the order"
                    )
                yield answer(response, frame.is_file)
        if next(call, None) is not None:
            raise ServerError("the server gave more answers than there were frames")
        if frame is _CALL_OVER:
            raise ServerError("the server ended the stream before its last frame")
    finally:
        call.cancel()
