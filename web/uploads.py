"""Bodies and forms as they come in: bounded while they are read, and never on a disk."""

from __future__ import annotations

import logging
import time
from asyncio import TimeoutError as WaitedTooLong  # the built-in one from Python 3.11 on
from asyncio import wait_for
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from unface.errors import ImageTooLarge, InvalidOption, Overloaded
from unface.web.problems import RequestTimeout, UnsupportedMediaType

MAX_FIELDS = 64  # of text, in one form
MAX_PART_HEADERS = 8
MAX_PART_HEADER = 8 << 10  # bytes of one
MAX_FIELD = 1 << 20  # bytes of a field of text; options say less
RETRY_MS = 1000
FORM = "multipart/form-data"

# It warns of every form that it cannot read, and quotes it.
logging.getLogger("python_multipart").setLevel(logging.ERROR)

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class ClientLeft(Exception):
    """There is nobody to tell any more."""


class Held:
    """How many bytes all requests together hold."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.total = 0

    def share(self) -> Share:
        """Return the share of one request, which holds nothing yet."""
        return Share(self)

    def has_room(self, own: int, more: int) -> bool:
        """Say whether a request that holds `own` bytes may hold more; one alone always may."""
        return self.total == own or self.total + more <= self._most


class Share:
    """The bytes that one request holds, until `release`."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self.size = 0

    def take(self, size: int) -> None:
        """Hold more bytes; raises `Overloaded` where all requests hold too many."""
        if not self._held.has_room(self.size, size):
            error = Overloaded("the requests under way hold too many bytes; try again later")
            error.retry_ms = RETRY_MS
            raise error
        self.add(size)

    def add(self, size: int) -> None:
        """Hold more bytes, or fewer, come what may."""
        self.size += size
        self._held.total += size

    def release(self) -> None:
        """Give them all back."""
        self.add(-self.size)


class Upload:
    """The body of one request, as it comes.

    `most` bounds it in bytes, `seconds` the time that is spent waiting for it, `share` counts it.
    """

    def __init__(self, receive: Receive, most: int, seconds: float, share: Share) -> None:
        self._receive = receive
        self._most = most
        self._seconds = self._left = seconds
        self._share = share
        self._size = 0

    def more_time(self) -> None:
        """Begin to count the time anew."""
        self._left = self._seconds

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield it in pieces, each counted in `share`.

        Raises `ImageTooLarge`, `RequestTimeout`, `Overloaded`, and `ClientLeft`.
        """
        more = True
        while more:
            began = time.monotonic()
            try:
                message = await wait_for(self._receive(), self._left)
            except WaitedTooLong:
                raise RequestTimeout(
                    f"the body has not come within {self._seconds:g} s; send it faster"
                ) from None
            self._left = max(0.0, self._left - (time.monotonic() - began))
            if message["type"] == "http.disconnect":
                raise ClientLeft
            chunk, more = message.get("body", b""), message.get("more_body", False)
            self._size += len(chunk)
            if self._size > self._most:
                raise too_large(self._size, self._most)
            self._share.take(len(chunk))
            if chunk:
                yield chunk


def too_large(size: int, most: int) -> ImageTooLarge:
    """Return the error of a body that has, or says it has, more bytes than are accepted."""
    return ImageTooLarge(f"the request has {size} bytes or more; the limit is {most} bytes")


def check_declared(headers: Mapping[str, str], most: int) -> None:
    """Refuse by its headers a body that would be refused: before any of it is read.

    Raises `ImageTooLarge`, and `UnsupportedMediaType` for a body that is encoded: a small one
    could become any size.
    """
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", ""):
        raise UnsupportedMediaType(
            f"Content-Encoding is {encoding[:40]!r}; send the body as it is, without one"
        )
    declared = headers.get("content-length", "0")
    if declared.isascii() and declared.isdigit() and int(declared) > most:  # h11 has read it too
        raise too_large(int(declared), most)


def boundary_of(content_type: str) -> bytes | None:
    """Return the boundary of a form, None for a body that is a picture itself.

    Raises `UnsupportedMediaType` for what is neither, `InvalidOption` for a form without boundary.
    """
    kind, parameters = parse_options_header(content_type.encode("latin-1", "replace"))
    name = kind.decode("latin-1").strip().lower()
    if name == FORM:
        boundary = parameters.get(b"boundary", b"")
        if not 1 <= len(boundary) <= 70:  # RFC 2046, 5.1.1
            raise InvalidOption("the form has no boundary of 1 to 70 characters in Content-Type")
        return boundary
    if name and not name.startswith("image/") and name != "application/octet-stream":
        raise UnsupportedMediaType(
            f"Content-Type is {name[:60]!r}; send image/... or application/octet-stream with the "
            f"file itself as the body, or {FORM} with a file field `image`"
        )
    return None


@dataclass
class Part:
    """A field of a form: `file_name` is None for one of text.

    A file of more bytes than are accepted has its true `size`, but no content.
    """

    name: str
    file_name: str | None
    content: bytearray = field(default_factory=bytearray)
    size: int = 0

    @property
    def text(self) -> str:
        """The content of a field of text; raises `InvalidOption` where it is no UTF-8."""
        try:
            return self.content.decode()
        except UnicodeDecodeError:
            raise InvalidOption(f"{self.name[:40]!r} is not in UTF-8") from None


class Form:
    """Takes a form apart while it comes (RFC 7578). `most_files` bounds their number."""

    def __init__(self, boundary: bytes, most_bytes: int, most_files: int) -> None:
        self._most_bytes = most_bytes
        self._most_files = most_files
        self._files = self._fields = 0
        self._done: list[Part] = []
        self._part: Part | None = None
        self._most = 0  # bytes of the part
        self._header = (bytearray(), bytearray())
        self._headers: dict[str, bytes] = {}
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._headers.clear,
                "on_header_begin": self._begin_header,
                "on_header_field": lambda d, a, b: self._header[0].extend(d[a:b]),
                "on_header_value": lambda d, a, b: self._header[1].extend(d[a:b]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._begin_part,
                "on_part_data": self._add,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
            max_header_count=MAX_PART_HEADERS,
            max_header_size=MAX_PART_HEADER,
        )

    def feed(self, chunk: bytes) -> list[Part]:
        """Return the parts that end in a piece of the form.

        Raises `InvalidOption` for what is no form, or one of too much.
        """
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise InvalidOption(f"the form cannot be read: {error}") from None
        done, self._done = self._done, []
        return done

    def finish(self) -> None:
        """Raise `InvalidOption` unless the form has come to its end."""
        if not self._ended:
            raise InvalidOption("the form ends before its last boundary; send it whole")

    def _begin_header(self) -> None:
        self._header = (bytearray(), bytearray())

    def _end_header(self) -> None:
        name, value = self._header
        key = name.decode("latin-1").lower()
        if key in self._headers:
            raise InvalidOption(f"a part of the form has two headers {key[:40]!r}")
        self._headers[key] = bytes(value)

    def _begin_part(self) -> None:
        encoding = self._headers.get("content-transfer-encoding", b"binary").strip().lower()
        if encoding not in (b"7bit", b"8bit", b"binary"):
            raise UnsupportedMediaType(
                "a part of the form has a Content-Transfer-Encoding; send it as it is (RFC 7578)"
            )
        kind, parameters = parse_options_header(self._headers.get("content-disposition", b""))
        if kind.lower() != b"form-data" or b"name" not in parameters:
            raise InvalidOption("a part of the form has no name (Content-Disposition: form-data)")
        name = parameters[b"name"].decode("utf-8", "replace")
        file_name = parameters.get(b"filename")
        if file_name is None:
            self._fields += 1
            if self._fields > MAX_FIELDS:
                raise InvalidOption(f"the form has more than {MAX_FIELDS} fields of text")
            self._part, self._most = Part(name, None), MAX_FIELD
            return
        if name != "image":
            raise InvalidOption(f"a file is in the field {name[:40]!r}; it belongs into `image`")
        self._files += 1
        if self._files > self._most_files:
            most = "one file" if self._most_files == 1 else f"{self._most_files} files"
            raise InvalidOption(f"the form has more than {most} in `image`")
        self._part = Part(name, file_name.decode("utf-8", "replace"))
        self._most = self._most_bytes

    def _add(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        assert part is not None  # noqa: S101 - the parser calls back in order
        part.size += end - start
        if part.size <= self._most:
            part.content += memoryview(data)[start:end]
        elif part.file_name is None:
            raise InvalidOption(f"{part.name[:40]!r} is longer than {self._most} bytes")
        else:
            part.content = bytearray()

    def _end_part(self) -> None:
        if self._part is not None:
            self._done.append(self._part)
        self._part = None

    def _end(self) -> None:
        self._ended = True
