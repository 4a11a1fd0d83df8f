"""What only HTTP can do wrong, and how errors are told: problem details, RFC 9457."""

from __future__ import annotations

from typing import Any

from unface.errors import UnfaceError

PROBLEM = "application/problem+json"
MANUAL = "/v1/docs"  # where each reason is explained


class NotFound(UnfaceError):
    """There is nothing at that path."""


class MethodNotAllowed(UnfaceError):
    """The path takes other methods."""


class Gone(UnfaceError):
    """An archive has ended, or its download has begun already."""


class UnsupportedMediaType(UnfaceError):
    """The body is of a kind, or encoded in a way, that is not read."""


class RequestTimeout(UnfaceError):
    """The body has not come in time."""


class Misdirected(UnfaceError):
    """The Host header has a name that is not this server's."""


class CrossSite(UnfaceError):
    """Another web page asks, which may not."""


TITLES = {
    "ImageTooLarge": "The picture is too large",
    "InvalidImage": "Not a picture that can be read whole",
    "InvalidOption": "An option or the form is not right",
    "Unauthenticated": "A token is missing, or another one is needed",
    "Forbidden": "The token lacks the scope",
    "Overloaded": "Too much is waiting: try again later",
    "Expired": "The deadline has passed",
    "Closed": "The server is shutting down",
    "WorkerLost": "The process that did the work ended: try again",
    "EngineError": "An engine gave an answer that cannot be",
    "SealError": "Encrypted data cannot be opened",
    "Internal": "A defect of the server",
    "NotFound": "There is nothing at this path",
    "MethodNotAllowed": "The path takes other methods",
    "RequestTimeout": "The body has not come in time",
    "Gone": "The archive has ended",
    "UnsupportedMediaType": "The body is of a kind that is not read",
    "Misdirected": "The server does not go by this name",
    "CrossSite": "Another web page may not ask this",
}


def problem(reason: str, status: int, detail: str, request_id: str) -> dict[str, Any]:
    """Return the members of a problem: `type` leads to its explanation in the manual."""
    return {
        "type": f"{MANUAL}#{reason}",
        "title": TITLES.get(reason, reason),
        "status": status,
        "detail": detail,
        "reason": reason,
        "request_id": request_id,
    }
