from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from corpus import (
    HEIGHT,
    WIDTH,
    odd_but_good_inputs,
    oriented_files,
    photo,
    png,
    png_chunk,
    png_header,
    png_pixels,
    saved,
    webp,
    webp_canvas,
    webp_chunk,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from unface.anonymize import Limits, decode, raw_rgb
from unface.errors import ImageTooLarge, InvalidImage, InvalidOption

SMALL = Image.fromarray(photo())
FILES = {
    "jpeg": saved(photo(), "JPEG"),
    "progressive jpeg": saved(photo(), "JPEG", progressive=True),
    "jpeg with restarts": saved(photo(), "JPEG", restart_marker_rows=1),
    "png": saved(photo(), "PNG"),
    "webp": saved(photo(), "WEBP"),
    "lossless webp": saved(photo(), "WEBP", lossless=True),
    "webp with alpha": saved(SMALL.convert("RGBA"), "WEBP", exif=b"Exif\0\0MM\0*"),
}


def distance(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


@pytest.mark.parametrize("name", FILES)
def test_every_truncation_is_refused(name: str) -> None:
    file = FILES[name]
    for kept in range(len(file)):
        with pytest.raises(InvalidImage):
            decode(file[:kept])


def test_every_truncation_of_a_photo_like_jpeg_is_refused() -> None:
    noise = np.random.default_rng(3).integers(0, 256, (160, 160, 3), np.uint8)
    file = saved(noise, "JPEG")
    for kept in [*range(1, len(file), 997), *range(len(file) - 40, len(file))]:
        with pytest.raises(InvalidImage):
            decode(file[:kept])


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.data())
def test_changed_bytes_give_a_picture_or_invalid_image_and_nothing_else(
    name: str, data: st.DataObject
) -> None:
    file = bytearray(FILES[name])
    for _ in range(data.draw(st.integers(1, 6))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    try:
        picture = decode(bytes(file), Limits(max_pixels=100_000), keep_exif=True)
    except InvalidImage:
        return
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.shape[2] == 3


@given(st.binary(max_size=200))
def test_bytes_behind_each_signature_never_crash(tail: bytes) -> None:
    for magic in (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x20\0\0\0WEBP"):
        with pytest.raises(InvalidImage):
            decode(magic + tail)


def test_more_bytes_than_the_limit_are_refused() -> None:
    file = FILES["png"]
    assert decode(file, Limits(max_bytes=len(file))).format == "png"
    with pytest.raises(ImageTooLarge, match=f"{len(file)} bytes; the limit is {len(file) - 1}"):
        decode(file, Limits(max_bytes=len(file) - 1))


@pytest.mark.parametrize("name", FILES)
def test_more_pixels_than_the_limit_are_refused(name: str) -> None:
    assert decode(FILES[name], Limits(max_pixels=WIDTH * HEIGHT)).pixels.shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(ImageTooLarge, match=r"40 x 24.*set max_pixels to raise it"):
        decode(FILES[name], Limits(max_pixels=WIDTH * HEIGHT - 1))


def test_pillows_own_pixel_limit_neither_warns_nor_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)  # 40 x 24 is over it, under twice it
    for file in FILES.values():
        assert decode(file).pixels.shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("value", [0, -1, 1.5, True])
@pytest.mark.parametrize("field", ["max_bytes", "max_pixels"])
def test_limits_must_be_positive_whole_numbers(field: str, value: object) -> None:
    with pytest.raises(InvalidOption, match=f"{field} is {value}"):
        Limits(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "format"), [("jpeg", "jpeg"), ("png", "png"), ("webp", "webp")])
def test_format_is_that_of_the_file(name: str, format: str) -> None:
    assert decode(FILES[name]).format == format


def test_lossless_files_decode_to_their_very_pixels() -> None:
    for name in ("png", "lossless webp"):
        assert np.array_equal(decode(FILES[name]).pixels, photo())


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WebP"])
def test_orientation_is_applied(format: str, value: int) -> None:
    transposed = photo().transpose(1, 0, 2)
    upright = {
        1: photo(),
        2: np.fliplr(photo()),
        3: np.rot90(photo(), 2),
        4: np.flipud(photo()),
        5: transposed,
        6: np.rot90(photo(), -1),  # the camera was turned: a quarter turn clockwise puts it right
        7: np.rot90(transposed, 2),
        8: np.rot90(photo(), 1),
    }[value]
    pixels = decode(oriented_files(value)[format]).pixels
    assert pixels.shape == upright.shape
    assert distance(pixels, upright) <= 4  # JPEG rounds


def test_gray_files_give_three_equal_channels() -> None:
    gray = photo()[:, :, 0]
    pixels = decode(saved(gray, "PNG")).pixels
    assert np.array_equal(pixels, np.repeat(gray[:, :, None], 3, axis=2))


def test_16_bit_gray_is_scaled_and_not_clipped() -> None:
    gray = np.linspace(0, 65535, WIDTH * HEIGHT).astype(np.uint16).reshape(HEIGHT, WIDTH)
    assert np.array_equal(decode(saved(gray, "PNG")).pixels[:, :, 1], gray >> 8)


def test_16_bit_rgb_is_scaled_and_not_clipped() -> None:
    rgb = np.random.default_rng(4).integers(0, 65536, (HEIGHT, WIDTH, 3), np.uint16)
    file = png(png_header(WIDTH, HEIGHT, 16, 2), png_pixels(rgb.astype(">u2")))
    assert np.array_equal(decode(file).pixels, rgb >> 8)


def test_1_bit_pictures_are_black_and_white() -> None:
    bits = photo()[:, :, 0] > 100
    pixels = decode(saved(Image.fromarray(bits), "PNG")).pixels
    assert np.array_equal(pixels[:, :, 2], np.where(bits, 255, 0))


def test_palette_gives_its_colours() -> None:
    palette = SMALL.quantize(8)
    assert np.array_equal(decode(saved(palette, "PNG")).pixels, np.array(palette.convert("RGB")))


def test_cmyk_jpeg_keeps_its_colours() -> None:
    file = saved(SMALL.convert("CMYK"), "JPEG", quality=95, subsampling=0)
    assert distance(decode(file).pixels, photo()) <= 8


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_nothing_survives_beneath_transparency(format: str) -> None:
    rgba = np.dstack([photo(), np.zeros((HEIGHT, WIDTH), np.uint8)])
    rgba[:, :10, 3] = 255
    rgba[:, 10:20, 3] = 128
    pixels = decode(saved(rgba, format, lossless=True, exact=True)).pixels
    assert (pixels[:, 20:] == 255).all()
    assert np.array_equal(pixels[:, :10], photo()[:, :10])
    half = photo()[:, 10:20] * (128 / 255) + 255 * (127 / 255)
    assert distance(pixels[:, 10:20], half) <= 1


def test_gray_with_alpha_is_flattened_onto_white() -> None:
    gray, alpha = Image.new("L", (4, 4), 0), Image.new("L", (4, 4), 51)
    file = saved(Image.merge("LA", (gray, alpha)), "PNG")
    assert (decode(file).pixels == 204).all()


@pytest.mark.parametrize("transparency", [2, bytes([255, 255, 0, 255])])
def test_transparent_palette_entry_becomes_white(transparency: int | bytes) -> None:
    palette = SMALL.quantize(4)
    index = np.array(palette)
    pixels = decode(saved(palette, "PNG", transparency=transparency)).pixels
    assert (pixels[index == 2] == 255).all()
    colours = np.array(palette.convert("RGB"))
    assert np.array_equal(pixels[index != 2], colours[index != 2])


@pytest.mark.parametrize(
    ("depth", "color", "stored", "key"),
    [
        (8, 2, [[9, 8, 7], [9, 8, 6]], [9, 8, 7]),
        (16, 2, [[999, 888, 777], [999, 888, 0]], [999, 888, 777]),
        (8, 0, [[77], [78]], [77]),
        (16, 0, [[0x1234], [0x1334]], [0x1234]),
    ],
)
def test_transparent_colour_of_a_png_becomes_white(
    depth: int, color: int, stored: list[list[int]], key: list[int]
) -> None:
    samples = np.array([stored], "u1" if depth == 8 else ">u2")
    transparency = png_chunk(b"tRNS", np.array(key, ">u2").tobytes())
    file = png(png_header(2, 1, depth, color), transparency, png_pixels(samples))
    pixels = decode(file).pixels
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[0, 1].tolist() == list(np.resize(np.array(stored[1]) >> (depth - 8), 3))


def test_transparent_gray_of_a_2_bit_png_becomes_white() -> None:
    transparency = png_chunk(b"tRNS", b"\0\1")
    file = png(png_header(4, 1, 2, 0), transparency, png_pixels(np.array([[0b00011011]], np.uint8)))
    assert decode(file).pixels[0, :, 0].tolist() == [0, 255, 170, 255]


def test_main_picture_of_a_multi_picture_jpeg_is_taken() -> None:
    other = Image.fromarray(255 - photo())
    file = saved(SMALL, "MPO", save_all=True, append_images=[other])
    assert np.array_equal(decode(file).pixels, decode(saved(SMALL, "JPEG")).pixels)


def test_interlaced_png_decodes_to_its_very_pixels() -> None:
    (file,) = (good.data for good in odd_but_good_inputs() if good.name == "interlaced PNG")
    assert np.array_equal(decode(file).pixels, photo())


def test_picture_of_several_strips_decodes_to_its_very_pixels() -> None:
    large = np.random.default_rng(6).integers(0, 256, (1500, 1500, 3), np.uint8)
    assert np.array_equal(decode(saved(large, "PNG", compress_level=0)).pixels, large)


def test_black_png_is_not_taken_for_a_truncated_one() -> None:
    black = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    assert np.array_equal(decode(saved(black, "PNG")).pixels, black)


def test_single_frame_in_an_animation_container_is_a_still_picture() -> None:
    picture = saved(SMALL, "WEBP", lossless=True)[12:]
    frame = bytes(6) + (WIDTH - 1).to_bytes(3, "little") + (HEIGHT - 1).to_bytes(3, "little")
    file = webp(
        webp_canvas(WIDTH, HEIGHT, flags=2),
        webp_chunk(b"ANIM", bytes(6)),
        webp_chunk(b"ANMF", frame + bytes(4) + picture),
    )
    assert np.array_equal(decode(file).pixels, photo())


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_rgb_profile_is_kept(format: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert decode(saved(SMALL, format, icc_profile=profile)).icc_profile == profile


@pytest.mark.parametrize("space", [b"GRAY", b"CMYK", b"Lab "])
def test_profile_of_another_colour_space_is_dropped(space: bytes) -> None:
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[16:20] = space
    assert decode(saved(SMALL, "PNG", icc_profile=bytes(profile))).icc_profile is None


def test_decoding_in_threads_gives_what_decoding_alone_gives() -> None:
    files = list(FILES.values()) * 8
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(decode, files))
    for file, picture in zip(files, together, strict=True):
        assert np.array_equal(picture.pixels, decode(file).pixels)


def test_raw_rgb_is_row_by_row() -> None:
    pixels = raw_rgb(WIDTH, HEIGHT, photo().tobytes())
    assert np.array_equal(pixels, photo())


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0), (-1, 5)])
def test_raw_rgb_sides_must_be_positive(width: int, height: int) -> None:
    with pytest.raises(InvalidImage, match=f"{width} x {height}"):
        raw_rgb(width, height, bytes(15))


def test_raw_rgb_says_how_many_bytes_it_expected_and_got() -> None:
    with pytest.raises(InvalidImage, match=r"4 x 2 needs 24 bytes.*got 23"):
        raw_rgb(4, 2, bytes(23))
    with pytest.raises(InvalidImage, match="empty"):
        raw_rgb(4, 2, b"")


def test_raw_rgb_is_held_to_the_limits() -> None:
    with pytest.raises(ImageTooLarge, match="max_pixels"):
        raw_rgb(4, 2, bytes(24), Limits(max_pixels=7))
    with pytest.raises(ImageTooLarge, match="max_bytes"):
        raw_rgb(4, 2, bytes(24), Limits(max_bytes=23))
