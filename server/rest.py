"""REST: the thin door between HTTP and the pipeline. `Rest` is an ASGI application."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from unface.server.access import ANY_TOKEN, ANYBODY, LOCAL, Access
from unface.server.batches import Batches
from unface.server.config import ServerConfig
from unface.server.exchange import Asking, Exchange
from unface.server.guard import Guard, told
from unface.server.pipeline import Pipeline
from unface.server.status import (
    CODES,
    INTERNAL_REASON,
    REQUEST_ID_KEY,
    Failure,
    failure_from_exception,
)
from unface.v1 import unface_pb2 as pb
from unface.web.answers import FORMATS, to_detection, to_info, to_json, to_report, with_image
from unface.web.docs_page import docs_page
from unface.web.manual import OPERATIONS, completed
from unface.web.names import cleaned, disposition, with_suffix
from unface.web.options import ANONYMIZE, DETECT
from unface.web.pages import INDEX, File, read_files
from unface.web.problems import MethodNotAllowed, NotFound
from unface.web.responses import Pieces, cut, json_response
from unface.web.uploads import ClientLeft, Held

# FastAPI's own would tell whoever OpenTelemetry's variables name of paths, queries and errors.
SILENT: Any = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
MEDIA_TYPES = {"jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
Work = Callable[[Exchange], Awaitable["Response | Failure"]]


class Rest:
    """The routes, and the way of a request from HTTP to the pipeline and back."""

    def __init__(
        self,
        config: ServerConfig,
        pipeline: Pipeline,
        access: Access,
        info: Callable[[], pb.GetServerInfoResponse],
    ) -> None:
        self._config = config
        self._access = access
        self._info = info
        self._asking = Asking(config, pipeline)
        self._batches = Batches(config, self._asking)
        self._held = Held(config.queue_bytes)
        self._app = self._routes()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._app(scope, receive, send)

    def close(self) -> None:
        """End what would go on for long: archives that wait for more files."""
        self._batches.archives.close()

    def _routes(self) -> ASGIApp:
        app = FastAPI(
            title="unface",
            version=version("unface"),
            openapi_url=None,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
            telemetry=SILENT,
            exception_handlers={HTTPException: self._no_route},
        )
        self._add(app, "GET", "/v1/info", "GetServerInfo", ANY_TOKEN, self._get_info)
        self._add(app, "POST", "/v1/detect", "Detect", "detect", self._detect)
        self._add(app, "POST", "/v1/anonymize", "Anonymize", "anonymize", self._anonymize)
        batches, archive = self._batches, "/v1/archives/{id}"
        self._add(app, "POST", "/v1/batch", "Anonymize", "anonymize", batches.batch)
        # Opening one, downloading and ending it need no place in the queue.
        self._add(app, "POST", "/v1/archives", "Archive", "anonymize", batches.open)
        self._add(app, "GET", archive, "Archive", ANYBODY, batches.download)
        self._add(app, "DELETE", archive, "Archive", "anonymize", batches.delete)
        self._add(app, "POST", archive + "/files", "Anonymize", "anonymize", batches.add)
        self._add(app, "POST", archive + "/close", "Archive", "anonymize", batches.close)
        reasons = [*((kind.__name__, http) for kind, _, http in CODES), (INTERNAL_REASON, 500)]
        document = completed(app.openapi(), reasons)
        files = {f"/page/{name}": file for name, file in read_files().items()}
        files["/v1/docs"] = File(docs_page(document), ".html")
        files["/v1/openapi.json"] = File(to_json(document), ".json")
        if "/page/" + INDEX in files:
            files["/"] = files["/page/" + INDEX]
        for path, file in files.items():
            app.add_api_route(path, _file(file), methods=["GET", "HEAD"], include_in_schema=False)
        return Guard(app, self._config)

    def _add(self, app: FastAPI, verb: str, path: str, method: str, scope: str, work: Work) -> None:
        async def answer(request: Request) -> Response:
            return await self._answer(request, method, scope, work)

        told = OPERATIONS[verb, path]
        app.add_api_route(
            path,
            answer,
            methods=[verb],
            status_code=int(next(iter(told["responses"]))),
            response_class=Response,
            operation_id=f"{verb}{path.replace('/', '_')}".lower().replace("{id}", "id"),
            summary=str(told["summary"]),
            description=str(told.get("description", "")),
            openapi_extra=dict(told),
        )

    async def _answer(self, request: Request, method: str, scope: str, work: Work) -> Response:
        """Let a client in, do the work, and tell how it went."""
        state = request.scope["state"]
        exchange = Exchange(
            request,
            method,
            [(key, value) for key, value in request.headers.items()],
            state["request_id"],
            self._held.share(),
            state["certified"] or (request.client.host if request.client else LOCAL),
        )
        try:
            if scope != ANYBODY:
                caller = self._access.caller(scope, exchange.metadata)
                exchange.client = caller.name or exchange.client
            self._access.check_early(method)
            answer = await work(exchange)
        except asyncio.CancelledError:
            exchange.share.release()
            raise
        except ClientLeft:
            answer = Response(status_code=499)  # nobody reads it
        except Exception as error:  # noqa: BLE001 - the boundary: logged and told by status.py
            answer = self._asking.refused(exchange, error)
        if isinstance(answer, Failure):
            answer = told(answer, exchange.request_id)
        if not isinstance(answer, Pieces):
            exchange.share.release()
        return answer

    async def _get_info(self, exchange: Exchange) -> Response:
        return json_response(to_info(self._info()), {REQUEST_ID_KEY: exchange.request_id})

    async def _detect(self, exchange: Exchange) -> Response | Failure:
        chosen, picture = await self._asking.read_one(exchange, DETECT, exchange.query())
        answer = await self._asking.ask(exchange, chosen, picture)
        if isinstance(answer, Failure):
            return answer
        return json_response(to_detection(answer), {REQUEST_ID_KEY: exchange.request_id})

    async def _anonymize(self, exchange: Exchange) -> Response | Failure:
        chosen, picture = await self._asking.read_one(exchange, ANONYMIZE, exchange.query())
        answer = await self._asking.ask(exchange, chosen, picture)
        if isinstance(answer, Failure):
            return answer
        headers = {REQUEST_ID_KEY: exchange.request_id}
        form = chosen.answer or _accepted(exchange.request)
        if form == "report":
            return json_response(to_report(answer), headers)
        image = answer.image.encoded
        exchange.share.add(len(image))
        if form == "json":
            length, pieces = with_image(to_report(answer), image)
            headers["content-type"] = "application/json"
            return Pieces(pieces, length, headers, exchange.share)
        headers |= _picture_headers(answer, picture.file_name or "")
        return Pieces(cut(image), len(image), headers, exchange.share)

    async def _no_route(self, request: Request, error: Exception) -> Response:
        """Tell in our own words of a path or method that there is not."""
        assert isinstance(error, HTTPException)  # noqa: S101
        if error.status_code == 405:
            allowed = ", ".join(sorted((error.headers or {})["Allow"].split(", ")))
            wrong = MethodNotAllowed(f"this path takes {allowed} alone")
            return self._missing(request, wrong, {"allow": allowed})
        return self._missing(request, NotFound("there is nothing at this path; see /v1/docs"))

    def _missing(
        self, request: Request, error: Exception, headers: dict[str, str] | None = None
    ) -> Response:
        number = request.scope["state"]["request_id"]
        return told(failure_from_exception(error, number), number, headers)


def _file(file: File) -> Callable[..., Awaitable[Response]]:
    """Return what answers with a file, compressed for who takes that: a third of the bytes."""
    zipped = gzip.compress(file.content, mtime=0)

    async def answer(request: Request) -> Response:
        takes = {part.split(";")[0].strip() for part in _accepted_encodings(request)}
        content, etag = (zipped, file.etag_zipped) if "gzip" in takes else (file.content, file.etag)
        headers = {"cache-control": "no-cache", "etag": etag, "vary": "accept-encoding"}
        if etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if content is zipped:
            headers["content-encoding"] = "gzip"
        return Response(content, 200, headers, media_type=file.media_type)

    return answer


def _accepted_encodings(request: Request) -> list[str]:
    """Return what a client says of encodings, but for those that it refuses with q=0."""
    said = request.headers.get("accept-encoding", "").lower().split(",")
    return [part for part in said if not part.replace(" ", "").endswith((";q=0", ";q=0.0"))]


def _accepted(request: Request) -> str:
    """Return the form of an answer that was not asked for by name."""
    accepted = request.headers.get("accept", "").lower()
    return "json" if accepted.startswith("application/json") else "image"


def _picture_headers(answer: pb.AnonymizeResponse, name: str) -> dict[str, str]:
    format = FORMATS[answer.format]
    headers = {
        "content-type": MEDIA_TYPES[format],
        "unface-faces": str(len(answer.faces)),
        "unface-kept": str(len(answer.kept)),
        "unface-backend": answer.backend,
    }
    if answer.HasField("verification"):
        headers["unface-residual"] = str(len(answer.verification.residual))
    if name:
        headers["content-disposition"] = disposition(with_suffix(cleaned(name), format))
    return headers
