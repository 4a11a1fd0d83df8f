"""JPEG by nvImageCodec, with its CPU backends: the same calls as on a GPU."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import cv2
import numpy as np
import pytest
from scenes import astronaut

from unface.anonymize import Limits, decode, encode
from unface.anonymize.jpeg import read_jpeg
from unface.gpu.codec import DeviceCodec, Resident, open_codec

SIZE = (96, 80)


def a_picture() -> np.ndarray[Any, Any]:
    return cv2.resize(astronaut(), SIZE, interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def codec() -> DeviceCodec:
    module = pytest.importorskip("nvidia.nvimgcodec")
    return DeviceCodec(module, module.NVIMGCODEC_DEVICE_CPU_ONLY, module.BackendKind.CPU_ONLY)


def test_a_plain_jpeg_has_the_pixels_that_our_codec_reads(codec: DeviceCodec) -> None:
    file = encode(a_picture(), "jpeg")
    image = codec.decode(read_jpeg(file, Limits()).pixels_file, *SIZE, 0)
    assert np.array_equal(np.asarray(image), decode(file).pixels)


def test_a_gray_jpeg_becomes_rgb(codec: DeviceCodec) -> None:
    file = cv2.imencode(".jpg", a_picture()[:, :, 0])[1].tobytes()
    image = codec.decode(file, *SIZE, 0)
    assert np.array_equal(np.asarray(image), decode(file).pixels)


@pytest.mark.parametrize("width", [1, 7, 17, 96])
def test_pixels_are_coded_as_our_codec_does(codec: DeviceCodec, width: int) -> None:
    pixels = np.ascontiguousarray(a_picture()[:, :width])
    file = codec.encode(pixels, width, len(pixels), 90, 0)
    assert file is not None
    ours = decode(encode(pixels, "jpeg", quality=90)).pixels
    assert np.abs(decode(file).pixels.astype(int) - ours).max() <= 2
    assert b"Exif" not in file


@pytest.mark.parametrize("cut", [0, 1, 100, 1000])
def test_a_file_cut_short_is_left_to_the_cpu(codec: DeviceCodec, cut: int) -> None:
    assert codec.decode(encode(a_picture(), "jpeg")[:cut], *SIZE, 0) is None


def test_what_is_no_jpeg_is_left_to_the_cpu(codec: DeviceCodec) -> None:
    assert codec.decode(b"not a picture", *SIZE, 0) is None


def test_another_size_than_was_checked_is_left_to_the_cpu(codec: DeviceCodec) -> None:
    assert codec.decode(encode(a_picture(), "jpeg"), 95, 80, 0) is None
    assert codec.encode(a_picture(), 95, 80, 90, 0) is None


def test_pixels_that_are_not_there_are_left_to_the_cpu(codec: DeviceCodec) -> None:
    assert codec.encode(Resident(4096, 4, 4), 4, 4, 90, 0) is None


def test_without_a_gpu_or_the_library_there_is_no_codec() -> None:
    try:
        import_module("nvidia.nvimgcodec")
    except ImportError:
        assert open_codec() is None
        return
    assert open_codec(device=1000) is None
