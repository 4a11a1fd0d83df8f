from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unface.mtcnn import boxes as bx
from unface.mtcnn.canvas import cells
from unface.mtcnn.proposals import Cells, logit_from_probability, suppress_within_levels
from unface.mtcnn.pyramid import Level

pytestmark = pytest.mark.usefixtures("arithmetic")


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 1.0))
@settings(max_examples=80, deadline=None)
def test_suppression_on_the_grid_is_general_suppression_of_the_boxes(
    seed: int, density: float
) -> None:
    rng = np.random.default_rng(seed)
    levels = (Level(1.0, 50, 36), Level(0.7, 36, 27))
    parts = []
    for index, level in enumerate(levels):
        mask = rng.random((cells(level.height), cells(level.width))) < density
        rows, columns = np.nonzero(mask)
        parts.append((np.full(len(rows), index), rows, columns))
    index_of, row, column = (np.concatenate(part) for part in zip(*parts, strict=True))
    logit = rng.integers(0, 6, len(row)).astype(np.float32)  # ties
    found = Cells(index_of, row, column, logit, np.zeros((len(row), 4), np.float32))
    kept = sorted(suppress_within_levels(found, levels).tolist())
    expected = []
    for index in range(2):
        mine = np.flatnonzero(index_of == index)
        x, y = column[mine] * 2.0, row[mine] * 2.0
        boxes = np.stack([x, y, x + 12, y + 12], axis=1)
        expected += mine[bx.nms(boxes, logit[mine], 0.5, "union")].tolist()
    assert kept == sorted(expected)


@pytest.mark.parametrize("probability", [0.01, 0.5, 0.6, 0.7, 0.999])
def test_a_threshold_on_the_logit_is_one_on_the_probability(probability: float) -> None:
    logit = logit_from_probability(probability)
    assert 1 / (1 + np.exp(-logit)) == pytest.approx(probability)
