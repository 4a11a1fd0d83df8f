"""Bad input through a real server: each a clear status, and the server lives on."""

import re

import grpc
import numpy as np
import pytest
from corpus import BadInput, GoodInput, bad_inputs, odd_but_good_inputs
from serving import ServerProcess, serving_oddly

from unface.server.status import REASON_KEY
from unface.v1 import unface_pb2 as pb
from unface.v1.unface_pb2_grpc import UnfaceStub
from unface.worker.messages import raw_image_message


def failure(stub: UnfaceStub, request: pb.DetectRequest) -> tuple[grpc.StatusCode, str, str | None]:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Detect(request, timeout=20)
    reasons = [m.value for m in caught.value.trailing_metadata() if m.key == REASON_KEY]
    return caught.value.code(), caught.value.details(), next(iter(reasons), None)


def lives(stub: UnfaceStub) -> bool:
    picture = raw_image_message(np.zeros((16, 16, 3), np.uint8))
    return stub.Detect(pb.DetectRequest(image=picture), timeout=20).width == 16


@pytest.mark.parametrize("bad", bad_inputs(), ids=lambda bad: bad.name)
def test_bad_input_is_refused_with_its_reason(stub: UnfaceStub, bad: BadInput) -> None:
    image = pb.Image(encoded=bad.data)
    code, message, reason = failure(stub, pb.DetectRequest(image=image))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert re.search(bad.message, message)
    assert reason in ("InvalidImage", "ImageTooLarge")
    with pytest.raises(grpc.RpcError):  # and no pixels come back
        stub.Anonymize(pb.AnonymizeRequest(image=image), timeout=20)
    assert lives(stub)


@pytest.mark.parametrize("good", odd_but_good_inputs(), ids=lambda good: good.name)
def test_odd_input_is_answered_in_upright_pixels(stub: UnfaceStub, good: GoodInput) -> None:
    answer = stub.Detect(pb.DetectRequest(image=pb.Image(encoded=good.data)), timeout=20)
    assert (answer.width, answer.height) == (good.width, good.height)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (pb.DetectRequest(), "image is missing; set encoded"),
        (pb.DetectRequest(image=pb.Image(raw=pb.RawImage(width=5, height=5))), "empty"),
        (
            pb.DetectRequest(image=pb.Image(raw=pb.RawImage(width=5, height=5, rgb=bytes(74)))),
            "needs 75 bytes .* got 74",
        ),
        (
            pb.DetectRequest(
                image=pb.Image(raw=pb.RawImage(width=2**31, height=2**31, rgb=b"123"))
            ),
            "the limit is 100 MP",
        ),
    ],
)
def test_a_missing_or_wrong_raw_picture_is_refused(
    stub: UnfaceStub, request_: pb.DetectRequest, message: str
) -> None:
    code, details, _ = failure(stub, request_)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert re.search(message, details)


def test_an_option_as_long_as_a_book_still_gets_a_readable_answer(stub: UnfaceStub) -> None:
    request = pb.DetectRequest(image=raw_image_message(np.zeros((16, 16, 3), np.uint8)))
    request.detect_options.profile = "ü" * 1_000_000
    code, message, reason = failure(stub, request)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert message.startswith("profile is 'üüü")
    assert reason == "InvalidOption"


def test_a_picture_of_exactly_the_limit_reaches_the_codec(stub: UnfaceStub) -> None:
    limit = 64 * 1024 * 1024
    code, message, _ = failure(stub, pb.DetectRequest(image=pb.Image(encoded=bytes(limit))))
    assert (code, "zero bytes only" in message) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    over = pb.DetectRequest(image=pb.Image(encoded=bytes(limit + 1)))
    code, message, reason = failure(stub, over)
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "ImageTooLarge")
    assert "67108865 bytes; the limit is 67108864" in message


def test_a_message_beyond_the_limit_is_refused_by_grpc(stub: UnfaceStub) -> None:
    request = pb.DetectRequest(image=pb.Image(encoded=bytes(66 * 1024 * 1024)))
    code, message, _ = failure(stub, request)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in message
    assert lives(stub)


@pytest.fixture(scope="module")
def odd_server() -> ServerProcess:
    with serving_oddly() as running:
        yield running


def test_a_defect_is_logged_and_its_details_stay_here(odd_server: ServerProcess) -> None:
    with grpc.insecure_channel(odd_server.target) as channel:
        stub = UnfaceStub(channel)
        picture = raw_image_message(np.zeros((20, 78, 3), np.uint8))
        code, message, reason = failure(stub, pb.DetectRequest(image=picture))
        assert (code, reason) == (grpc.StatusCode.INTERNAL, "Internal")
        request_id = message.rsplit(" ", 1)[-1]
        assert message == f"internal error; the server's log has it as request {request_id}"
        assert lives(stub)
    assert request_id in odd_server.log
    assert "RuntimeError: a defect near /secret/path" in odd_server.log


def test_an_engine_that_gives_nonsense_is_an_error_and_no_answer(odd_server: ServerProcess) -> None:
    with grpc.insecure_channel(odd_server.target) as channel:
        stub = UnfaceStub(channel)
        picture = raw_image_message(np.zeros((20, 79, 3), np.uint8))
        code, message, reason = failure(stub, pb.DetectRequest(image=picture))
        assert (code, reason) == (grpc.StatusCode.INTERNAL, "EngineError")
        assert "no numbers" in message


def test_bytes_that_are_no_message_do_no_harm(odd_server: ServerProcess) -> None:
    with grpc.insecure_channel(odd_server.target) as channel:
        for method in ("Detect", "Anonymize", "GetServerInfo"):
            call = channel.unary_unary(f"/unface.v1.Unface/{method}")
            with pytest.raises(grpc.RpcError, match="the request is no ") as caught:
                call(b"\xff\xff\xff\xff", timeout=20)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        stream = channel.stream_stream("/unface.v1.Unface/DetectStream")
        (answer,) = stream(iter([b"\xff\xff\xff\xff"]), timeout=20)
        error = pb.DetectStreamResponse.FromString(answer).error
        assert (error.code, error.reason) == (3, "InvalidOption")
        assert lives(UnfaceStub(channel))
