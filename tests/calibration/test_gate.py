from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unface.calibration.gate import (
    SWEPT_FROM,
    Answers,
    Comparison,
    above,
    compare,
    judge,
    score,
    threshold_within,
)
from unface.calibration.labels import LabelledPicture, LabelledSet
from unface.calibration.matching import assign
from unface.calibration.outputs import difference
from unface.calibration.scenes import labelled_scenes
from unface.engines import open_networks
from unface.errors import InvalidOption
from unface.mtcnn.network import FloatArray, Network, Networks, UInt8Array

FAR = 10_000.0  # where no face is labelled


def no_pixels() -> UInt8Array:
    raise AssertionError("the pixels are not needed")


def labelled(
    heights: list[float], rules: LabelledSet | None = None, name: str = "set"
) -> LabelledPicture:
    """Faces side by side, as wide as high, landmarks at their centres."""
    x = np.cumsum([0.0, *(2 * h for h in heights)])[: len(heights)]
    tall = np.array(heights, np.float64).reshape(-1)
    faces = np.stack([x, np.zeros(len(x)), x + tall, tall], axis=1)
    landmarks = np.repeat(((faces[:, :2] + faces[:, 2:]) / 2)[:, None], 5, axis=1)
    ignored = np.zeros(len(faces), bool)
    return LabelledPicture(
        name, "a.png", rules or LabelledSet(), faces, ignored, landmarks, no_pixels
    )


def answers(
    picture: LabelledPicture,
    found: dict[int, float] | float = 0.99,
    false: tuple[float, ...] = (),
    shift: float = 0.0,
) -> Answers:
    """The picture's faces with the scores they are found with, and false ones far away.

    Landmarks are `shift` pixels to the right.
    """
    if isinstance(found, float):
        found = dict.fromkeys(range(len(picture.faces)), found)
    corners = [(FAR + 50 * i, FAR) for i in range(len(false))]
    boxes = np.array([*picture.faces[list(found)], *((x, y, x + 9, y + 9) for x, y in corners)])
    scores = np.array([*found.values(), *false])
    marks = np.array([*picture.landmarks[list(found)], *(np.zeros((5, 2)) for _ in false)])
    order = np.argsort(-scores, kind="stable")
    boxes, marks = boxes.reshape(-1, 4)[order], marks.reshape(-1, 5, 2)[order]
    taken = assign(boxes, picture.faces, picture.ignored, picture.rules.iou)
    return Answers(boxes, scores[order], marks + np.array([shift, 0]), taken)


def one(picture: LabelledPicture, reference: Answers, candidate: Answers) -> Comparison:
    return score([picture], [(reference, candidate)])


CROWD = labelled([10.0] * 100 + [30.0] * 100 + [60.0] * 100 + [200.0] * 100)
ALL = dict.fromkeys(range(400), 0.9)


def without(*faces: int) -> dict[int, float]:
    return {face: s for face, s in ALL.items() if face not in faces}


def test_identical_answers_pass_with_no_difference() -> None:
    found = answers(CROWD, without(3, 250), false=(0.95, 0.6))
    comparison = one(CROWD, found, found)
    verdict = judge(comparison)
    assert (verdict.passed, verdict.reasons, verdict.notes) == (True, (), ())
    assert comparison.overall.difference == 0
    assert comparison.overall.interval == (0, 0)
    assert comparison.thresholds[0] == comparison.thresholds[1]
    assert comparison.overlap is not None
    assert comparison.overlap.low == 1
    assert not comparison.missed_by_candidate


@pytest.mark.parametrize(
    ("first", "band"), [(0, "<20"), (100, "20-40"), (200, "40-80"), (300, ">80")]
)
def test_dropped_faces_fail_the_gate_in_their_band(first: int, band: str) -> None:
    comparison = one(CROWD, answers(CROWD, ALL), answers(CROWD, without(first, first + 1)))
    assert {b: r.difference for b, r in comparison.bands.items() if r.difference} == {band: -2.0}
    assert comparison.overall.difference == -0.5
    verdict = judge(comparison)
    assert not verdict.passed
    assert len(verdict.reasons) == 2
    assert verdict.reasons[1].startswith(f"recall of faces {band} px is 2.00 points lower")
    assert [m.box for m in comparison.missed_by_candidate] == [
        tuple(CROWD.faces[face]) for face in (first, first + 1)
    ]


def test_what_the_limits_allow_passes_and_no_more() -> None:
    allowed = one(CROWD, answers(CROWD, ALL), answers(CROWD, without(5)))  # 0.25 and 1 point
    assert judge(allowed).passed
    spread = one(CROWD, answers(CROWD, ALL), answers(CROWD, without(5, 105)))  # 0.5 points
    assert [r[:9] for r in judge(spread).reasons] == ["recall is"]


def test_a_small_band_is_judged_only_when_more_than_one_face_is_missing() -> None:
    picture = labelled([30.0] * 1000 + [100.0] * 10)
    everything = dict.fromkeys(range(1010), 0.9)

    def judged(lost: int) -> tuple[bool, str]:
        kept = {k: v for k, v in everything.items() if k >= lost + 1000 or k < 1000}
        verdict = judge(one(picture, answers(picture, everything), answers(picture, kept)))
        return verdict.passed, " ".join(verdict.reasons + verdict.notes)

    assert judged(1)[0]
    assert "10 faces >80 px are too few to judge" in judged(1)[1]
    passed, said = judged(2)
    assert not passed
    assert "2 faces >80 px are missed more, of only 10" in said


def test_recall_bought_with_false_positives_is_not_counted() -> None:
    weak = {face: 0.8 if face < 50 else 0.99 for face in range(400)}
    reference = answers(CROWD, {f: s for f, s in weak.items() if s > 0.9 or f < 25})
    candidate = answers(CROWD, weak, false=(0.9,))
    comparison = one(CROWD, reference, candidate)
    assert comparison.false_positives == (0, 0)
    assert comparison.thresholds == (SWEPT_FROM, 0.9)
    assert comparison.in_use.difference > 0
    assert comparison.overall.difference < -6
    assert not judge(comparison).passed


def test_scores_that_are_only_lower_are_no_loss_but_are_noted() -> None:
    lower = answers(CROWD, {face: 0.65 if face < 20 else 0.9 for face in range(400)})
    comparison = one(CROWD, answers(CROWD, ALL), lower)
    verdict = judge(comparison)
    assert comparison.overall.difference == 0
    assert verdict.passed
    assert "at the default threshold 5.00 points of recall are lost" in verdict.notes[0]


def test_false_positives_of_partially_labelled_pictures_do_not_count() -> None:
    partial = labelled([50.0] * 400, LabelledSet(partial=True))
    found = answers(partial, 0.95)
    comparison = one(partial, found, answers(partial, 0.9, false=(0.99, 0.98)))
    assert comparison.false_positives == (0, 0)
    assert comparison.overall.difference == 0


def test_faces_for_landmarks_only_have_no_part_in_recall() -> None:
    marks = labelled([50.0] * 10, LabelledSet(partial=True, landmarks_only=True), "marks")
    pictures = [CROWD, marks]
    found, some = answers(CROWD, ALL), answers(marks, {1: 0.9, 2: 0.9})
    comparison = score(pictures, [(found, found), (answers(marks), some)])
    assert comparison.overall.faces == 400
    assert list(comparison.sets) == ["set"]
    assert comparison.landmarks is not None
    assert comparison.landmarks.faces == 402
    assert not comparison.missed_by_candidate


@pytest.mark.parametrize(("shift", "passed"), [(0.49, True), (0.51, False)])
def test_landmarks_may_be_half_a_percent_of_the_width_worse(shift: float, passed: bool) -> None:
    picture = labelled([100.0] * 400)
    comparison = one(picture, answers(picture), answers(picture, shift=shift))
    assert comparison.landmarks is not None
    assert comparison.landmarks.candidate == pytest.approx(shift)
    verdict = judge(comparison)
    assert verdict.passed == passed
    assert passed or "landmarks are off by 0.51%" in verdict.reasons[0]


def test_without_labelled_landmarks_the_verdict_says_they_were_not_judged() -> None:
    bare = replace(CROWD, landmarks=np.full_like(CROWD.landmarks, np.nan))
    found = answers(CROWD, ALL)
    comparison = one(bare, found, found)
    assert comparison.landmarks is None
    assert "no landmarks are labelled" in judge(comparison).notes[0]


def test_nothing_to_compare_is_an_error_and_never_a_pass() -> None:
    with pytest.raises(InvalidOption, match="finds none of 400 labelled faces"):
        one(CROWD, answers(CROWD, {}), answers(CROWD, {}))
    networks = open_networks("fp32", threads=1)
    for pictures in ([], [labelled([])]):
        with pytest.raises(InvalidOption, match="no labelled face counts"):
            compare(networks, networks, pictures)


def test_a_candidate_that_finds_nothing_fails() -> None:
    comparison = one(CROWD, answers(CROWD, ALL), answers(CROWD, {}))
    assert comparison.overlap is None
    assert not judge(comparison).passed
    assert len(comparison.missed_by_candidate) == 400
    assert comparison.missed_by_candidate[0].height == 200  # largest first
    assert comparison.missed_by_candidate[0].candidate_score is None


def test_detections_of_equal_score_stand_or_fall_together() -> None:
    assert threshold_within(np.array([0.9, 0.8, 0.8, 0.6]), 2) == 0.8  # one is left, not two
    assert threshold_within(np.array([0.9, 0.8, 0.8, 0.6]), 3) == 0.6
    assert threshold_within(np.array([0.9, 0.8, 0.8, 0.6]), 4) == SWEPT_FROM
    assert threshold_within(np.array([]), 0) == SWEPT_FROM


@given(
    scores=st.lists(st.sampled_from([0.5, 0.55, 0.6, 0.7, 0.7000001, 0.9, 1.0]), max_size=30),
    budget=st.integers(0, 30),
)
def test_the_threshold_is_the_lowest_within_the_budget(scores: list[float], budget: int) -> None:
    false = np.array(scores)
    threshold = threshold_within(false, budget)
    assert above(false, threshold) <= budget
    lower = [s for s in {SWEPT_FROM, *scores} if s < threshold]
    assert all(above(false, s) > budget for s in lower)


@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_figures_are_the_same_every_time_and_mirror_when_engines_swap(data: st.DataObject) -> None:
    picture = labelled([15.0, 30.0, 60.0, 100.0] * 5)
    scores = st.dictionaries(st.integers(0, 19), st.floats(0.71, 1), min_size=1)
    first = answers(picture, data.draw(scores))
    second = answers(picture, data.draw(scores))
    one_way, again = one(picture, first, second), one(picture, first, second)
    other_way = one(picture, second, first)
    assert one_way.overall == again.overall
    assert one_way.overall.difference == -other_way.overall.difference
    assert [m.box for m in one_way.missed_by_candidate] == [
        m.box for m in other_way.missed_by_reference
    ]


def test_the_interval_tells_luck_from_loss() -> None:
    pictures = [labelled([50.0] * 10) for _ in range(60)]
    lost_everywhere = dict.fromkeys(range(9), 0.9)
    pairs = [(answers(p), answers(p, lost_everywhere)) for p in pictures]
    assert score(pictures, pairs).overall.interval == pytest.approx((-10, -10))
    lost_once = [(answers(p), answers(p, {} if i == 0 else 0.9)) for i, p in enumerate(pictures)]
    low, high = score(pictures, lost_once).overall.interval
    assert low < 100 * -10 / 600 < high == 0


class Dimmed:
    """A network whose logits are all lowered: what a bad quantization may do."""

    def __init__(self, network: Network, by: float) -> None:
        self._network, self._by = network, by
        self.max_batch = network.max_batch

    def __call__(self, images: UInt8Array) -> dict[str, FloatArray]:
        answer = self._network(images)
        return {**answer, "logit": answer["logit"] - np.float32(self._by)}

    def close(self) -> None:
        self._network.close()


@pytest.fixture(scope="module")
def networks() -> Networks:
    return open_networks("fp32", threads=1)


@pytest.fixture(scope="module")
def few() -> list[LabelledPicture]:
    return labelled_scenes()[3::9]


def test_an_engine_beside_itself_passes(networks: Networks, few: list[LabelledPicture]) -> None:
    seen: list[int] = []
    comparison = compare(networks, networks, few, lambda: seen.append(1))
    assert judge(comparison).passed
    assert len(seen) == comparison.pictures == len(few)
    assert comparison.overall.reference > 0.8 * comparison.overall.faces
    outputs = [d for outputs in comparison.networks.values() for d in outputs.values()]
    assert len(outputs) == 7
    assert all(d.max_error == 0 and d.cosine == pytest.approx(1) for d in outputs)


def test_an_engine_that_lost_faces_fails(networks: Networks, few: list[LabelledPicture]) -> None:
    worse = replace(networks, rnet=Dimmed(networks.rnet, 3.5))
    comparison = compare(networks, worse, few)
    assert comparison.overall.difference < -1
    assert not judge(comparison).passed
    assert comparison.networks["rnet"]["logit"].max_error == pytest.approx(3.5, abs=1e-4)
    assert comparison.networks["onet"]["logit"].max_error == 0


def test_networks_that_say_nothing_are_alike(networks: Networks) -> None:
    class Silent(Dimmed):
        def __call__(self, images: UInt8Array) -> dict[str, FloatArray]:
            return {"logit": np.zeros(len(images), np.float32)}

    silent, crops = Silent(networks.rnet, 0), np.zeros((3, 24, 24, 3), np.uint8)
    assert difference(silent, silent, crops)["logit"].cosine == 1
    assert difference(silent, networks.rnet, crops)["logit"].cosine == 0
