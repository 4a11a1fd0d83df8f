"""The one file that wires everything: configuration, workers, services, health, signals."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

import grpc
from grpc_reflection.v1alpha import reflection

from unface.audit import read_signing_key
from unface.errors import InvalidOption, UnfaceError
from unface.server.access import Access
from unface.server.admission import Admission
from unface.server.background import Background
from unface.server.cards import Cards
from unface.server.config import ServerConfig, address
from unface.server.crew import PROGRAM, Crew
from unface.server.health import ADMIN, HEALTH, SERVICE, Health
from unface.server.listening import grpc_options, listen_for_grpc, listen_for_http
from unface.server.logs import AccessLog, set_up_logging
from unface.server.metrics import Metrics
from unface.server.pipeline import Pipeline
from unface.server.probes import Heartbeat, Probes
from unface.server.quality import Quality
from unface.server.record import Observer
from unface.server.scheduler import Closed, Scheduler
from unface.server.service import AdminService, UnfaceService
from unface.server.tls import check_exposure, is_local, server_context
from unface.server.tokens import Tokens
from unface.server.trial import Trial
from unface.v1 import unface_pb2 as pb
from unface.v1.unface_pb2_grpc import add_AdminServicer_to_server

if TYPE_CHECKING:
    from unface.server.http import HttpServer

LAST_WORDS_SECONDS = 0.5  # for what is answered but not yet sent, and for calls cut off
GOODBYE_SECONDS = 0.1  # for calls on their way, and again for new ones to be told
WATCH_SECONDS = 1.0  # between looks at workers that may hang
CALLS_BESIDE = 256  # that only listen or ask: health, reflection, server info


def run(config: ServerConfig, program: Sequence[str] = PROGRAM) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code; says on stderr why it cannot.

    `program` is what a worker is started with. Raises `InvalidOption` for a configuration that
    must not be served.
    """
    check_exposure(config)
    if config.audit_key_file:
        read_signing_key(config.audit_key_file)  # each worker reads it too, where errors come late
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
        self._http: HttpServer | None = None
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
            access = self._access(pipeline)
            self._grpc = self._grpc_server(access)
            port = listen_for_grpc(self._grpc, config)
            page = self._listen_for_http(closing)
            probes = self._open_probes(closing)
            await self._health.update(self._crew.info, serving=False)
            await self._grpc.start()
            try:
                # While the workers warm up: FastAPI takes its time to load.
                await asyncio.gather(self._crew.open(), self._open_http(page, pipeline, access))
                _check_profile(config.trial_profile, self._crew.info)
                self._background.start(self._heartbeat.beat())
                self._background.start(self._watch_workers())
                await self._health.update(self._crew.info, serving=True)
                _announce(config, port, page, probes, self._crew.info)
                yield
            finally:
                self._background.cancel()
                self._scheduler.close()
                if self._http is not None:
                    await self._http.stop(0)
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
        if self._http is not None:
            await self._http.stop(self._config.grace_seconds)
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

    def _access(self, pipeline: Pipeline) -> Access:
        config = self._config
        tokens = Tokens.from_config(config) if config.has_tokens else None
        return Access(tokens, is_local(config.host), self._early, pipeline.refused)

    def _listen_for_http(self, closing: ExitStack) -> socket.socket | None:
        if self._config.http_port is None:
            return None
        listening = listen_for_http(self._config.http_host, self._config.http_port)
        closing.callback(listening.close)
        return listening

    async def _open_http(
        self, listening: socket.socket | None, pipeline: Pipeline, access: Access
    ) -> None:
        if listening is None:
            return
        config = self._config
        http = await asyncio.to_thread(import_module, "unface.server.http")
        rest = await asyncio.to_thread(import_module, "unface.server.rest")
        door = rest.Rest(config, pipeline, access, lambda: self._crew.info)
        self._http = http.HttpServer(
            door, door.close, listening, server_context(config), config.queue_size + CALLS_BESIDE
        )
        self._http.start()

    def _grpc_server(self, access: Access) -> grpc.aio.Server:
        config = self._config
        server = grpc.aio.server(
            interceptors=[access],
            options=grpc_options(config),
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


def _announce(
    config: ServerConfig,
    port: int,
    page: socket.socket | None,
    probes: Probes | None,
    info: pb.GetServerInfoResponse,
) -> None:
    threads = f"{info.threads} thread{'s' if info.threads > 1 else ''}"
    where = info.device or (f"{config.workers} x {threads}" if config.workers > 1 else threads)
    if probes is not None:
        metrics = address(config.metrics_host, probes.port)
        _say(f"unface metrics on http://{metrics}/metrics")
    if page is not None:
        where_page = address(config.http_host, page.getsockname()[1])
        scheme = "https" if config.tls_certificate else "http"
        _say(f"unface page on {scheme}://{where_page}/")
    _say(
        f"unface serving on {address(config.host, port)} ({info.backend} {info.precision}, {where})"
    )


def _say(line: str) -> None:
    """Write a line to stderr in one piece: `print` lets a log's line in before the line's end."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
