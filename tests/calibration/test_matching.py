from __future__ import annotations

import numpy as np
import pytest

from unface.calibration.matching import Counts, both_find, match, met

NOBODY = np.empty((0, 4))


def boxes(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows, np.float64).reshape(-1, 4)


def count(found: np.ndarray, faces: np.ndarray, ignored: list[bool] | None = None) -> Counts:
    counts = Counts()
    match(counts, found, faces, np.array(ignored or [False] * len(faces), bool), 0.5)
    return counts


def test_a_face_is_found_once_and_the_second_detection_is_false() -> None:
    face = boxes((0, 0, 10, 10))
    counts = count(boxes((0, 0, 10, 10), (0, 0, 10, 11)), face)
    assert (counts.faces, counts.found, counts.false_positives) == (1, 1, 1)


def test_too_little_overlap_is_a_miss_and_a_false_positive() -> None:
    counts = count(boxes((6, 0, 16, 10)), boxes((0, 0, 10, 10)))
    assert (counts.found, counts.false_positives) == (0, 1)


def test_an_ignored_face_counts_neither_way() -> None:
    counts = count(boxes((0, 0, 10, 10)), boxes((0, 0, 10, 10)), [True])
    assert (counts.faces, counts.found, counts.false_positives) == (0, 0, 0)


def test_nothing_found_and_nothing_there() -> None:
    assert count(NOBODY, NOBODY).false_positives == 0
    assert np.isnan(count(NOBODY, NOBODY).recall)
    assert count(boxes((0, 0, 5, 5)), NOBODY).false_positives == 1
    assert count(NOBODY, boxes((0, 0, 5, 5))).recall == 0


def test_faces_are_counted_in_bands_of_height() -> None:
    faces = boxes((0, 0, 10, 10), (100, 0, 130, 30), (200, 0, 400, 200))
    counts = count(faces[1:], faces)
    assert counts.bands == {"<20": [1, 0], "20-40": [1, 1], "40-80": [0, 0], ">80": [1, 1]}
    assert counts.recall == pytest.approx(2 / 3)


def test_both_peers_must_be_sure_of_a_face() -> None:
    a, b = boxes((0, 0, 10, 10), (50, 0, 60, 10)), boxes((1, 0, 11, 10), (50, 0, 60, 10))
    sure, unsure = np.array([0.99, 0.99]), np.array([0.99, 0.9])
    assert len(both_find(a, sure, b, sure)) == 2
    assert both_find(a, sure, b, unsure).tolist() == [[0, 0, 10, 10]]
    assert met(a, b) == 2
    assert met(a, NOBODY) == 0
