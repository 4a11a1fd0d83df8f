from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import figures

FACES = np.array([[10, 10, 40, 50], [100, 100, 120, 125]], np.float64)  # 40 and 25 pixels high


def answer(ms: float, boxes: list[list[float]] | None = None) -> figures.Answer:
    found = boxes or []
    scores = [0.9] * len(found)
    return {"ms": ms, "boxes": found, "scores": scores, "standin_ms": ms / 4, "peak_mb": 50.0}


def test_times_are_median_least_and_most() -> None:
    assert figures.times([3, 1, 2]) == figures.Times(2, 1, 3, 3)
    assert figures.times([900]) == figures.Times(900, 900, 900, 1)


def test_faces_found_and_missed_and_false_ones_are_told_apart() -> None:
    boxes = [[11.0, 10.0, 40.0, 49.0], [300.0, 300.0, 330.0, 330.0]]
    row = figures.row([answer(8), answer(4, boxes)], FACES, min_face=20)
    assert (row.faces, row.found, row.counted, row.false_positives) == (2, 1, 2, 1)
    assert row.standin_share == pytest.approx(0.25)


def test_nothing_found_of_no_face_is_neither_missed_nor_false() -> None:
    row = figures.row([answer(1)], np.empty((0, 4)), min_face=20)
    assert (row.faces, row.found, row.counted, row.false_positives) == (0, 0, 0, 0)


def test_a_face_below_the_minimum_counts_neither_way() -> None:
    counts = figures.judge(FACES.tolist(), [0.9, 0.8], FACES, min_face=40)
    assert (counts.faces, counts.found, counts.false_positives) == (1, 1, 0)


def test_a_second_box_on_a_face_is_false_and_the_surer_one_is_not() -> None:
    boxes = [[10.0, 10.0, 40.0, 45.0], [10.0, 10.0, 40.0, 50.0]]
    counts = figures.judge(boxes, [0.5, 0.9], FACES[:1], min_face=20)
    assert (counts.found, counts.false_positives) == (1, 1)


def test_ratio_is_of_medians_and_not_a_number_where_one_is_missing() -> None:
    row = figures.row([answer(30)], FACES, 20)
    half = figures.row([answer(15)], FACES, 20)
    case = figures.Case("480p", "few", 1, 20, {"a": row, "b": half})
    assert figures.ratio(case, "a", "b") == 2
    assert math.isnan(figures.ratio(case, "a", "c"))
    assert math.isnan(figures.ratio(case, "c", "a"))


def test_a_case_says_what_it_is() -> None:
    case = figures.Case("4k", "crowd", 1, 40, {})
    assert case.title == "4k, crowd, 1 thread, minimum face 40"


def test_photographs_of_all_sets_are_counted_together(tmp_path: Path) -> None:
    def counts(faces: int, found: int, false: int) -> dict[str, Any]:
        return {"faces": faces, "found": found, "false_positives": false}

    sets = {"one": counts(10, 9, 1), "two": counts(30, 15, 2), "negatives": counts(0, 0, 4)}
    rows = {"a": {"sets": sets}, "b": {"not_measured": "no network"}}
    results = tmp_path / "accuracy.json"
    results.write_text(json.dumps({"figures": rows}))
    photographs = figures.read_photographs(results)
    assert photographs == {"a": figures.Photographs(40, 24, 7)}
    assert photographs["a"].recall == 0.6


def test_there_are_no_photographs_without_the_file(tmp_path: Path) -> None:
    assert figures.read_photographs(tmp_path / "accuracy.json") == {}
