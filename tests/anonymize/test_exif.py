import struct
from io import BytesIO

import pytest
from corpus import exif_with_orientation, photo, saved, with_jpeg_segment
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from unface.anonymize import FORMATS, decode, encode
from unface.anonymize.exif import orientation, rebuild_exif

SECRET = b"SECRET-FACE-4711"


def camera_exif(order: str = "MM") -> bytes:
    """Return the TIFF block of a phone's photo: camera, place, and much that may show a face."""
    exif = Image.Exif()
    exif.endian = "<" if order == "II" else ">"
    exif[ExifTags.Base.Make] = "Maker of cameras"
    exif[ExifTags.Base.Model] = "Model 1"
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.XPComment] = SECRET * 2
    exif[0x02BC] = SECRET * 3  # XMP
    exif[0x8649] = SECRET * 3  # Photoshop
    exif.get_ifd(ExifTags.IFD.Exif).update(
        {
            ExifTags.Base.DateTimeOriginal: "2024:05:06 07:08:09",
            ExifTags.Base.ExposureTime: IFDRational(1, 250),
            ExifTags.Base.ISOSpeedRatings: 400,
            ExifTags.Base.MakerNote: SECRET * 100,
            ExifTags.Base.UserComment: b"ASCII\0\0\0" + SECRET,
            ExifTags.Base.LensModel: "x" * 2000,
        }
    )
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (52.0, 31.0, 12.0)})
    block = exif.tobytes()[6:]
    return _with_thumbnail(block, ">" if order == "MM" else "<")


def _with_thumbnail(block: bytes, order: str) -> bytes:
    """Return a block with a second directory that points to a JPEG, as cameras write it."""
    (entries,) = struct.unpack_from(order + "H", block, 8)
    link = 10 + 12 * entries
    at = len(block) + len(block) % 2
    image = saved(photo(8, 8), "JPEG", comment=SECRET)
    directory = struct.pack(order + "H", 2)
    directory += struct.pack(order + "HHII", 0x0201, 4, 1, at + 30)
    directory += struct.pack(order + "HHII", 0x0202, 4, 1, len(image)) + bytes(4)
    block = block[:link] + struct.pack(order + "I", at) + block[link + 4 :]
    return block.ljust(at, b"\0") + directory + image


def read_back(block: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(b"Exif\0\0" + block)
    return exif


@pytest.mark.parametrize("order", ["II", "MM"])
def test_rebuilt_exif_keeps_camera_date_exposure_and_place(order: str) -> None:
    block = rebuild_exif(camera_exif(order))
    assert block is not None
    exif = read_back(block)
    assert exif[ExifTags.Base.Make] == "Maker of cameras"
    details = exif.get_ifd(ExifTags.IFD.Exif)
    assert details[ExifTags.Base.DateTimeOriginal] == "2024:05:06 07:08:09"
    assert details[ExifTags.Base.ExposureTime] == pytest.approx(1 / 250)
    assert details[ExifTags.Base.ISOSpeedRatings] == 400
    assert exif.get_ifd(ExifTags.IFD.GPSInfo)[2] == (52, 31, 12)


@pytest.mark.parametrize("order", ["II", "MM"])
def test_rebuilt_exif_has_no_thumbnail_makernote_comment_or_large_value(order: str) -> None:
    source = camera_exif(order)
    assert source.count(SECRET) > 100
    assert read_back(source).get_ifd(ExifTags.IFD.IFD1)
    block = rebuild_exif(source)
    assert block is not None
    assert SECRET not in block
    assert b"\xff\xd8\xff" not in block
    assert not read_back(block).get_ifd(ExifTags.IFD.IFD1)
    assert ExifTags.Base.LensModel not in read_back(block).get_ifd(ExifTags.IFD.Exif)
    assert len(block) < 500


@pytest.mark.parametrize("order", ["II", "MM"])
def test_rebuilt_exif_says_upright(order: str) -> None:
    source = camera_exif(order)
    assert orientation(source) == 6
    assert orientation(rebuild_exif(source)) == 1


def test_rebuilding_twice_changes_nothing() -> None:
    once = rebuild_exif(camera_exif())
    assert rebuild_exif(once) == once


def test_block_with_nothing_to_keep_is_dropped() -> None:
    assert rebuild_exif(exif_with_orientation(6)) is None
    assert rebuild_exif(b"") is None
    assert rebuild_exif(None) is None


@pytest.mark.parametrize("format", FORMATS)
def test_exif_is_kept_on_request_in_every_format(format: str) -> None:
    file = with_jpeg_segment(saved(photo(), "JPEG"), 0xE1, b"Exif\0\0" + camera_exif())
    picture = decode(file, keep_exif=True)
    written = encode(picture.pixels, format, exif=picture.exif)
    assert SECRET not in written
    with Image.open(BytesIO(written)) as image:
        assert image.getexif()[ExifTags.Base.Model] == "Model 1"
        assert image.getexif()[ExifTags.Base.Orientation] == 1
    assert decode(written, keep_exif=True).exif == picture.exif
    assert decode(written, keep_exif=True).pixels.shape == picture.pixels.shape
    assert decode(file).exif is None


@pytest.mark.parametrize("format", FORMATS)
def test_exif_given_to_encode_loses_its_thumbnail_too(format: str) -> None:
    assert SECRET not in encode(photo(), format, exif=camera_exif())


@given(st.integers(0, 65535), st.sampled_from("<>"))
def test_orientation_is_1_to_8_or_upright(value: int, order: str) -> None:
    expected = value if 1 <= value <= 8 else 1
    assert orientation(exif_with_orientation(value, order)) == expected


@given(st.data(), st.sampled_from(["II", "MM"]))
def test_corrupt_exif_never_raises(data: st.DataObject, order: str) -> None:
    block = bytearray(camera_exif(order))
    for _ in range(data.draw(st.integers(1, 20))):
        block[data.draw(st.integers(0, 400))] = data.draw(st.integers(0, 255))
    corrupt = bytes(block[: data.draw(st.integers(0, len(block)))])
    assert 1 <= orientation(corrupt) <= 8
    rebuilt = rebuild_exif(corrupt)
    assert rebuilt is None or orientation(rebuilt) == 1


@given(st.binary(max_size=80))
def test_garbage_never_raises(tail: bytes) -> None:
    for magic in (b"", b"II*\0", b"MM\0*", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"):
        assert 1 <= orientation(magic + tail) <= 8
        rebuild_exif(magic + tail)
