from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from unface.calibration.cost import (
    Pace,
    by_turns,
    full_hd_pages,
    natural_crops,
    own_peak,
    peak_memory,
)
from unface.calibration.gate import (
    Comparison,
    LandmarkError,
    Limits,
    Missed,
    Overlap,
    Recall,
    judge,
)
from unface.calibration.outputs import Difference
from unface.calibration.page import CROP_SIDE, FRAME, MOST_PICTURES, crop_with_context, to_html
from unface.calibration.report import EngineFacts, Report, to_json, to_text
from unface.errors import EngineError
from unface.mtcnn.network import UInt8Array

HOSTILE = "<script>alert('x')</script> & \"y\""
HASHES = {name: name[0] * 64 for name in ("pnet", "rnet", "onet")}
BYTES = {"pnet": 1_000, "rnet": 20_000, "onet": 300_000}


def pixels() -> UInt8Array:
    return np.full((90, 120, 3), 128, np.uint8)


def missed(height: float, name: str = "a.jpg") -> Missed:
    return Missed("set", name, (10, 10, 10 + height, 10 + height), 0.91, None, pixels)


def report(candidate_found: int = 999, faces: tuple[Missed, ...] = (), name: str = "new") -> Report:
    overall = Recall(1000, 1000, candidate_found, (-0.5, 0.25))
    comparison = Comparison(
        pictures=12,
        thresholds=(0.7, 0.6551),
        false_positives=(4, 3),
        overall=overall,
        bands={"<20": Recall(0, 0, 0), ">80": overall},
        sets={"set": overall},
        in_use=overall,
        in_use_false_positives=(4, 6),
        landmarks=LandmarkError(40, 2.5, 2.75),
        overlap=Overlap(999, 0.95, 0.85),
        missed_by_candidate=faces,
        missed_by_reference=(),
        networks={"pnet": {"logit": Difference(0.99999996, 0.25)}},
    )
    first = EngineFacts("old", HASHES, BYTES, 120.0)
    second = EngineFacts(name, HASHES, {n: size // 4 for n, size in BYTES.items()}, 100.0)
    speed = {"pnet": Pace(30.0, 20.0), "rnet": Pace(1.0, 2.0)}
    return Report(
        first, second, "folder", "2030-01-02", comparison, judge(comparison, Limits()), speed
    )


def test_the_table_fits_a_terminal_and_says_what_matters() -> None:
    text = to_text(report())
    assert max(map(len, text.splitlines())) <= 100
    assert "old (reference) and new (candidate) on folder" in text
    assert re.search(r"all faces +1000 +100\.00% +99\.90% +-0\.10 +-0\.50 to \+0\.25", text)
    assert re.search(r"landmark error, % of face width +40 +2\.50 +2\.75 +\+0\.25", text)
    assert re.search(r"pnet +30\.00 ms +20\.00 ms +1\.50x faster", text)
    assert re.search(r"rnet +1\.00 ms +2\.00 ms +2\.00x slower", text)
    assert re.search(r"engine files .* 4\.00x smaller", text)
    assert "0.999999 " in text  # a cosine that is not 1 never reads 1
    assert "PASSED (allowed: recall 0.3 points lower" in text


def test_a_failure_says_why() -> None:
    text = to_text(report(980))
    assert "FAILED" in text
    assert "recall is 2.00 points lower (980 of 1000 found, reference 1000)" in text


def test_what_was_not_measured_is_left_out() -> None:
    bare = report()
    comparison = replace(bare.comparison, landmarks=None, overlap=None, networks={})
    engine = EngineFacts("same", HASHES, BYTES)
    bare = replace(bare, reference=engine, candidate=engine, comparison=comparison, speed={})
    text = to_text(bare)
    assert "peak memory" not in text
    assert "Single networks" not in text
    assert "the same" in text  # the size
    json.loads(to_json(bare))
    to_html(bare)


def test_json_holds_every_figure() -> None:
    record = json.loads(to_json(report(980, (missed(40),))))
    assert record["passed"] is False
    assert record["reasons"]
    assert record["limits"] == {"recall": 0.3, "band": 1.0, "landmarks": 0.5, "faces": 30}
    assert record["candidate"]["hashes"] == HASHES
    equal = record["equal_false_positives"]
    assert equal["recall"]["difference"] == pytest.approx(-2)
    assert equal["recall"]["interval"] == [-0.5, 0.25]
    assert equal["thresholds"] == [0.7, 0.6551]
    assert record["networks"]["pnet"]["logit"]["cosine"] == 0.99999996
    assert record["speed"]["pnet"] == {"reference_ms": 30, "candidate_ms": 20, "ratio": 1.5}
    assert record["missed_by_candidate"] == [
        {"set": "set", "image": "a.jpg", "box": [10, 10, 50, 50]}
        | {"reference_score": 0.91, "candidate_score": None}
    ]


class Reader(HTMLParser):
    """Collects a page's tags, their addresses and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    return reader


def test_the_page_names_engines_hashes_folder_date_and_verdict() -> None:
    page = read(to_html(report()))
    for said in ("old and new", "folder", "2030-01-02", "PASSED", HASHES["pnet"], "None."):
        assert said in page.text
    assert "FAILED" in read(to_html(report(980))).text


def test_the_page_shows_missed_faces_and_needs_nothing_from_outside() -> None:
    page = read(to_html(report(980, (missed(40), missed(20)))))
    assert page.tags.count("img") == 2
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert "script" not in page.tags
    assert "old 0.910, new -" in page.text
    assert "Missed by new, found by old (2)" in page.text


def test_the_page_says_how_many_pictures_it_left_out() -> None:
    faces = tuple(missed(40) for _ in range(MOST_PICTURES + 7))
    page = read(to_html(report(980, faces)))
    assert page.tags.count("img") == MOST_PICTURES
    assert "7 smaller ones are left out" in page.text


def test_names_from_outside_are_escaped() -> None:
    hostile = replace(report(980, (missed(30, HOSTILE),), HOSTILE), data=HOSTILE)
    page = read(to_html(hostile))
    assert "script" not in page.tags
    assert page.text.count(HOSTILE) >= 4


@pytest.mark.parametrize(
    "box",
    [
        (40, 30, 60, 50),
        (0, 0, 8, 8),
        (-50, -60, 300, 400),
        (118, 88, 121, 92),
        (500, 500, 520, 520),
    ],
)
def test_a_crop_is_square_with_the_face_framed(box: tuple[float, float, float, float]) -> None:
    crop = crop_with_context(pixels(), box)
    assert crop.shape == (CROP_SIDE, CROP_SIDE, 3)
    assert (np.abs(crop.astype(int) - FRAME).sum(axis=2) < 30).any()


def test_a_crop_shows_the_face_at_its_frame() -> None:
    for side in (10, 1000):  # enlarged, and averaged down
        image = np.zeros((3 * side, 3 * side, 3), np.uint8)
        image[side : 2 * side, side : 2 * side] = (0, 0, 255)
        crop = crop_with_context(image, (side, side, 2 * side, 2 * side))
        rows = np.flatnonzero(crop[:, CROP_SIDE // 2, 2] > 127)
        frame = np.flatnonzero(crop[:, CROP_SIDE // 2, 0] > 127)
        assert abs(rows[0] - frame[0]) <= 4
        assert abs(rows[-1] - frame[-1]) <= 4


def test_both_engines_do_the_same_work_in_turn() -> None:
    order: list[str] = []
    first, second = by_turns(lambda: order.append("a"), lambda: order.append("b"))
    assert order == ["a", "b"] * (len(order) // 2)
    assert min(first, second) >= 0


def test_speed_is_measured_on_natural_pixels_of_a_full_hd_pyramid() -> None:
    pages = full_hd_pages()
    assert 15 < len(pages) < 40
    assert pages.std() > 20
    assert natural_crops(64, 24).shape == (64, 24, 24, 3)
    assert np.array_equal(natural_crops(3, 48), natural_crops(3, 48))


def test_peak_memory_is_the_engines_own_and_not_this_processs() -> None:
    ballast = np.ones(600 * 2**20, np.uint8)
    assert own_peak() > 600
    assert 40 < peak_memory("fp32") < 500
    del ballast


def test_an_engine_that_is_not_there_has_no_memory_figure(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"the memory of .*nowhere:int8 cannot be measured"):
        peak_memory(f"{tmp_path / 'nowhere'}:int8")
