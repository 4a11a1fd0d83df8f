"""A minute of clients that cancel, stall, freeze and vanish, beside one that does not."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import signal
import socket
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from statistics import median
from typing import Any, cast

import grpc

from benchmarks import serving_http2 as http2
from benchmarks.pictures import JPEG_QUALITY, compose
from benchmarks.serving_client import (
    ANONYMIZE,
    DETECT,
    Load,
    Sent,
    bare_rpc,
    client_processes,
    send,
)
from benchmarks.serving_figures import Section, as_figures, milliseconds, outcome, percentile
from benchmarks.serving_server import (
    IDLE_SHARE,
    ServerProcess,
    is_serving,
    open_files,
    resident_bytes,
    serving,
    tracebacks,
    wait_until_idle,
    worker_ids,
)
from benchmarks.serving_speed import request
from unface.anonymize import encode
from unface.v1 import unface_pb2 as pb

GROWTH = 0.10  # target
SPARE_FILES = 20  # more open than before: what the server's libraries keep for later
WARM_UP = 0.25  # of the time: memory grows to what this traffic needs
PACE_S = 0.02  # between two misdeeds
HALF_OPEN = 48  # connections kept at once
SLOW_STREAMS = 4  # of the server's 16
FROZEN = 2  # processes
HONEST_CLIENTS = 2
SIZE, FACES = (320, 240), [(30, 20, 40), (150, 60, 60)]
ANONYMIZE_STREAM = "/unface.v1.Unface/AnonymizeStream"
FRAMES = 200  # of a slow stream; their answers are far more than the network holds


@dataclass
class Chaos:
    """What a minute of chaos did to a server and to the honest client beside it."""

    honest: Sent
    misdeeds: Counter[str] = field(default_factory=Counter)
    warm_bytes: int = 0
    end_bytes: int = 0
    files: tuple[int, int] = (0, 0)  # open before and after
    idle_share: float = 0.0  # of a core, when all clients have gone
    wrong: list[str] = field(default_factory=list)


def chaos(seconds: float = 60) -> Section:
    """Misbehave in all known ways beside an honest client, and look at both."""
    section = Section("chaos", {"server": "defaults"})
    with serving() as server:
        found = misbehave(server, seconds)
    honest = outcome(found.honest.calls)
    failed = honest.sent - honest.accepted
    taken = milliseconds(found.honest.calls)
    grown = found.end_bytes / found.warm_bytes - 1
    section.add(
        "misdeeds", ", ".join(f"{count} {name}" for name, count in sorted(found.misdeeds.items()))
    )
    section.add(
        "honest calls beside them",
        f"{honest.sent}, failed {failed} {dict(honest.other) or ''}; p50 {median(taken):.0f} ms, "
        f"p99 {percentile(taken, 0.99):.0f} ms",
        "none fails",
        failed == 0,
    )
    section.add(
        "memory of all processes, end to warm",
        f"{grown:+.1%}, {found.end_bytes / 1e6:.0f} MB",
        f"within {GROWTH:.0%}",
        grown <= GROWTH,
    )
    before, after = found.files
    section.add(
        "open files and sockets, before and after",
        f"{before}, {after}",
        f"at most {SPARE_FILES} more",
        after <= before + SPARE_FILES,
    )
    section.add(
        "share of a core when all have gone",
        f"{found.idle_share:.1%}",
        f"at most {IDLE_SHARE:.0%}",
        found.idle_share <= IDLE_SHARE,
    )
    section.add("wrong", "; ".join(found.wrong) or "nothing", "nothing", not found.wrong)
    section.figures |= as_figures(
        seconds=seconds, misdeeds=found.misdeeds, honest=honest._asdict(), memory_growth=grown,
        files=found.files, idle_share=found.idle_share, wrong=found.wrong,
        honest_p50_ms=median(taken), honest_p99_ms=percentile(taken, 0.99),
    )  # fmt: skip
    return section


def misbehave(server: ServerProcess, seconds: float, seed: int = 6) -> Chaos:
    """Let honest and bad clients loose on a server for so long, and wait until it is idle again."""
    small = request(small_picture())
    load = Load(server.target, (small,), seconds, HONEST_CLIENTS)
    ids, files = worker_ids(server), open_files(server)
    with client_processes(2) as processes:
        honest = processes.submit(send, load)
        bad = processes.submit(misdeeds, server.target, seconds, seed)
        with frozen_clients(server.target) as frozen:
            warm, freezes = _freeze_in_turns(server, frozen, seconds, random.Random(seed))  # noqa: S311
        found = Chaos(honest.result(), bad.result())
    found.misdeeds["frozen"] = freezes
    found.warm_bytes = warm
    found.idle_share = wait_until_idle(server)
    found.end_bytes = resident_bytes(server)
    found.files = files, open_files(server)
    if worker_ids(server) != ids:
        found.wrong.append("a worker has died")
    if not is_serving(server):
        found.wrong.append("the health service does not say SERVING")
    found.wrong += [f"in the server's log: {error}" for error in tracebacks(server)]
    return found


def small_picture() -> bytes:
    """Return a JPEG with two faces that fits an HTTP/2 window."""
    return encode(compose(*SIZE, FACES).image, "jpeg", quality=JPEG_QUALITY)


@contextmanager
def frozen_clients(target: str) -> Iterator[list[BaseProcess]]:
    """Give processes whose calls are under way, to be stopped; they vanish without a word."""
    context = multiprocessing.get_context("spawn")
    clients = [
        context.Process(target=_send_for_ever, args=(target,), daemon=True) for _ in range(FROZEN)
    ]
    for client in clients:
        client.start()
    try:
        yield list(clients)
    finally:
        for client in clients:
            client.kill()
            client.join()


def misdeeds(target: str, seconds: float, seed: int) -> Counter[str]:
    """Misbehave in one way after the other; returns how often in which."""
    return asyncio.run(_misdeeds(target, seconds, random.Random(seed)))  # noqa: S311 - of a test


async def _misdeeds(target: str, seconds: float, rng: random.Random) -> Counter[str]:
    picture = request(small_picture())
    done: Counter[str] = Counter()
    sockets: list[socket.socket] = []
    end = time.monotonic() + seconds
    async with grpc.aio.insecure_channel(target) as channel:
        slow = [_read_nothing(channel, end) for _ in range(SLOW_STREAMS)]
        streams = asyncio.gather(*slow)
        tasks: set[asyncio.Task[None]] = set()
        while time.monotonic() < end:
            if rng.random() < 0.5:
                task = asyncio.create_task(_cancel(channel, picture, rng.uniform(0, 0.06), rng))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                done["cancelled"] += 1
            else:
                name, words = half_request(rng, picture)
                sockets.append(await _connected(target, words))
                done[name] += 1
                if len(sockets) > HALF_OPEN:
                    _leave(sockets.pop(rng.randrange(len(sockets))), rng.random() < 0.5)
            await asyncio.sleep(rng.uniform(0, 2 * PACE_S))
        await asyncio.gather(*tasks)
        done["slow readers"] = sum(await streams)
    for one in sockets:
        _leave(one, reset=False)
    return done


def half_request(rng: random.Random, message: bytes) -> tuple[str, bytes]:
    """Return what a client says on a connection before it falls silent, and what that is called."""
    call = http2.headers(rng.choice((DETECT, ANONYMIZE, ANONYMIZE_STREAM)))
    whole = http2.opening() + call + http2.body(message)
    said = {
        "silent": b"",
        "half a preface": http2.PREFACE[:9],
        "preface alone": http2.opening(),
        "headers alone": http2.opening() + call,
        "half a request": whole[: rng.randrange(len(http2.opening()), len(whole))],
        "request, then gone": whole,
        "answer never read": http2.opening(window=0) + call + http2.body(message),
        "reset at once": whole
        + http2.frame(http2.RST_STREAM, 0, 1, struct.pack(">I", http2.CANCEL)),
        "noise": http2.opening() + rng.randbytes(300),
        "another protocol": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    }
    name = rng.choice(tuple(said))
    return name, said[name]


async def _connected(target: str, words: bytes) -> socket.socket:
    """Connect and say something; what the server answers is never read."""
    host, port = target.rsplit(":", 1)
    one = socket.socket()
    one.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(one, (host, int(port)))
    with suppress(OSError):  # the server may have had enough already
        await asyncio.wait_for(loop.sock_sendall(one, words), 5)
    return one


def _leave(one: socket.socket, reset: bool) -> None:
    """Close a connection, or have it vanish: a close without lingering sends RST."""
    if reset:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()


async def _cancel(channel: Any, message: bytes, wait: float, rng: random.Random) -> None:
    """Make a call and give it up after a moment, by hand or by a deadline."""
    call: Any
    if rng.random() < 0.3:
        call = bare_rpc(channel, DETECT)(message, timeout=max(wait, 1e-3))
        with suppress(grpc.aio.AioRpcError):
            await call
        return
    if rng.random() < 0.7:
        call = bare_rpc(channel, rng.choice((DETECT, ANONYMIZE)))(message)
    else:
        call = bare_rpc(channel, ANONYMIZE_STREAM)(_frames(message, 5))
    await asyncio.sleep(wait)
    call.cancel()


async def _read_nothing(channel: Any, end: float) -> int:
    """Send frames and read no answer, until it is time to leave; returns 1."""
    picture = pb.AnonymizeRequest.FromString(request(small_picture()))
    picture.anonymize_options.format = pb.OUTPUT_FORMAT_RAW  # far more comes back than goes
    call = bare_rpc(channel, ANONYMIZE_STREAM)(_frames(picture.SerializeToString(), FRAMES))
    await call.wait_for_connection()
    await asyncio.sleep(max(0.0, end - time.monotonic()))
    call.cancel()
    return 1


async def _frames(message: bytes, count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield message


def _send_for_ever(target: str) -> None:
    """Be a client that never ends of itself."""
    asyncio.run(_stream_for_ever(target))


async def _stream_for_ever(target: str) -> None:
    async with grpc.aio.insecure_channel(target) as channel:
        call = bare_rpc(channel, ANONYMIZE_STREAM)(_frames(request(small_picture()), 1_000_000))
        async for _ in cast(AsyncIterator[bytes], call):
            await asyncio.sleep(PACE_S)


def _freeze_in_turns(
    server: ServerProcess, clients: list[BaseProcess], seconds: float, rng: random.Random
) -> tuple[int, int]:
    """Stop and continue the clients for so long; returns bytes when warm, and how many stops."""
    begin, warm, stops = time.monotonic(), 0, 0
    while (passed := time.monotonic() - begin) < seconds:
        client = rng.choice(clients)
        if client.pid is not None and client.is_alive():
            os.kill(client.pid, signal.SIGSTOP)
            time.sleep(min(rng.uniform(0.1, 2.0), max(0.0, seconds - passed)))
            os.kill(client.pid, signal.SIGCONT)
            stops += 1
        time.sleep(0.1)
        if not warm and passed >= seconds * WARM_UP:
            warm = resident_bytes(server)
    return warm or resident_bytes(server), stops
