"""Hostile calls without end through a real server: each gets a status, and the server lives on."""

import itertools

import grpc
import pytest
from hostile_files import CANARY, FILE_MUTATIONS, good_files, split
from hostile_inputs import WIRE_MUTATIONS, Hostile, hostile_inputs
from serving import serving

from benchmarks.serving_fuzz import COUNT, FLAGS, GROWTH, Answer, Fuzzed, faults, fuzz_server
from unface.anonymize import Limits, decode
from unface.v1 import unface_pb2 as pb


def fuzzed(count: int) -> Fuzzed:
    with serving(*FLAGS) as running:
        found = fuzz_server(running, count)
        assert running.terminate() == 0
    assert sum(found.codes.values()) == count
    return found


def test_hostile_calls_are_answered_and_leave_the_server_as_it_was() -> None:
    found = fuzzed(600)
    assert found.wrong == []
    assert {code for _, code in found.codes} >= {"OK", "INVALID_ARGUMENT"}


@pytest.mark.slow
def test_ten_thousand_hostile_calls_leave_the_server_as_it_was() -> None:
    found = fuzzed(COUNT)
    assert found.wrong == []
    assert found.end_bytes <= found.warm_bytes * (1 + GROWTH)


def test_the_same_seed_gives_the_same_calls_however_many() -> None:
    first = list(hostile_inputs(40))
    assert list(itertools.islice(hostile_inputs(80), 40)) == first
    assert list(hostile_inputs(40, seed=1)) != first


def test_every_kind_of_damage_is_among_the_calls() -> None:
    names = " ".join(hostile.name for hostile in hostile_inputs(1500))
    missing = [m.__name__ for m in (*FILE_MUTATIONS, *WIRE_MUTATIONS) if m.__name__ not in names]
    assert missing == []
    assert all(kind in names for kind in ("options", "raw 0 x", "bomb"))


def test_calls_are_no_messages_now_and_then() -> None:
    parsed = [hostile.are_messages for hostile in hostile_inputs(300)]
    assert 10 < parsed.count(False) < 100


@pytest.mark.parametrize("file", good_files())
def test_what_is_damaged_is_a_picture_before_and_splits_into_its_parts(file: bytes) -> None:
    assert decode(file, Limits()).pixels.size
    assert b"".join(split(file)) == file
    assert len(split(file)) > 1


FILE = good_files()[0]
RAW = pb.Image(raw=pb.RawImage(width=1, height=1, rgb=b"rgb"))


def anonymized(image: pb.Image, answer: pb.AnonymizeResponse, **options: object) -> list[str]:
    request = pb.AnonymizeRequest(image=image, anonymize_options=pb.AnonymizeOptions(**options))
    hostile = Hostile("a", "Anonymize", (request.SerializeToString(),))
    return list(faults(hostile, Answer("OK", "", [answer.SerializeToString()])))


def test_a_picture_that_came_back_as_it_was_would_be_seen() -> None:
    sent, face = pb.Image(encoded=FILE), [pb.Face()]
    covered = pb.Image(encoded=b"another file")
    assert anonymized(sent, pb.AnonymizeResponse(image=covered, faces=face)) == []
    assert anonymized(sent, pb.AnonymizeResponse(image=sent)) == ["the file came back as it was"]
    assert anonymized(sent, pb.AnonymizeResponse()) == ["OK without a picture"]
    beside = pb.AnonymizeResponse(image=pb.Image(encoded=b"..." + CANARY))
    assert anonymized(sent, beside) == ["bytes beside the picture came back"]
    assert anonymized(sent, beside, keep_exif=True) == []
    assert anonymized(RAW, pb.AnonymizeResponse(image=RAW)) == []  # no face: nothing to cover
    uncovered = pb.AnonymizeResponse(image=RAW, faces=face)
    assert anonymized(RAW, uncovered) == ["a face came back uncovered"]
    assert anonymized(RAW, uncovered, method=pb.MASK_METHOD_BOX) == []


@pytest.mark.parametrize("code", ["UNKNOWN", "INTERNAL", "DEADLINE_EXCEEDED", "UNAVAILABLE"])
def test_a_status_that_no_input_may_get_would_be_seen(code: str) -> None:
    whole = Hostile("a", "Detect", (pb.DetectRequest().SerializeToString(),))
    assert list(faults(whole, Answer(code, "why", []))) == [f"{code} (why)"]


def test_an_answer_to_what_is_no_message_would_be_seen() -> None:
    hostile = Hostile("a", "Detect", (b"\xff",))
    assert list(faults(hostile, Answer("INVALID_ARGUMENT", "no message", []))) == []
    assert list(faults(hostile, Answer("OK", "", [b""]))) == ["OK to what is no message"]


def test_a_frame_with_a_status_that_no_input_may_get_would_be_seen() -> None:
    number = int(grpc.StatusCode.INTERNAL.value[0])
    frame = pb.DetectStreamResponse(error=pb.FrameError(code=number, message="why"))
    hostile = Hostile("a", "DetectStream", (b"",))
    answer = Answer("OK", "", [frame.SerializeToString()])
    assert list(faults(hostile, answer)) == [f"frame with status {number} (why)"]
