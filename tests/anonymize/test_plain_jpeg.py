"""Plain JPEGs go past Pillow: nothing but the time may differ."""

import subprocess
import sys
from collections.abc import Callable
from io import BytesIO

import cv2
import numpy as np
import pytest
from corpus import jpeg_segment, photo, saved
from PIL import Image

from unface.anonymize import Limits, decode, encode
from unface.anonymize.jpeg import read_jpeg
from unface.anonymize.pillow import read_pixels
from unface.anonymize.plain_jpeg import write
from unface.errors import InvalidImage, UnfaceError

SMALL = Limits(max_pixels=20_000)
NOISE = np.random.default_rng(8).integers(0, 256, (70, 93, 3), np.uint8)
SAMPLINGS = {
    "4:1:1": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411,
    "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "4:2:2": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "4:4:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
    "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
}
PLAIN = {
    **{
        name: cv2.imencode(".jpg", NOISE, (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor))[1].tobytes()
        for name, factor in SAMPLINGS.items()
    },
    "gray": saved(NOISE[:, :, 0], "JPEG"),
    "RGB": saved(NOISE, "JPEG", keep_rgb=True),
    "restarts": saved(NOISE, "JPEG", restart_marker_rows=1),
    "optimized": saved(NOISE, "JPEG", optimize=True),
    "one pixel": saved(NOISE[:1, :1], "JPEG"),
}
NOT_PLAIN = {
    "progressive": saved(NOISE, "JPEG", progressive=True),
    "CMYK": saved(Image.fromarray(NOISE).convert("CMYK"), "JPEG"),
    "comment behind the scan": PLAIN["4:2:0"][:-2] + jpeg_segment(0xFE, b"x") + b"\xff\xd9",
}


def as_pillow_reads(file: bytes) -> np.ndarray:
    return read_pixels(read_jpeg(file, SMALL))


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_jpeg_has_the_pixels_that_pillow_reads(name: str) -> None:
    assert read_jpeg(PLAIN[name], SMALL).is_plain
    assert np.array_equal(decode(PLAIN[name]).pixels, as_pillow_reads(PLAIN[name]))


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_other_jpegs_are_left_to_pillow(name: str) -> None:
    assert not read_jpeg(NOT_PLAIN[name], SMALL).is_plain
    assert np.array_equal(decode(NOT_PLAIN[name]).pixels, as_pillow_reads(NOT_PLAIN[name]))


def outcome(read: Callable[[bytes], np.ndarray], file: bytes) -> tuple[object, ...]:
    try:
        pixels = read(file)
    except UnfaceError as error:
        return type(error), str(error)
    return pixels.shape, pixels.tobytes()


@pytest.mark.parametrize("name", [*PLAIN, *NOT_PLAIN])
def test_a_damaged_jpeg_ends_as_it_ends_with_pillow(name: str) -> None:
    rng = np.random.default_rng(9)
    for _ in range(60):
        file = bytearray({**PLAIN, **NOT_PLAIN}[name])
        for _ in range(rng.integers(1, 4)):
            file[rng.integers(3, len(file) - 2)] = rng.integers(256)
        wanted = outcome(as_pillow_reads, bytes(file))
        assert outcome(lambda data: decode(data, SMALL).pixels, bytes(file)) == wanted


def test_an_error_behind_the_pixels_is_refused() -> None:
    tables = jpeg_segment(0xC4, b"\x00" + b"\xff" * 16)  # more codes than a byte can name
    with pytest.raises(InvalidImage, match="JPEG is damaged"):
        decode(PLAIN["4:2:0"][:-2] + tables + b"\xff\xd9")


@pytest.mark.parametrize("quality", [1, 50, 75, 95, 100])
@pytest.mark.parametrize("pixels", [NOISE, NOISE[:1, :1], photo()], ids=["noise", "dot", "photo"])
def test_a_jpeg_is_coded_as_pillow_codes_it(pixels: np.ndarray, quality: int) -> None:
    assert encode(pixels, "jpeg", quality=quality) == saved(pixels, "JPEG", quality=quality)


def test_a_profile_longer_than_a_segment_comes_back_whole() -> None:
    profile = bytearray(np.random.default_rng(1).bytes(200_000))
    profile[:4], profile[16:20], profile[36:40] = (200_000).to_bytes(4, "big"), b"RGB ", b"acsp"
    file = encode(NOISE, "jpeg", icc_profile=bytes(profile))
    assert decode(file).icc_profile == profile
    with Image.open(BytesIO(file)) as image:
        assert image.info["icc_profile"] == profile


def test_a_profile_that_no_jpeg_can_hold_is_refused() -> None:
    with pytest.raises(InvalidImage, match=r"ICC profile has 17000000 bytes; a JPEG holds"):
        encode(NOISE, "jpeg", icc_profile=bytes(17_000_000))


def test_exif_is_where_other_readers_find_it() -> None:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    file = encode(NOISE, "jpeg", exif=exif.tobytes()[6:])
    with Image.open(BytesIO(file)) as image:
        assert image.getexif()[0x010F] == "Maker"
        assert image.size == (93, 70)
    assert b"Maker" in (decode(file, keep_exif=True).exif or b"")


def test_exif_that_no_jpeg_can_hold_is_refused() -> None:
    with pytest.raises(InvalidImage, match=r"EXIF data has 70000 bytes; a JPEG holds 65527"):
        write(NOISE, 95, None, bytes(70_000))


def test_a_plain_jpeg_needs_no_pillow() -> None:
    code = (
        "import sys; from unface.anonymize import decode, encode\n"
        "encode(decode(sys.stdin.buffer.read()).pixels, 'jpeg'); print('PIL' in sys.modules)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], input=PLAIN["4:2:0"], capture_output=True, check=True
    )
    assert answer.stdout.strip() == b"False"


def test_pillow_decides_where_opencv_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*_: object) -> None:
        raise cv2.error("Failed to allocate")

    monkeypatch.setattr(cv2, "imdecode", out_of_memory)
    assert np.array_equal(decode(PLAIN["4:2:0"]).pixels, as_pillow_reads(PLAIN["4:2:0"]))
