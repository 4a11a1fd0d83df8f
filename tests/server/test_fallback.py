"""Real servers whose GPU is missing, or goes and comes: it is said, and no call is lost."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from failing_gpus import eventually, needs_the_simulator
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray
from serving import ServerProcess, serving, serving_oddly

import unface
from unface.engines.shelf import read_shelf
from unface.v1 import unface_pb2 as pb
from unface.v1.unface_pb2_grpc import UnfaceStub
from unface.worker.messages import raw_image_message

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
OPTIONS = pb.DetectOptions(min_face=40)


@pytest.fixture(scope="module")
def gpu_server() -> Iterator[ServerProcess]:
    needs_the_simulator()
    with serving_oddly("--gpu", "--device", "gpu", "--threads", "2") as running:
        yield running
        assert running.terminate() == 0
        assert "Traceback" not in running.log, running.log


@pytest.fixture
def calls(gpu_server: ServerProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(gpu_server.target) as channel:
        yield channel


def picture(width: int) -> pb.Image:
    return raw_image_message(np.full((60, width, 3), 99, np.uint8))


def detected(channel: grpc.Channel, image: pb.Image) -> pb.DetectResponse:
    request = pb.DetectRequest(image=image, detect_options=OPTIONS)
    return UnfaceStub(channel).Detect(request, timeout=30)


def info_of(channel: grpc.Channel) -> pb.GetServerInfoResponse:
    return UnfaceStub(channel).GetServerInfo(pb.GetServerInfoRequest(), timeout=10)


def health_of(channel: grpc.Channel) -> list[int]:
    """Of the server, of the CPU and of the GPU."""
    stub = health_pb2_grpc.HealthStub(channel)
    names = ("", "unface.backend.cpu", "unface.backend.cuda")
    requests = [health_pb2.HealthCheckRequest(service=name) for name in names]
    return [int(stub.Check(request, timeout=10).status) for request in requests]


def lose(channel: grpc.Channel) -> None:
    detected(channel, picture(76))


def bring_back(channel: grpc.Channel) -> None:
    detected(channel, picture(75))
    eventually(lambda: health_of(channel)[2] == SERVING)


def test_a_server_with_a_gpu_says_so_everywhere(
    gpu_server: ServerProcess, calls: grpc.Channel, astronaut: NDArray[np.uint8]
) -> None:
    assert "(cuda fp16, simulator)" in gpu_server.log
    assert health_of(calls) == [SERVING, SERVING, SERVING]
    info = info_of(calls)
    assert (info.backend, info.precision) == ("cuda", "fp16")
    assert (info.device, info.device_reason) == ("simulator", "")
    weights = {e.sha256 for e in read_shelf().of("fp32", "native").values()}
    assert {e.sha256 for e in info.engines if e.precision == "fp16"} == weights
    answer = detected(calls, raw_image_message(np.ascontiguousarray(astronaut[20:220, 120:320])))
    assert (answer.backend, answer.precision, len(answer.faces)) == ("cuda", "fp16", 1)


def test_the_cpu_takes_over_and_the_gpu_comes_back(
    gpu_server: ServerProcess, calls: grpc.Channel, astronaut: NDArray[np.uint8], backend: str
) -> None:
    face = raw_image_message(np.ascontiguousarray(astronaut[20:220, 120:320]))
    watched = health_pb2_grpc.HealthStub(calls).Watch(
        health_pb2.HealthCheckRequest(service="unface.backend.cuda")
    )
    assert next(watched).status == SERVING
    lost = detected(calls, picture(76))  # the very call on which it fails
    assert (lost.backend, lost.precision, lost.width) == (backend, "fp32", 76)
    assert next(watched).status == NOT_SERVING
    assert health_of(calls) == [SERVING, SERVING, NOT_SERVING]
    info = info_of(calls)
    assert (info.backend, info.precision, info.device) == (backend, "fp32", "")
    assert info.device_reason
    assert "THE GPU FAILED, the CPU serves until it is back: call" in gpu_server.log
    answer = detected(calls, face)
    assert (answer.backend, len(answer.faces)) == (backend, 1)
    bring_back(calls)
    assert next(watched).status == SERVING
    watched.cancel()
    assert "THE GPU IS BACK and serves: simulator" in gpu_server.log
    assert (info_of(calls).backend, info_of(calls).device_reason) == ("cuda", "")
    assert detected(calls, face).backend == "cuda"


def test_no_call_is_lost_while_it_goes_and_comes(
    calls: grpc.Channel, astronaut: NDArray[np.uint8], backend: str
) -> None:
    """Also of those that wait while it fails: 60 calls of 8 callers, some of which take it away."""
    face = raw_image_message(np.ascontiguousarray(astronaut[20:220:2, 120:320:2]))
    images = [picture(76 - n // 10 % 2) if n % 10 == 5 else face for n in range(60)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda image: detected(calls, image), images))
    assert [len(a.faces) for a in answers] == [int(image is face) for image in images]
    assert {a.backend for a in answers} <= {"cuda", backend}
    bring_back(calls)


def test_frames_of_a_stream_and_masks_go_on(
    gpu_server: ServerProcess, calls: grpc.Channel, astronaut: NDArray[np.uint8], backend: str
) -> None:
    face = np.ascontiguousarray(astronaut[20:220:2, 120:320:2])
    frames = [face, np.zeros((60, 76, 3), np.uint8), face, face]
    with unface.Client(gpu_server.target) as client:
        answers = list(client.anonymize_stream(frames, min_face=40))
        assert [a.faces.backend for a in answers] == ["cuda", backend, backend, backend]
        assert [len(a.faces) for a in answers] == [1, 0, 1, 1]
        for answer in answers[::2]:
            assert (answer.image != face).any()
        info = client.info()
        assert (info.backend, info.device) == (backend, "")
        assert info.device_reason
        bring_back(calls)
        assert client.info().device == "simulator"
        assert set(client.info().engines) == {"pnet", "rnet", "onet"}


def test_a_gpu_that_was_asked_for_and_is_missing_is_said_and_the_cpu_serves(backend: str) -> None:
    with serving("--device", "gpu") as running, grpc.insecure_channel(running.target) as channel:
        info = info_of(channel)
        if info.device:
            pytest.skip("this machine has a GPU")
        assert info.backend == backend
        assert f"NO GPU IN USE, the CPU serves: {info.device_reason}" in running.log
        assert health_of(channel) == [SERVING, SERVING, NOT_SERVING]
        assert detected(channel, picture(60)).backend == backend
        begin = time.monotonic()
        assert running.terminate() == 0
        assert time.monotonic() - begin < 5
        assert "Traceback" not in running.log


def test_auto_and_cpu_serve_without_a_word_about_a_gpu(backend: str) -> None:
    with serving("--device", "cpu") as running, grpc.insecure_channel(running.target) as channel:
        assert info_of(channel).device_reason == "device is cpu"
        assert len(running.lines) == 1
        assert f"({backend} fp32, " in running.log
    with serving() as running, grpc.insecure_channel(running.target) as channel:
        if not info_of(channel).device:
            assert len(running.lines) == 1
            assert info_of(channel).device_reason
