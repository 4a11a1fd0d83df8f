"""The one table from what went wrong to what a client is told."""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass

import grpc

from unface.errors import EngineError, InvalidImage, InvalidOption, Overloaded
from unface.server.scheduler import Closed, Expired

REASON_KEY = "unface-reason"  # trailing metadata: the finer word behind a status code
INTERNAL_REASON = "Internal"
MAX_MESSAGE = 500  # characters; HTTP/2 trailers hold 8 KiB, and a message may quote a client's text

CODES: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (InvalidImage, grpc.StatusCode.INVALID_ARGUMENT),  # ImageTooLarge is one
    (InvalidOption, grpc.StatusCode.INVALID_ARGUMENT),
    (Overloaded, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (Expired, grpc.StatusCode.DEADLINE_EXCEEDED),
    (Closed, grpc.StatusCode.UNAVAILABLE),
    (EngineError, grpc.StatusCode.INTERNAL),
)

_log = logging.getLogger("unface.server")


@dataclass(frozen=True)
class Failure:
    """What a client is told: status code, message, and the word for `unface-reason`."""

    code: grpc.StatusCode
    message: str
    reason: str

    @property
    def number(self) -> int:
        """The code as a number, as it goes over the wire."""
        return int(self.code.value[0])


def failure_from_exception(error: Exception) -> Failure:
    """Return what a client is told of an exception.

    Errors in the table keep their message. Any other is a defect: it is logged whole under a new
    request id, and the client is told that id and nothing else.
    """
    for kind, code in CODES:
        if isinstance(error, kind):
            if code is grpc.StatusCode.INTERNAL:
                _log.error("request failed", exc_info=error)
            return Failure(code, _shortened(str(error)), type(error).__name__)
    request_id = uuid.uuid4().hex[:12]
    _log.error("request %s failed", request_id, exc_info=error)
    message = f"internal error; the server's log has it as request {request_id}"
    return Failure(grpc.StatusCode.INTERNAL, message, INTERNAL_REASON)


def _shortened(message: str) -> str:
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 3] + "..."
