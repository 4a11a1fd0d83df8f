"""What an operator does to a real server: reloads, limits, drains, tries; and workers that end."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from issuing import SECRET, Issuer
from numpy.typing import NDArray
from serving import ServerProcess, serving, serving_oddly

from unface.anonymize import encode
from unface.v1 import unface_pb2 as pb
from unface.v1.unface_pb2_grpc import AdminStub, UnfaceStub
from unface.worker.messages import raw_image_message


def picture(width: int, height: int = 20) -> pb.DetectRequest:
    return pb.DetectRequest(image=raw_image_message(np.zeros((height, width, 3), np.uint8)))


def workers(server: ServerProcess) -> list[psutil.Process]:
    return psutil.Process(server.process.pid).children()


def page(server: ServerProcess, path: str) -> tuple[int, str]:
    found = re.search(r"unface metrics on (http://\S+)/metrics", server.log)
    assert found, server.log
    try:
        with urllib.request.urlopen(found[1] + path, timeout=20) as reply:  # noqa: S310 - our own
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def soon(condition: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def trailing(error: grpc.RpcError) -> dict[str, str]:
    return dict(error.trailing_metadata())


# Workers that end


def test_a_killed_worker_fails_its_own_requests_and_what_waits_is_answered() -> None:
    flags = ("--slow", "0.6", "--batch-size", "1", "--metrics-port", "0")
    with serving_oddly(*flags) as server, grpc.insecure_channel(server.target) as channel:
        stub = UnfaceStub(channel)
        calls = [stub.Detect.future(picture(77), timeout=30) for _ in range(5)]
        assert soon(lambda: "slow detection" in server.log)
        (worker,) = workers(server)
        worker.send_signal(signal.SIGKILL)
        errors = [call.exception(30) for call in calls]
        failed = [error for error in errors if error is not None]
        assert len(failed) == 2  # one detected, one decoded; three waited
        for error in failed:
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert trailing(error)["unface-reason"] == "WorkerLost"
        assert workers(server)[0].pid != worker.pid
        assert "unface_worker_losses_total 1.0" in page(server, "/metrics")[1]
        assert f"worker {worker.pid} ended; another one starts" in server.log
        assert server.terminate() == 0


def test_a_picture_that_kills_workers_costs_one_worker_and_one_answer() -> None:
    with serving_oddly() as server, grpc.insecure_channel(server.target) as channel:
        stub = UnfaceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Detect(picture(74), timeout=20)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert stub.Detect(picture(20), timeout=20).width == 20
        assert len(workers(server)) == 1


def test_health_and_readiness_say_when_no_worker_is_there() -> None:
    flags = ("--metrics-port", "0", "--slow-start", "1")
    with serving_oddly(*flags) as server, grpc.insecure_channel(server.target) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watched = health.Watch(health_pb2.HealthCheckRequest(service="unface.v1.Unface"))
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
        assert page(server, "/readyz") == (200, "ok\n")
        workers(server)[0].kill()
        assert next(watched).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert page(server, "/readyz") == (503, "no worker is ready\n")
        assert page(server, "/healthz")[0] == 200
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
        watched.cancel()


def test_workers_end_with_a_server_that_is_killed() -> None:
    with serving("--workers", "2", "--threads", "1") as server:
        left = workers(server)
        assert len(left) == 2
        server.process.kill()
        assert soon(lambda: not any(worker.is_running() for worker in left))


# Engines that change


@pytest.mark.parametrize("how", ["Reload", "SIGHUP"])
def test_engines_are_loaded_anew_beside_the_traffic(how: str, astronaut: NDArray[np.uint8]) -> None:
    with serving() as server, grpc.insecure_channel(server.target) as channel:
        stub = UnfaceStub(channel)
        request = pb.DetectRequest(image=pb.Image(encoded=encode(astronaut, "jpeg")))
        (before,) = workers(server)
        faces = []
        with ThreadPoolExecutor(4) as pool:
            calls = [pool.submit(stub.Detect, request, timeout=30) for _ in range(30)]
            if how == "Reload":
                answer = AdminStub(channel).Reload(pb.ReloadRequest(), timeout=30)
                assert answer.backend
                assert {engine.name for engine in answer.engines} == {"pnet", "rnet", "onet"}
            else:
                server.process.send_signal(signal.SIGHUP)
                assert soon(lambda: not before.is_running() or before.status() == "zombie")
            faces = [len(call.result().faces) for call in calls]
        assert faces == [1] * 30
        assert soon(lambda: before.pid not in {worker.pid for worker in workers(server)})
        assert server.terminate() == 0
        assert "Traceback" not in server.log


def test_only_an_administrator_reloads_where_there_are_tokens(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    with (
        serving("--jwt-secret-file", str(secret)) as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        codes = []
        for scope in (None, "detect anonymize", "admin"):
            token = Issuer().token(scope=scope)
            _, call = AdminStub(channel).Reload.with_call, None
            try:
                AdminStub(channel).Reload(
                    pb.ReloadRequest(), metadata=(("authorization", f"Bearer {token}"),), timeout=30
                )
                codes.append("OK")
            except grpc.RpcError as error:
                call = error
                codes.append(call.code().name)
        assert codes == ["PERMISSION_DENIED", "PERMISSION_DENIED", "OK"]


# Limits


def test_a_flood_of_one_client_does_not_starve_another(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    flags = ("--slow", "0.1", "--batch-size", "1", "--jwt-secret-file", str(secret))
    with serving_oddly(*flags) as server, grpc.insecure_channel(server.target) as channel:
        stub = UnfaceStub(channel)
        done: list[str] = []

        def ask(client: str) -> grpc.Future:
            token = (("authorization", f"Bearer {Issuer().token(sub=client)}"),)
            call = stub.Detect.future(picture(77), timeout=30, metadata=token)
            call.add_done_callback(lambda _: done.append(client))
            return call

        flood = [ask("flood") for _ in range(20)]
        assert soon(lambda: "slow detection" in server.log)
        other = ask("other")
        assert other.result(30).width == 77
        assert done.index("other") <= 5  # not after all of the flood
        assert all(call.result(30).width == 77 for call in flood)


def test_a_client_beyond_its_rate_is_told_when_to_come_again() -> None:
    flags = ("--client-pixels-per-second", "1000")
    with serving(*flags) as server, grpc.insecure_channel(server.target) as channel:
        stub = UnfaceStub(channel)
        stub.Detect(picture(100), timeout=20)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Detect(picture(50), timeout=20)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert 0 < int(trailing(caught.value)["grpc-retry-pushback-ms"]) <= 1000


def test_a_format_that_is_not_accepted_is_refused_by_name(astronaut: NDArray[np.uint8]) -> None:
    with (
        serving("--formats", "png,webp") as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        stub = UnfaceStub(channel)
        png = pb.Image(encoded=encode(astronaut, "png"))
        assert len(stub.Detect(pb.DetectRequest(image=png), timeout=20).faces) == 1
        jpeg = pb.Image(encoded=encode(astronaut, "jpeg"))
        with pytest.raises(grpc.RpcError, match="JPEG, not accepted by this server") as caught:
            stub.Detect(pb.DetectRequest(image=jpeg), timeout=20)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert list(stub.GetServerInfo(pb.GetServerInfoRequest()).formats) == ["png", "webp"]


@pytest.mark.parametrize(
    ("given", "kept"), [("my-request.1", True), ("bad id", False), ("x" * 65, False), (None, False)]
)
def test_a_request_is_called_as_its_client_calls_it_if_that_is_a_name(
    server: ServerProcess, given: str | None, kept: bool
) -> None:
    metadata = () if given is None else (("unface-request-id", given),)
    with grpc.insecure_channel(server.target) as channel:
        answer, call = UnfaceStub(channel).Detect.with_call(
            picture(20), timeout=20, metadata=metadata
        )
        told = dict(call.trailing_metadata())["unface-request-id"]
        assert answer.request_id == told
        assert (told == given) is kept
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", told)


def test_pictures_of_a_batch_get_the_answers_they_get_alone(astronaut: NDArray[np.uint8]) -> None:
    """Frames that differ, sent at once and one by one, to a server that batches."""
    frames = [np.ascontiguousarray(astronaut[y : y + 240, 60 : 60 + 320]) for y in range(0, 60, 4)]
    requests = [pb.DetectRequest(image=raw_image_message(frame)) for frame in frames]
    flags = ("--batch-delay-ms", "100", "--batch-size", "5", "--metrics-port", "0")
    with serving(*flags) as server, grpc.insecure_channel(server.target) as channel:
        stub = UnfaceStub(channel)
        calls = [stub.Detect.future(request, timeout=30) for request in requests]
        together = [list(call.result(30).faces) for call in calls]
        sizes = page(server, "/metrics")[1]
        assert 'unface_batch_pictures_bucket{le="4.0"} 0.0' in sizes
        alone = [list(stub.Detect(request, timeout=30).faces) for request in requests]
        assert together == alone
        assert all(len(faces) == 1 for faces in alone)


# The end


def test_a_server_that_drains_goes_on_while_readiness_says_no() -> None:
    flags = ("--drain-seconds", "1.5", "--metrics-port", "0")
    with serving(*flags) as server, grpc.insecure_channel(server.target) as channel:
        stub = UnfaceStub(channel)
        server.process.send_signal(signal.SIGTERM)
        assert soon(lambda: page(server, "/readyz")[0] == 503)
        assert page(server, "/readyz")[1] == "the server is shutting down\n"
        assert stub.Detect(picture(20), timeout=20).width == 20
        assert server.wait() == 0


def test_all_that_was_let_in_is_answered_after_sigterm() -> None:
    flags = ("--slow", "0.15", "--batch-size", "1")
    with serving_oddly(*flags) as server, grpc.insecure_channel(server.target) as channel:
        stub = UnfaceStub(channel)
        calls = [stub.Detect.future(picture(77), timeout=30) for _ in range(12)]
        assert soon(lambda: "slow detection" in server.log)
        time.sleep(0.1)
        server.process.send_signal(signal.SIGTERM)
        assert [call.exception(30) for call in calls] == [None] * 12
        assert server.wait() == 0


# Trials and reports


def test_a_trial_answers_its_share_by_another_profile_and_names_it(tmp_path: Path) -> None:
    kept = tmp_path / "quality.db"
    flags = ("--trial-profile", "fast", "--trial-share", "0.5", "--quality-file", str(kept))
    with serving(*flags) as server, grpc.insecure_channel(server.target) as channel:
        stub = UnfaceStub(channel)
        answers = [stub.Detect(picture(40, 40), timeout=20) for _ in range(60)]
        counts = Counter(answer.profile for answer in answers)
        assert set(counts) == {"accurate", "fast"}
        assert all(10 < count < 50 for count in counts.values())
        for answer in answers:
            assert answer.precision == {"accurate": "fp32", "fast": "int8"}[answer.profile]
        named = picture(40, 40)
        named.detect_options.profile = "accurate"
        assert {stub.Detect(named, timeout=20).profile for _ in range(10)} == {"accurate"}
        assert server.terminate() == 0
    with sqlite3.connect(kept) as database:
        arms = dict(database.execute("SELECT arm, SUM(answers) FROM minutes GROUP BY arm"))
    database.close()
    assert arms == {"a": counts["accurate"], "b": counts["fast"]}


def test_a_shadow_trial_compares_and_never_answers(astronaut: NDArray[np.uint8]) -> None:
    flags = ("--trial-profile", "fast", "--trial-share", "1", "--trial-shadow")
    with (
        serving(*flags, "--metrics-port", "0") as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        stub = UnfaceStub(channel)
        request = pb.AnonymizeRequest(image=pb.Image(encoded=encode(astronaut, "jpeg")))
        for _ in range(3):
            assert stub.Anonymize(request, timeout=20).profile == "accurate"
            time.sleep(0.1)
        agreed = 'unface_trial_shadow_faces_total{found="both"} 3.0'
        assert soon(lambda: agreed in page(server, "/metrics")[1]), page(server, "/metrics")[1]
        request.anonymize_options.regions.cover.add(x2=10, y2=10)
        request.anonymize_options.regions.cover_only = True  # its answer says nothing of faces
        assert not stub.Anonymize(request, timeout=20).faces
        time.sleep(0.3)
        told = page(server, "/metrics")[1]
        for arm in ("only_a", "only_b"):
            assert f'unface_trial_shadow_faces_total{{found="{arm}"}} 0.0' in told
        assert server.terminate() == 0


def test_reports_are_kept_where_the_operator_keeps_them(
    tmp_path: Path, server: ServerProcess, astronaut: NDArray[np.uint8]
) -> None:
    report = pb.ReportRequest(
        image=pb.Image(encoded=encode(astronaut, "jpeg")),
        missed=[pb.Box(x1=180, y1=60, x2=260, y2=170)],
    )
    with grpc.insecure_channel(server.target) as channel:
        with pytest.raises(grpc.RpcError, match="keeps no reports") as caught:
            UnfaceStub(channel).Report(report, timeout=20)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    with (
        serving("--quality-file", str(tmp_path / "quality.db")) as keeping,
        grpc.insecure_channel(keeping.target) as channel,
    ):
        answer = UnfaceStub(channel).Report(report, timeout=20)
        assert (answer.report_id, answer.crops_kept) == (1, False)
        report.missed[0].x2 = 10_000
        with pytest.raises(grpc.RpcError) as caught:
            UnfaceStub(channel).Report(report, timeout=20)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert keeping.terminate() == 0
        assert json.dumps(keeping.log).count("Traceback") == 0
