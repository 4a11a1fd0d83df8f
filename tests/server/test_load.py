"""More than a server can do: overload, deadlines, cancellation, memory."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from serving import serving, serving_oddly

from unface.anonymize import encode
from unface.v1 import unface_pb2 as pb
from unface.v1.unface_pb2_grpc import UnfaceStub
from unface.worker.messages import raw_image_message

Image = NDArray[np.uint8]
BUSY = ("--queue-size", "1", "--batch-size", "1")  # one worked on, one decoded, one waiting


def request(width: int, height: int = 20) -> pb.DetectRequest:
    return pb.DetectRequest(image=raw_image_message(np.zeros((height, width, 3), np.uint8)))


def test_overload_is_refused_at_once_and_the_rest_is_answered() -> None:
    with (
        serving_oddly("--slow", "0.7", *BUSY) as running,
        grpc.insecure_channel(running.target) as channel,
    ):
        stub = UnfaceStub(channel)
        begin = time.monotonic()
        calls = [stub.Detect.future(request(77), timeout=20) for _ in range(6)]
        errors = [call.exception(20) for call in calls]
        refused = [error for error in errors if error is not None]
        assert len(refused) == 3
        for error in refused:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert error.details() == "1 requests are waiting already; try again later"
            told = dict(error.trailing_metadata())
            assert told["unface-reason"] == "Overloaded"
            assert 10 <= int(told["grpc-retry-pushback-ms"]) <= 10_000
            assert told["unface-request-id"]
        assert time.monotonic() - begin > 1.4
        assert stub.Detect(request(20), timeout=20).width == 20


def test_requests_that_hold_too_many_bytes_are_refused() -> None:
    with (
        serving_oddly("--slow", "0.5", "--queue-bytes", "100000") as running,
        grpc.insecure_channel(running.target) as channel,
    ):
        stub = UnfaceStub(channel)
        calls = [stub.Detect.future(request(77, 1000), timeout=20) for _ in range(3)]
        errors = [call.exception(20) for call in calls]
        assert errors.count(None) == 1
        for error in errors:
            if error is not None:
                assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert "exceed the limit of 100000" in error.details()


def test_health_answers_while_a_detection_runs() -> None:
    with (
        serving_oddly("--slow", "2", *BUSY) as running,
        grpc.insecure_channel(running.target) as channel,
    ):
        stub = UnfaceStub(channel)
        call = stub.Detect.future(request(77), timeout=20)
        stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=1)
        assert not call.done()
        call.cancel()


def test_work_whose_caller_has_gone_is_never_started() -> None:
    with (
        serving_oddly("--slow", "0.3", *BUSY) as running,
        grpc.insecure_channel(running.target) as channel,
    ):
        stub = UnfaceStub(channel)
        first = stub.Detect.future(request(77), timeout=20)
        while "slow detection" not in running.log:
            time.sleep(0.005)
        cancelled = stub.Detect.future(request(77), timeout=20)
        time.sleep(0.05)
        cancelled.cancel()
        assert first.result(20).width == 77
        second = stub.Detect.future(request(77), timeout=20)
        time.sleep(0.05)
        expired = stub.Detect.future(request(77), timeout=0.05)
        assert expired.exception(20).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert second.result(20).width == 77
        assert stub.Detect(request(20), timeout=20).width == 20
        assert running.log.count("slow detection") == 2


def test_many_callers_who_cancel_leave_the_server_as_it_was(astronaut: Image) -> None:
    picture = pb.DetectRequest(image=raw_image_message(astronaut))
    with serving() as running, grpc.insecure_channel(running.target) as channel:
        stub = UnfaceStub(channel)
        expected = list(stub.Detect(picture, timeout=20).faces)
        for wait in np.linspace(0, 0.05, 40):
            call = stub.Detect.future(picture, timeout=20)
            time.sleep(wait)
            call.cancel()
        assert list(stub.Detect(picture, timeout=20).faces) == expected
        assert running.terminate() == 0
        assert "Traceback" not in running.log, running.log


@pytest.mark.slow
def test_memory_stays_small_and_does_not_grow(astronaut: Image) -> None:
    face = np.ascontiguousarray(astronaut[20:220, 120:320])
    files = [encode(face, format) for format in ("jpeg", "png", "webp")]
    with (
        serving() as running,
        grpc.insecure_channel(running.target) as channel,
        ThreadPoolExecutor(2) as pool,
    ):
        stub = UnfaceStub(channel)
        process = psutil.Process(running.process.pid)

        def call(number: int) -> None:
            image = pb.Image(encoded=files[number % 3])
            if number % 4:
                stub.Detect(pb.DetectRequest(image=image), timeout=30)
            else:
                stub.Anonymize(pb.AnonymizeRequest(image=image), timeout=30)

        resident = []
        for begin in range(0, 1000, 250):
            list(pool.map(call, range(begin, begin + 250)))
            resident.append(process.memory_info().rss / 1e6)
        assert max(resident) < 300
        assert resident[-1] < resident[0] + 20


@pytest.mark.slow
def test_a_picture_of_100_megapixels_gives_its_memory_back() -> None:
    file = encode(np.zeros((10_000, 10_000, 3), np.uint8), "jpeg")
    request = pb.AnonymizeRequest(image=pb.Image(encoded=file))
    request.detect_options.min_face = 500
    with serving() as running, grpc.insecure_channel(running.target) as channel:
        process = psutil.Process(running.process.pid)
        answer = UnfaceStub(channel).Anonymize(request, timeout=60)
        assert (answer.width, answer.height) == (10_000, 10_000)
        time.sleep(0.2)
        assert process.memory_info().rss / 1e6 < 300


def test_nothing_here_leaves_a_thread_behind() -> None:
    """Of a server's own; a detector that other tests share has a team of threads."""
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith(("unface-worker", "unface-codec"))]
