"""`unface.anonymize` and `Local`: anonymization in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from failing_gpus import Socket, needs_the_simulator
from PIL import Image
from skimage import data

import unface
from unface.anonymize import decode
from unface.errors import EngineError, InvalidImage, InvalidOption, UnfaceError
from unface.local import Local, default


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "astronaut.png"
    Image.fromarray(data.astronaut()).save(path)
    return path


def test_an_array_gives_an_array_with_the_face_covered() -> None:
    image = data.astronaut()
    before = image.copy()
    covered = unface.anonymize(image)
    assert (image == before).all()  # the input is never changed
    changed = (covered != image).any(axis=2)
    assert changed[100:130, 200:250].mean() > 0.9
    assert not changed[300:].any()


def test_a_file_gives_the_bytes_of_a_file(file: Path) -> None:
    from_path = unface.anonymize(file)
    from_text = unface.anonymize(str(file))
    from_bytes = unface.anonymize(file.read_bytes())
    assert from_path == from_text == from_bytes
    picture = decode(from_path)
    assert picture.format == "png"
    assert (picture.pixels == unface.anonymize(data.astronaut())).all()


def test_faces_come_with_the_picture_on_request(file: Path) -> None:
    result = default().anonymize_with_faces(file, format="jpeg", quality=80)
    assert decode(result.image).format == "jpeg"
    assert len(result.faces) == 1


def test_a_picture_without_faces_comes_back_whole() -> None:
    image = data.coffee()
    assert (unface.anonymize(image) == image).all()


@pytest.mark.parametrize("image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), None, b"", 7])
def test_what_is_no_picture_is_an_error_and_never_an_answer(image: object) -> None:
    with pytest.raises(InvalidImage):
        unface.anonymize(image)  # type: ignore[call-overload]


def test_file_options_with_an_array_are_refused() -> None:
    with pytest.raises(InvalidOption, match="quality is for files"):
        unface.anonymize(data.astronaut(), quality=90)


class OnGpu:
    """As CuPy's array: a picture on the simulated GPU."""

    def __init__(self, image: Any) -> None:
        self.memory = image.copy()
        self.__cuda_array_interface__ = self.memory.__array_interface__


class There:
    """What lies on the simulated GPU, for numpy to read."""

    def __init__(self, image: Any) -> None:
        said = dict(image.__cuda_array_interface__)
        assert said.pop("stream") is None
        self.owner, self.__array_interface__ = image, said


FACE = np.ascontiguousarray(data.astronaut()[20:220:2, 120:320:2])  # 100 x 100


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Socket]:
    """A simulated GPU for the detector that `unface.anonymize` uses."""
    needs_the_simulator()
    socket = Socket()
    monkeypatch.setattr("unface.gpu.cuda.open_cuda", socket.open)
    default.cache_clear()
    yield socket
    default().close()
    default.cache_clear()


@pytest.mark.parametrize("method", ["mosaic", "solid", "blur"])
def test_an_array_on_a_gpu_gives_one_there(gpu: Socket, method: str) -> None:
    array, wanted = OnGpu(FACE), unface.anonymize(FACE, min_face=40, method=method)
    covered = unface.anonymize(array, min_face=40, method=method)
    pixels = np.array(There(covered))
    assert pixels.shape == FACE.shape
    assert np.abs(pixels.astype(int) - wanted).max() <= (2 if method == "blur" else 0)
    assert (pixels != FACE).any()
    assert (array.memory == FACE).all()
    result = default().anonymize_with_faces(array, min_face=40)
    assert len(result.faces) == len(default().detect(array, min_face=40)) == 1


def test_an_array_on_a_gpu_takes_no_frames_and_no_file_options(gpu: Socket) -> None:
    with pytest.raises(InvalidOption, match="'box'; an array on a GPU takes mosaic, solid, blur"):
        unface.anonymize(OnGpu(FACE), method="box")
    with pytest.raises(InvalidOption, match="quality is for files"):
        unface.anonymize(OnGpu(FACE), quality=90)
    with pytest.raises(InvalidImage, match="shape"):
        unface.anonymize(OnGpu(FACE[0]))
    assert default().detector.device


def test_an_array_on_a_gpu_that_does_not_serve_is_an_error(gpu: Socket) -> None:
    with unface.Detector(device="cpu", threads=1) as detector:
        with pytest.raises(EngineError, match="none serves: device is cpu"):
            detector.detect(OnGpu(FACE))
        with pytest.raises(EngineError, match="none serves: device is cpu"):
            Local(detector).anonymize(OnGpu(FACE))
    array = OnGpu(FACE)
    unface.anonymize(array, min_face=40)
    gpu.lost = True
    with pytest.raises(EngineError, match="none serves: call"):
        unface.anonymize(array, min_face=40)
    assert (array.memory == FACE).all()
    assert (unface.anonymize(FACE, min_face=40) != FACE).any()  # the CPU does


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises((TypeError, UnfaceError)):
        unface.anonymize(data.astronaut(), methods="solid")  # type: ignore[call-overload]


def test_the_room_and_the_function_share_a_name_in_peace() -> None:
    import unface.anonymize.codec as codec
    from unface.anonymize.masks import MaskOptions

    assert callable(unface.anonymize)
    assert unface.anonymize.decode is decode  # type: ignore[attr-defined]
    assert codec.decode is decode
    assert MaskOptions().method == "mosaic"


def test_the_privacy_profile_finds_at_least_as_many() -> None:
    image = data.astronaut()
    accurate, privacy = unface.Detector(), unface.Detector(profile="privacy")
    assert len(privacy.detect(image)) >= len(accurate.detect(image))


def test_a_list_of_images_gives_a_list() -> None:
    images = [data.astronaut(), data.coffee()]
    found = unface.Detector().detect(images)
    assert [len(faces) for faces in found] == [1, 0]
