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
from unface.web.problems import (
    CrossSite,
    Gone,
    MethodNotAllowed,
    Misdirected,
    NotFound,
    RequestTimeout,
    UnsupportedMediaType,
)

REASON_KEY = "unface-reason"  # trailing metadata: the finer word behind a status code
RETRY_KEY = "grpc-retry-pushback-ms"  # gRFC A6
REQUEST_ID_KEY = "unface-request-id"
INTERNAL_REASON = "Internal"
MAX_MESSAGE = 500  # characters; HTTP/2 trailers hold 8 KiB, and a message may quote a client's text

# The exception, the status of gRPC, and that of HTTP.
CODES: tuple[tuple[type[Exception], grpc.StatusCode, int], ...] = (
    (ImageTooLarge, grpc.StatusCode.INVALID_ARGUMENT, 413),
    (InvalidImage, grpc.StatusCode.INVALID_ARGUMENT, 422),
    (InvalidOption, grpc.StatusCode.INVALID_ARGUMENT, 400),
    (Unauthenticated, grpc.StatusCode.UNAUTHENTICATED, 401),
    (Forbidden, grpc.StatusCode.PERMISSION_DENIED, 403),
    (Overloaded, grpc.StatusCode.RESOURCE_EXHAUSTED, 429),
    (Expired, grpc.StatusCode.DEADLINE_EXCEEDED, 504),
    (Closed, grpc.StatusCode.UNAVAILABLE, 503),
    (WorkerLost, grpc.StatusCode.UNAVAILABLE, 503),
    (NotKept, grpc.StatusCode.FAILED_PRECONDITION, 409),
    (NotStored, grpc.StatusCode.UNAVAILABLE, 503),
    (NotReloaded, grpc.StatusCode.FAILED_PRECONDITION, 409),
    (SealError, grpc.StatusCode.INTERNAL, 500),
    (EngineError, grpc.StatusCode.INTERNAL, 500),
    # What only HTTP can do wrong; the codes are for the log and the metrics.
    (NotFound, grpc.StatusCode.NOT_FOUND, 404),
    (MethodNotAllowed, grpc.StatusCode.UNIMPLEMENTED, 405),
    (RequestTimeout, grpc.StatusCode.CANCELLED, 408),
    (Gone, grpc.StatusCode.NOT_FOUND, 410),
    (UnsupportedMediaType, grpc.StatusCode.INVALID_ARGUMENT, 415),
    (Misdirected, grpc.StatusCode.PERMISSION_DENIED, 421),
    (CrossSite, grpc.StatusCode.PERMISSION_DENIED, 403),
)
_BY_NAME = {kind.__name__: (code, status) for kind, code, status in CODES}  # of what workers raise

_log = logging.getLogger("unface.server")


@dataclass(frozen=True)
class Failure:
    """What a client is told: status code, message, and the word for `unface-reason`."""

    code: grpc.StatusCode
    message: str
    reason: str
    http: int  # status code
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
        if known := _BY_NAME.get(error.kind):
            return Failure(known[0], _shortened(str(error)), error.kind, known[1])
        return _defect(request_id)
    for kind, code, status in CODES:
        if isinstance(error, kind):
            if code is grpc.StatusCode.INTERNAL:
                _log.error("request failed", exc_info=error)
            retry_ms = error.retry_ms if isinstance(error, Overloaded) else None
            return Failure(code, _shortened(str(error)), type(error).__name__, status, retry_ms)
    request_id = request_id or uuid.uuid4().hex[:16]
    _log.error("request %s failed", request_id, exc_info=error)
    return _defect(request_id)


def _defect(request_id: str) -> Failure:
    message = f"internal error; the server's log has it as request {request_id}"
    return Failure(grpc.StatusCode.INTERNAL, message, INTERNAL_REASON, 500)


def _shortened(message: str) -> str:
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 3] + "..."
