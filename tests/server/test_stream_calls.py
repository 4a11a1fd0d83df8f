"""DetectStream and AnonymizeStream through a real server."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from serving import serving_oddly

from unface.anonymize import encode
from unface.v1 import unface_pb2 as pb
from unface.v1.unface_pb2_grpc import UnfaceStub
from unface.worker.messages import raw_image_message

Image = NDArray[np.uint8]


@pytest.fixture(scope="module")
def face(astronaut: Image) -> Image:
    return np.ascontiguousarray(astronaut[20:220, 120:320])


def frame(pixels: Image, number: int | None = None) -> pb.DetectRequest:
    return pb.DetectRequest(image=raw_image_message(pixels), frame_id=number)


def test_answers_come_in_order_with_their_ids_and_as_from_single_calls(
    stub: UnfaceStub, face: Image
) -> None:
    pictures = [np.ascontiguousarray(face[: 120 + n]) for n in range(20)]
    single = [list(stub.Detect(frame(p)).faces) for p in pictures]
    answers = list(stub.DetectStream(iter([frame(p, 7 * n) for n, p in enumerate(pictures)])))
    assert [a.frame_id for a in answers] == [7 * n for n in range(20)]
    assert [list(a.response.faces) for a in answers] == single


def test_a_frame_without_an_id_is_answered_without_one(stub: UnfaceStub, face: Image) -> None:
    without, zero = stub.DetectStream(iter([frame(face), frame(face, 0)]))
    assert not without.HasField("frame_id")
    assert zero.HasField("frame_id")
    assert zero.frame_id == 0


def test_a_stream_without_frames_ends_at_once(stub: UnfaceStub) -> None:
    assert list(stub.DetectStream(iter([]), timeout=10)) == []


def test_a_bad_frame_is_answered_with_its_error_and_the_stream_goes_on(
    stub: UnfaceStub, face: Image
) -> None:
    bad_option = frame(face, 2)
    bad_option.detect_options.min_face = 0
    frames = [
        frame(face, 0),
        pb.DetectRequest(image=pb.Image(encoded=b"no picture"), frame_id=1),
        bad_option,
        pb.DetectRequest(frame_id=3),
        frame(face, 4),
    ]
    answers = list(stub.DetectStream(iter(frames), timeout=20))
    assert [a.WhichOneof("result") for a in answers] == [
        "response",
        "error",
        "error",
        "error",
        "response",
    ]
    assert [a.frame_id for a in answers] == [0, 1, 2, 3, 4]
    assert [a.error.reason for a in answers[1:4]] == [
        "InvalidImage",
        "InvalidOption",
        "InvalidImage",
    ]
    assert all(a.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0] for a in answers[1:4])
    assert "JPEG, PNG or WebP" in answers[1].error.message
    assert "min_face is 0" in answers[2].error.message
    assert list(answers[0].response.faces) == list(answers[4].response.faces)


def test_anonymized_frames_come_in_order_and_a_bad_one_brings_no_pixels(
    stub: UnfaceStub, face: Image
) -> None:
    frames = [
        pb.AnonymizeRequest(image=pb.Image(encoded=encode(face, "png")), frame_id=0),
        pb.AnonymizeRequest(image=pb.Image(encoded=encode(face, "png")[:-30]), frame_id=1),
        pb.AnonymizeRequest(image=raw_image_message(face), frame_id=2),
    ]
    first, bad, last = stub.AnonymizeStream(iter(frames), timeout=20)
    assert (first.frame_id, bad.frame_id, last.frame_id) == (0, 1, 2)
    assert bad.WhichOneof("result") == "error"
    assert not bad.response.image.encoded
    assert first.response.image == last.response.image
    assert len(first.response.faces) == 1


def test_each_answer_comes_before_the_next_frame_is_sent(stub: UnfaceStub, face: Image) -> None:
    answered = threading.Semaphore(1)

    def frames() -> Iterator[pb.DetectRequest]:
        for number in range(4):
            assert answered.acquire(timeout=10)
            yield frame(face, number)

    for answer in stub.DetectStream(frames(), timeout=30):
        assert answer.HasField("response")
        answered.release()


def test_a_fast_sender_is_held_back(face: Image) -> None:
    """Frames of 4 MB, 0.1 s each: only what is under way and in the sockets may be ahead.

    How much sockets hold is the system's choice: 10 to 20 frames here, and never all 200.
    """
    big = np.zeros((18_000, 77, 3), np.uint8)
    sent = 0

    def frames() -> Iterator[pb.DetectRequest]:
        nonlocal sent
        for number in range(200):
            sent += 1
            request = frame(big, number)
            request.detect_options.min_face = 77
            yield request

    with (
        serving_oddly("--slow", "0.1") as running,
        grpc.insecure_channel(running.target) as channel,
    ):
        call = UnfaceStub(channel).DetectStream(frames())
        for _ in range(20):
            next(call)
        assert sent < 20 + 40
        call.cancel()


def test_a_client_that_vanishes_frees_everything() -> None:
    """With one place for streams, the next one gets in only if the last one was freed."""
    vanish = """
import itertools, os, sys, numpy, unface
client = unface.Client(sys.argv[1])
frames = itertools.repeat(numpy.zeros((20, 77, 3), numpy.uint8))
stream = client.detect_stream(frames)
next(stream)
os._exit(9)
"""
    flags = ("--slow", "0.05", "--max-streams", "1", "--queue-size", "2")
    with serving_oddly(*flags) as running, grpc.insecure_channel(running.target) as channel:
        stub = UnfaceStub(channel)
        small = np.zeros((20, 20, 3), np.uint8)
        for _ in range(3):
            gone = subprocess.run([sys.executable, "-c", vanish, running.target], check=False)
            assert gone.returncode == 9
            assert _answered_soon(stub, frame(small))
        assert len(stub.Detect(frame(small), timeout=10).faces) == 0
        assert running.terminate() == 0
        assert "Traceback" not in running.log, running.log


def _answered_soon(stub: UnfaceStub, request: pb.DetectRequest) -> bool:
    """Return whether a stream is let in within five seconds."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        if _answered(stub, request):
            return True
        time.sleep(0.02)
    return False


def _answered(stub: UnfaceStub, request: pb.DetectRequest) -> bool:
    try:
        return len(list(stub.DetectStream(iter([request]), timeout=10))) == 1
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise
        return False


def test_streams_beyond_the_limit_are_refused_at_once(face: Image) -> None:
    hold = threading.Event()

    def idle() -> Iterator[pb.DetectRequest]:
        yield frame(face)
        hold.wait(20)

    with (
        serving_oddly("--max-streams", "1") as running,
        grpc.insecure_channel(running.target) as channel,
    ):
        stub = UnfaceStub(channel)
        first = stub.DetectStream(idle())
        next(first)
        with pytest.raises(grpc.RpcError, match="1 streams are open already") as caught:
            list(stub.DetectStream(iter([frame(face)]), timeout=10))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        hold.set()
        assert list(first) == []


def test_an_idle_stream_does_not_hold_up_a_shutdown(face: Image) -> None:
    hold = threading.Event()

    def idle() -> Iterator[pb.DetectRequest]:
        yield frame(face)
        hold.wait(20)

    with serving_oddly() as running, grpc.insecure_channel(running.target) as channel:
        stream = UnfaceStub(channel).DetectStream(idle())
        next(stream)
        begin = time.monotonic()
        assert running.terminate() == 0
        assert time.monotonic() - begin < 5  # the grace time is 10
        with pytest.raises(grpc.RpcError, match="shutting down") as caught:
            next(stream)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        hold.set()
