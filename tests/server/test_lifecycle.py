"""Start, health, reflection and shutdown of real server processes."""

import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from serving import ODD_SERVER, ServerProcess, free_port, serving, serving_oddly, started

from unface.engines import prebuilt
from unface.v1 import unface_pb2 as pb
from unface.v1.unface_pb2_grpc import UnfaceStub
from unface.worker.messages import raw_image_message

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
NAMES = ("", "unface.v1.Unface")


def health_of(channel: grpc.Channel, service: str) -> int:
    stub = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service=service)
    return int(stub.Check(request, timeout=10).status)


def slow_request() -> pb.DetectRequest:
    return pb.DetectRequest(image=raw_image_message(np.zeros((20, 77, 3), np.uint8)))


def wait_for_slow(server: ServerProcess, count: int = 1) -> None:
    end = time.monotonic() + 10
    while server.log.count("slow detection") < count:
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize("service", NAMES)
def test_a_server_that_serves_says_so(channel: grpc.Channel, service: str) -> None:
    assert health_of(channel, service) == SERVING


def test_the_health_of_an_unknown_service_is_not_found(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        health_of(channel, "unface.v9.Unface")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_lists_the_service_and_gives_its_contract(channel: grpc.Channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="unface.v1.Unface"),
    ]
    listed, contract = stub.ServerReflectionInfo(iter(requests), timeout=10)
    names = {service.name for service in listed.list_services_response.service}
    assert {"unface.v1.Unface", "grpc.health.v1.Health"} <= names
    assert b"AnonymizeStream" in contract.file_descriptor_response.file_descriptor_proto[0]


def test_it_says_in_one_line_what_serves_where(server: ServerProcess, backend: str) -> None:
    line = (
        server.lines[-1]
        if len(server.lines) == 1
        else next(line for line in server.lines if line.startswith("unface"))
    )
    assert line.startswith(f"unface serving on {server.target} ({backend} fp32, ")


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_what_it_says_is_what_serves_each_precision(precision: str, runtime: str) -> None:
    """Nothing but LiteRT has FP16 engines; the profile "fast" is INT8 all the same."""
    with (
        serving("--precision", precision) as running,
        grpc.insecure_channel(running.target) as channel,
    ):
        stub = UnfaceStub(channel)
        info = stub.GetServerInfo(pb.GetServerInfoRequest())
        image = raw_image_message(np.zeros((60, 80, 3), np.uint8))
        said = "tflite" if precision == "fp16" else runtime
        assert f"({said} {precision}, " in running.log
        assert (info.backend, info.precision) == (said, precision)
        answer = stub.Detect(pb.DetectRequest(image=image))
        assert (answer.backend, answer.precision) == (said, precision)
        fast = pb.DetectRequest(image=image, detect_options=pb.DetectOptions(profile="fast"))
        assert (stub.Detect(fast).backend, stub.Detect(fast).precision) == (runtime, "int8")
        serving_engines = {(precision, said), ("int8", runtime)}
        assert {(e.name, e.precision, e.sha256) for e in info.engines} == {
            (e.network, e.precision, e.sha256)
            for e in prebuilt()
            if (e.precision, e.runtime) in serving_engines
        }
        assert running.terminate() == 0


def test_health_says_not_serving_until_the_warm_up_has_succeeded() -> None:
    port = str(free_port())
    with (
        started(str(ODD_SERVER), "--port", port, "--slow-start", "1") as running,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        grpc.channel_ready_future(channel).result(20)
        assert [health_of(channel, name) for name in NAMES] == [NOT_SERVING, NOT_SERVING]
        running.wait_until_announced()
        assert [health_of(channel, name) for name in NAMES] == [SERVING, SERVING]


@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ("--broken", "warm-up detection failed: engine pnet.fp32.tflite gave box"),
        ("--blind", "warm-up detection found 0 faces in a picture of one"),
    ],
)
def test_a_warm_up_that_fails_never_serves_and_says_why(flag: str, reason: str) -> None:
    with started(str(ODD_SERVER), "--port", "0", flag) as running:
        assert running.wait() == 1
        assert "serving on" not in running.log
        assert running.lines[-1].startswith("unface: ")
        assert reason in running.lines[-1]


def test_a_port_that_is_taken_is_said_in_one_line(server: ServerProcess) -> None:
    port = server.target.rsplit(":", 1)[1]
    with started("-m", "unface.server", "--port", port) as second:
        assert second.wait() == 1
        assert second.lines == [
            f"unface: cannot listen on 127.0.0.1:{port}: Address already in use; "
            "choose another host or port"
        ]


@pytest.mark.parametrize(
    ("flags", "message", "code"),
    [
        (("--host", "192.0.2.1", "--insecure"), "cannot listen on 192.0.2.1", 1),
        (("--precision", "fp4"), "precision is 'fp4'; there are", 1),
        (("--trial-profile", "best"), "trial_profile is 'best'; there are accurate, fast", 2),
        (("--threads", "0"), "threads is '0': it should be greater than or equal to 1", 2),
        (("--port", "99999"), "port is '99999': it should be less than or equal to 65535", 2),
    ],
)
def test_what_cannot_be_served_is_said_and_the_exit_code_is_not_zero(
    flags: tuple[str, ...], message: str, code: int
) -> None:
    with started("-m", "unface.server", "--port", "0", *flags) as running:
        assert running.wait() == code
        assert message in running.lines[-1]
        assert "Traceback" not in running.log, running.log


def test_a_missing_engine_is_said_and_nothing_is_served(tmp_path: Path) -> None:
    """A copy of the manifest without its engines stands for an installation that lost them."""
    worker = f"""
import sys
from pathlib import Path
from unface.engines import shelf
from unface.worker.process import run
shelf.files = lambda package: Path({str(tmp_path)!r})
sys.exit(run(int(sys.argv[1])))
"""
    program = f"""
import sys
from unface.server.app import run
from unface.server.config import load_config
sys.exit(run(load_config(flags={{"port": 0}}), [sys.executable, "-c", {worker!r}]))
"""
    manifest = Path(ODD_SERVER).parents[2] / "engines" / "prebuilt" / "manifest.json"
    (tmp_path / "prebuilt").mkdir()
    (tmp_path / "prebuilt" / "manifest.json").write_text(manifest.read_text())
    with started("-c", program) as running:
        assert running.wait() == 1
        assert "is missing: reinstall unface" in running.lines[-1]
        assert "serving on" not in running.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_what_is_under_way_finish_and_refuses_the_rest(number: int) -> None:
    with (
        serving_oddly("--slow", "0.5") as running,
        grpc.insecure_channel(running.target) as channel,
        ThreadPoolExecutor(2) as pool,
    ):
        stub = UnfaceStub(channel)
        calls = [pool.submit(stub.Detect, slow_request(), timeout=20) for _ in range(2)]
        wait_for_slow(running)
        running.process.send_signal(number)
        time.sleep(0.1)
        with pytest.raises(grpc.RpcError) as caught, grpc.insecure_channel(running.target) as late:
            UnfaceStub(late).Detect(slow_request(), timeout=20)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert [call.result(20).width for call in calls] == [77, 77]
        assert running.wait() == 0


def test_work_longer_than_the_grace_time_is_cut_off_with_an_error() -> None:
    with (
        serving_oddly("--slow", "6", "--grace-seconds", "0.2") as running,
        grpc.insecure_channel(running.target) as channel,
    ):
        call = UnfaceStub(channel).Detect.future(slow_request(), timeout=30)
        wait_for_slow(running)
        begin = time.monotonic()
        assert running.terminate() == 0
        assert time.monotonic() - begin < 5
        assert isinstance(call.exception(10), grpc.RpcError)


def test_a_health_watch_does_not_hold_up_a_shutdown() -> None:
    with serving() as running, grpc.insecure_channel(running.target) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == SERVING
        begin = time.monotonic()
        assert running.terminate() == 0
        assert time.monotonic() - begin < 5  # the grace time is 10
        assert next(watch).status == NOT_SERVING


def test_it_listens_on_ipv6_when_told() -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    with serving("--host", "::1") as running:
        assert running.target.startswith("[::1]:")
        with grpc.insecure_channel(running.target) as channel:
            assert health_of(channel, "") == SERVING
