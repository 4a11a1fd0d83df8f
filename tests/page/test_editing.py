"""Faces are kept, hidden and drawn on the page; what is downloaded has exactly those pixels."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from page.browsing import Browser, Report, check, page_of
from page.photos import EMPTY_PLACE
from scenes import iou
from serving import ServerProcess

import unface
from unface.anonymize import MaskOptions, apply_masks, decode, encode

STRENGTHS = 8  # the page's strength is this plus one, less the cells of the mosaic
NEAR_PX = 3.0  # a pixel of the screen is a little more than one of the photo


def pixels_of(file: Path | bytes) -> NDArray[np.uint8]:
    return decode(file if isinstance(file, bytes) else file.read_bytes()).pixels


def boxes_in(pixels: NDArray[np.uint8], **options: Any) -> NDArray[np.float32]:
    with unface.Detector(**options) as detector:
        return detector.detect(pixels).boxes


def inside(box: Any, pixels: NDArray[Any]) -> NDArray[Any]:
    x1, y1, x2, y2 = (round(float(side)) for side in box)
    return pixels[y1:y2, x1:x2]


@pytest.fixture(scope="module")
def decided(browser: Browser, server: ServerProcess, taken: Any, tmp_path_factory: Any) -> Report:
    """Three photos: one face of the first kept, a place drawn, stronger than usual; all saved."""
    report = browser.play(
        "decide",
        page_of(server),
        downloads=tmp_path_factory.mktemp("downloads"),
        files=[taken.group.path, taken.pair.path, taken.single.path],
        size=taken.group.size,
        keep=taken.group.face(1),
        draw=EMPTY_PLACE,
        strength=6,
    )
    check(report, page_of(server))
    return report


@pytest.fixture(scope="module")
def record(decided: Any) -> Any:
    """The audit record that came with the first photo."""
    (file,) = (one for one in decided["one"] if one["name"].endswith(".audit.json"))
    return json.loads(Path(file["path"]).read_text())["record"]


@pytest.fixture(scope="module")
def covered(decided: Any) -> NDArray[np.uint8]:
    (file,) = (one for one in decided["one"] if one["name"].endswith(".png"))
    assert Path(file["path"]).read_bytes().startswith(b"\x89PNG")
    return pixels_of(Path(file["path"]))


def test_the_photo_comes_down_with_the_pixels_that_unface_computes(
    taken: Any, record: Any, covered: NDArray[np.uint8]
) -> None:
    photo = pixels_of(taken.group.path)
    found = boxes_in(photo)
    others = found[iou(found, np.array([taken.group.face(1)])).max(axis=1) < 0.5]
    assert len(others) == 2
    cover = np.array(record["cover"], np.float32)
    drawn = cover[iou(cover, others).max(axis=1) < 0.5]
    np.testing.assert_allclose(drawn, [EMPTY_PLACE], atol=NEAR_PX)
    overlap = iou(others.astype(np.float64), cover)
    assert overlap.max(axis=1).min() > 0.99  # the page rounds to hundredths
    expected = apply_masks(photo, cover, MaskOptions(cells=STRENGTHS + 1 - 6))
    np.testing.assert_array_equal(covered, expected)


def test_the_kept_face_has_the_pixels_of_the_photo(taken: Any, covered: NDArray[np.uint8]) -> None:
    photo, kept = pixels_of(taken.group.path), taken.group.face(1)
    np.testing.assert_array_equal(inside(kept, covered), inside(kept, photo))


@pytest.mark.parametrize("number", [0, 2])
def test_the_other_faces_are_covered(number: int, taken: Any, covered: NDArray[np.uint8]) -> None:
    photo, hidden = pixels_of(taken.group.path), taken.group.face(number)
    changed = (inside(hidden, covered) != inside(hidden, photo)).any(axis=2)
    assert changed.mean() > 0.9


def test_the_drawn_place_is_covered_and_nothing_else_is_touched(
    taken: Any, covered: NDArray[np.uint8]
) -> None:
    photo = pixels_of(taken.group.path)
    changed = (covered != photo).any(axis=2)
    assert inside(EMPTY_PLACE, changed).mean() > 0.9
    for x1, y1, x2, y2 in (EMPTY_PLACE, taken.group.face(0), taken.group.face(2)):
        wide, high = (x2 - x1) * 0.5, (y2 - y1) * 0.5  # the margin, and the ellipse around it
        inside((max(x1 - wide, 0), max(y1 - high, 0), x2 + wide, y2 + high), changed)[:] = False
    assert not changed.any()


def test_the_page_shows_what_is_kept_and_what_is_hidden(taken: Any, decided: Any) -> None:
    listed = decided["listed"]
    assert len(listed) == 4
    kept = [frame for frame in listed if not frame["hidden"]]
    assert len(kept) == 1
    assert iou(np.array([kept[0]["box"]]), np.array([taken.group.face(1)])).item() > 0.6
    assert sum(frame["label"].startswith("Drawn box") for frame in listed) == 1


def test_the_zip_has_each_photo_covered_its_record_and_a_report(
    taken: Any, decided: Any, covered: NDArray[np.uint8]
) -> None:
    assert decided["zip"]["name"] == "unface.zip"
    with zipfile.ZipFile(decided["zip"]["path"]) as archive:
        assert archive.testzip() is None
        files = {name: archive.read(name) for name in archive.namelist()}
    report = json.loads(files.pop("unface-report.json"))
    records = {name: file for name, file in files.items() if name.endswith(".audit.json")}
    pictures = {name: file for name, file in files.items() if name not in records}
    assert len(pictures) == len(records) == len(report["files"]) == 3
    assert {one["stored"] for one in report["files"]} == set(pictures)
    assert [one["error"] for one in report["files"]] == [None] * 3
    by_stem = {re.split(r"[-.]", name)[0]: file for name, file in pictures.items()}
    np.testing.assert_array_equal(pixels_of(by_stem["group"]), covered)
    for photo, stem in ((taken.pair, "pair"), (taken.single, "single")):
        (kept,) = (json.loads(f)["record"] for n, f in records.items() if n.startswith(stem))
        before = pixels_of(photo.path)
        boxes = np.array(kept["cover"], np.float32)
        assert iou(boxes_in(before).astype(np.float64), boxes).max(axis=1).min() > 0.99
        expected = apply_masks(before, boxes, MaskOptions(cells=STRENGTHS + 1 - 6))
        np.testing.assert_array_equal(pixels_of(by_stem[stem]), pixels_of(encode(expected, "jpeg")))


def test_every_step_can_be_undone_and_done_again(play: Any, taken: Any) -> None:
    report = play(
        "undoing",
        file=taken.group.path,
        size=taken.group.size,
        keep=taken.group.face(0),
        draw=EMPTY_PLACE,
    )
    found, kept, drawn, moved, resized, deleted = report["steps"]
    assert [len(found), len(kept), len(drawn), len(moved), len(resized), len(deleted)] == [
        3, 3, 4, 4, 4, 3,
    ]  # fmt: skip
    assert sum(not frame["hidden"] for frame in kept) == 1
    place = next(f["box"] for f in moved if f["label"].startswith("Drawn"))
    np.testing.assert_allclose(place, np.add(EMPTY_PLACE, [40, 30, 40, 30]), atol=NEAR_PX)
    place = next(f["box"] for f in resized if f["label"].startswith("Drawn"))
    np.testing.assert_allclose(place, np.add(EMPTY_PLACE, [40, 30, 90, 50]), atol=2 * NEAR_PX)
    assert report["back"] == report["steps"][-2::-1]
    assert report["forth"] == report["steps"][1:]


def test_the_count_beside_the_slider_is_that_of_a_new_detection(play: Any, taken: Any) -> None:
    values = [30, 60, 70, 95, 99]
    report = play("thresholds", file=taken.unsure.path, values=values)
    photo = pixels_of(taken.unsure.path)
    expected = [len(boxes_in(photo, thresholds=(0.6, 0.7, v / 100))) for v in values]
    assert len(set(expected)) >= 3
    assert [one["framed"] for one in report["counts"]] == expected
    assert [int(one["said"].split()[0]) for one in report["counts"]] == expected
    searches = [r for r in report["seen"]["requests"] if "/v1/detect" in r]
    assert len(searches) == 1


@pytest.mark.parametrize(("threshold", "left"), [(70, 1), (99, 3)])
def test_the_check_shows_faces_that_are_left_and_hides_them_in_one_click(
    threshold: int, left: int, play: Any, taken: Any
) -> None:
    report = play("selfCheck", file=taken.unsure.path, threshold=threshold)
    assert report["residual"] == left
    assert report["after"] == report["before"] + left
    result = pixels_of(Path(report["file"]["path"]))
    assert len(boxes_in(result, profile="privacy")) == 0
    assert len(boxes_in(pixels_of(taken.unsure.path), profile="privacy")) == 4


def test_faces_that_are_left_can_be_hidden_one_by_one(play: Any, taken: Any) -> None:
    counts = play("oneByOne", file=taken.unsure.path, threshold=99)["counts"]
    assert counts == [[1, 3], [2, 2], [3, 1], [4, 0]]


def test_one_zip_is_covered_in_one_way(play: Any, taken: Any, tmp_path: Path) -> None:
    files = []
    for n in range(6):
        files.append(tmp_path / f"photo-{n}.jpg")
        files[-1].write_bytes(taken.pair.path.read_bytes())
    report = play("changing", files=files)
    with zipfile.ZipFile(report["zip"]["path"]) as archive:
        records = [archive.read(n) for n in archive.namelist() if n.endswith(".audit.json")]
    assert [json.loads(one)["record"]["mask"]["method"] for one in records] == ["mosaic"] * 6
    assert report["saved"] == 0  # in the way that is chosen now


def test_taking_photos_away_asks_for_decisions_and_keeps_the_focus(play: Any, taken: Any) -> None:
    files = [taken.group.path, taken.pair.path, taken.single.path]
    keep = taken.group.face(1)
    report = play("removing", files=files, size=taken.group.size, keep=keep)
    assert "single.jpg" in report["near"]
    assert report["left"] == 2
    assert len(report["asked"]) == 2
    assert "1 photo" in report["asked"][0]
    assert report["start"] == "Choose photos"


def test_before_and_after_stand_side_by_side(play: Any, taken: Any) -> None:
    places = [0, 50, 100]
    report = play("compare", file=taken.group.path, places=places)
    after, half, before = (pixels_of(Path(path)).astype(int) for path in report["shots"])
    unit = before.shape[1] / taken.group.width

    def differ(a: NDArray[np.int_], b: NDArray[np.int_], number: int) -> float:
        region = inside(np.multiply(taken.group.face(number), unit), np.abs(a - b).max(axis=2))
        return float((region > 16).mean())

    left, right = 0, 2  # faces by where they are
    assert differ(before, after, left) > 0.3
    assert differ(before, after, right) > 0.3
    assert differ(half, before, left) == 0
    assert differ(half, after, left) > 0.3
    assert differ(half, after, right) == 0
    assert differ(half, before, right) > 0.3


def test_all_can_be_done_without_a_mouse(play: Any, taken: Any) -> None:
    report = play("keyboard", files=[taken.group.path, taken.pair.path], size=taken.group.size)
    steps: dict[str, list[Any]] = report["steps"]
    first: Callable[[str], Any] = lambda step: steps[step][0]  # noqa: E731 - largest first
    assert [len(frames) for frames in steps.values()] == [3, 3, 3, 3, 3, 2, 3, 4]
    assert not first("kept")["hidden"]
    assert first("hidden")["hidden"]
    assert first("moved")["box"][0] > first("hidden")["box"][0] + 5
    grown = np.subtract(first("grown")["box"], first("moved")["box"])
    assert grown[3] > 3
    np.testing.assert_allclose(grown[:3], 0, atol=NEAR_PX)
    assert steps["undone"] == steps["grown"]
    assert report["added"].startswith("Drawn box")
    assert report["next"] == 2
    result = pixels_of(Path(report["file"]["path"]))
    assert len(boxes_in(result)) == 0
