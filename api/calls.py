"""What a call needs around gRPC's own: errors in unface's types, and when to try again."""

from __future__ import annotations

import random
import re
import time
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from unface.errors import (
    EngineError,
    Forbidden,
    ImageTooLarge,
    InvalidImage,
    InvalidOption,
    Overloaded,
    ServerError,
    Unauthenticated,
    Unavailable,
    UnfaceError,
)
from unface.v1 import unface_pb2 as pb

# Trailing metadata, see the top of unface.proto.
REASON_KEY = "unface-reason"
REQUEST_ID_KEY = "unface-request-id"
PUSHBACK_KEY = "grpc-retry-pushback-ms"  # gRFC A6

FIRST_PAUSE_SECONDS = 0.2  # at most; twice as long each time
LONGEST_PAUSE_SECONDS = 5.0
POLL_SECONDS = 0.05

KINDS: dict[str, type[UnfaceError]] = {
    "Closed": Unavailable,
    "WorkerLost": Unavailable,
    **{
        kind.__name__: kind
        for kind in (
            InvalidImage,
            ImageTooLarge,
            InvalidOption,
            Overloaded,
            Unauthenticated,
            Forbidden,
            EngineError,
        )
    },
}
# Of what speaks for a server without its words: a proxy, or gRPC itself.
CODES: dict[grpc.StatusCode, type[UnfaceError]] = {
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: Forbidden,
}


class Attempts:
    """The tries of one call: how long each may take, and when there is another.

    Tried again is what UNAVAILABLE and `Overloaded` end, with exponential backoff and full jitter
    ("Exponential Backoff And Jitter", AWS Architecture Blog 2015), or after the pause that the
    server asks for (gRFC A6), but only if the pause ends before the call's time does.

    gRPC's own retryPolicy goes by the status alone, so that it sends pictures that are too large
    again; it gives up on requests over 256 KiB; and it waits for what comes after the deadline.
    """

    def __init__(self, timeout: float | None, retries: int) -> None:
        self._end = None if timeout is None else time.monotonic() + timeout
        self._retries = retries
        self._longest_pause = FIRST_PAUSE_SECONDS

    @property
    def seconds_left(self) -> float | None:
        """How long the next try may take; None: for ever."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def pause(self, error: grpc.RpcError) -> float | None:
        """Return the seconds to wait before the next try; None: the error is final."""
        if self._retries == 0 or not _may_be_repeated(error):
            return None
        self._retries -= 1
        if _trailer(error, PUSHBACK_KEY) is None:
            seconds: float | None = random.uniform(0, self._longest_pause)  # noqa: S311 - no secret
            self._longest_pause = min(2 * self._longest_pause, LONGEST_PAUSE_SECONDS)
        else:
            seconds = _pushback_seconds(error)
            self._longest_pause = FIRST_PAUSE_SECONDS
        left = self.seconds_left
        if seconds is None or (left is not None and seconds >= left):
            return None
        return seconds


class Wait:
    """A wait for a server to serve."""

    def __init__(self, target: str, timeout: float) -> None:
        self._target, self._timeout = target, timeout
        self._end = time.monotonic() + timeout
        self._state = "has not answered"

    @property
    def seconds_left(self) -> float:
        """Not positive once the wait is over."""
        return self._end - time.monotonic()

    @property
    def pause(self) -> float:
        """Seconds until the next question."""
        return min(POLL_SECONDS, max(0.0, self.seconds_left))

    def is_over(self, answer: health_pb2.HealthCheckResponse) -> bool:
        """Return whether the server serves."""
        self._state = "answers but is not ready"
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def note(self, error: grpc.RpcError) -> None:
        """Take a failed question; raises what no waiting will mend."""
        if error.code() not in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.DEADLINE_EXCEEDED,
        ):
            raise error_from_rpc(error, self._target, self._timeout) from error

    def failure(self) -> ServerError:
        """Return the error of a wait that was in vain."""
        return Unavailable(
            f"the server at {self._target} {self._state} after {self._timeout:g} s; start one with "
            "`unface serve`, or see its log"
        )


def error_from_rpc(error: grpc.RpcError, target: str, timeout: float | None) -> UnfaceError:
    """Return an RPC's error as one of `unface.errors`, in the server's words where it has any."""
    reason = _trailer(error, REASON_KEY)
    kind = KINDS.get(reason or "") or CODES.get(error.code(), ServerError)
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and _is_too_large(error):
        kind = ImageTooLarge
    found = kind(_words(error, kind, reason, target, timeout))
    found.request_id = _trailer(error, REQUEST_ID_KEY) or ""
    if isinstance(found, Overloaded):
        seconds = _pushback_seconds(error)
        found.retry_ms = None if seconds is None else round(1000 * seconds)
    return found


def error_from_frame(error: pb.FrameError) -> UnfaceError:
    """Return the error of one frame of a stream as one of `unface.errors`."""
    return KINDS.get(error.reason, ServerError)(error.message)


def _words(
    error: grpc.RpcError,
    kind: type[UnfaceError],
    reason: str | None,
    target: str,
    timeout: float | None,
) -> str:
    code, details = error.code(), error.details() or "no details"
    if reason in KINDS and kind is not Unavailable:
        return details
    if kind is ImageTooLarge:
        return f"the picture is larger than the server at {target} takes: {details}"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:  # noticed here or by the server
        return (
            f"the server at {target} gave no answer within {timeout} s; raise timeout, or see "
            "whether `unface serve` still runs"
        )
    if reason is not None:
        return f"the server at {target}: {details}"
    if code is grpc.StatusCode.UNAVAILABLE:
        if "handshake" in details.lower():
            return (
                f"no TLS with the server at {target} ({details}); see that tls names the CA of "
                "its certificate, and client_certificate one that it knows"
            )
        return f"no server answers at {target} ({details}); start one with `unface serve`"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return f"what listens at {target} is no unface server, or an older one"
    return f"the server at {target} failed with {code.name}: {details}"


def _may_be_repeated(error: grpc.RpcError) -> bool:
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:  # gRPC says so of large messages too
        return _trailer(error, REASON_KEY) == Overloaded.__name__
    if error.code() is grpc.StatusCode.CANCELLED:
        # gRPC's servers say so of calls that arrive in the moment they stop; our own `close` too.
        return "channel closed" not in (error.details() or "").lower()
    return error.code() is grpc.StatusCode.UNAVAILABLE


def _pushback_seconds(error: grpc.RpcError) -> float | None:
    """Return how long the server wants us to wait; None: it does not say, or wants no more tries.

    gRFC A6: what is negative, or no number, means no more tries.
    """
    asked = _trailer(error, PUSHBACK_KEY) or ""
    return int(asked) / 1000 if re.fullmatch(r"[0-9]{1,10}", asked) else None


def _is_too_large(error: grpc.RpcError) -> bool:
    """Return whether gRPC itself refused the message's size, on either side."""
    return "larger than max" in (error.details() or "")


def _trailer(error: grpc.RpcError, key: str) -> str | None:
    metadata: Any = error.trailing_metadata() or ()
    return next((str(value) for name, value in metadata if name == key), None)
