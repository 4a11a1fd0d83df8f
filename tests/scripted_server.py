"""A real gRPC server that answers as a test's script says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc

from unface.v1 import unface_pb2 as pb
from unface.v1.unface_pb2_grpc import (
    AdminServicer,
    UnfaceServicer,
    add_AdminServicer_to_server,
    add_UnfaceServicer_to_server,
)

FOUND = pb.DetectResponse(width=20, height=10, request_id="r-1", profile="fast")


@dataclass(frozen=True)
class Failure:
    """How one call ends."""

    code: grpc.StatusCode
    details: str = "the server's own words"
    reason: str | None = None
    pushback: str | None = None

    def end(self, context: grpc.ServicerContext) -> NoReturn:
        trailers = {"unface-reason": self.reason, "grpc-retry-pushback-ms": self.pushback}
        context.set_trailing_metadata(
            tuple(
                (key, value)
                for key, value in {"unface-request-id": "r-9", **trailers}.items()
                if value is not None
            )
        )
        context.abort(self.code, self.details)


Step = Failure | Callable[[Any, grpc.ServicerContext], Any] | Any  # anything else is the answer


@dataclass(frozen=True)
class Seen:
    """A call as it reached the server."""

    method: str
    request: Any
    metadata: Mapping[str, str]
    seconds_left: float | None


@dataclass
class Script:
    """What calls are answered by, one after the other; the last step goes on for ever."""

    steps: list[Step]
    seen: list[Seen] = field(default_factory=list)
    target: str = ""

    def answer(self, method: str, request: Any, context: grpc.ServicerContext) -> Any:
        metadata = {str(key): str(value) for key, value in context.invocation_metadata()}
        self.seen.append(Seen(method, request, metadata, context.time_remaining()))
        step = self.steps[min(len(self.seen), len(self.steps)) - 1]
        if isinstance(step, Failure):
            step.end(context)
        return step(request, context) if callable(step) else step


class _Service(UnfaceServicer, AdminServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    def Detect(self, request: Any, context: Any) -> Any:
        return self.script.answer("Detect", request, context)

    def Anonymize(self, request: Any, context: Any) -> Any:
        return self.script.answer("Anonymize", request, context)

    def GetServerInfo(self, request: Any, context: Any) -> Any:
        return self.script.answer("GetServerInfo", request, context)

    def Report(self, request: Any, context: Any) -> Any:
        return self.script.answer("Report", request, context)

    def Reload(self, request: Any, context: Any) -> Any:
        return self.script.answer("Reload", request, context)

    def DetectStream(self, request_iterator: Any, context: Any) -> Any:
        yield from self.script.answer("DetectStream", request_iterator, context)

    def AnonymizeStream(self, request_iterator: Any, context: Any) -> Any:
        yield from self.script.answer("AnonymizeStream", request_iterator, context)


@contextmanager
def scripted(
    *steps: Step,
    credentials: grpc.ServerCredentials | None = None,
    max_bytes: int = 1 << 22,
) -> Iterator[Script]:
    """Serve a script on a free port of 127.0.0.1; it tells the target and what came."""
    script = Script(list(steps))
    with ThreadPoolExecutor(8) as threads:
        server = grpc.server(threads, options=[("grpc.max_receive_message_length", max_bytes)])
        add_UnfaceServicer_to_server(_Service(script), server)
        add_AdminServicer_to_server(_Service(script), server)
        if credentials is None:
            port = server.add_insecure_port("127.0.0.1:0")
        else:
            port = server.add_secure_port("127.0.0.1:0", credentials)
        script.target = f"127.0.0.1:{port}"
        server.start()
        try:
            yield script
        finally:
            server.stop(None).wait()
