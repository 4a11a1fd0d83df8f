"""ZIP archives that are sent while they are made, in bounded memory (APPNOTE.TXT 6.3, PKWARE)."""

from __future__ import annotations

import asyncio
import io
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from unface.errors import Overloaded
from unface.web.answers import to_json
from unface.web.names import Names
from unface.web.problems import Gone
from unface.web.responses import CutOff, cut

REPORT = "unface-report.json"
AUDIT_SUFFIX = ".audit.json"  # behind the name of the picture it is of
AT_ONCE = 1 << 20  # bytes whose checksum is made on the event loop; more, in a thread
MOST_ARCHIVES = 8
MOST_WAITING = 2  # files of one archive under way at once
QUIET_SECONDS = 60.0  # after which an archive ends
MOST_FILES = 10_000
RETRY_MS = 5000
Result = TypeVar("Result")
File = tuple[str, bytes]  # its name, and what is in it


class Zip:
    """A ZIP archive that comes out piece by piece. Pictures are stored: they do not shrink."""

    def __init__(self) -> None:
        self._sink = _Sink()
        self._zip = ZipFile(self._sink, "w", ZIP_STORED)

    async def add(self, name: str, content: bytes) -> list[bytes]:
        """Return the next pieces: a file with its header."""
        info = ZipInfo(name, time.gmtime()[:6])
        info.external_attr = 0o644 << 16
        if len(content) > AT_ONCE:
            await asyncio.to_thread(self._zip.writestr, info, content)
        else:
            self._zip.writestr(info, content)
        return self._sink.take()

    def finish(self) -> list[bytes]:
        """Return the last pieces: the directory."""
        self._zip.close()
        return self._sink.take()


class _Sink(io.RawIOBase):
    """Where a ZIP is written: pieces by their place, so that a header may be written again.

    So every header has size and checksum, and readers that see the file only once can use them.
    """

    def __init__(self) -> None:
        self._pieces: dict[int, bytes] = {}
        self._at = self._end = 0

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = self._end + offset if whence == 2 else offset
        return self._at

    def write(self, data: Any) -> int:
        self._pieces[self._at] = data
        self._at += len(data)
        self._end = max(self._end, self._at)
        return len(data)

    def take(self) -> list[bytes]:
        pieces, self._pieces = self._pieces, {}
        return [pieces[place] for place in sorted(pieces)]


def entry(name: str, stored: str | None, **known: Any) -> dict[str, Any]:
    """Return what the report says of a file."""
    return {
        "name": name,
        "stored": stored,
        **{"faces": 0, "kept": 0, "verification": None, "error": None},
        **known,
    }


def report_file(entries: Sequence[dict[str, Any]]) -> File:
    """Return the report of an archive."""
    return REPORT, to_json({"files": list(entries)})


async def zipped(files: Sequence[File]) -> AsyncGenerator[memoryview, None]:
    """Yield an archive of these files in pieces."""
    archive = Zip()
    for name, content in files:
        for piece in await archive.add(name, content):
            for part in cut(piece):
                yield part
    for piece in archive.finish():
        yield memoryview(piece)


@dataclass
class _Handed:
    """Files on their way into an archive."""

    files: Sequence[File]
    done: asyncio.Future[None]


class Archive:
    """An archive that is downloaded while files come in.

    It ends whole after `close`; and broken after `end`, when the download goes away, or when
    nothing happens for `quiet_seconds`. Then everything raises `Gone`.
    """

    def __init__(self, ended: Callable[[Archive], None], quiet_seconds: float) -> None:
        self.id = secrets.token_hex(16)
        self.entries: list[dict[str, Any]] = []
        self.is_closing = False
        self._names = Names(REPORT)
        self._ended = ended
        self._quiet_seconds = quiet_seconds
        self._has_begun = False
        self._working = 0
        self._places = asyncio.Semaphore(MOST_WAITING)
        self._queue: asyncio.Queue[_Handed] = asyncio.Queue()
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._touch()

    @contextmanager
    def working(self) -> Iterator[None]:
        """While a file is read and covered, the archive is not quiet."""
        self._working += 1
        self._touch()
        try:
            yield
        finally:
            self._working -= 1
            self._touch()

    async def place(self) -> None:
        """Wait for a place, to be given back with `leave`: only so many files are under way."""
        await self._or_gone(self._places.acquire())
        if self.is_closing:
            self._places.release()
            raise Gone("the archive is closed; open another one")

    def leave(self) -> None:
        """Give a place back."""
        self._places.release()

    async def hand(self, name: str, content: bytes, beside: bytes = b"") -> str:
        """Hand a file to the download and wait until it is sent; return its name there.

        `beside` is its audit record.
        """
        stored = self._names.take(name, AUDIT_SUFFIX if beside else "")
        files = [(stored, content)] + ([(stored + AUDIT_SUFFIX, beside)] if beside else [])
        await self._send(files)
        return stored

    def note(self, entry: dict[str, Any]) -> None:
        """Add a line to the report."""
        if len(self.entries) < MOST_FILES:
            self.entries.append(entry)

    async def close(self) -> None:
        """End the archive with its report, once all files are sent; wait until that is sent too."""
        if self.is_closing:
            raise Gone("the archive is closed already")
        self.is_closing = True
        for _ in range(MOST_WAITING):
            await self._or_gone(self._places.acquire())
        await self._send([])

    def download(self) -> AsyncGenerator[memoryview, None]:
        """Return the archive in pieces, as files are handed to it; once."""
        if self._has_begun:
            raise Gone("the archive is downloaded already; open another one")
        self._has_begun = True
        return self._pieces()

    async def _pieces(self) -> AsyncGenerator[memoryview, None]:
        archive = Zip()
        try:
            while True:
                handed = await self._or_gone(self._queue.get())
                for name, content in handed.files or [report_file(self.entries)]:
                    for piece in await archive.add(name, content):
                        for part in cut(piece):
                            yield part
                            self._touch()
                if not handed.files:
                    break
                handed.done.set_result(None)
            for piece in archive.finish():
                yield memoryview(piece)
            handed.done.set_result(None)
        except Gone as error:
            raise CutOff from error
        finally:
            self.end()

    def end(self) -> None:
        """End it as it is: what has been downloaded is no whole archive."""
        if self._timer is not None:
            self._timer.cancel()
        if not self._over.done():
            self._over.set_result(None)
            self._ended(self)

    async def _send(self, files: Sequence[File]) -> None:
        handed = _Handed(files, asyncio.get_running_loop().create_future())
        self._queue.put_nowait(handed)
        await self._or_gone(handed.done)

    async def _or_gone(self, wanted: Awaitable[Result]) -> Result:
        """Return what is waited for, or raise `Gone` if the archive ends before."""
        waiting = asyncio.ensure_future(wanted)
        try:
            if not self._over.done():
                await asyncio.wait((waiting, self._over), return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise Gone("the archive has ended: its download is over, or nothing came for long")
            return waiting.result()
        finally:
            waiting.cancel()

    def _touch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._working and not self._over.done():
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._quiet_seconds, self.end)


class Archives:
    """The archives that are open, by their ids, which nobody can guess."""

    def __init__(self, quiet_seconds: float = QUIET_SECONDS) -> None:
        self._quiet_seconds = quiet_seconds
        self._open: dict[str, Archive] = {}

    def open(self) -> Archive:
        """Return a new archive; raises `Overloaded` where there are too many."""
        if len(self._open) >= MOST_ARCHIVES:
            error = Overloaded(f"{MOST_ARCHIVES} archives are open already; close one")
            error.retry_ms = RETRY_MS
            raise error
        archive = Archive(self._forget, self._quiet_seconds)
        self._open[archive.id] = archive
        return archive

    def find(self, id: str) -> Archive:
        """Return the archive of an id; raises `Gone` where there is none any more."""
        if id not in self._open:
            raise Gone("there is no such archive, or it has ended; open another one")
        return self._open[id]

    def close(self) -> None:
        """End all of them, but for those whose last pieces are on their way."""
        for archive in list(self._open.values()):
            if not archive.is_closing:
                archive.end()

    def _forget(self, archive: Archive) -> None:
        del self._open[archive.id]
