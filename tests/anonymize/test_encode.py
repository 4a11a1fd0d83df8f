from io import BytesIO

import numpy as np
import pytest
from corpus import (
    jpeg_segment,
    photo,
    saved,
    webp,
    webp_canvas,
    webp_chunk,
    with_jpeg_segment,
    with_png_chunk,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageCms

from unface.anonymize import FORMATS, decode, encode
from unface.errors import InvalidImage, InvalidOption

SENTINEL = b"SECRET-FACE-4711"
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def pictures() -> st.SearchStrategy[np.ndarray]:
    sides = st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3))
    return arrays.arrays(np.uint8, sides)


@settings(deadline=None)
@given(pictures())
def test_png_gives_back_the_very_pixels(pixels: np.ndarray) -> None:
    assert np.array_equal(decode(encode(pixels, "png")).pixels, pixels)


@settings(deadline=None)
@given(pictures(), st.sampled_from(FORMATS), st.integers(1, 100))
def test_every_format_and_quality_gives_a_picture_of_the_same_size(
    pixels: np.ndarray, format: str, quality: int
) -> None:
    picture = decode(encode(pixels, format, quality=quality))
    assert picture.format == format
    assert picture.pixels.shape == pixels.shape


@pytest.mark.parametrize("format", FORMATS)
def test_colours_stay_red_green_blue(format: str) -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:] = (200, 100, 10)
    back = decode(encode(pixels, format)).pixels
    assert np.abs(back.astype(int) - pixels).max() <= 4


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_higher_quality_is_closer_and_larger(format: str) -> None:
    noise = np.random.default_rng(5).integers(0, 256, (64, 64, 3), np.uint8)
    low, high = encode(noise, format, quality=10), encode(noise, format, quality=95)
    error = [np.abs(decode(f).pixels.astype(int) - noise).mean() for f in (low, high)]
    assert len(low) < len(high)
    assert error[0] > error[1]


def test_arrays_that_are_not_contiguous_can_be_encoded() -> None:
    mirrored = photo()[:, ::-1]
    assert np.array_equal(decode(encode(mirrored, "png")).pixels, mirrored)


@pytest.mark.parametrize("format", FORMATS)
def test_profile_is_written_when_given(format: str) -> None:
    assert decode(encode(photo(), format, icc_profile=SRGB)).icc_profile == SRGB
    assert decode(encode(photo(), format)).icc_profile is None


@pytest.mark.parametrize("quality", [0, 101, -5, 1.5, True, None])
def test_quality_outside_1_to_100_is_refused(quality: object) -> None:
    with pytest.raises(InvalidOption, match=r"quality is .* 1 to 100"):
        encode(photo(), "jpeg", quality=quality)  # type: ignore[arg-type]


@pytest.mark.parametrize("format", ["gif", "JPEG", "", "jpg"])
def test_unknown_format_is_refused(format: str) -> None:
    with pytest.raises(InvalidOption, match=f"format is '{format}'; there are jpeg, png, webp"):
        encode(photo(), format)


@pytest.mark.parametrize(
    ("format", "width", "message"),
    [
        ("webp", 16384, "WebP holds at most 16383 pixels a side, use JPEG or PNG"),
        ("webp", 65536, "WebP holds at most 16383 pixels a side, use PNG"),
        ("jpeg", 65501, "JPEG holds at most 65500 pixels a side, use PNG"),
    ],
)
def test_sides_a_format_cannot_hold_are_refused(format: str, width: int, message: str) -> None:
    with pytest.raises(InvalidImage, match=message):
        encode(np.zeros((1, width, 3), np.uint8), format)
    with pytest.raises(InvalidImage, match=message):
        encode(np.zeros((width, 1, 3), np.uint8), format)


@pytest.mark.parametrize(("format", "side"), [("webp", 16383), ("jpeg", 65500), ("png", 65536)])
def test_largest_side_of_a_format_is_held(format: str, side: int) -> None:
    assert decode(encode(np.zeros((1, side, 3), np.uint8), format)).pixels.shape == (1, side, 3)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        [[[0, 0, 0]]],
    ],
)
def test_other_arrays_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(InvalidImage, match="image"):
        encode(pixels, "png")


def _planted() -> dict[str, bytes]:
    """Return files with a sentinel in each place where metadata can be."""
    jpeg, png = saved(photo(), "JPEG"), saved(photo(), "PNG")
    picture = saved(photo(), "WEBP")[12:]
    exif = Image.Exif()
    exif[0x010E] = SENTINEL.decode()
    block = exif.tobytes()
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x>" + SENTINEL + b"</x>"
    profile = bytearray(SRGB)
    profile[-len(SENTINEL) :] = SENTINEL
    text = b"Comment\0" + SENTINEL
    return {
        "EXIF of JPEG": with_jpeg_segment(jpeg, 0xE1, block),
        "EXIF thumbnail of JPEG": with_jpeg_segment(jpeg, 0xE1, block + jpeg + SENTINEL),
        "XMP of JPEG": with_jpeg_segment(jpeg, 0xE1, xmp),
        "IPTC of JPEG": with_jpeg_segment(jpeg, 0xED, b"Photoshop 3.0\0" + SENTINEL),
        "comment of JPEG": with_jpeg_segment(jpeg, 0xFE, SENTINEL),
        "JFIF extension of JPEG": with_jpeg_segment(jpeg, 0xE0, b"JFXX\0\x10" + SENTINEL),
        "Adobe segment of JPEG": with_jpeg_segment(jpeg, 0xEE, b"Adobe\0\x64\0\0\0\0\1" + SENTINEL),
        "private segment of JPEG": with_jpeg_segment(jpeg, 0xEB, SENTINEL),
        "comment before the end of JPEG": jpeg[:-2] + jpeg_segment(0xFE, SENTINEL) + jpeg[-2:],
        "bytes behind JPEG": jpeg + SENTINEL,
        "profile of JPEG": saved(photo(), "JPEG", icc_profile=bytes(profile)),
        "EXIF of PNG": with_png_chunk(png, b"eXIf", block[6:]),
        "text of PNG": with_png_chunk(png, b"tEXt", text),
        "international text of PNG": with_png_chunk(png, b"iTXt", b"Title\0\0\0\0\0" + SENTINEL),
        "private chunk of PNG": with_png_chunk(png, b"prIv", SENTINEL),
        "bytes behind PNG": png + SENTINEL,
        "metadata of WebP": webp(
            webp_canvas(40, 24, flags=0x2C),
            webp_chunk(b"ICCP", bytes(profile)),
            picture,
            webp_chunk(b"EXIF", block),
            webp_chunk(b"XMP ", xmp),
            webp_chunk(b"UNKN", SENTINEL),
        ),
        "bytes behind WebP": webp(picture) + SENTINEL,
    }


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("place", "file"), _planted().items(), ids=_planted())
def test_no_metadata_survives_decode_and_encode(place: str, file: bytes, format: str) -> None:
    assert SENTINEL in file, place
    picture = decode(file)
    assert picture.exif is None
    assert SENTINEL not in encode(picture.pixels, format)


@pytest.mark.parametrize("format", FORMATS)
def test_encoded_file_has_no_segment_that_is_not_needed(format: str) -> None:
    with Image.open(BytesIO(encode(photo(), format))) as image:
        assert set(image.info) <= {
            *("jfif", "jfif_version", "jfif_unit", "jfif_density"),
            *("background", "loop", "timestamp", "duration"),
        }
        assert not image.getexif()
