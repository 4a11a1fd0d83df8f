"""Labelled pictures: where the faces really are, read from a folder and checked line by line.

    DIR/labelled/<set>/labels.jsonl     a line of JSON for each picture
    DIR/labelled/<set>/images/          the pictures

or `labels.jsonl` and `images/` in DIR itself, which then is the set. A line:

    {"image": "a.jpg", "faces": [{"box": [x, y, w, h], "ignore": false, "landmarks": null}]}

Boxes in pixels of the upright picture; `ignore` and `landmarks` (five points `[x, y]`, in the order
of `LANDMARK_NAMES`) may be left out. `width` and `height`, where given, must be the picture's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from unface.calibration.matching import Boxes
from unface.errors import InvalidImage, InvalidOption
from unface.mtcnn.network import UInt8Array

LANDMARKS = 5


@dataclass(frozen=True)
class LabelledSet:
    """How a set is scored: the IoU that counts, and from which labelled height on (pixels)."""

    iou: float = 0.5
    min_height: float = 0
    only_validation: bool = False  # MTCNN was trained on the rest of WIDER FACE
    partial: bool = False  # further faces are not labelled: no detection can be called false
    landmarks_only: bool = False  # its faces are no measure of recall: they were found by machine


SETS = {
    "fddb_single": LabelledSet(0.4, partial=True),
    "wider_orig": LabelledSet(0.5, 20, only_validation=True),
    "wider_416": LabelledSet(0.5, 12),
    "face_mask": LabelledSet(0.4, 20),
    "cmu_mit": LabelledSet(0.3),
    "negatives": LabelledSet(0.5),
    "lfw_landmarks": LabelledSet(0.4, partial=True, landmarks_only=True),
}


@dataclass(frozen=True, eq=False)
class LabelledPicture:
    """One picture and the truth about it; the pixels are read when `load` is called.

    `faces` float64 `[n, 4]` `x1 y1 x2 y2` in pixels, `ignored` bool `[n]` (marked so, or lower than
    the set's limit), `landmarks` float64 `[n, 5, 2]`, NaN where none are labelled. `load` returns
    RGB uint8 `[H, W, 3]` and raises `InvalidImage` when the picture cannot be read.
    """

    set: str
    name: str
    rules: LabelledSet
    faces: Boxes
    ignored: NDArray[np.bool_]
    landmarks: NDArray[np.float64]
    load: Callable[[], UInt8Array]


def read_labels(folder: Path) -> list[LabelledPicture]:
    """Return the labelled pictures of a folder, set by set, in the order of their lines.

    Pictures that a set's rules leave out are left out. Raises `InvalidOption` when the folder has
    no labels, or a line of them is damaged (it names file and line), or no face is labelled.
    """
    pictures = [picture for file in _label_files(folder) for picture in _read_set(file)]
    if not pictures:
        raise InvalidOption(f"{folder} has labels but no picture in them")
    if all(picture.ignored.all() or picture.rules.landmarks_only for picture in pictures):
        raise InvalidOption(f"{folder} has no labelled face that counts: nothing could be missed")
    return pictures


def _label_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InvalidOption(f"{folder} is no folder; one with labels.jsonl and images/ is needed")
    if (folder / "labels.jsonl").is_file():
        return [folder / "labels.jsonl"]
    sets = sorted(p for p in (folder / "labelled").glob("[!.]*") if p.is_dir())
    if not sets:
        raise InvalidOption(
            f"{folder} has neither labels.jsonl nor labelled/<set>/labels.jsonl in it"
        )
    return [path / "labels.jsonl" for path in sets]


def _read_set(file: Path) -> Iterator[LabelledPicture]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidOption(f"{file} cannot be read: {error}") from error
    name = file.resolve().parent.name
    rules = SETS.get(name, LabelledSet())
    seen: set[str] = set()
    for number, line in enumerate(lines, start=1):
        try:
            label = _object(json.loads(line), "the line")
            picture = _picture(label, file.parent / "images", name, rules)
            if picture.name in seen:
                raise ValueError(f"{picture.name} is labelled twice")
        except (ValueError, RecursionError, OverflowError) as error:
            raise InvalidOption(f"{file}, line {number}: {error}") from error
        seen.add(picture.name)
        if not rules.only_validation or label.get("wider_split") == "val":
            yield picture


def _picture(label: dict[str, Any], images: Path, name: str, rules: LabelledSet) -> LabelledPicture:
    """Return the picture of a line; raises `ValueError` saying what is wrong with it."""
    image = label.get("image")
    if not isinstance(image, str) or not image or "\0" in image:
        raise ValueError("image is missing: the name of a file in images/")
    if PurePosixPath(image).is_absolute() or ".." in PurePosixPath(image).parts:
        raise ValueError(f"image {image!r} lies outside of images/")
    try:
        there = (images / image).is_file()
    except OSError:  # a name longer than any file's
        there = False
    if not there:
        raise ValueError(f"picture {images / image} is not there")
    faces = label.get("faces")
    if not isinstance(faces, list):
        raise ValueError("faces is missing: a list, empty where there is no face")
    faces = [_object(face, "a face") for face in faces]
    boxes = np.array([_box(face.get("box")) for face in faces], np.float64).reshape(-1, 4)
    ignored = np.array([_flag(face) for face in faces], bool)
    ignored |= boxes[:, 3] - boxes[:, 1] < rules.min_height
    points = [_landmarks(face.get("landmarks")) for face in faces]
    landmarks = np.array(points, np.float64).reshape(-1, LANDMARKS, 2)
    size = tuple(_numbers([label[k]], 1, k)[0] if k in label else None for k in ("width", "height"))
    load = partial(_read_picture, images / image, size)
    return LabelledPicture(name, image, rules, boxes, ignored, landmarks, load)


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is not a JSON object")
    return value


def _numbers(values: Any, count: int, what: str) -> list[float]:
    """Return so many finite numbers."""
    wrong = not isinstance(values, list) or len(values) != count
    if wrong or any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
        raise ValueError(f"{what} is {str(values)[:80]}; numbers are needed, {count} of them")
    numbers = [float(value) for value in values]
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"{what} is {str(values)[:80]}; finite numbers are needed")
    return numbers


def _box(value: Any) -> list[float]:
    """Return x1, y1, x2, y2 of a labelled x, y, w, h."""
    x, y, width, height = _numbers(value, 4, "box [x, y, w, h]")
    if not (x < x + width and y < y + height):
        raise ValueError(f"box {value} is empty: width and height must be above 0")
    return [x, y, x + width, y + height]


def _flag(face: dict[str, Any]) -> bool:
    flag = face.get("ignore", False)
    if not isinstance(flag, bool):
        raise ValueError(f"ignore is {flag!r}; true or false is needed")
    return flag


def _landmarks(value: Any) -> list[list[float]]:
    if value is None:
        return [[math.nan, math.nan]] * LANDMARKS
    if not isinstance(value, list) or len(value) != LANDMARKS:
        raise ValueError("landmarks must be null or five points [x, y]")
    return [_numbers(point, 2, "a landmark [x, y]") for point in value]


def _read_picture(path: Path, size: tuple[float | None, ...]) -> UInt8Array:
    """Return a picture's pixels; `size` is its labelled width and height, where they are known."""
    try:
        pixels = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:  # more pixels than OpenCV takes
        raise InvalidImage(f"picture {path} cannot be read: {error}") from error
    if pixels is None:
        raise InvalidImage(f"picture {path} cannot be read: it is damaged or no picture")
    height, width = pixels.shape[:2]
    if any(said not in (None, got) for said, got in zip(size, (width, height), strict=True)):
        said = " x ".join("?" if s is None else f"{s:g}" for s in size)
        raise InvalidImage(f"picture {path} is {width} x {height}, its label says {said}")
    return np.asarray(pixels, np.uint8)
