"""What can go wrong, in one place.

    UnfaceError
    ├── InvalidImage      the bytes or the array are not a picture we can read
    │   └── ImageTooLarge     more bytes or pixels than the limit
    ├── InvalidOption     an option has a value that makes no sense
    ├── Overloaded        the server's queue is full: try again later
    ├── EngineError       an engine is missing, damaged or gives nonsense
    └── ServerError       a client: the server cannot be reached, was too slow or failed

This module imports nothing and every room may import it. The gRPC codes hang on these types in
`unface.server.status`.
"""


class UnfaceError(Exception):
    """What unface refuses or fails to do; the message says what was wrong and what is right."""


class InvalidImage(UnfaceError, ValueError):
    """The input is not a picture that can be read whole."""


class ImageTooLarge(InvalidImage):
    """The input has more bytes or pixels than the limit allows."""


class InvalidOption(UnfaceError, ValueError):
    """An option has a value outside what it accepts."""


class Overloaded(UnfaceError):
    """The queue is full; nothing was done and the call may be repeated later."""


class EngineError(UnfaceError, RuntimeError):
    """An engine is missing, damaged or gave an answer that cannot be."""


class ServerError(UnfaceError):
    """A server cannot be reached, did not answer in time, or failed on its side."""
