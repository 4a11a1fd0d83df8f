"""What is seen before a download is what comes down, whatever kind of picture it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from page import photos
from page.browsing import Browser, check, page_of
from PIL import Image
from scenes import compose
from serving import ServerProcess

from unface.anonymize import decode

PLACES = [(170, 260, 170), (1200, 300, 320)]
TURNS = {5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same two faces in pictures of each kind, by name; upright they are wider than high."""
    folder = tmp_path_factory.mktemp("kinds")
    large = Image.fromarray(compose(1800, 1100, PLACES, "coins").image)
    small = large.resize((900, 550))

    def turned(name: str, picture: Image.Image, orientation: int) -> None:
        exif = Image.Exif()
        exif[0x112] = orientation
        picture.transpose(TURNS[orientation]).save(folder / name, exif=exif.tobytes(), quality=90)

    turned("large-8.webp", large, 8)
    turned("small-6.webp", small, 6)
    turned("large-5.jpg", large, 5)
    turned("small-6.png", small, 6)
    clear = large.convert("RGBA")
    alpha = np.full((1100, 1800), 255, np.uint8)
    alpha[:120] = 0
    clear.putalpha(Image.fromarray(alpha))
    clear.save(folder / "clear.png", compress_level=1)
    small.convert("CMYK").save(folder / "cmyk.jpg")
    small.convert("L").save(folder / "gray.jpeg.txt", "JPEG")  # its name says that it is a text
    wide = compose(9000, 300, [(600, 80, 90), (7000, 90, 80)], "coins").image
    Image.fromarray(wide).save(folder / "panorama.jpg", quality=90)
    return {path.name: path for path in sorted(folder.iterdir())}


def test_the_preview_is_what_comes_down(play: Any, kinds: dict[str, Path]) -> None:
    shown = play("previews", files=list(kinds.values()))["shown"]
    assert shown.keys() == kinds.keys()
    for name, one in shown.items():
        preview = decode(Path(one["preview"]).read_bytes()).pixels
        file = decode(Path(one["path"]).read_bytes()).pixels
        before = decode(kinds[name].read_bytes()).pixels
        assert file.shape == before.shape, name
        assert file.shape[1] > file.shape[0], name
        assert one["faces"] >= 2, name
        assert min(preview.shape[:2]) >= 160, name  # also of a panorama something is to be seen
        height = 120
        size = (round(height * file.shape[1] / file.shape[0]), height)

        def small(picture: Any, size: tuple[int, int] = size) -> Any:
            return cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(int)

        difference = np.abs(small(preview) - small(file)).max(axis=2)
        assert difference.mean() < 3, name
        covered = np.abs(small(before) - small(file)).max(axis=2) > 40
        assert covered.any(), name
        assert difference[covered].mean() < 20, name


def test_no_photos_picture_is_seen_under_another(play: Any, tmp_path: Path) -> None:
    colours = {"one.jpg": (255, 0, 0), "two.jpg": (0, 0, 255), "three.jpg": (20, 20, 20)}
    for name, colour in colours.items():
        scene = compose(1800, 1100, PLACES, "coins")
        scene.image[:200] = colour
        photos.write(tmp_path / name, scene)
    names = dict(zip(colours, ("red", "blue", "dark"), strict=True))
    seen = play("leafing", files=[tmp_path / name for name in colours], colours=names)
    assert seen["wrong"] == []
    assert seen["right"] > 10


def test_boxes_are_drawn_up_to_the_border(play: Any, taken: Any) -> None:
    report = play("borders", file=taken.group.path, size=taken.group.size)
    assert report["seen"]  # a box added by a key lies in the part that is seen
    drawn = [one["box"] for one in report["listed"] if one["label"].startswith("Drawn")]
    assert len(drawn) == 2
    assert min(box[0] for box in drawn) == 0
    assert min(box[1] for box in drawn) == 0


def test_a_file_that_went_away_is_said_so(
    browser: Browser, server: ServerProcess, taken: Any, tmp_path: Path
) -> None:
    file = tmp_path / "gone.jpg"
    file.write_bytes(taken.single.path.read_bytes())
    report = browser.play(
        "gone", page_of(server), asked={"delete": file.unlink}, downloads=tmp_path, file=file
    )
    check(report, page_of(server), problems="net::ERR_")
    assert report["margin"] == "25 %"  # the privacy profile's own
    assert not report["shown"]
    assert report["again"] == 2
