from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unface.calibration.labels import LabelledPicture
from unface.calibration.matching import BANDS, assign, band_of
from unface.calibration.scenes import (
    BACKGROUNDS,
    FACE,
    LOOKS,
    Head,
    Scene,
    calibration_images,
    face_box,
    face_landmarks,
    labelled_scenes,
    picture,
    render,
)
from unface.errors import InvalidImage
from unface.mtcnn import Cascade

ROOT = Path(__file__).parents[2]
PLAIN = Head(400.5, 300.5, 107, 0, 1, False, (1, 1, 1))


@pytest.fixture(scope="module")
def scenes() -> list[LabelledPicture]:
    return labelled_scenes()


def test_each_size_band_has_enough_faces_to_be_judged(scenes: list[LabelledPicture]) -> None:
    bands = [band_of(box[3] - box[1]) for scene in scenes for box in scene.faces]
    assert all(bands.count(band) >= 100 for band in BANDS)
    assert sum(len(scene.faces) == 0 for scene in scenes) >= 5


def test_the_same_scenes_come_every_time(scenes: list[LabelledPicture]) -> None:
    again = labelled_scenes()
    for index in (0, 9, -1):
        assert np.array_equal(scenes[index].faces, again[index].faces)
        assert np.array_equal(scenes[index].load(), again[index].load())


def test_all_faces_lie_within_their_picture(scenes: list[LabelledPicture]) -> None:
    height, width = scenes[0].load().shape[:2]
    for scene in scenes:
        assert (scene.faces >= 0).all()
        assert (scene.faces <= [width, height, width, height]).all()


def test_the_labels_are_where_a_detector_finds_the_faces(
    scenes: list[LabelledPicture], cascade: Cascade
) -> None:
    """Boxes, and landmarks in their order: a mirrored left eye would be off by half a face."""
    for scene in [s for s in scenes if len(s.faces)][10::5]:
        found = cascade.detect(scene.load())
        taken = assign(found.boxes.astype(float), scene.faces, scene.ignored, 0.5)
        assert (taken >= 0).sum() >= 0.9 * len(scene.faces)
        for index in np.flatnonzero(taken >= 0):
            face = taken[index]
            off = np.linalg.norm(found.landmarks[index] - scene.landmarks[face], axis=1)
            assert off.max() < 0.16 * (scene.faces[face, 2] - scene.faces[face, 0])


def test_a_head_pasted_as_it_is_keeps_the_portraits_pixels() -> None:
    pixels = render(Scene("brick", (PLAIN,), "plain", 0))
    x1, y1, x2, y2 = (round(edge) for edge in face_box(PLAIN))
    x, y, right, bottom = FACE
    portrait = picture("astronaut")[y:bottom, x:right]
    assert np.abs(pixels[y1:y2, x1:x2].astype(int) - portrait).max() <= 1


@given(
    x=st.floats(-300, 1100),
    y=st.floats(-300, 900),
    height=st.floats(10, 300),
    tilt=st.floats(-30, 30),
    mirrored=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_landmarks_stay_in_the_face_and_in_order(
    x: float, y: float, height: float, tilt: float, mirrored: bool
) -> None:
    head = Head(x, y, height, tilt, 1, mirrored, (1, 1, 1))
    x1, y1, x2, y2 = face_box(head)
    points = face_landmarks(head)
    assert ((points > [x1, y1]) & (points < [x2, y2])).all()
    assert points[0, 0] < points[1, 0]  # left in the picture comes first
    assert points[3, 0] < points[4, 0]
    assert y2 - y1 == pytest.approx(height)
    render(Scene("grass", (head,), "plain", 0))  # also where it is cut off


def test_calibration_shows_other_pictures_than_the_gate(scenes: list[LabelledPicture]) -> None:
    images = calibration_images()
    assert len(images) > 30
    assert all(i.dtype == np.uint8 and i.ndim == 3 and i.shape[2] == 3 for i in images)
    gate = {scene.load().tobytes() for scene in scenes if len(scene.faces)}
    assert not gate & {image.tobytes() for image in images}
    means = [image.mean() for image in images]
    assert min(means) < 40  # night
    assert max(means) > 180  # and glare


@pytest.mark.parametrize("look", LOOKS)
def test_every_look_changes_the_picture_and_nothing_else(look: str) -> None:
    scene = Scene("coffee", (PLAIN,), look, 3)
    plain, looked = render(Scene("coffee", (PLAIN,), "plain", 3)), render(scene)
    assert looked.shape == plain.shape
    assert np.array_equal(looked, plain) == (look == "plain")
    assert np.array_equal(render(scene), looked)


def test_every_picture_that_ships_is_named_with_its_licence() -> None:
    folder = ROOT / "calibration" / "pictures"
    readme, notices = (folder / "README.md"), (ROOT / "THIRD_PARTY_NOTICES.md")
    files = sorted(folder.glob("*.jpg"))
    assert {file.stem for file in files} == {*BACKGROUNDS, "astronaut"}
    assert sum(file.stat().st_size for file in files) < 300_000
    for file in files:
        assert f"`{file.name}`" in readme.read_text()
        assert f"`{file.stem}`" in notices.read_text() or file.stem == "astronaut"
        assert picture(file.stem).shape[2] == 3


def test_a_missing_picture_says_so() -> None:
    with pytest.raises(InvalidImage, match=r"nobody\.jpg is missing: reinstall"):
        picture("nobody")
