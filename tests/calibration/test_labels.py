from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unface.calibration.labels import SETS, read_labels
from unface.errors import InvalidImage, InvalidOption

FACE = {"box": [10, 20, 30, 40], "ignore": False, "landmarks": None}
POINTS = [[15, 30], [30, 30], [22, 40], [17, 50], [28, 50]]


def write_set(folder: Path, lines: list[Any], images: tuple[str, ...] = ("a.png",)) -> Path:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for name in images:
        pixels = np.full((80, 100, 3), (10, 20, 200), np.uint8)  # BGR
        assert cv2.imwrite(str(folder / "images" / name), pixels)
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "labels.jsonl").write_text(text)
    return folder


def label(**changes: Any) -> dict[str, Any]:
    return {"image": "a.png", "faces": [FACE], **changes}


def test_a_line_becomes_boxes_landmarks_and_rgb_pixels(tmp_path: Path) -> None:
    faces = [FACE, {"box": [50, 5, 20.5, 10], "landmarks": POINTS, "ignore": True}]
    (picture,) = read_labels(write_set(tmp_path / "mine", [label(faces=faces)]))
    assert (picture.set, picture.name, picture.rules.iou) == ("mine", "a.png", 0.5)
    assert picture.faces.tolist() == [[10, 20, 40, 60], [50, 5, 70.5, 15]]
    assert picture.ignored.tolist() == [False, True]
    assert np.isnan(picture.landmarks[0]).all()
    assert picture.landmarks[1].tolist() == POINTS
    pixels = picture.load()
    assert (pixels.shape, pixels.dtype) == ((80, 100, 3), np.uint8)
    assert pixels[0, 0].tolist() == [200, 20, 10]


def test_a_picture_without_faces_has_empty_arrays(tmp_path: Path) -> None:
    lines = [label(), label(image="b.png", faces=[])]
    _, empty = read_labels(write_set(tmp_path, lines, ("a.png", "b.png")))
    assert empty.faces.shape == (0, 4)
    assert empty.landmarks.shape == (0, 5, 2)
    assert empty.ignored.shape == (0,)


def test_sets_in_a_folder_are_read_each_by_its_rules(tmp_path: Path) -> None:
    sets = tmp_path / "labelled"
    val, train = label(wider_split="val"), label(image="b.png", wider_split="train")
    low = {"box": [0, 0, 19, 19]}
    write_set(sets / "wider_orig", [{**val, "faces": [FACE, low]}, train], ("a.png", "b.png"))
    write_set(sets / "cmu_mit", [label()])
    first, second = read_labels(tmp_path)
    assert (first.set, second.set) == ("cmu_mit", "wider_orig")
    assert (first.rules.iou, second.rules.iou) == (0.3, 0.5)
    assert second.name == "a.png"  # the detector was trained on the other
    assert second.ignored.tolist() == [False, True]  # lower than 20 pixels


def test_a_set_given_alone_keeps_its_rules(tmp_path: Path) -> None:
    (picture,) = read_labels(write_set(tmp_path / "fddb_single", [label()]))
    assert picture.rules == SETS["fddb_single"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2"),
        ("", "line 2"),
        ("[" * 100_000, "line 2"),
        ("[]", "not a JSON object"),
        (label(image=None), "image is missing"),
        (label(image=""), "image is missing"),
        (label(image="b\0.png"), "image is missing"),
        (label(image="../a.png"), "lies outside of images/"),
        (label(image="/etc/passwd"), "lies outside of images/"),
        (label(image="other.png"), "is not there"),
        (label(image="n" * 5000), "is not there"),
        (label(), "labelled twice"),
        ({"image": "b.png"}, "faces is missing"),
        (label(image="b.png", faces={}), "faces is missing"),
        (label(image="b.png", faces=[3]), "a face is not a JSON object"),
        (label(image="b.png", faces=[{}]), "numbers are needed, 4"),
        (label(image="b.png", faces=[{"box": [1, 2, 3]}]), "numbers are needed, 4"),
        (label(image="b.png", faces=[{"box": [1, 2, 3, "4"]}]), "numbers are needed, 4"),
        (label(image="b.png", faces=[{"box": [1, 2, 3, True]}]), "numbers are needed, 4"),
        (label(image="b.png", faces=[{"box": [1, 2, 0, 4]}]), "is empty"),
        (label(image="b.png", faces=[{"box": [1, 2, 3, -4]}]), "is empty"),
        (label(image="b.png", faces=[{"box": [1, 2, 3, float("nan")]}]), "finite numbers"),
        (label(image="b.png", faces=[{"box": [1, 2, 3, 10**400]}]), "line 2"),
        (label(image="b.png", faces=[{**FACE, "ignore": "yes"}]), "true or false"),
        (label(image="b.png", faces=[{**FACE, "landmarks": [[1, 2]]}]), "five points"),
        (label(image="b.png", faces=[{**FACE, "landmarks": [[1]] * 5}]), "numbers are needed, 2"),
        (label(image="b.png", width="wide"), "width is"),
    ],
)
def test_a_damaged_line_is_named_with_its_file(tmp_path: Path, line: Any, said: str) -> None:
    folder = write_set(tmp_path, [label(), line, label()], ("a.png", "b.png"))
    with pytest.raises(InvalidOption, match=r"labels\.jsonl, line 2: ") as caught:
        read_labels(folder)
    assert said in str(caught.value)


def test_labels_that_are_no_text_are_refused(tmp_path: Path) -> None:
    folder = write_set(tmp_path, [label()])
    (folder / "labels.jsonl").write_bytes(b"\xff\xfe\0")
    with pytest.raises(InvalidOption, match=r"labels\.jsonl cannot be read"):
        read_labels(folder)


def test_folders_without_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="is no folder"):
        read_labels(tmp_path / "nowhere")
    with pytest.raises(InvalidOption, match=r"neither labels\.jsonl nor"):
        read_labels(tmp_path)
    (tmp_path / "labelled" / "empty").mkdir(parents=True)
    with pytest.raises(InvalidOption, match=r"empty/labels\.jsonl cannot be read"):
        read_labels(tmp_path)


@pytest.mark.parametrize(
    "lines", [[], [label(faces=[])], [label(faces=[{**FACE, "ignore": True}])]]
)
def test_labels_without_a_face_that_counts_are_refused(tmp_path: Path, lines: list[Any]) -> None:
    with pytest.raises(InvalidOption, match=r"no picture in them|no labelled face"):
        read_labels(write_set(tmp_path, lines))


def test_faces_for_landmarks_only_are_not_enough(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="no labelled face"):
        read_labels(write_set(tmp_path / "lfw_landmarks", [label()]))


def test_a_damaged_picture_is_named_when_it_is_loaded(tmp_path: Path) -> None:
    folder = write_set(tmp_path, [label()])
    (folder / "images" / "a.png").write_bytes(b"no picture")
    (picture,) = read_labels(folder)
    with pytest.raises(InvalidImage, match=r"a\.png cannot be read"):
        picture.load()


def test_a_picture_of_another_size_than_its_label_says_is_refused(tmp_path: Path) -> None:
    (picture,) = read_labels(write_set(tmp_path, [label(width=100, height=81)]))
    with pytest.raises(InvalidImage, match="is 100 x 80, its label says 100 x 81"):
        picture.load()
    (picture,) = read_labels(write_set(tmp_path, [label(width=100)]))
    picture.load()


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.sampled_from(["box", "ignore", "landmarks", "image"]), inner)
    ),
    max_leaves=12,
)


@given(faces=anything, width=anything)
@settings(max_examples=60, deadline=None)
def test_whatever_a_line_holds_it_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, faces: Any, width: Any
) -> None:
    folder = write_set(tmp_path_factory.mktemp("any"), [label(faces=faces, width=width)])
    try:
        (picture,) = read_labels(folder)
    except InvalidOption:
        return
    assert np.isfinite(picture.faces).all()
    assert (picture.faces[:, 2:] > picture.faces[:, :2]).all()


def test_the_shared_labels_are_read_whole(shared_data: Path) -> None:
    pictures = read_labels(shared_data)
    assert len({p.set for p in pictures}) >= len(SETS)
    assert sum(p.set == "wider_orig" for p in pictures) == 23
    assert sum(int((~p.ignored).sum()) for p in pictures) > 1500
    assert pictures[0].load().ndim == 3
