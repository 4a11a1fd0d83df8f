"""A small gRPC server with the methods of the real one: it tells its callers who they are."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, cast

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from unface.server.access import Access, caller_of

UNFACE, ADMIN = "unface.v1.Unface", "unface.v1.Admin"
DETECT = f"/{UNFACE}/Detect"


class Desk:
    """The methods of the real services; each answers with its caller's name and scopes.

    Counts the messages that were read, and the calls that came through.
    """

    def __init__(self) -> None:
        self.read = 0
        self.calls = 0

    def handlers(self) -> dict[str, dict[str, Any]]:
        one = grpc.unary_unary_rpc_method_handler(self.one, self.deserialize)
        many = grpc.stream_stream_rpc_method_handler(self.many, self.deserialize)
        yielding = grpc.stream_stream_rpc_method_handler(self.yielding, self.deserialize)
        names = ["Detect", "Anonymize", "GetServerInfo", "Report", "Unlisted"]
        return {
            UNFACE: {
                **dict.fromkeys(names, one),
                "DetectStream": many,
                "AnonymizeStream": yielding,
            },
            ADMIN: {"Reload": one},
            "unface.v2.Unface": {"Detect": one},
        }

    def deserialize(self, message: bytes) -> bytes:
        self.read += 1
        return message

    def answer(self, context: Any) -> bytes:
        caller = caller_of(context)
        return f"{caller.name}|{' '.join(sorted(caller.scopes))}".encode()

    async def one(self, request: bytes, context: Any) -> bytes:
        self.calls += 1
        await asyncio.sleep(0)  # let calls of others in between
        return self.answer(context)

    async def many(self, requests: AsyncIterator[bytes], context: Any) -> None:
        self.calls += 1
        async for _ in requests:
            await context.write(await asyncio.create_task(self.later(context)))

    async def later(self, context: Any) -> bytes:
        return self.answer(context)

    async def yielding(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        self.calls += 1
        async for _ in requests:
            yield self.answer(context)


class Served:
    def __init__(self, desk: Desk, target: str) -> None:
        self.desk = desk
        self.target = target


@contextmanager
def serving(
    access: Access | None,
    address: str = "127.0.0.1:0",
    credentials: grpc.ServerCredentials | None = None,
) -> Iterator[Served]:
    """Run a real server with this access on a thread of its own."""
    ready: list[Served] = []
    started, loop = threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def run() -> None:
        desk = Desk()
        server = grpc.aio.server(
            interceptors=[access] if access else [],
            options=[("grpc.max_receive_message_length", -1)],
        )
        for service, handlers in desk.handlers().items():
            generic = grpc.method_handlers_generic_handler(service, handlers)
            server.add_generic_rpc_handlers((generic,))
        health_pb2_grpc.add_HealthServicer_to_server(cast(Any, health).aio.HealthServicer(), server)
        reflection.enable_server_reflection([UNFACE], server)
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
        await server.start()
        target = address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"
        ready.append(Served(desk, target))
        started.set()
        await stop.wait()
        await server.stop(None)

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), daemon=True)
    thread.start()
    assert started.wait(20)
    try:
        yield ready[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()


def call(
    served: Served, method: str, *metadata: tuple[str, str], body: bytes = b"picture"
) -> bytes:
    with grpc.insecure_channel(served.target, [("grpc.max_send_message_length", -1)]) as channel:
        return called(channel, method, *metadata, body=body)


def called(
    channel: Any, method: str, *metadata: tuple[str, str], body: bytes = b"picture"
) -> bytes:
    if method.endswith("Stream"):
        (answer,) = channel.stream_stream(method)(iter([body]), metadata=metadata, timeout=20)
    else:
        answer = channel.unary_unary(method)(body, metadata=metadata, timeout=20)
    return bytes(answer)
