"""Who gets which arm, and how far two arms agree on a picture."""

from __future__ import annotations

import math
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unface.quality.agreement import compare
from unface.quality.intervals import quantile
from unface.quality.latencies import BINS, bin_of
from unface.quality.trials import Agreement, Trial, arm_of

SHARES = st.floats(0, 1, exclude_min=True)


@given(st.text(), SHARES, SHARES)
def test_a_request_stays_in_its_arm_and_more_share_only_adds(
    request_id: str, share: float, other: float
) -> None:
    low, high = sorted((share, other))
    assert arm_of(request_id, share) == arm_of(request_id, share)
    assert not (arm_of(request_id, low) == "b" and arm_of(request_id, high) == "a")
    assert arm_of(request_id, 1) == "b"


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("form", ["{}", "request-{:08d}", "{:016x}"])
def test_the_share_is_as_asked_whatever_the_ids_look_like(share: float, form: str) -> None:
    count = 20_000
    chosen = sum(arm_of(form.format(number), share) == "b" for number in range(count))
    assert abs(chosen - share * count) < 4.5 * math.sqrt(count * share * (1 - share))


def test_the_arms_of_ids_that_follow_each_other_are_independent() -> None:
    arms = [arm_of(str(number), 0.5) == "b" for number in range(20_000)]
    changes = sum(a != b for a, b in pairwise(arms))
    assert abs(changes - 10_000) < 4.5 * math.sqrt(5000)


def test_the_choice_is_the_same_on_every_replica_and_in_every_version() -> None:
    assert [arm_of(str(n), 0.5) for n in range(12)] == list("aaaababaaaaa")
    assert Trial("fast", 0.5).arm_of("3") == arm_of("3", 0.5)


# Agreement -------------------------------------------------------------------------------------


def boxes(*rows: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


def test_the_same_faces_agree_whatever_their_order() -> None:
    a = boxes((0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10))
    assert compare(a, a[::-1]) == Agreement(3, 0, 0, 3.0)
    assert compare(a.tolist(), [tuple(box) for box in a.tolist()]) == Agreement(3, 0, 0, 3.0)
    assert compare([], []) == Agreement(0, 0, 0, 0)


def test_faces_that_only_one_found_are_counted_apart() -> None:
    a = boxes((0, 0, 10, 10), (20, 0, 30, 10))
    b = boxes((0, 0, 10, 8), (60, 0, 70, 10), (80, 0, 90, 10))
    agreement = compare(a, b)
    assert agreement[:3] == (1, 1, 2)
    assert agreement.iou == pytest.approx(0.8)


def test_half_an_overlap_is_the_same_face_and_less_is_not() -> None:
    a = boxes((0, 0, 10, 10))
    assert compare(a, boxes((0, 0, 10, 5))).matched == 1
    assert compare(a, boxes((0, 0, 10, 4.9))).matched == 0


def test_two_boxes_on_one_face_are_matched_with_the_better_of_them() -> None:
    a, b = boxes((0, 0, 10, 10)), boxes((0, 0, 10, 6), (0, 0, 10, 9))
    agreement = compare(a, b)
    assert agreement[:3] == (1, 0, 1)
    assert agreement.iou == pytest.approx(0.9)


@pytest.mark.parametrize("count", [0, 3])
def test_no_faces_agree_with_no_faces_and_with_none(count: int) -> None:
    some = boxes(*[(20 * n, 0, 20 * n + 10, 10) for n in range(count)])
    assert compare(boxes(), some) == Agreement(0, 0, count, 0)
    assert compare(some, boxes()) == Agreement(0, count, 0, 0)


FACES = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(1, 15), st.integers(1, 15)),
    max_size=8,
).map(lambda rows: boxes(*[(x, y, x + w, y + h) for x, y, w, h in rows]))


@given(FACES, FACES)
def test_agreement_is_symmetric_and_counts_every_face_once(a: np.ndarray, b: np.ndarray) -> None:
    one, other = compare(a, b), compare(b, a)
    assert one.matched + one.only_a == len(a)
    assert one.matched + one.only_b == len(b)
    assert 0.5 * one.matched <= one.iou <= one.matched
    assert (one.only_a, one.only_b) == (len(a) - one.matched, len(b) - one.matched)
    ties = len({round(v, 6) for v in _overlaps(a, b)}) < len(_overlaps(a, b))
    assert ties or one == Agreement(
        other.matched, other.only_b, other.only_a, pytest.approx(other.iou)
    )


def _overlaps(a: np.ndarray, b: np.ndarray) -> list[float]:
    from scenes import iou

    return [float(v) for v in iou(a, b).ravel() if v >= 0.5]


def test_what_serves_counts_without_arrays() -> None:
    """The process that takes calls does no arithmetic on arrays and loads none for it."""
    code = (
        "import sys, unface.quality.counting, unface.quality.store\n"
        "print([m for m in ('numpy', 'cv2', 'PIL') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


# Latencies -------------------------------------------------------------------------------------


@given(st.floats(0, 1e5), st.floats(0, 1e5))
def test_a_longer_latency_is_never_in_a_lower_bin(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert 0 <= bin_of(low) <= bin_of(high) < BINS


@pytest.mark.parametrize("part", [0.05, 0.5, 0.95, 0.99])
def test_quantiles_of_bins_are_those_of_the_latencies_within_two_percent(part: float) -> None:
    seconds = np.random.default_rng(0).lognormal(-3, 0.8, 50_000)
    counts = np.bincount([bin_of(value) for value in seconds], minlength=BINS).astype(float)
    assert quantile(counts, part) == pytest.approx(np.quantile(seconds, part), rel=0.02)


def test_quantiles_of_one_answer_lie_in_its_bin_and_of_none_are_unknown() -> None:
    counts = np.zeros((2, BINS))
    counts[0, bin_of(0.5)] = 1
    one, none = quantile(counts, 0.5)
    assert one == pytest.approx(0.5, rel=0.1)
    assert math.isnan(none)
