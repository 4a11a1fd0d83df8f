"""Calls of many clients from a process of their own, with requests that were made beforehand.

Imports gRPC and the standard library alone, and leaves answers as bytes: on a machine that the
server shares with its clients, what a client costs is taken from the server.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import grpc

DETECT = "/unface.v1.Unface/Detect"
ANONYMIZE = "/unface.v1.Unface/Anonymize"
OK, REFUSED = "OK", "RESOURCE_EXHAUSTED"
CONNECT_SECONDS = 20
PAUSE_SECONDS = 0.01  # after a failure, so that one that comes at once does not make a busy loop
MOST_OPEN = 20_000  # calls of an open loop that may wait for their answers
CHANNEL_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),  # a connection of its own for every client
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 200),
)


@dataclass(frozen=True)
class Load:
    """What is sent: serialized `requests` in turn, for so many seconds.

    Without `rate` each of the `clients` sends when it has its answer (closed loop). With it, so
    many calls a second are sent whatever becomes of them (open loop), spread over the clients.
    """

    target: str
    requests: tuple[bytes, ...]
    seconds: float
    clients: int = 1
    rate: float | None = None
    method: str = DETECT
    timeout: float = 30.0


class Call(NamedTuple):
    """One call: when it was sent (`time.monotonic()`), its seconds, the name of its status."""

    sent: float
    seconds: float
    code: str

    @property
    def ended(self) -> float:
        """When the answer was there."""
        return self.sent + self.seconds


class Sent(NamedTuple):
    """All calls of a load in the order of their ends.

    `busy` is the share of a core that the client took, `late_seconds` how much later than planned
    the last hundredth of an open loop's calls were sent.
    """

    calls: list[Call]
    busy: float
    late_seconds: float = 0.0


Send = Callable[[bytes], Any]  # awaitable; an answer or grpc.RpcError


@contextmanager
def client_processes(count: int = 1) -> Iterator[ProcessPoolExecutor]:
    """Give processes for `send`, started and ready."""
    context = multiprocessing.get_context("spawn")  # gRPC and fork do not go together
    with ProcessPoolExecutor(count, context) as processes:
        list(processes.map(time.sleep, [0.05] * count))
        yield processes


def send(load: Load) -> Sent:
    """Connect, send a load and return what became of each call."""
    return asyncio.run(_send(load))


async def _send(load: Load) -> Sent:
    channels: list[Any] = [
        grpc.aio.insecure_channel(load.target, CHANNEL_OPTIONS) for _ in range(load.clients)
    ]
    try:
        await asyncio.wait_for(
            asyncio.gather(*(channel.channel_ready() for channel in channels)), CONNECT_SECONDS
        )
        senders: list[Send] = [_sender(channel, load) for channel in channels]
        calls: list[Call] = []
        cpu, begin = time.process_time(), time.monotonic()
        late = 0.0
        if load.rate is None:
            ends = begin + load.seconds
            await asyncio.gather(
                *(_closed(one, load.requests, ends, calls, n) for n, one in enumerate(senders))
            )
        else:
            late = await _open(senders, load, load.rate, calls)
        busy = (time.process_time() - cpu) / max(time.monotonic() - begin, 1e-9)
        return Sent(calls, busy, late)
    finally:
        await asyncio.gather(*(channel.close() for channel in channels))


def bare_rpc(channel: Any, method: str) -> Any:
    """Return an RPC of a channel, of either kind, that takes and gives serialized messages."""
    return (channel.stream_stream if method.endswith("Stream") else channel.unary_unary)(method)


def _sender(channel: Any, load: Load) -> Send:
    call = bare_rpc(channel, load.method)
    return lambda request: call(request, timeout=load.timeout)


async def _one(sender: Send, request: bytes, calls: list[Call]) -> str:
    sent = time.monotonic()
    try:
        await sender(request)
        code = OK
    except grpc.RpcError as error:
        code = error.code().name
    calls.append(Call(sent, time.monotonic() - sent, code))
    return code


async def _closed(
    sender: Send, requests: Sequence[bytes], ends: float, calls: list[Call], number: int
) -> None:
    for turn in itertools.count(number):
        if time.monotonic() >= ends:
            return
        if await _one(sender, requests[turn % len(requests)], calls) != OK:
            await asyncio.sleep(PAUSE_SECONDS)


async def _open(senders: Sequence[Send], load: Load, rate: float, calls: list[Call]) -> float:
    """Send at a rate, wait for all answers, and return how late the latest hundredth was sent."""
    waiting: set[asyncio.Task[str]] = set()
    late: list[float] = []
    begin = time.monotonic()
    for turn in range(round(load.seconds * rate)):
        due = begin + turn / rate
        if (wait := due - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        if len(waiting) >= MOST_OPEN:
            raise RuntimeError(f"{MOST_OPEN} calls have no answer yet; the server hangs")
        late.append(max(0.0, time.monotonic() - due))
        sender = senders[turn % len(senders)]
        task = asyncio.create_task(_one(sender, load.requests[turn % len(load.requests)], calls))
        waiting.add(task)
        task.add_done_callback(waiting.discard)
    await asyncio.gather(*waiting)
    return sorted(late)[int(len(late) * 0.99)] if late else 0.0
