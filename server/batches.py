"""Many pictures: a form of them answered with a ZIP, and ZIPs that are downloaded as they grow."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.responses import Response

from unface.errors import ImageTooLarge, InvalidOption, Overloaded, UnfaceError
from unface.server.config import ServerConfig
from unface.server.exchange import Asking, Exchange, parts_of
from unface.server.status import REQUEST_ID_KEY, Failure
from unface.v1 import unface_pb2 as pb
from unface.web.answers import FORMATS, to_report
from unface.web.archives import AUDIT_SUFFIX, MOST_WAITING, Archive, Archives, File, zipped
from unface.web.names import NAMELESS, Names, cleaned, disposition, with_suffix
from unface.web.options import BATCH, MAX_TEXT, Chosen, read_options
from unface.web.outcomes import REPORT, Outcomes, covered, failed
from unface.web.problems import problem
from unface.web.responses import Pieces, json_response, while_there
from unface.web.uploads import Form, Part, boundary_of, too_large

MOST_FILES = 1000  # of one form; archives take more
ZIP_NAME = "unface.zip"
ZIP_HEADERS = {"content-type": "application/zip", "content-disposition": disposition(ZIP_NAME)}


class Batches:
    """Answers `/v1/batch` and `/v1/archives`."""

    def __init__(self, config: ServerConfig, asking: Asking) -> None:
        self._config = config
        self._asking = asking
        self.archives = Archives()

    async def batch(self, exchange: Exchange) -> Response:
        """Cover the files of a form, each as soon as it has come, and answer with all of them."""
        boundary = boundary_of(exchange.request.headers.get("content-type", ""))
        if boundary is None:
            raise InvalidOption("send the pictures as a form, with file fields `image`")
        batch = _Batch(self._config, self._asking, exchange)
        options, chosen = exchange.query(), None
        upload = self._asking.upload(exchange, self._config.http_batch_bytes)
        form = Form(boundary, self._config.max_message_bytes, MOST_FILES)
        try:
            async for part in parts_of(upload, form):
                if part.file_name is not None:
                    chosen = chosen or _bulk(read_options(options, BATCH))
                    await batch.start(chosen, part)
                    upload.more_time()
                elif chosen is not None:
                    raise InvalidOption(
                        f"{part.name[:40]!r} comes after a file; options come first"
                    )
                else:
                    options.append((part.name, part.text))
            if chosen is None:
                raise InvalidOption("the form has no file; send pictures as file fields `image`")
            files = await while_there(exchange.request.receive, batch.files())
        finally:
            await batch.cancel()
        headers = {REQUEST_ID_KEY: exchange.request_id, **ZIP_HEADERS}
        return Pieces(zipped(files), None, headers, exchange.share)

    async def open(self, exchange: Exchange) -> Response:
        """Open an archive."""
        archive = self.archives.open()
        return json_response({"id": archive.id}, {REQUEST_ID_KEY: exchange.request_id}, 201)

    async def download(self, exchange: Exchange) -> Response:
        """Download an archive, whose id is authority enough."""
        headers = {REQUEST_ID_KEY: exchange.request_id, **ZIP_HEADERS}
        return Pieces(self._found(exchange).download(), None, headers, exchange.share)

    async def add(self, exchange: Exchange) -> Response | Failure:
        """Cover a picture and put it into an archive."""
        archive = self._found(exchange)
        query = exchange.query()
        names = [value for name, value in query if name == "name"]
        if len(names) > 1:
            raise InvalidOption("name is given twice; once is enough")
        if names and len(names[0].encode()) > MAX_TEXT:
            raise InvalidOption(f"name is longer than {MAX_TEXT} bytes")
        options = [(name, value) for name, value in query if name != "name"]
        await archive.place()
        try:
            return await self._add(exchange, archive, names[0] if names else "", options)
        finally:
            archive.leave()

    async def _add(
        self, exchange: Exchange, archive: Archive, name: str, options: list[tuple[str, str]]
    ) -> Response | Failure:
        try:
            with archive.working():
                chosen, picture = await self._asking.read_one(exchange, BATCH, options)
                name = name or picture.file_name or NAMELESS
                answer = await self._asking.ask(exchange, _bulk(chosen), picture)
        except InvalidOption:
            raise  # nothing has been done, and nothing is told of it in the ZIP
        except UnfaceError as error:
            answer = self._asking.refused(exchange, error)
        if isinstance(answer, Failure):
            if answer.reason != Overloaded.__name__:  # that one may come again
                archive.outcomes.add(_failed(name or NAMELESS, answer, exchange.request_id))
            return answer
        image = answer.image.encoded
        exchange.share.add(len(image))
        wanted = with_suffix(cleaned(name), FORMATS[answer.format])
        handing = archive.hand(
            wanted, image, answer.audit_record.encode(), lambda as_: covered(name, as_, answer)
        )
        await while_there(exchange.request.receive, handing)
        return json_response(to_report(answer), {REQUEST_ID_KEY: exchange.request_id})

    async def close(self, exchange: Exchange) -> Response:
        """End an archive with its report, once its download has everything."""
        archive = self._found(exchange)
        await while_there(exchange.request.receive, archive.close())
        headers = {REQUEST_ID_KEY: exchange.request_id}
        return Response(archive.outcomes.to_json(), 200, headers, media_type="application/json")

    async def delete(self, exchange: Exchange) -> Response:
        """End an archive as it is, and break its download off."""
        self._found(exchange).end()
        return Response(status_code=204, headers={REQUEST_ID_KEY: exchange.request_id})

    def _found(self, exchange: Exchange) -> Archive:
        return self.archives.find(str(exchange.request.path_params["id"]))


class _Batch:
    """The pictures of one form: at most `MOST_WAITING` are worked on while the next one comes."""

    def __init__(self, config: ServerConfig, asking: Asking, exchange: Exchange) -> None:
        self._config = config
        self._asking = asking
        self._exchange = exchange
        self._room = asyncio.Semaphore(MOST_WAITING)
        self._tasks: list[asyncio.Task[tuple[str, Any]]] = []
        self._size = 0  # bytes of covered pictures
        self._error: Exception | None = None  # that ends all of it

    async def start(self, chosen: Chosen, picture: Part) -> None:
        """Work on a picture, once there is room for it."""
        await self._room.acquire()
        if self._error is not None:
            raise self._error
        work = self._one(len(self._tasks) + 1, chosen, picture)
        self._tasks.append(asyncio.ensure_future(work))

    async def files(self) -> list[File]:
        """Return what the ZIP has in it, once all are done."""
        names, files, outcomes = Names(REPORT), list[File](), Outcomes()
        for number, task in enumerate(self._tasks, 1):
            name, answer = await task
            if isinstance(answer, Failure):
                outcomes.add(_failed(name, answer, f"{self._exchange.request_id}.{number}"))
                continue
            record = answer.audit_record.encode()
            wanted = with_suffix(cleaned(name), FORMATS[answer.format])
            stored = names.take(wanted, AUDIT_SUFFIX if record else "")
            outcomes.add(covered(name, stored, answer))
            files.append((stored, answer.image.encoded))
            if record:
                files.append((stored + AUDIT_SUFFIX, record))
        return [*files, (REPORT, outcomes.to_json())]

    async def cancel(self) -> None:
        """End what is still worked on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _one(self, number: int, chosen: Chosen, picture: Part) -> tuple[str, Any]:
        name, share = picture.file_name or NAMELESS, self._exchange.share
        try:
            if picture.size > self._config.max_message_bytes:
                error = too_large(picture.size, self._config.max_message_bytes)
                return name, self._asking.refused(self._exchange, error)
            answer = await self._asking.ask_patiently(self._exchange, number, chosen, picture)
            share.add(-len(picture.content))
            if not isinstance(answer, Failure):
                self._hold(len(answer.image.encoded))
            return name, answer
        except (ImageTooLarge, Overloaded) as error:
            self._error = error
            raise
        finally:
            self._room.release()

    def _hold(self, size: int) -> None:
        """Count a covered picture; raises where the whole batch is too large."""
        self._size += size
        if self._size > self._config.http_batch_bytes:
            raise ImageTooLarge(
                f"the covered pictures have more than {self._config.http_batch_bytes} bytes; send "
                "fewer at once"
            )
        self._exchange.share.take(size)


def _bulk(chosen: Chosen) -> Chosen:
    """Have a picture of many go after those that somebody waits for, unless it says otherwise."""
    chosen.request.priority = chosen.request.priority or pb.PRIORITY_BULK
    return chosen


def _failed(name: str, failure: Failure, request_id: str) -> dict[str, Any]:
    return failed(name, problem(failure.reason, failure.http, failure.message, request_id))
