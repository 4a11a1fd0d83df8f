"""The one file that wires everything: configuration, engines, services, health, signals."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, cast

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from unface.anonymize import Limits
from unface.anonymize.threads import limit_threads
from unface.engines.cascades import Cascades, Serving
from unface.errors import UnfaceError
from unface.mtcnn.faces import Faces
from unface.mtcnn.network import UInt8Array
from unface.mtcnn.options import DetectOptions
from unface.mtcnn.team import cores
from unface.server.admission import Admission
from unface.server.config import ServerConfig, address
from unface.server.facts import server_info
from unface.server.memory import give_large_buffers_back
from unface.server.pipeline import DetectJob, Pipeline, Timed, timed
from unface.server.scheduler import Scheduler
from unface.server.service import UnfaceService
from unface.server.warmup import warm_up
from unface.v1.unface_pb2_grpc import add_UnfaceServicer_to_server

SERVICE = "unface.v1.Unface"
GPU_BACKEND, CPU_BACKEND = "unface.backend.cuda", "unface.backend.cpu"  # for the health service
CODEC_THREADS = 2  # decode and encode beside the detector; each thread has a heap of its own
# Beyond the largest picture: options, and a little more, so that a picture just too large gets
# the codec's message instead of gRPC's.
MESSAGE_HEADROOM = 1 << 20
LAST_WORDS_SECONDS = 0.5  # for what is answered but not yet sent, and for calls cut off
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class CannotListen(UnfaceError):
    """The address is taken, not allowed, or not of this machine."""


class Detector(Protocol):
    """What finds faces; `unface.engines.cascades.Cascades` is one. One caller at a time."""

    @property
    def serving(self) -> Serving:
        """What would serve a call now; for any thread."""
        ...

    def watch(self, changed: Callable[[], None]) -> None:
        """Have `changed` called, on any thread, when `serving` has changed."""
        ...

    def detect(self, image: UInt8Array, options: DetectOptions) -> Faces:
        """Find the faces of uint8 `[H, W, 3]` RGB pixels."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


def open_cascade(config: ServerConfig) -> Detector:
    """Return the cascades of the configured engines."""
    return Cascades(
        config.precision,
        config.threads,
        None if config.engines is None else Path(config.engines),
        allow_uncertified=config.allow_uncertified,
        device=config.device,
        plans=config.plans,
    )


Opener = Callable[[ServerConfig], Detector]


def run(config: ServerConfig, open_detector: Opener = open_cascade) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code; says on stderr why it cannot."""
    give_large_buffers_back()
    # The detector and the codec threads share the cores; OpenCV would take all of them for each.
    limit_threads(1)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_worth_logging)
    try:
        asyncio.run(serve(config, open_detector))
    except UnfaceError as error:
        print(f"unface: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


async def serve(config: ServerConfig, open_detector: Opener = open_cascade) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is under way within the grace time.

    The port is open before the engines are warm; the health service says NOT_SERVING until the
    warm-up detection has found its face. Raises `CannotListen` when the address cannot be had and
    `EngineError` when an engine is missing or the warm-up fails.
    """
    stop = _stop_on_signals()
    detector = open_detector(config)
    with (
        _detector_thread(detector, config.pictures) as scheduler,
        ThreadPoolExecutor(CODEC_THREADS, "unface-codec") as codec_threads,
    ):
        admission = Admission(
            config.queue_size + config.pictures,
            config.queue_bytes,
            config.pictures,
            config.max_streams,
        )
        limits = Limits(config.max_message_bytes, config.max_pixels)
        pipeline = Pipeline(scheduler, admission, codec_threads, limits)
        service = UnfaceService(pipeline, server_info(config, lambda: detector.serving))
        server = grpc.aio.server(options=_grpc_options(config))
        add_UnfaceServicer_to_server(service, server)
        health_service = await _add_health(server)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        port = _listen(server, config)
        await server.start()
        try:
            await warm_up(pipeline)
            await _set_health(health_service, SERVING)
            await _keep_backend_health(health_service, detector)
            _announce(config, port, detector.serving)
            await stop.wait()
            await health_service.enter_graceful_shutdown()
            await _drain(server, service, admission, config.grace_seconds)
        finally:
            await asyncio.wait([asyncio.create_task(server.stop(None))], timeout=LAST_WORDS_SECONDS)


@contextmanager
def _detector_thread(
    detector: Detector, queue_size: int
) -> Iterator[Scheduler[DetectJob, Timed[Faces]]]:
    """Give the detector a thread, and close it when that has ended."""

    @timed
    def work(job: DetectJob) -> Faces:
        return detector.detect(job.pixels, job.options)

    scheduler = Scheduler(work, queue_size)
    try:
        yield scheduler
    finally:
        if scheduler.close(finish_queued=False, timeout=LAST_WORDS_SECONDS):
            detector.close()


def _is_worth_logging(record: logging.LogRecord) -> bool:
    """Leave out gRPC's tracebacks about clients that left just as their answer was ready."""
    return "ExecuteBatchError raised in core" not in record.getMessage()


async def _drain(
    server: grpc.aio.Server, service: UnfaceService, admission: Admission, grace: float
) -> None:
    """Refuse new calls, end the streams, and wait for what is under way.

    Calls that only listen, such as a health watch, would hold the server for the whole grace
    time; they are cut off once no picture is under way.
    """
    stopping = asyncio.create_task(server.stop(grace))
    service.streams.close()
    idle = asyncio.create_task(admission.idle())
    await asyncio.wait([stopping, idle], return_when=asyncio.FIRST_COMPLETED)
    idle.cancel()
    await asyncio.wait([stopping], timeout=LAST_WORDS_SECONDS)


def _stop_on_signals() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def _grpc_options(config: ServerConfig) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", config.max_message_bytes + MESSAGE_HEADROOM),
        ("grpc.max_send_message_length", config.max_message_bytes + MESSAGE_HEADROOM),
        ("grpc.so_reuseport", 0),  # or a second server would share the port in silence
        ("grpc.keepalive_time_ms", 60_000),  # finds clients that vanished without a word
        ("grpc.keepalive_timeout_ms", 20_000),
        # Clients may ping as often as every 10 s, also between calls.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]


def _listen(server: grpc.aio.Server, config: ServerConfig) -> int:
    """Bind the address and return the port."""
    _check_address(config)
    try:
        return server.add_insecure_port(config.address)
    except RuntimeError as error:
        raise CannotListen(f"cannot listen on {config.address}: {error}") from error


def _check_address(config: ServerConfig) -> None:
    """Raise `CannotListen` in the system's words; gRPC's own are several lines."""
    try:
        found = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(found[0], found[1]) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(found[4])
    except OSError as error:
        raise CannotListen(
            f"cannot listen on {config.address}: {error.strerror or error}; "
            "choose another host or port"
        ) from error


async def _add_health(server: grpc.aio.Server) -> Any:
    """Add the standard health service, NOT_SERVING for now."""
    service = cast(Any, health).aio.HealthServicer()  # the stubs lack it
    await _set_health(service, NOT_SERVING)
    await service.set(GPU_BACKEND, NOT_SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(service, server)
    return service


async def _set_health(service: Any, status: int) -> None:
    for name in (health.OVERALL_HEALTH, SERVICE, CPU_BACKEND):
        await service.set(name, status)


async def _keep_backend_health(service: Any, detector: Detector) -> None:
    """Have the health service say whether a GPU serves, now and whenever that changes."""
    loop = asyncio.get_running_loop()

    async def tell() -> None:
        await service.set(GPU_BACKEND, SERVING if detector.serving.device else NOT_SERVING)

    def changed() -> None:
        with suppress(RuntimeError):  # the loop has ended, and with it who would ask
            asyncio.run_coroutine_threadsafe(tell(), loop)

    detector.watch(changed)
    await tell()


def _announce(config: ServerConfig, port: int, serving: Serving) -> None:
    threads = config.threads or cores()
    where = serving.device or f"{threads} thread{'s' if threads > 1 else ''}"
    print(
        f"unface serving on {address(config.host, port)} "
        f"({serving.backend} {serving.precision}, {where})",
        file=sys.stderr,
        flush=True,
    )
