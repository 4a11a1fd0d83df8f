"""What the server says on stderr: lines of text for people, or of JSON for machines."""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import secrets
import threading
import time
from contextlib import suppress
from hashlib import blake2b
from typing import Literal

from unface.server.record import Record

MAX_LINES = 10_000  # that wait to be written; more are dropped and counted
MAX_TRACEBACK_LINES = 100
MAX_TRACEBACK_LINE = 200  # characters; an exception may quote what it was given
STDERR = 2
LAST_WORDS_SECONDS = 1.0  # at the end, for what is not yet written
ACCESS = "unface.access"
# What ends a line or moves a cursor, also as Unicode has it: C0, C1, separators, bidi marks.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_PLAIN = re.compile(r"[\w.:,/-]*")  # needs no quotes

_access = logging.getLogger(ACCESS)


def set_up_logging(format: Literal["text", "json"], level: str) -> None:
    """Have everything logged from `level` on written to stderr, by a thread of its own.

    `level` is "debug", "info", "warning" or "error"; libraries are heard from "warning" on. Each
    request is one line of `unface.access`; as text, requests that went well are only told at
    "debug". A reader of stderr that stands still costs lines, never time.
    """
    handler = LineHandler(STDERR)
    handler.setFormatter(JsonLines() if format == "json" else TextLines())
    least = logging.getLevelName(level.upper())
    logging.basicConfig(handlers=[handler], level=max(least, logging.WARNING), force=True)
    logging.getLogger("unface").setLevel(least)
    quiet = format == "text" and level != "debug"
    _access.setLevel(max(least, logging.WARNING) if quiet else logging.NOTSET)
    grpc_log = logging.getLogger("grpc._cython.cygrpc")
    if _is_worth_logging not in grpc_log.filters:
        grpc_log.addFilter(_is_worth_logging)


FAULTS = frozenset({"INTERNAL", "UNAVAILABLE", "UNKNOWN", "DATA_LOSS"})


class AccessLog:
    """Writes a line for each request: at info, or at warning when the server is at fault.

    What clients do wrong, and what an overloaded server refuses, is info: a flood of it must not
    become a flood of warnings.

    Of the client it gives 12 hexadecimal digits, which are the same for one client as long as the
    process lives and mean nothing beyond it.
    """

    def __init__(self) -> None:
        self._salt = secrets.token_bytes(16)

    def observe(self, record: Record) -> None:
        """Write the line of a request that is over."""
        level = logging.WARNING if record.code in FAULTS else logging.INFO
        if not _access.isEnabledFor(level):
            return
        fields: dict[str, object] = {
            "request_id": record.request_id,
            "method": record.method,
            "code": record.code,
            "reason": record.reason,
            "ms": round(record.seconds * 1000, 2),
            "steps_ms": {step: round(ms, 2) for step, ms in record.steps_ms.items()},
            "pixels": record.pixels,
            "faces": len(record.scores),
            "backend": record.backend,
            "precision": record.precision,
            "profile": record.profile,
            "arm": record.arm,
            "client": self._hashed(record.client),
        }
        told = {name: value for name, value in fields.items() if value not in ("", {})}
        _access.log(level, "request", extra={"fields": told})

    def _hashed(self, client: str) -> str:
        named = client.encode("utf-8", "backslashreplace")
        return blake2b(named, key=self._salt, digest_size=6).hexdigest()


class TextLines(logging.Formatter):
    """`time LEVEL logger: message name=value ...`; lines of tracebacks follow, indented."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of one entry; nothing logged can begin a line or end one."""
        words = [record.getMessage()]
        for name, value in getattr(record, "fields", {}).items():
            if isinstance(value, dict):
                value = ",".join(f"{step}:{ms}" for step, ms in value.items())
            plain = _PLAIN.fullmatch(str(value))
            words.append(f"{name}={value if plain else json.dumps(str(value))}")
        head = f"{_time(record)} {record.levelname} {record.name}: "
        return "\n    ".join([head + _escaped(" ".join(words)), *_traceback(record)])


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the entry's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of one entry, in ASCII."""
        entry: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {k: v for k, v in getattr(record, "fields", {}).items() if k not in entry}
        if traceback := _traceback(record):
            entry["traceback"] = traceback
        return json.dumps(entry, default=str).replace("\x7f", "\\u007f")


class LineHandler(logging.Handler):
    """Hands lines to a thread that writes them, so that nobody waits for a pipe that is full."""

    def __init__(self, file: int) -> None:
        super().__init__()
        self._file = file
        self._lines: queue.Queue[str | None] = queue.Queue(MAX_LINES)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="unface-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue an entry; format it now, as what it speaks of may change or be large."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - as logging does: a wrong log call stops no request
            self.handleError(record)
            return
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        """Write what is left, if that can be done in a moment."""
        ends_at = time.monotonic() + LAST_WORDS_SECONDS
        try:
            self._lines.put(None, timeout=LAST_WORDS_SECONDS)
            self._thread.join(max(0.0, ends_at - time.monotonic()))
        except queue.Full:  # nobody reads
            pass
        super().close()

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            dropped, self._dropped = self._dropped, 0
            if dropped:
                line = f"{self._format_dropped(dropped)}\n{line}"
            with suppress(OSError):  # stderr is closed: there is nobody to tell
                # Not sys.stderr: a thread that waits in its lock aborts the process at its end.
                left = f"{line}\n".encode()
                while left:
                    left = left[os.write(self._file, left) :]

    def _format_dropped(self, lines: int) -> str:
        message = f"{lines} lines were dropped: stderr is read too slowly"
        return self.format(
            logging.LogRecord("unface.server", logging.WARNING, "", 0, message, None, None)
        )


def _time(record: logging.LogRecord) -> str:
    """Return the time as RFC 3339 has it, in UTC with milliseconds."""
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.created % 1 * 1000):03d}Z"


def _escaped(text: str) -> str:
    """Return the text with control characters as escapes."""
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def _traceback(record: logging.LogRecord) -> list[str]:
    """Return the lines of the traceback, cut: the last may quote what a client sent."""
    if not record.exc_info or record.exc_info[1] is None:
        return []
    text = logging.Formatter().formatException(record.exc_info)
    lines = text.split("\n")[-MAX_TRACEBACK_LINES:]
    return [_escaped(line[:MAX_TRACEBACK_LINE]) for line in lines]


def _is_worth_logging(record: logging.LogRecord) -> bool:
    """Leave out gRPC's tracebacks about clients that left just as their answer was ready."""
    return "ExecuteBatchError raised in core" not in record.getMessage()
