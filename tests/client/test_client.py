"""`unface.Client` against a real server."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from serving import ServerProcess, free_port, serving_oddly

import unface
from unface.anonymize import decode, encode
from unface.engines.shelf import read_shelf
from unface.errors import (
    EngineError,
    ImageTooLarge,
    InvalidImage,
    InvalidOption,
    Overloaded,
    ServerError,
)

Image = NDArray[np.uint8]


def same(a: unface.Faces, b: unface.Faces) -> bool:
    return (
        np.array_equal(a.boxes, b.boxes)
        and np.array_equal(a.scores, b.scores)
        and np.array_equal(a.landmarks, b.landmarks)
        and (a.width, a.height) == (b.width, b.height)
    )


def test_a_server_finds_what_this_process_finds(client: unface.Client, astronaut: Image) -> None:
    with unface.Detector() as detector:
        assert same(client.detect(astronaut), detector.detect(astronaut))


def test_faces_come_with_what_served_them_and_where_the_time_went(
    client: unface.Client, astronaut: Image, backend: str
) -> None:
    faces = client.detect(astronaut)
    assert len(faces) == 1
    assert (faces.backend, faces.precision) == (backend, "fp32")
    steps = {"queue", "decode", "detect", "pnet", "rnet", "onet", "mask", "encode", "verify"}
    assert set(faces.timings_ms) == steps
    assert faces.timings_ms["detect"] > 0
    assert faces[0].landmarks.shape == (5, 2)


def test_array_bytes_and_path_are_the_same_picture(
    client: unface.Client, face: Image, tmp_path: Path
) -> None:
    png = encode(face, "png")
    path = tmp_path / "face.png"
    path.write_bytes(png)
    expected = client.detect(face)
    assert len(expected) == 1
    for image in (png, bytearray(png), memoryview(png), path, str(path)):
        assert same(client.detect(image), expected)  # type: ignore[call-overload]


def test_a_view_of_an_array_is_the_picture_it_shows(
    client: unface.Client, astronaut: Image
) -> None:
    view = astronaut[20:220, 120:320]
    assert not view.flags.c_contiguous
    assert same(client.detect(view), client.detect(np.ascontiguousarray(view)))


def test_a_list_gives_a_list(client: unface.Client, face: Image) -> None:
    one, two = client.detect([face, encode(face, "png")])
    assert same(one, two)
    assert client.detect([]) == []


def test_options_reach_the_server(client: unface.Client, astronaut: Image) -> None:
    assert len(client.detect(astronaut, min_face=300)) == 0
    assert len(client.detect(astronaut, thresholds=(0.6, 0.7, 0.99999))) == 0
    privacy = client.detect(astronaut, profile="privacy")
    assert len(privacy) >= 1


def test_an_array_comes_back_as_an_array_without_its_face(
    client: unface.Client, astronaut: Image
) -> None:
    before = astronaut.copy()
    result = client.anonymize_with_faces(astronaut)
    clean, faces = result.image, result.faces
    assert np.array_equal(astronaut, before)
    assert clean.shape == astronaut.shape
    assert clean.dtype == np.uint8
    assert clean.flags.writeable
    changed = (clean != astronaut).any(axis=2)
    assert changed[64:173, 178:265].mean() > 0.95
    assert not changed[300:].any()
    assert len(faces) == 1
    assert np.array_equal(client.anonymize(astronaut), clean)


def test_a_server_covers_what_this_process_covers(client: unface.Client, face: Image) -> None:
    options: dict[str, Any] = {"method": "solid", "shape": "rectangle", "color": (9, 8, 7)}
    here, there = unface.anonymize(face, **options), client.anonymize(face, **options)
    assert np.array_equal(here, there)
    png = encode(face, "png")
    assert np.array_equal(
        decode(unface.anonymize(png, margin=0.5)).pixels,
        decode(client.anonymize(png, margin=0.5)).pixels,
    )


@pytest.mark.parametrize("format", ["jpeg", "png", "webp"])
def test_a_file_comes_back_as_a_file_of_its_format(
    client: unface.Client, face: Image, format: str, tmp_path: Path
) -> None:
    path = tmp_path / "picture"
    path.write_bytes(encode(face, format))
    data = client.anonymize(path)
    assert decode(data).format == format
    assert data == client.anonymize(path.read_bytes())
    assert decode(client.anonymize(path, format="png")).format == "png"


def test_quality_makes_a_file_smaller(client: unface.Client, face: Image) -> None:
    jpeg = encode(face, "jpeg")
    assert len(client.anonymize(jpeg, quality=10)) < len(client.anonymize(jpeg, quality=95)) / 2


def test_an_array_too_large_to_travel_raw_travels_all_the_same(client: unface.Client) -> None:
    large = np.zeros((4800, 4800, 3), np.uint8)  # 69 MB
    large[-1, -1] = 255
    assert np.array_equal(client.anonymize(large, min_face=2000), large)
    assert client.detect(large, min_face=2000).width == 4800


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"", "empty"),
        (b"no picture at all", "JPEG, PNG or WebP"),
        ("/no/such/file.jpg", "/no/such/file.jpg cannot be read: No such file"),
        (np.zeros((5, 5)), "image is float64"),
        (np.zeros((5, 5), np.uint8), "shape"),
        (np.zeros((5, 5, 4), np.uint8), "shape"),
        (np.zeros((0, 5, 3), np.uint8), "shape"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_picture_is_an_invalid_image(
    client: unface.Client, image: Any, message: str
) -> None:
    with pytest.raises(InvalidImage, match=message):
        client.detect(image)
    with pytest.raises(InvalidImage, match=message):
        client.anonymize(image)


@pytest.mark.parametrize(
    "options",
    [
        {"profile": "best"},
        {"min_face": 0},
        {"min_face": "small"},
        {"scale_factor": 1.5},
        {"thresholds": (0.5, 0.5)},
        {"thresholds": (0, 0.5, 0.5)},
        {"method": "pixelate"},
        {"shape": "star"},
        {"margin": -1},
        {"cells": 1},
        {"cells": -1},
        {"kernel": 0},
        {"color": (0, 0, 256)},
        {"color": (0, 0)},
        {"format": "gif"},
        {"format": "raw"},
        {"quality": 0},
        {"quality": 101},
    ],
    ids=str,
)
def test_a_bad_option_is_an_invalid_option(
    client: unface.Client, face: Image, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidOption, match=next(iter(options))):
        client.anonymize(encode(face, "png"), **options)


def test_an_option_that_does_not_exist_is_a_type_error(client: unface.Client, face: Image) -> None:
    with pytest.raises(TypeError, match="smile"):
        client.detect(face, smile=True)  # type: ignore[call-overload]


def test_file_options_do_not_apply_to_arrays(client: unface.Client, face: Image) -> None:
    for options in ({"format": "png"}, {"quality": 5}, {"keep_exif": True}):
        with pytest.raises(InvalidOption, match="for files"):
            client.anonymize(face, **options)  # type: ignore[call-overload]


def test_too_many_bytes_are_an_image_too_large(client: unface.Client) -> None:
    for size in (64 * 2**20 + 1, 70 * 2**20):  # told by the codec, told by gRPC
        with pytest.raises(ImageTooLarge, match=r"limit|larger than"):
            client.detect(bytes(size))


def test_the_server_tells_what_it_is(client: unface.Client, backend: str) -> None:
    info = client.info()
    assert info.version == unface.__version__  # type: ignore[attr-defined]
    assert (info.backend, info.precision) == (backend, "fp32")
    engines = read_shelf().of("fp32", backend)
    assert info.engines == {name: engine.sha256 for name, engine in engines.items()}
    assert len(engines) == 3
    assert info.max_pixels == 100_000_000
    assert info.formats == ("jpeg", "png", "webp")
    assert info.profiles["accurate"] == unface.DetectOptions()


def test_waiting_for_a_server_that_serves_returns_at_once(client: unface.Client) -> None:
    client.wait_until_serving(5)


def test_waiting_for_no_server_ends_with_what_to_do() -> None:
    with unface.Client(f"127.0.0.1:{free_port()}") as client:
        begin = time.monotonic()
        with pytest.raises(ServerError, match=r"has not answered after 0.3 s; .*unface serve"):
            client.wait_until_serving(0.3)
        assert time.monotonic() - begin < 2


def test_no_server_is_an_error_that_names_the_target_and_what_to_do(face: Image) -> None:
    target = f"127.0.0.1:{free_port()}"
    with unface.Client(target) as client:
        with pytest.raises(ServerError, match=rf"no server answers at {target}.*unface serve"):
            client.detect(face)
        with pytest.raises(ServerError, match=rf"no server answers at {target}.*unface serve"):
            next(client.detect_stream([face]))


def test_an_answer_that_comes_too_late_is_an_error_that_names_the_timeout(
    server: ServerProcess, astronaut: Image
) -> None:
    with (
        unface.Client(server.target, timeout=0.002) as client,
        pytest.raises(ServerError, match=rf"at {server.target} gave no answer within 0.002 s"),
    ):
        client.detect(astronaut)


def test_failures_of_the_server_come_as_their_types() -> None:
    flags = ("--slow", "0.5", "--queue-size", "1", "--batch-size", "1")
    with serving_oddly(*flags) as running, unface.Client(running.target, retries=0) as client:
        with pytest.raises(EngineError, match="no numbers"):
            client.detect(np.zeros((20, 79, 3), np.uint8))
        with pytest.raises(ServerError, match=r"internal error; .* as request \w+") as caught:
            client.detect(np.zeros((20, 78, 3), np.uint8))
        assert "secret" not in str(caught.value)
        with ThreadPoolExecutor(8) as pool:
            slow = np.zeros((20, 77, 3), np.uint8)
            errors = [
                call.exception() for call in [pool.submit(client.detect, slow) for _ in range(8)]
            ]
        overloaded = [error for error in errors if error is not None]
        assert 1 <= len(overloaded) < 8
        for error in overloaded:
            assert isinstance(error, Overloaded)
            assert "try again later" in str(error)


def test_a_client_outlives_its_server(face: Image) -> None:
    with serving_oddly() as running:
        client = unface.Client(running.target)
        assert len(client.detect(face)) == 1
        port = running.target.rsplit(":", 1)[1]
        assert running.terminate() == 0
        with pytest.raises(ServerError):
            client.detect(face)
    with serving_oddly("--port", port):
        client.wait_until_serving(10)
        assert len(client.detect(face)) == 1
    client.close()
