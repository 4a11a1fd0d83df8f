"""Two real servers behind a real nginx with the configuration that ships."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import landlocked
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from issuing import Authority
from serving import ServerProcess, free_port, started

import unface
from unface.answers import ServedFaces
from unface.v1 import unface_pb2 as pb
from unface.v1.unface_pb2_grpc import AdminStub, UnfaceStub
from unface.worker.messages import raw_image_message

SHIPPED = Path(__file__).parents[2] / "deploy" / "nginx"
TMP = "/tmp/"  # noqa: S108 - of a container of its own
TEMPORARY = ("body", "proxy", "fastcgi", "uwsgi", "scgi")
LARGE = np.zeros((3200, 3200, 3), np.uint8)  # 30 MB
SMALL = np.zeros((60, 80, 3), np.uint8)
WAIT_SECONDS = 30
THREADS = 3
GRPC = {"OK": "0", "INVALID_ARGUMENT": "3"}

PROGRAM = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="nginx is not on this machine")


class Nginx:
    """nginx in front of these ports, with what ships, but for ports and paths.

    Where the kernel can see to it, it can write nothing but its pid: no picture ends on a disk.
    """

    def __init__(self, folder: Path, ports: list[int], listen: str = "listen.conf") -> None:
        self.folder = folder
        self.port = free_port()
        self.target = f"localhost:{self.port}"
        self.log, self.errors = folder / "run" / "access.log", folder / "run" / "errors.log"
        self._calls: list[dict[str, Any]] = []
        self._read = 0  # characters of the log
        for name in ("unface", "run", *(f"tmp/{name}" for name in TEMPORARY)):
            (folder / name).mkdir(parents=True)
        main = (SHIPPED / "nginx.conf").read_text().replace(TMP, f"{folder}{TMP}")
        (folder / "nginx.conf").write_text(main.replace("tmp/nginx.pid", "run/nginx.pid"))
        door = (SHIPPED / listen).read_text().replace("50051", f"127.0.0.1:{self.port}")
        if version() < (1, 25, 1):  # says it another way
            door = re.sub(r"(listen .*);\nhttp2 on;", r"\1 http2;", door)
        (folder / "unface/listen.conf").write_text(door.replace("/run/secrets", str(folder)))
        (folder / "unface/upstream.conf").write_text(upstream(ports))

    @property
    def command(self) -> list[str]:
        assert PROGRAM is not None
        return [PROGRAM, "-e", "stderr", "-p", str(self.folder), "-c", f"{self.folder}/nginx.conf"]

    @contextmanager
    def running(self) -> Iterator[Nginx]:
        command = [*self.command, "-g", "daemon off;"]
        if landlocked.is_possible():
            sandbox = [sys.executable, landlocked.__file__, "--may-write", f"{self.folder}/run"]
            command = [*sandbox, *command]
        with self.log.open("w") as log, self.errors.open("w") as errors:
            self.process = subprocess.Popen(command, stdout=log, stderr=errors)
        try:
            until(self._listens)
            yield self
        finally:
            self.process.terminate()
            code = self.process.wait(WAIT_SECONDS)
        assert (code, self.errors.read_text()) == (0, "")
        assert [path for path in (self.folder / "tmp").rglob("*") if path.is_file()] == []

    def _listens(self) -> bool:
        assert self.process.poll() is None, self.errors.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    @property
    def calls(self) -> list[dict[str, Any]]:
        """What the access log says of each call that is over."""
        with self.log.open() as log:
            log.seek(self._read)
            lines = log.read().rpartition("\n")[0]  # the last one may be half written
        self._read += len(lines) + bool(lines)
        self._calls += map(json.loads, lines.splitlines())
        return self._calls

    def answered_by(self, since: int = 0) -> Counter[str]:
        """How many calls each server has answered, by address."""
        return Counter(call["server"].rpartition(" ")[2] for call in self.calls[since:])


class Load:
    """Threads that call without a pause until told to stop; `failed` has what went wrong."""

    def __init__(self, target: str, retries: int) -> None:
        self.answered = 0
        self.failed: list[Exception] = []
        self._stop = threading.Event()
        self._count = threading.Lock()
        self._threads = [
            threading.Thread(target=self._call, args=(target, retries)) for _ in range(THREADS)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _call(self, target: str, retries: int) -> None:
        with unface.Client(target, retries=retries, timeout=WAIT_SECONDS) as client:
            while not self._stop.is_set():
                try:
                    client.detect(SMALL)
                except unface.errors.UnfaceError as error:
                    self.failed.append(error)
                with self._count:
                    self.answered += 1

    def goes_on(self) -> None:
        """Return when some more calls are answered."""
        before = self.answered
        until(lambda: self.answered > before + 10 * THREADS)


class Server:
    """A server on a port of its own that can be started again."""

    def __init__(self) -> None:
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"

    @contextmanager
    def running(self) -> Iterator[ServerProcess]:
        flags = ("--port", str(self.port), "--threads", "1", "--max-message-bytes", "40000000")
        with started("-m", "unface.server", *flags) as process:
            process.wait_until_announced()
            yield process


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Server, Server]]:
    """Two that all tests leave as they were."""
    pair = Server(), Server()
    with pair[0].running(), pair[1].running():
        yield pair


@pytest.fixture(scope="module")
def nginx(
    servers: tuple[Server, Server], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Nginx]:
    front = Nginx(tmp_path_factory.mktemp("nginx"), [server.port for server in servers])
    with front.running():
        yield front


@pytest.fixture
def client(nginx: Nginx) -> Iterator[unface.Client]:
    with unface.Client(nginx.target, timeout=WAIT_SECONDS) as client:
        yield client


@pytest.fixture
def channel(nginx: Nginx) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(nginx.target) as channel:
        yield channel


@pytest.mark.parametrize("listen", ["listen.conf", "listen-tls.conf"])
def test_nginx_takes_the_configuration(listen: str, tmp_path: Path) -> None:
    write_pair(Authority(), tmp_path)
    front = Nginx(tmp_path, [1, 2], listen)
    checked = subprocess.run([*front.command, "-t"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    assert "warn" not in checked.stderr


def test_both_servers_get_their_share(nginx: Nginx, servers: tuple[Server, Server]) -> None:
    since = len(nginx.calls)
    with Load(nginx.target, retries=0) as load:
        load.goes_on()
    until(lambda: len(nginx.calls) >= since + load.answered)
    shares = nginx.answered_by(since)
    assert load.failed == []
    assert set(shares) == {server.address for server in servers}
    assert min(shares.values()) > load.answered / 10


def test_a_large_picture_passes_both_ways(client: unface.Client) -> None:
    assert np.array_equal(client.anonymize(LARGE), LARGE)


def test_what_is_larger_than_the_servers_take_is_refused_in_their_words(
    client: unface.Client,
) -> None:
    with pytest.raises(unface.errors.ImageTooLarge):
        client.detect(np.zeros((4000, 4000, 3), np.uint8))
    assert len(client.detect(SMALL)) == 0


def test_streams_pass(client: unface.Client) -> None:
    kinds = [type(answer) for answer in client.detect_stream([SMALL, b"no picture", SMALL] * 5)]
    assert Counter(kinds) == {ServedFaces: 10, unface.errors.InvalidImage: 5}
    assert len(list(client.anonymize_stream([SMALL] * 5))) == 5


def test_a_streams_answers_come_before_it_ends(channel: grpc.Channel) -> None:
    """nginx passes on what it has, in both directions."""
    asked = threading.Semaphore()

    def frames() -> Iterator[pb.DetectRequest]:
        for _ in range(3):
            assert asked.acquire(timeout=WAIT_SECONDS)
            yield pb.DetectRequest(image=pb.Image(encoded=b"no picture"))

    for answer in UnfaceStub(channel).DetectStream(frames(), timeout=WAIT_SECONDS):
        assert answer.error.reason == "InvalidImage"
        asked.release()


def test_errors_and_metadata_pass(channel: grpc.Channel) -> None:
    request = pb.DetectRequest(image=pb.Image(encoded=b"no picture"))
    metadata = [("unface-request-id", "of.the-client_7")]
    with pytest.raises(grpc.RpcError) as caught:
        UnfaceStub(channel).Detect(request, timeout=WAIT_SECONDS, metadata=metadata)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    trailers = dict(caught.value.trailing_metadata())
    assert trailers["unface-reason"] == "InvalidImage"
    assert trailers["unface-request-id"] == "of.the-client_7"


def test_health_and_a_watch_of_it_pass(channel: grpc.Channel) -> None:
    stub, question = health_pb2_grpc.HealthStub(channel), health_pb2.HealthCheckRequest()
    serving = health_pb2.HealthCheckResponse.SERVING
    assert stub.Check(question, timeout=WAIT_SECONDS).status == serving
    watch = stub.Watch(question, timeout=WAIT_SECONDS)
    assert next(watch).status == serving
    watch.cancel()


def test_what_is_for_one_server_alone_does_not_pass(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        AdminStub(channel).Reload(pb.ReloadRequest(), timeout=WAIT_SECONDS)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_the_access_log_tells_what_happened_and_nothing_private(
    nginx: Nginx, channel: grpc.Channel
) -> None:
    since = len(nginx.calls)
    metadata = [("authorization", "Bearer s3cret"), ("unface-request-id", "asked-by-me")]
    stub = UnfaceStub(channel)
    stub.Detect(
        pb.DetectRequest(image=raw_image_message(SMALL)), timeout=WAIT_SECONDS, metadata=metadata
    )
    with pytest.raises(grpc.RpcError):
        stub.Detect(pb.DetectRequest(), timeout=WAIT_SECONDS)
    with pytest.raises(grpc.RpcError):
        channel.unary_unary("/s3cret/call?of=s3cret")(b"", timeout=WAIT_SECONDS)
    until(lambda: len(nginx.calls) >= since + 3)
    lines = nginx.calls[since:]
    assert [(line["method"], line["http"], line["grpc"]) for line in lines] == [
        ("/unface.v1.Unface/Detect", 200, GRPC["OK"]),
        ("/unface.v1.Unface/Detect", 200, GRPC["INVALID_ARGUMENT"]),
        ("other", 404, ""),
    ]
    assert lines[0]["request_id"] == "asked-by-me"
    assert lines[1]["request_id"] != ""
    assert "s3cret" not in nginx.log.read_text()
    told = {"time", "method", "http", "grpc", "request_id", "seconds", "server", "server_http"}
    assert set(lines[0]) == told | {"bytes_in", "bytes_out"}


def test_without_any_server_the_answer_is_unavailable_as_grpc_says_it(tmp_path: Path) -> None:
    with (
        Nginx(tmp_path, [free_port(), free_port()]).running() as front,
        grpc.insecure_channel(front.target) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        UnfaceStub(channel).Detect(pb.DetectRequest(), timeout=WAIT_SECONDS)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert caught.value.details() == "no unface server answers behind nginx"


def test_clients_that_want_tls_get_it(tmp_path: Path, servers: tuple[Server, Server]) -> None:
    authority = Authority()
    write_pair(authority, tmp_path)
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    front = Nginx(tmp_path, [server.port for server in servers], "listen-tls.conf")
    with front.running(), unface.Client(front.target, tls=tmp_path / "ca.pem") as client:
        assert len(client.detect(SMALL)) == 0
        assert np.array_equal(client.anonymize(LARGE), LARGE)


def test_a_killed_server_costs_no_more_than_its_calls_under_way(tmp_path: Path) -> None:
    """And nothing at all where the client tries again; then it comes back and gets its share."""
    stays, dies = Server(), Server()
    with (
        stays.running(),
        dies.running() as process,
        Nginx(tmp_path, [stays.port, dies.port]).running() as front,
        Load(front.target, retries=0) as careless,
        Load(front.target, retries=3) as careful,
    ):
        careless.goes_on()
        process.process.send_signal(signal.SIGKILL)
        careless.goes_on()
        careful.goes_on()
        assert len(careless.failed) <= THREADS, careless.failed
        assert {type(error) for error in careless.failed} <= {unface.errors.Unavailable}
        with dies.running():
            since = len(front.calls)
            until(lambda: front.answered_by(since)[dies.address] > 10)
    assert careful.failed == []


def test_a_server_that_is_told_to_stop_costs_no_call(tmp_path: Path) -> None:
    stays, ends = Server(), Server()
    with (
        stays.running(),
        Nginx(tmp_path, [stays.port, ends.port]).running() as front,
        Load(front.target, retries=3) as load,
    ):
        for _ in range(3):
            with ends.running() as process:
                since = len(front.calls)
                until(lambda since=since: front.answered_by(since)[ends.address] > 10)  # type: ignore[misc]
                assert process.terminate() == 0
                load.goes_on()
    assert load.failed == []


def write_pair(authority: Authority, folder: Path) -> None:
    """Write a certificate and its key, called as in listen-tls.conf."""
    pair = authority.issue()
    (folder / "tls.crt").write_bytes(pair.certificate)
    (folder / "tls.key").write_bytes(pair.key)


def upstream(ports: list[int]) -> str:
    """Return upstream.conf with these ports for Docker's name server, which is not here."""
    text = re.sub("^resolver .*", "", (SHIPPED / "upstream.conf").read_text(), flags=re.M)
    line = re.search(r"^( *server )unface:50051 resolve(.*)$", text, re.M)
    assert line
    return text.replace(line[0], "\n".join(f"{line[1]}127.0.0.1:{p}{line[2]}" for p in ports))


def version() -> tuple[int, ...]:
    assert PROGRAM is not None
    told = subprocess.run([PROGRAM, "-v"], capture_output=True, text=True).stderr
    found = re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", told)
    assert found, told
    return tuple(map(int, found.groups()))


def until(condition: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.02)
