"""`Client.detect_stream` and `Client.anonymize_stream` against a real server."""

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from serving import ServerProcess, serving_oddly

import unface
from unface.anonymize import decode, encode
from unface.errors import InvalidImage, InvalidOption, ServerError, UnfaceError

Image = NDArray[np.uint8]


def test_answers_come_in_the_order_of_the_frames(client: unface.Client, face: Image) -> None:
    frames = [np.ascontiguousarray(face[: 120 + n]) for n in range(15)]
    answers = list(client.detect_stream(frames))
    assert [a.height for a in answers if isinstance(a, unface.Faces)] == list(range(120, 135))


def test_no_frames_give_no_answers(client: unface.Client) -> None:
    assert list(client.detect_stream([])) == []
    assert list(client.anonymize_stream([])) == []


def test_each_bad_frame_gives_its_error_in_its_place(client: unface.Client, face: Image) -> None:
    """Refused by the server, refused here, and not there at all."""
    frames: list[Any] = [face, b"bad", np.zeros((2, 2)), "/no/such/file", encode(face, "png")]
    first, bad, floats, missing, last = client.detect_stream(frames)
    assert isinstance(first, unface.Faces)
    assert isinstance(last, unface.Faces)
    assert np.array_equal(first.boxes, last.boxes)
    for answer, message in (
        (bad, "JPEG, PNG or WebP"),
        (floats, "float64"),
        (missing, "No such file"),
    ):
        assert isinstance(answer, InvalidImage)
        assert message in str(answer)


def test_only_bad_frames_give_only_errors(client: unface.Client) -> None:
    answers = list(client.detect_stream([b"", b"x", "/no"]))
    assert [type(answer) for answer in answers] == [InvalidImage] * 3


def test_anonymized_frames_come_back_as_they_went(client: unface.Client, face: Image) -> None:
    png = encode(face, "png")
    array, bad, file = client.anonymize_stream([face, png[:-20], png], method="solid")
    assert isinstance(bad, UnfaceError)
    assert not isinstance(array, UnfaceError)
    assert not isinstance(file, UnfaceError)
    assert isinstance(array.image, np.ndarray)
    assert np.array_equal(array.image, client.anonymize(face, method="solid"))
    assert np.array_equal(decode(file.image).pixels, array.image)
    assert len(array.faces) == len(file.faces) == 1


def test_options_apply_to_every_frame(client: unface.Client, face: Image) -> None:
    answers = client.detect_stream([face, face], min_face=190)
    assert [len(a) for a in answers if isinstance(a, unface.Faces)] == [0, 0]


def test_an_option_that_cannot_be_sent_is_raised_at_once(client: unface.Client) -> None:
    with pytest.raises(InvalidOption):
        client.detect_stream([], thresholds=(1,))  # type: ignore[arg-type]
    with pytest.raises(InvalidOption):
        client.anonymize_stream([], method="pixelate")


def test_an_option_the_server_refuses_is_the_answer_to_every_frame(
    client: unface.Client, face: Image
) -> None:
    answers = list(client.detect_stream([face, face], min_face=0))
    assert [type(answer) for answer in answers] == [InvalidOption] * 2


def test_frames_are_asked_for_one_by_one(client: unface.Client, face: Image) -> None:
    answered = threading.Semaphore(1)

    def camera() -> Iterator[Image]:
        for _ in range(4):
            assert answered.acquire(timeout=10)
            yield face

    for answer in client.detect_stream(camera()):
        assert isinstance(answer, unface.Faces)
        answered.release()


def test_what_the_frames_raise_is_raised_here_after_the_answers(
    client: unface.Client, face: Image
) -> None:
    def camera() -> Iterator[Image]:
        yield face
        raise RuntimeError("unplugged")

    stream = client.detect_stream(camera())
    assert isinstance(next(stream), unface.Faces)
    with pytest.raises(RuntimeError, match="unplugged"):
        next(stream)


def test_a_stream_left_early_leaves_the_client_usable(client: unface.Client, face: Image) -> None:
    for _ in client.detect_stream(face for _ in range(1000)):
        break
    assert len(client.detect(face)) == 1


def test_two_streams_at_once_do_not_mix(client: unface.Client, face: Image) -> None:
    short, tall = face[:150], face[:190]
    pairs = zip(client.detect_stream([short] * 5), client.detect_stream([tall] * 5), strict=True)
    for a, b in pairs:
        assert isinstance(a, unface.Faces)
        assert isinstance(b, unface.Faces)
        assert (a.height, b.height) == (150, 190)


def test_a_server_that_dies_ends_the_stream_with_an_error(face: Image) -> None:
    unplugged = threading.Event()

    def camera() -> Iterator[Image]:
        yield face
        unplugged.wait(20)

    with serving_oddly() as running, unface.Client(running.target) as client:
        stream = client.detect_stream(camera())
        assert isinstance(next(stream), unface.Faces)
        running.process.kill()
        with pytest.raises(ServerError, match=running.target):
            next(stream)
        unplugged.set()


def test_a_timeout_bounds_a_whole_stream(server: ServerProcess, face: Image) -> None:
    with unface.Client(server.target) as client, pytest.raises(ServerError, match=r"within 0.3 s"):
        list(client.detect_stream((face for _ in range(10_000)), timeout=0.3))
