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
from unface.web.names import Names
from unface.web.outcomes import REPORT, Outcomes
from unface.web.problems import Gone
from unface.web.responses import CutOff, cut

AUDIT_SUFFIX = ".audit.json"  # behind the name of the picture it is of
AT_ONCE = 1 << 20  # bytes whose checksum is made on the event loop; more, in a thread
MOST_ARCHIVES = 8
MOST_WAITING = 2  # files of one archive under way at once
QUIET_SECONDS = 60.0  # after which an archive ends
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

    def abandon(self) -> None:
        """Leave it as it is: or it would be finished, into nothing, when it is forgotten."""
        self._zip.fp = None


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


async def zipped(files: Sequence[File]) -> AsyncGenerator[memoryview, None]:
    """Yield an archive of these files in pieces."""
    archive = Zip()
    try:
        for name, content in files:
            for piece in await archive.add(name, content):
                for part in cut(piece):
                    yield part
        for piece in archive.finish():
            yield memoryview(piece)
    finally:
        archive.abandon()


@dataclass(eq=False)
class _Handed:
    """Files on their way into an archive, and what its report says of them; None: its end."""

    files: Sequence[File]
    entry: dict[str, Any] | None
    done: asyncio.Future[None]

    def sent(self) -> None:
        """Tell whoever waits, if somebody still does."""
        if not self.done.done():
            self.done.set_result(None)


class Archive:
    """An archive that is downloaded while files come in.

    It ends whole after `close`; and broken after `end`, when the download goes away, or when
    nothing happens for `quiet_seconds`. Then everything raises `Gone`.
    """

    def __init__(self, ended: Callable[[Archive], None], quiet_seconds: float) -> None:
        self.id = secrets.token_hex(16)
        self.outcomes = Outcomes()
        self.is_closing = False
        self._names = Names(REPORT)
        self._ended = ended
        self._quiet_seconds = quiet_seconds
        self._has_begun = False
        self._working = self._placed = 0
        self._places = asyncio.Semaphore(MOST_WAITING)
        self._queue: list[_Handed] = []
        self._has_come = asyncio.Event()
        self._end = _Handed((), None, self._future())
        self._over = self._future()
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
        self._placed += 1

    def leave(self) -> None:
        """Give a place back."""
        self._placed -= 1
        self._places.release()
        if self.is_closing and not self._placed:
            self._put(self._end)

    async def hand(
        self, name: str, content: bytes, beside: bytes, entry: Callable[[str], dict[str, Any]]
    ) -> str:
        """Hand a file to the download and wait until it is sent; return its name there.

        `beside` is its audit record, `entry` what the report is to say of it under that name. When
        who waits is cancelled before it is being sent, it is not sent.
        """
        stored = self._names.take(name, AUDIT_SUFFIX if beside else "")
        files = [(stored, content)] + ([(stored + AUDIT_SUFFIX, beside)] if beside else [])
        handed = _Handed(files, entry(stored), self._future())
        self._put(handed)
        try:
            await self._or_gone(handed.done)
        finally:
            if handed in self._queue:
                self._queue.remove(handed)
        return stored

    async def close(self) -> None:
        """End the archive with its report, once all files are sent; wait until that is sent too.

        It ends so too when who waits is cancelled.
        """
        if self.is_closing:
            raise Gone("the archive is closed already")
        self.is_closing = True
        if not self._placed:
            self._put(self._end)
        await self._or_gone(self._end.done)

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
                handed = await self._or_gone(self._next())
                for name, content in handed.files or [(REPORT, self.outcomes.to_json())]:
                    for piece in await archive.add(name, content):
                        for part in cut(piece):
                            yield part
                            self._touch()
                            self._check()
                if handed.entry is None:
                    break
                self.outcomes.add(handed.entry)
                handed.sent()
            for piece in archive.finish():
                yield memoryview(piece)
            handed.sent()
        except Gone as error:
            raise CutOff from error
        finally:
            archive.abandon()
            self.end()

    def end(self) -> None:
        """End it as it is: what has been downloaded is no whole archive."""
        if self._timer is not None:
            self._timer.cancel()
        if not self._over.done():
            self._over.set_result(None)
            self._ended(self)

    def _put(self, handed: _Handed) -> None:
        self._queue.append(handed)
        self._has_come.set()

    async def _next(self) -> _Handed:
        while not self._queue:
            self._has_come.clear()
            await self._has_come.wait()
        return self._queue.pop(0)

    def _check(self) -> None:
        if self._over.done():
            raise Gone("the archive has ended: its download is over, or nothing came for long")

    async def _or_gone(self, wanted: Awaitable[Result]) -> Result:
        """Return what is waited for, or raise `Gone` if the archive ends before."""
        waiting = asyncio.ensure_future(wanted)
        try:
            if not self._over.done():
                await asyncio.wait((waiting, self._over), return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                self._check()
            return waiting.result()
        finally:
            waiting.cancel()

    def _future(self) -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future()

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
