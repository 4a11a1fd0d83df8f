"""The one file that wires everything: configuration, workers, services, health, signals."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from importlib.metadata import version

import grpc
from grpc_reflection.v1alpha import reflection

from unface.errors import InvalidOption, UnfaceError
from unface.server.access import Access
from unface.server.admission import Admission
from unface.server.background import Background
from unface.server.cards import Cards
from unface.server.config import ServerConfig, address
from unface.server.crew import PROGRAM, Crew
from unface.server.health import ADMIN, HEALTH, SERVICE, Health
from unface.server.logs import AccessLog, set_up_logging
from unface.server.metrics import Metrics
from unface.server.pipeline import Pipeline
from unface.server.probes import Heartbeat, Probes
from unface.server.quality import Quality
from unface.server.record import Observer
from unface.server.scheduler import Closed, Scheduler
from unface.server.service import AdminService, UnfaceService
from unface.server.tls import check_exposure, is_local, server_credentials
from unface.server.tokens import Tokens
from unface.server.trial import Trial
from unface.v1 import unface_pb2 as pb
from unface.v1.unface_pb2_grpc import add_AdminServicer_to_server

# Beyond the largest picture: options, and a little more, so that a picture just too large gets
# the codec's message instead of gRPC's.
MESSAGE_HEADROOM = 1 << 20
FRAME_BYTES = 4 << 20  # of HTTP/2; the usual 16 KiB cut a raw 1080p picture into 380
LAST_WORDS_SECONDS = 0.5  # for what is answered but not yet sent, and for calls cut off
GOODBYE_SECONDS = 0.1  # for calls on their way, and again for new ones to be told
WATCH_SECONDS = 1.0  # between looks at workers that may hang
CALLS_BESIDE = 256  # that only listen or ask: health, reflection, server info


class CannotListen(UnfaceError):
    """The address is taken, not allowed, or not of this machine."""


def run(config: ServerConfig, program: Sequence[str] = PROGRAM) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code; says on stderr why it cannot.

    `program` is what a worker is started with. Raises `InvalidOption` for a configuration that
    must not be served.
    """
    check_exposure(config)
    quiet = "warning" if config.log_format == "text" else "info"
    set_up_logging(config.log_format, config.log_level or quiet)
    _set_resource_limits()
    try:
        asyncio.run(serve(config, program))
    except InvalidOption:
        raise
    except UnfaceError as error:
        print(f"unface: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


async def serve(config: ServerConfig, program: Sequence[str] = PROGRAM) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is under way within the grace time.

    The port is open before the workers are warm; the health service says NOT_SERVING until the
    warm-up detection has found its face. SIGHUP loads the engines anew. Raises `CannotListen` when
    the address cannot be had, `InvalidOption` for a file of the configuration that is of no use,
    and `EngineError` when an engine is missing or the warm-up fails.
    """
    stop, server = asyncio.Event(), _Server(config, program)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, server.reload_soon)
    async with server.running():
        await stop.wait()
        await server.drain()


class _Server:
    """The parts of a running server, and the order in which they begin and end."""

    def __init__(self, config: ServerConfig, program: Sequence[str]) -> None:
        self._config = config
        self._admission = Admission(config)
        self._scheduler = Scheduler(config, self._admission, lambda n: self._metrics.batched(n))
        self._crew = Crew(config, self._crew_changed, lambda: self._metrics.worker_lost(), program)
        self._scheduler.crew = self._crew
        self._metrics = Metrics(
            lambda: self._scheduler.load,
            self._serving,
            version("unface"),
            cards=tuple if config.metrics_port is None else Cards().read,
        )
        self._health = Health()
        self._heartbeat = Heartbeat()
        self._is_draining = self._is_closing = False
        self._background = Background()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve; yields once the workers are warm."""
        config = self._config
        with ExitStack() as closing:
            observers = self._observers(closing)
            quality = closing.enter_context(Quality(config, self._metrics.shadowed))
            profile = config.trial_profile
            trial = Trial(profile, config, quality.compared) if profile else None
            pipeline = Pipeline(config, self._scheduler, [*observers, quality.observe], trial)
            self._service = UnfaceService(
                pipeline, self._admission, lambda: self._crew.info, quality.report
            )
            self._grpc = self._grpc_server(pipeline)
            port = _listen(self._grpc, config)
            probes = self._open_probes(closing)
            await self._health.update(self._crew.info, serving=False)
            await self._grpc.start()
            try:
                await self._crew.open()
                _check_profile(config.trial_profile, self._crew.info)
                self._background.start(self._heartbeat.beat())
                self._background.start(self._watch_workers())
                await self._health.update(self._crew.info, serving=True)
                _announce(config, port, probes, self._crew.info)
                yield
            finally:
                self._background.cancel()
                self._scheduler.close()
                await self._crew.close()
                stopping = asyncio.ensure_future(self._grpc.stop(None))
                await asyncio.wait([stopping], timeout=LAST_WORDS_SECONDS)

    async def drain(self) -> None:
        """Say that this server is ending, refuse new calls, and wait for what is under way.

        Calls that only listen, such as a health watch, would hold the server for the whole grace
        time; they are cut off once no picture is under way.
        """
        self._is_draining = True
        await self._health.shut_down()
        # Calls that were sent before the signal may still be on their way.
        await asyncio.sleep(max(self._config.drain_seconds, GOODBYE_SECONDS))
        # gRPC cancels calls that arrive in the very moment it stops: have clients go away first.
        self._is_closing = True
        await asyncio.sleep(GOODBYE_SECONDS)
        stopping = asyncio.create_task(self._grpc.stop(self._config.grace_seconds))
        self._service.streams.close()
        idle = asyncio.create_task(self._admission.idle())
        await asyncio.wait([stopping, idle], return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
        await asyncio.wait([stopping], timeout=LAST_WORDS_SECONDS)

    def reload_soon(self) -> None:
        """Load the engines anew, beside the traffic; the log says what came of it."""

        async def reload() -> None:
            try:
                await self._reload()
            except UnfaceError as error:
                print(f"unface: {error}", file=sys.stderr, flush=True)

        self._background.start(reload())

    async def _reload(self) -> pb.GetServerInfoResponse:
        try:
            info = await self._crew.reload()
        except UnfaceError:
            self._metrics.reloaded(False)
            raise
        self._metrics.reloaded(True)
        return info

    def _observers(self, closing: ExitStack) -> list[Observer]:
        observers: list[Observer] = [self._metrics.observe, AccessLog().observe]
        if self._config.trace_endpoint:
            from unface.server.tracing import open_tracing

            tracing = open_tracing(self._config.trace_endpoint, version("unface"))
            if tracing is not None:
                closing.callback(tracing.close)
                observers.append(tracing.observe)
        return observers

    def _grpc_server(self, pipeline: Pipeline) -> grpc.aio.Server:
        config = self._config
        tokens = Tokens.from_config(config) if config.has_tokens else None
        access = Access(tokens, is_local(config.host), self._early, pipeline.refused)
        server = grpc.aio.server(
            interceptors=[access],
            options=_grpc_options(config),
            maximum_concurrent_rpcs=config.queue_size + config.max_streams + CALLS_BESIDE,
        )
        self._service.add_to(server)
        add_AdminServicer_to_server(AdminService(self._reload), server)
        self._health.add_to(server)
        names = (SERVICE, ADMIN, HEALTH, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        return server

    def _early(self, method: str) -> Exception | None:
        """Return why a call is refused before its request is read; None when it is not."""
        if self._is_closing:
            return Closed("the server is shutting down; try again later")
        if method not in ("Detect", "Anonymize"):
            return None
        try:
            self._scheduler.check_room()
        except UnfaceError as error:
            return error
        return None

    def _open_probes(self, closing: ExitStack) -> Probes | None:
        config = self._config
        if config.metrics_port is None:
            return None
        probes = Probes(
            config.metrics_host,
            config.metrics_port,
            self._metrics.text,
            self._heartbeat.alive,
            self._why_not_ready,
        )
        closing.callback(probes.close)
        return probes

    def _why_not_ready(self) -> str | None:
        if self._is_draining:
            return "the server is shutting down"
        return None if self._crew.ready else "no worker is ready"

    def _serving(self) -> tuple[str, str, str, str]:
        info = self._crew.info
        return info.backend, info.precision, info.device, info.device_reason

    def _crew_changed(self) -> None:
        self._scheduler.pump()
        if self._health.differs(self._crew.info, bool(self._crew.ready)) and not self._is_draining:
            self._background.start(
                self._health.update(self._crew.info, serving=bool(self._crew.ready))
            )

    async def _watch_workers(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            self._crew.watch_time()


def _check_profile(profile: str | None, info: pb.GetServerInfoResponse) -> None:
    """Raise `InvalidOption` for a trial of a profile that there is not."""
    known = [known.name for known in info.profiles]
    if profile is not None and profile not in known:
        raise InvalidOption(f"trial_profile is {profile!r}; there are {', '.join(sorted(known))}")


def _set_resource_limits() -> None:
    """Never dump memory, which holds pictures, to a disk; open as many files as are allowed.

    Connections are files, and so is memory passed to workers, which inherit both limits.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _grpc_options(config: ServerConfig) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", config.max_message_bytes + MESSAGE_HEADROOM),
        ("grpc.max_send_message_length", config.max_message_bytes + MESSAGE_HEADROOM),
        ("grpc.http2.max_frame_size", FRAME_BYTES),
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
    credentials = server_credentials(config)
    try:
        if credentials is None:
            return server.add_insecure_port(config.address)
        return server.add_secure_port(config.address, credentials)
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


def _announce(
    config: ServerConfig, port: int, probes: Probes | None, info: pb.GetServerInfoResponse
) -> None:
    threads = f"{info.threads} thread{'s' if info.threads > 1 else ''}"
    where = info.device or (f"{config.workers} x {threads}" if config.workers > 1 else threads)
    if probes is not None:
        metrics = address(config.metrics_host, probes.port)
        print(f"unface metrics on http://{metrics}/metrics", file=sys.stderr, flush=True)
    print(
        f"unface serving on {address(config.host, port)} "
        f"({info.backend} {info.precision}, {where})",
        file=sys.stderr,
        flush=True,
    )
