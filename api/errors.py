"""What can go wrong, in one place.

    UnfaceError
    ├── InvalidImage      the bytes or the array are not a picture we can read
    │   └── ImageTooLarge     more bytes or pixels than the limit
    ├── InvalidOption     an option has a value that makes no sense
    ├── Overloaded        the server's queue is full: try again later
    ├── Unauthenticated   a server wants a token, or another one
    ├── Forbidden         the token lacks the scope for the call
    ├── EngineError       an engine is missing, damaged or gives nonsense
    ├── SealError         encrypted data cannot be opened
    └── ServerError       a client: the server cannot be reached, was too slow or failed
        └── Unavailable       nobody answered; the call may be repeated

This module imports nothing and every room may import it. The gRPC codes hang on these types in
`unface.server.status`.
"""


class UnfaceError(Exception):
    """What unface refuses or fails to do; the message says what was wrong and what is right."""

    request_id = ""  # what a server's log calls the request that failed


class InvalidImage(UnfaceError, ValueError):
    """The input is not a picture that can be read whole."""


class ImageTooLarge(InvalidImage):
    """The input has more bytes or pixels than the limit allows."""


class InvalidOption(UnfaceError, ValueError):
    """An option has a value outside what it accepts."""


class Overloaded(UnfaceError):
    """The queue is full; nothing was done and the call may be repeated after `retry_ms`."""

    retry_ms: int | None = None  # milliseconds; None where nothing is known


class Unauthenticated(UnfaceError):
    """A token is missing, has expired, or is not one that the server takes."""


class Forbidden(UnfaceError):
    """The token is good but lacks the scope that the call needs."""


class EngineError(UnfaceError, RuntimeError):
    """An engine is missing, damaged or gave an answer that cannot be."""


class SealError(UnfaceError):
    """Encrypted data cannot be opened: another key, altered, or not encrypted at all."""


class ServerError(UnfaceError):
    """A server cannot be reached, did not answer in time, or failed on its side."""


class Unavailable(ServerError):
    """No server answers, it is shutting down, or the process that did the work ended."""
