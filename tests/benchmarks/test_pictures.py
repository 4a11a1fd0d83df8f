from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import pictures


@pytest.mark.parametrize("size", pictures.SIZES)
@pytest.mark.parametrize(("kind", "faces"), [("none", 0), ("few", 5), ("crowd", 150)])
def test_faces_lie_in_the_picture_and_apart(size: str, kind: str, faces: int) -> None:
    width, height = pictures.SIZES[size]
    scene = pictures.draw(size, kind)
    assert scene.image.shape == (height, width, 3)
    assert scene.faces.shape == (faces, 4)
    assert (scene.faces >= 0).all()
    assert (scene.faces <= [width, height, width, height]).all()
    assert (scene.faces[:, 3] - scene.faces[:, 1] >= 20).all()
    shared = np.zeros((height, width), np.uint8)
    for x1, y1, x2, y2 in scene.faces.round().astype(int):
        shared[y1:y2, x1:x2] += 1
    assert shared.max(initial=0) <= 1


def test_few_faces_are_24_to_250_pixels_wide() -> None:
    for size in ("1080p", "4k"):
        faces = pictures.draw(size, "few").faces
        widths = (faces[:, 2] - faces[:, 0]).round()
        assert (widths.min(), widths.max()) == (24, 250)


def test_all_detectors_get_the_pixels_of_the_jpeg(tmp_path: Path) -> None:
    picture = pictures.write(tmp_path, "480p", "few")
    pixels = np.load(picture.pixels)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    decoded = cv2.imread(str(picture.jpeg), cv2.IMREAD_COLOR_RGB)
    assert decoded is not None
    np.testing.assert_array_equal(pixels, decoded)
    assert len(picture.faces) == 5
