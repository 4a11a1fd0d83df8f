"""The one table from what went wrong to what a client is told."""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass

import grpc

from unface.errors import (
    EngineError,
    Forbidden,
    ImageTooLarge,
    InvalidImage,
    InvalidOption,
    Overloaded,
    SealError,
    Unauthenticated,
)
from unface.server.crew import NotReloaded, WorkerLost
from unface.server.jobs import WorkFailed
from unface.server.reports import NotKept, NotStored
from unface.server.scheduler import Closed, Expired

REASON_KEY = "unface-reason"  # trailing metadata: the finer word behind a status code
RETRY_KEY = "grpc-retry-pushback-ms"  # gRFC A6
REQUEST_ID_KEY = "unface-request-id"
INTERNAL_REASON = "Internal"
MAX_MESSAGE = 500  # characters; HTTP/2 trailers hold 8 KiB, and a message may quote a client's text

CODES: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (ImageTooLarge, grpc.StatusCode.INVALID_ARGUMENT),
    (InvalidImage, grpc.StatusCode.INVALID_ARGUMENT),
    (InvalidOption, grpc.StatusCode.INVALID_ARGUMENT),
    (Unauthenticated, grpc.StatusCode.UNAUTHENTICATED),
    (Forbidden, grpc.StatusCode.PERMISSION_DENIED),
    (Overloaded, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (Expired, grpc.StatusCode.DEADLINE_EXCEEDED),
    (Closed, grpc.StatusCode.UNAVAILABLE),
    (WorkerLost, grpc.StatusCode.UNAVAILABLE),
    (NotKept, grpc.StatusCode.FAILED_PRECONDITION),
    (NotStored, grpc.StatusCode.UNAVAILABLE),
    (NotReloaded, grpc.StatusCode.FAILED_PRECONDITION),
    (SealError, grpc.StatusCode.INTERNAL),
    (EngineError, grpc.StatusCode.INTERNAL),
)
_BY_NAME = {kind.__name__: code for kind, code in CODES}  # of what workers raise

_log = logging.getLogger("unface.server")


@dataclass(frozen=True)
class Failure:
    """What a client is told: status code, message, and the word for `unface-reason`."""

    code: grpc.StatusCode
    message: str
    reason: str
    retry_ms: int | None = None  # when to come again

    @property
    def number(self) -> int:
        """The code as a number, as it goes over the wire."""
        return int(self.code.value[0])

    def metadata(self, request_id: str) -> tuple[tuple[str, str], ...]:
        """Return the trailing metadata of a call that fails so."""
        told = ((REASON_KEY, self.reason), (REQUEST_ID_KEY, request_id))
        return told if self.retry_ms is None else (*told, (RETRY_KEY, str(self.retry_ms)))


def failure_from_exception(error: Exception, request_id: str = "") -> Failure:
    """Return what a client is told of an exception.

    Errors in the table keep their message. Any other is a defect: it is logged whole under the
    request's id, and the client is told that id and nothing else.
    """
    if isinstance(error, WorkFailed):  # its worker has logged it where that is called for
        if code := _BY_NAME.get(error.kind):
            return Failure(code, _shortened(str(error)), error.kind)
        return _defect(request_id)
    for kind, code in CODES:
        if isinstance(error, kind):
            if code is grpc.StatusCode.INTERNAL:
                _log.error("request failed", exc_info=error)
            retry_ms = error.retry_ms if isinstance(error, Overloaded) else None
            return Failure(code, _shortened(str(error)), type(error).__name__, retry_ms)
    request_id = request_id or uuid.uuid4().hex[:16]
    _log.error("request %s failed", request_id, exc_info=error)
    return _defect(request_id)


def _defect(request_id: str) -> Failure:
    message = f"internal error; the server's log has it as request {request_id}"
    return Failure(grpc.StatusCode.INTERNAL, message, INTERNAL_REASON)


def _shortened(message: str) -> str:
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 3] + "..."
