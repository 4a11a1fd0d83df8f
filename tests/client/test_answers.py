"""What clients send beside pictures, and what they make of answers that no server should give."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from scripted_server import FOUND, Failure, scripted

import unface
from unface.errors import (
    EngineError,
    InvalidImage,
    InvalidOption,
    Overloaded,
    ServerError,
    Unauthenticated,
    Unavailable,
)
from unface.v1 import unface_pb2 as pb

PICTURE = np.zeros((10, 20, 3), np.uint8)
RAW = pb.Image(raw=pb.RawImage(width=20, height=10, rgb=bytes(600)))


def covered(**fields: Any) -> pb.AnonymizeResponse:
    return pb.AnonymizeResponse(**{"width": 20, "height": 10, "image": RAW, **fields})


def test_faces_tell_the_request_and_the_profile_for_a_report() -> None:
    with (
        scripted(FOUND, covered(request_id="r-2", profile="privacy")) as script,
        unface.Client(script.target) as client,
    ):
        found = client.detect(PICTURE)
        assert (found.request_id, found.profile) == ("r-1", "fast")
        faces = client.anonymize_with_faces(PICTURE).faces
        assert isinstance(faces, unface.Faces)
        assert (faces.request_id, faces.profile) == ("r-2", "privacy")  # type: ignore[attr-defined]


def test_a_report_says_what_was_wrong() -> None:
    with (
        scripted(pb.ReportResponse(report_id=7, crops_kept=True)) as script,
        unface.Client(script.target) as client,
    ):
        reported = client.report(
            PICTURE,
            missed=np.array([[1, 2, 3, 4]], np.float32),  # type: ignore[arg-type]
            false_faces=[(5.5, 6, 7, 8)],
            request_id="r-1",
            profile="fast",
        )
    assert (reported.report_id, reported.crops_kept) == (7, True)
    assert script.seen[0].request == pb.ReportRequest(
        request_id="r-1",
        image=RAW,
        missed=[pb.Box(x1=1, y1=2, x2=3, y2=4)],
        false_faces=[pb.Box(x1=5.5, y1=6, x2=7, y2=8)],
        profile="fast",
    )


@pytest.mark.parametrize("boxes", [[(1, 2, 3)], [(1, 2, 3, "four")], [1, 2, 3, 4], 5, [None]])
def test_what_is_no_box_is_an_invalid_option(boxes: Any) -> None:
    with unface.Client("localhost:1") as client:
        for name in ("missed", "false_faces"):
            with pytest.raises(InvalidOption, match=f"{name} is .*x1, y1, x2, y2 are needed"):
                client.report(PICTURE, **{name: boxes})


def test_a_report_that_nobody_keeps_is_an_error_in_the_servers_words() -> None:
    refused = Failure(grpc.StatusCode.FAILED_PRECONDITION, "no reports are kept here")
    with (
        scripted(refused) as script,
        unface.Client(script.target) as client,
        pytest.raises(ServerError, match="no reports are kept here"),
    ):
        client.report(PICTURE)


def test_reloading_tells_what_serves_now() -> None:
    engines = [
        pb.Engine(name="pnet", precision="int8", sha256="ab"),
        pb.Engine(name="pnet", precision="fp32", sha256="cd"),
    ]
    answer = pb.ReloadResponse(backend="native", precision="fp32", engines=engines)
    with scripted(answer) as script, unface.Client(script.target) as client:
        reloaded = client.reload()
    assert (reloaded.backend, reloaded.precision) == ("native", "fp32")
    assert reloaded.engines == {"pnet": "cd"}
    assert script.seen[0].method == "Reload"


@pytest.mark.parametrize(
    ("priority", "number"),
    [
        (None, pb.PRIORITY_UNSPECIFIED),
        ("interactive", pb.PRIORITY_INTERACTIVE),
        ("bulk", pb.PRIORITY_BULK),
    ],
)
def test_every_request_says_the_priority(priority: Any, number: int) -> None:
    def answer(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        for request in requests:
            heard.append(request.priority)
            yield pb.AnonymizeStreamResponse(frame_id=request.frame_id, response=covered())

    heard: list[int] = []
    with (
        scripted(FOUND, covered(), answer) as script,
        unface.Client(script.target, priority=priority) as client,
    ):
        client.detect(PICTURE)
        client.anonymize(PICTURE)
        list(client.anonymize_stream([PICTURE, PICTURE]))
    assert [script.seen[0].request.priority, script.seen[1].request.priority, *heard] == 4 * [
        number
    ]


def test_a_priority_that_there_is_not_is_refused_at_once() -> None:
    with pytest.raises(InvalidOption, match="priority is 'urgent'; there are interactive, bulk"):
        unface.Client(priority="urgent")  # type: ignore[arg-type]


def test_an_overloaded_server_says_when_there_is_room() -> None:
    for pushback, expected in (("700", 700), (None, None), ("-1", None)):
        full = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", "Overloaded", pushback)
        with (
            scripted(full) as script,
            unface.Client(script.target, retries=0) as client,
            pytest.raises(Overloaded, match=r"^full$") as caught,
        ):
            client.detect(PICTURE)
        assert caught.value.retry_ms == expected
        assert caught.value.request_id == "r-9"


@pytest.mark.parametrize("answer", [pb.DetectResponse(), pb.DetectResponse(width=20)], ids=str)
def test_an_empty_answer_is_not_no_faces(answer: pb.DetectResponse) -> None:
    with (
        scripted(answer) as script,
        unface.Client(script.target) as client,
        pytest.raises(ServerError, match="answer is empty"),
    ):
        client.detect(PICTURE)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (pb.Image(), "has no picture in it"),
        (pb.Image(raw=pb.RawImage(width=20, height=10, rgb=bytes(599))), "is broken"),
        (pb.Image(encoded=b"no picture"), "is broken"),
    ],
)
def test_an_answer_without_its_picture_is_an_error(image: pb.Image, message: str) -> None:
    with scripted(covered(image=image)) as script, unface.Client(script.target) as client:
        with pytest.raises(ServerError, match=message) as caught:
            client.anonymize(PICTURE)
        assert not isinstance(caught.value, InvalidImage)


@pytest.mark.parametrize("image", [pb.Image(), pb.Image(encoded=b""), RAW], ids=["", "b''", "raw"])
def test_a_file_comes_back_as_a_file_or_not_at_all(image: pb.Image) -> None:
    with (
        scripted(covered(image=image)) as script,
        unface.Client(script.target) as client,
        pytest.raises(ServerError, match="has no picture in it"),
    ):
        client.anonymize(b"a file")


def both(target: str, frames: list[Any]) -> list[list[Any]]:
    """Return what either client makes of a stream: its answers, and at the end the error."""

    def sync() -> list[Any]:
        got: list[Any] = []
        with unface.Client(target) as client:
            try:
                got.extend(client.detect_stream(frames))
            except ServerError as error:
                got.append(error)
        return got

    async def in_loop() -> list[Any]:
        got: list[Any] = []
        async with unface.AsyncClient(target) as client:
            try:
                async for answer in client.detect_stream(frames):
                    got.append(answer)  # noqa: PERF401 - those before an error count
            except ServerError as error:
                got.append(error)
        return got

    return [sync(), asyncio.run(in_loop())]


def frame(number: int, **result: Any) -> pb.DetectStreamResponse:
    return pb.DetectStreamResponse(frame_id=number, **(result or {"response": FOUND}))


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([], "ended the stream before its last frame"),
        ([frame(0)], "ended the stream before its last frame"),
        ([frame(0), frame(2)], "frame 1 was answered as 2: the server broke the order"),
        ([frame(0), frame(1), frame(2)], "more answers than there were frames"),
        ([frame(0), pb.DetectStreamResponse(frame_id=1)], "the answer to frame 1 is empty"),
        ([frame(0), frame(1, response=pb.DetectResponse())], "answer is empty"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_stream_that_goes_wrong_ends_with_an_error(
    answers: list[pb.DetectStreamResponse], message: str
) -> None:
    def answer(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        if len(answers) > 1:
            list(requests)
        yield from answers

    with scripted(answer) as script:
        for *good, last in both(script.target, [PICTURE, PICTURE]):
            assert isinstance(last, ServerError), last
            assert message in str(last)
            assert all(isinstance(found, unface.Faces) for found in good)


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        ("Overloaded", Overloaded),
        ("WorkerLost", Unavailable),
        ("Closed", Unavailable),
        ("EngineError", EngineError),
        ("Expired", ServerError),
        ("Internal", ServerError),
        ("Unheard", ServerError),
        ("", ServerError),
    ],
)
def test_the_error_of_a_frame_is_of_its_reasons_type(reason: str, error: type[Exception]) -> None:
    failed = pb.FrameError(code=14, message="what was wrong", reason=reason)

    def answer(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        for request in requests:
            yield frame(request.frame_id, error=failed)

    with scripted(answer) as script:
        for got in both(script.target, [PICTURE, PICTURE]):
            assert [type(one) for one in got] == [error] * 2
            assert str(got[0]) == "what was wrong"


def test_a_stream_cut_off_in_the_middle_ends_with_the_servers_words() -> None:
    def answer(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        yield frame(next(requests).frame_id)
        Failure(grpc.StatusCode.UNAVAILABLE, reason="Closed").end(context)

    with scripted(answer) as script:
        for first, last in both(script.target, [PICTURE] * 3):
            assert isinstance(first, unface.Faces)
            assert type(last) is Unavailable
            assert "the server's own words" in str(last)


def test_a_stream_refused_while_its_first_frames_are_sent_says_why() -> None:
    """gRPC's asyncio API loses the status to the write that fails; ours does not."""

    def answer(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        next(requests)
        Failure(grpc.StatusCode.UNAUTHENTICATED, reason="Unauthenticated").end(context)
        yield FOUND

    async def run(target: str) -> None:
        large = np.zeros((300, 300, 3), np.uint8)
        async with unface.AsyncClient(target) as client:
            for _ in range(20):
                with pytest.raises(Unauthenticated, match="the server's own words") as caught:
                    async for _ in client.detect_stream([large] * 50):
                        pass
                assert caught.value.request_id == "r-9"

    with scripted(answer) as script:
        asyncio.run(run(script.target))
