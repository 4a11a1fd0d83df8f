"""One HTTP request: who sent it, what it asks for, and how the pipeline is asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request

from unface.errors import InvalidOption
from unface.server.config import ServerConfig
from unface.server.pipeline import Call, Pipeline
from unface.server.record import Record
from unface.server.status import Failure, failure_from_exception
from unface.server.wire import Parts
from unface.web.options import Chosen, find_option, read_options
from unface.web.responses import while_there
from unface.web.uploads import (
    Form,
    Part,
    Share,
    Upload,
    boundary_of,
    check_declared,
    too_large,
)

FORM_HEADROOM = 4 << 20  # beyond the picture in a form: keep, cover, other fields, boundaries
MOST_OPTIONS = 64  # in a query
PATIENCE_SECONDS = 30.0  # in which a picture of a batch comes again where there is no room


@dataclass
class Exchange:
    """One request, under the name by which it is worked on, and the bytes it holds."""

    request: Request
    method: str  # of `unface.v1`, as records have it
    metadata: list[tuple[str, str]]
    request_id: str
    share: Share
    client: str
    began: float = field(default_factory=time.time)
    arrived: float = field(default_factory=time.perf_counter)

    @property
    def trace_parent(self) -> str:
        """The W3C traceparent that the client sent."""
        return next((value for key, value in self.metadata if key == "traceparent"), "")

    def call(self, number: int | None = None) -> Call:
        """Return the call of `unface.v1` that it is, or one of the many of a batch."""
        parent, forever = self.trace_parent, float("inf")
        if number is not None:
            name = f"{self.request_id}.{number}"
            return Call(self.method, self.client, name, forever, parent)
        return Call(
            self.method,
            self.client,
            self.request_id,
            forever,
            parent,
            began=self.began,
            arrived=self.arrived,
        )

    def record(self, failure: Failure) -> Record:
        """Return what observers are told of a request that did not come to the pipeline."""
        return Record(
            self.request_id,
            self.method,
            self.client,
            failure.code.name,
            failure.reason,
            self.began,
            seconds=time.perf_counter() - self.arrived,
            trace_parent=self.trace_parent,
        )

    def query(self) -> list[tuple[str, str]]:
        """Return the options in the query; raises `InvalidOption` where it cannot be read."""
        text = self.request.scope["query_string"].decode("latin-1")
        try:
            return parse_qsl(
                text, keep_blank_values=True, errors="strict", max_num_fields=MOST_OPTIONS
            )
        except ValueError as error:
            raise InvalidOption(
                f"the query cannot be read: more than {MOST_OPTIONS} options, or no UTF-8"
            ) from error


class Asking:
    """Asks the pipeline, and reads what it is asked."""

    def __init__(self, config: ServerConfig, pipeline: Pipeline) -> None:
        self._config = config
        self._pipeline = pipeline

    async def ask(self, exchange: Exchange, chosen: Chosen, picture: Part) -> Any:
        """Return the pipeline's answer, unless the client leaves before it."""
        parts = Parts(chosen.request, memoryview(picture.content))
        answer = self._pipeline.answer(parts, exchange.call())
        return await while_there(exchange.request.receive, answer)

    async def ask_patiently(
        self, exchange: Exchange, number: int, chosen: Chosen, picture: Part
    ) -> Any:
        """Return the answer to one picture of many; where there is no room, ask for it again."""
        ends_at = time.monotonic() + PATIENCE_SECONDS
        while True:
            parts = Parts(chosen.request, memoryview(picture.content))
            answer = await self._pipeline.answer(parts, exchange.call(number))
            if not isinstance(answer, Failure) or answer.retry_ms is None:
                return answer
            pause = answer.retry_ms / 1000
            if time.monotonic() + pause > ends_at:
                return answer
            await asyncio.sleep(pause)

    def refused(self, exchange: Exchange, error: Exception) -> Failure:
        """Return what the client is told of an error, and tell the observers."""
        failure = failure_from_exception(error, exchange.request_id)
        self._pipeline.refused(exchange.record(failure))
        return failure

    async def read_one(
        self, exchange: Exchange, call: str, options: list[tuple[str, str]]
    ) -> tuple[Chosen, Part]:
        """Return what is asked for and the picture: the body, or the file in a form.

        Raises what is wrong with them as soon as it is seen.
        """
        for name, _ in options:
            find_option(name, call)
        headers = exchange.request.headers
        boundary = boundary_of(headers.get("content-type", ""))
        most = self._config.max_message_bytes
        upload = self.upload(exchange, most + (FORM_HEADROOM if boundary else 0))
        if boundary is None:
            picture = Part("image", "")
            async for chunk in upload.chunks():
                picture.content += chunk
            return read_options(options, call), picture
        found: Part | None = None
        async for part in parts_of(upload, Form(boundary, most, 1)):
            if part.file_name is None:
                find_option(part.name, call)
                options.append((part.name, part.text))
            else:
                found = part
                if part.size > most:
                    raise too_large(part.size, most)
        if found is None:
            raise InvalidOption("the form has no file; send the picture as the file field `image`")
        return read_options(options, call), found

    def upload(self, exchange: Exchange, most: int) -> Upload:
        """Return the body of a request, unless its headers say that it is too large."""
        request = exchange.request
        check_declared(request.headers, most)
        return Upload(request.receive, most, self._config.http_seconds, exchange.share)


async def parts_of(upload: Upload, form: Form) -> AsyncIterator[Part]:
    """Yield the parts of a form as they come."""
    async for chunk in upload.chunks():
        for part in form.feed(chunk):
            yield part
    form.finish()
