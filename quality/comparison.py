"""Which arm of a trial is better: what was counted as figures with confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unface.quality.intervals import (
    UNKNOWN,
    Interval,
    Sums,
    blocks,
    bootstrap,
    design_effect,
    quantile,
    rate_difference,
    ratio,
    ratio_difference,
    wilson,
)
from unface.quality.latencies import BINS
from unface.quality.places import Report
from unface.quality.store import Store
from unface.quality.trials import Arm, Outcome, Pairs, Trial

ARMS: tuple[Arm, Arm] = ("a", "b")
MIN_ANSWERS, MIN_BLOCKS = 100, 10  # of each arm; below, an interval would promise too much
FIGURES = (
    "errors",
    "faces a picture",
    "mean score",
    "latency, mean",
    "latency, P50",
    "latency, P95",
    "reports of missed faces",
    "reports of false faces",
)
LEVEL = 0.95
# The differences hold together at LEVEL, not each for itself (Bonferroni): among eight, one would
# often seem to be there by chance.
TOGETHER = 1 - (1 - LEVEL) / len(FIGURES)


class Figure(NamedTuple):
    """One of `FIGURES` of both arms, and b minus a; seconds, or parts of the answers."""

    name: str
    a: Interval
    b: Interval
    difference: Interval


class Shadow(NamedTuple):
    """How two profiles agree on the same pictures; `latency` in seconds a picture, b minus a."""

    pictures: int
    agreement: Interval  # part of all faces that both found
    only_a: int  # faces
    only_b: int
    iou: Interval  # of the faces that both found
    latency: Interval


@dataclass(frozen=True)
class Comparison:
    """A trial and what came of it; `minutes` are the first and last one, since 1970.

    In the shadow there are no `figures`: "b" answers nobody.
    """

    trial: Trial
    minutes: tuple[int, int]
    profiles: dict[Arm, list[str]]
    answers: dict[Arm, int]
    figures: list[Figure]
    shadow: Shadow | None
    lacking: list[str]  # what is too little for intervals, in words


def compare_trials(store: Store) -> list[Comparison]:
    """Return what the store says of each trial in which something was counted, by their begin.

    Reports count for the trial that ran when they came, or else the one before.
    """
    trials = [(trial, o, p) for trial, o, p in store.trials() if o or p]
    trials.sort(key=lambda entry: _minutes(entry[1], entry[2]))
    begins = [_minutes(outcomes, pairs)[0] for _, outcomes, pairs in trials]
    reports = store.reports()
    return [
        compare_arms(*entry, [r for r in reports if begin <= r.time / 60 < end])
        for entry, begin, end in zip(trials, begins, [*begins, math.inf][1:], strict=True)
    ]


def compare_arms(
    trial: Trial,
    outcomes: Sequence[Outcome],
    pairs: Sequence[Pairs],
    reports: Sequence[Report] = (),
) -> Comparison:
    """Return what the counts of a trial, at least one, and the reports of its time say."""
    profiles = {  # a failed request has none
        arm: sorted({o.profile for o in outcomes if o.arm == arm} - {""}) for arm in ARMS
    }
    counts = _blocks(outcomes)
    answers = dict(zip(ARMS, map(int, counts.answers.sum(axis=1)), strict=True))
    begin_end = _minutes(outcomes, pairs)
    if trial.shadow:
        sums = _pair_blocks(pairs)
        lacking = list(_lacking({"the shadow": sums[0]}))
        shadow = _shadow(sums, bool(lacking))
        return Comparison(trial, begin_end, profiles, answers, [], shadow, lacking)
    lacking = list(_lacking(dict(zip(ARMS, counts.answers, strict=True))))
    figures = list(_figures(counts, _reported(trial, profiles, reports)))
    if lacking:
        figures = [Figure(f.name, *map(_known, f[1:])) for f in figures]
    return Comparison(trial, begin_end, profiles, answers, figures, None, lacking)


def _minutes(outcomes: Sequence[Outcome], pairs: Sequence[Pairs]) -> tuple[int, int]:
    minutes = [o.minute for o in outcomes] + [p.minute for p in pairs]
    return min(minutes), max(minutes)


# Sums by block -------------------------------------------------------------------------------


class _Blocks(NamedTuple):
    """Sums of both arms by block, each `[2, blocks]`; `latencies` `[2, blocks, BINS]`."""

    answers: Sums
    errors: Sums
    seconds: Sums
    faces: Sums
    scores: Sums
    latencies: Sums


def _blocks(outcomes: Sequence[Outcome]) -> _Blocks:
    values = [(o.answers, o.errors, o.seconds, o.faces, o.scores) for o in outcomes]
    table = np.array(values, np.float64).reshape(-1, 5)
    block = _block_of([o.minute for o in outcomes], table[:, 0] + table[:, 1])
    arms = np.array([ARMS.index(o.arm) for o in outcomes], np.int64)
    sums = np.stack([_summed(table * (arms == arm)[:, None], block) for arm in (0, 1)], 1)
    latencies = np.zeros((*sums.shape[1:], BINS))
    for outcome, arm, part in zip(outcomes, arms, block, strict=True):
        bins = list(outcome.latencies)
        latencies[arm, part, bins] += [outcome.latencies[bin] for bin in bins]
    answers, errors, seconds, faces, scores = sums
    return _Blocks(answers, errors, seconds, faces, scores, latencies)


def _pair_blocks(pairs: Sequence[Pairs]) -> Sums:
    """Return pictures, matched, only a, only b, IoU and b's seconds above a's: `[6, blocks]`."""
    values = [
        (p.pictures, p.matched, p.only_a, p.only_b, p.iou, p.seconds_b - p.seconds_a) for p in pairs
    ]
    table = np.array(values, np.float64).reshape(-1, 6)
    return _summed(table, _block_of([p.minute for p in pairs], table[:, 0]))


def _block_of(minutes: Sequence[int], answers: Sums) -> NDArray[np.int64]:
    """Return the block of each row, from its minute and its answers `[rows]`."""
    known, minute = np.unique(np.array(minutes, np.int64), return_inverse=True)
    totals = np.bincount(minute, answers, len(known)).astype(np.float64)
    return blocks(totals)[minute]


def _summed(table: Sums, block: NDArray[np.int64]) -> Sums:
    """Return the sums of a table `[rows, columns]` by block, `[columns, blocks]`."""
    belongs = np.eye(int(block.max(initial=-1)) + 1)[block]
    return np.asarray(table.T @ belongs)


def _lacking(answers: dict[Arm, Sums] | dict[str, Sums]) -> Iterator[str]:
    """Yield what is too little for intervals, given answers `[blocks]` by name."""
    for name, counts in answers.items():
        total, spread = int(counts.sum()), int(np.count_nonzero(counts))
        if total < MIN_ANSWERS or spread < MIN_BLOCKS:
            yield f"{name} has {total} pictures in {spread} different times"


def _known(interval: Interval) -> Interval:
    """Return an estimate without its interval."""
    return Interval(interval.value, math.nan, math.nan)


# Figures -------------------------------------------------------------------------------------


def _figures(counts: _Blocks, reported: tuple[Sums, Sums]) -> Iterator[Figure]:
    """Yield `FIGURES`, in their order."""
    requests, totals = counts.answers + counts.errors, counts.answers.sum(axis=1)
    errors, faces, score, mean, p50, p95, missed, false = FIGURES
    # One effect for both: a burst in one arm tells what may happen in the other.
    effect = max(map(design_effect, counts.errors, requests))
    yield _rates(errors, counts.errors.sum(axis=1), requests.sum(axis=1), effect)
    yield _means(faces, counts.faces, counts.answers)
    yield _means(score, counts.scores, counts.faces)
    yield _means(mean, counts.seconds, counts.answers)
    yield _quantiles(p50, counts.latencies, 0.5)
    yield _quantiles(p95, counts.latencies, 0.95)
    # More reports than answers: of answers that are not counted any more. All were reported then.
    for name, hits in zip((missed, false), reported, strict=True):
        yield _rates(name, np.minimum(hits, totals), totals)


def _means(name: str, sums: Sums, counts: Sums) -> Figure:
    difference = ratio_difference(sums[0], counts[0], sums[1], counts[1], TOGETHER)
    return Figure(name, ratio(sums[0], counts[0]), ratio(sums[1], counts[1]), difference)


def _rates(name: str, hits: Sums, counts: Sums, effect: float = 1.0) -> Figure:
    """Return rates of both arms from sums `[2]`."""
    (a, b), (wide_a, wide_b) = (
        [wilson(hits[arm], counts[arm], level, effect) for arm in (0, 1)]
        for level in (LEVEL, TOGETHER)
    )
    return Figure(name, a, b, rate_difference(wide_a, wide_b))


def _quantiles(name: str, latencies: Sums, part: float) -> Figure:
    if not latencies.any(axis=(1, 2)).all():
        return Figure(name, UNKNOWN, UNKNOWN, UNKNOWN)

    def difference(counts: Sums) -> Sums:
        found = quantile(counts, part)
        return np.asarray(found[:, 1] - found[:, 0])

    a, b = (bootstrap(counts, partial(quantile, part=part)) for counts in latencies)
    return Figure(name, a, b, bootstrap(latencies.transpose(1, 0, 2), difference, TOGETHER))


def _reported(
    trial: Trial, profiles: dict[Arm, list[str]], reports: Sequence[Report]
) -> tuple[Sums, Sums]:
    """Return how many answers of `[a, b]` were reported for missed faces, and for false ones.

    The request id tells the arm; without one the profile does, if it served in one arm alone.
    Several reports of one answer count once.
    """
    answers: dict[str, set[tuple[Arm, str]]] = {"missed": set(), "false": set()}
    for report in reports:
        arms = [arm for arm in ARMS if not report.profile or report.profile in profiles[arm]]
        if report.request_id:
            arms = [arm for arm in arms if arm == trial.arm_of(report.request_id)]
        if len(arms) == 1:
            for kind in {place.kind for place in report.places}:
                answers[kind].add((arms[0], report.request_id or f"report {report.id}"))
    missed, false = (
        np.array([sum(arm == which for which, _ in answers[kind]) for arm in ARMS], np.float64)
        for kind in ("missed", "false")
    )
    return missed, false


def _shadow(sums: Sums, lacking: bool) -> Shadow:
    pictures, matched, only_a, only_b, overlap, slower = sums
    faces = matched + only_a + only_b
    intervals = (
        wilson(matched.sum(), faces.sum(), effect=design_effect(matched, faces)),
        ratio(overlap, matched),
        ratio(slower, pictures),
    )
    agreement, iou, latency = map(_known, intervals) if lacking else intervals
    counted = (int(values.sum()) for values in (pictures, only_a, only_b))
    total, alone_a, alone_b = counted
    return Shadow(total, agreement, alone_a, alone_b, iou, latency)
