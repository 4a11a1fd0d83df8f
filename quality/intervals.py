"""Confidence intervals of sums counted by minute.

Pictures are not independent of each other: frames of one video resemble each other, and a busy
moment slows all of them. So blocks of consecutive minutes, each with about as many answers, are
the unit, as in the method of batch means (Law, Simulation Modeling and Analysis, 9.5.3): a mean is
a ratio of sums over blocks, with the linearized variance of a ratio estimate (Cochran, Sampling
Techniques, 6.4) and Student's t. Both arms share their blocks, so what slows both cancels out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unface.quality.latencies import FIRST, PER_OCTAVE

MAX_BLOCKS = 40  # more are not needed for t; longer blocks depend less on each other
RESAMPLES = 500
Sums = NDArray[np.float64]


class Interval(NamedTuple):
    """An estimate and between what it lies; `low` and `high` are NaN where that is not known."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether it lies on one side of zero."""
        return self.low > 0 or self.high < 0


UNKNOWN = Interval(math.nan, math.nan, math.nan)


def blocks(answers: Sums, most: int = MAX_BLOCKS) -> NDArray[np.int64]:
    """Return the block of each minute, 0 and up, from the answers `[minutes]` in order of time."""
    middle = np.cumsum(answers) - answers / 2
    parts = np.minimum(middle / max(answers.sum(), 1) * most, most - 1).astype(np.int64)
    return np.unique(parts, return_inverse=True)[1].astype(np.int64)


def ratio(numerators: Sums, denominators: Sums, level: float = 0.95) -> Interval:
    """Return the ratio of two sums, each `[blocks]`, such as seconds and answers."""
    nothing = np.zeros_like(numerators)
    return ratio_difference(nothing, nothing + 1, numerators, denominators, level)


def ratio_difference(
    numerators_a: Sums, denominators_a: Sums, numerators_b: Sums, denominators_b: Sums, level: float
) -> Interval:
    """Return by how much the ratio of b is above that of a; all are sums `[blocks]`."""
    total_a, total_b = denominators_a.sum(), denominators_b.sum()
    if not total_a or not total_b:
        return UNKNOWN
    a, b = numerators_a.sum() / total_a, numerators_b.sum() / total_b
    residuals = (numerators_b - b * denominators_b) / total_b
    residuals = residuals - (numerators_a - a * denominators_a) / total_a
    count = len(residuals)
    error = math.sqrt(count / max(count - 1, 1) * float((residuals**2).sum()))
    return _around(float(b - a), error, count - 1, level)


def bootstrap(
    counts: Sums, statistic: Callable[[Sums], Sums], level: float = 0.95, seed: int = 0
) -> Interval:
    """Return a statistic of the sum of counts `[blocks, ...]`, from resampled blocks.

    The spread over `RESAMPLES` draws is taken for the standard error (Efron and Tibshirani, An
    Introduction to the Bootstrap, 6). `statistic` maps `[n, ...]` to `[n]`.
    """
    count = len(counts)
    draws = np.random.default_rng(seed).multinomial(count, [1 / count] * count, RESAMPLES)
    resampled = statistic(np.tensordot(draws.astype(np.float64), counts, 1))
    value = float(statistic(counts.sum(axis=0)[None])[0])
    return _around(value, float(np.std(resampled, ddof=1)), count - 1, level)


def quantile(counts: Sums, part: float) -> Sums:
    """Return the latency in seconds that `part` of the answers do not exceed, `[...]`.

    `counts` is `[..., BINS]`. Within a bin, answers are taken to lie evenly on the logarithmic
    scale. NaN where there are no answers.
    """
    reached = np.cumsum(counts, axis=-1)
    wanted = part * reached[..., -1:]
    bin = np.argmax(reached >= np.maximum(wanted, 1e-9), axis=-1)[..., None]
    inside = np.take_along_axis(counts, bin, -1)
    before = np.take_along_axis(reached, bin, -1) - inside
    with np.errstate(invalid="ignore", divide="ignore"):
        position = bin + (wanted - before) / inside
    return np.asarray((FIRST * 2 ** (position / PER_OCTAVE))[..., 0])


def wilson(successes: float, trials: float, level: float = 0.95, effect: float = 1.0) -> Interval:
    """Return a rate with Wilson's score interval (Wilson 1927), which holds near 0 and 1 too.

    It is as wide as that of `effect` times fewer trials, see `design_effect`.
    """
    if not trials:
        return UNKNOWN
    z, rate = NormalDist().inv_cdf((1 + level) / 2), successes / trials
    trials = trials / effect
    centre = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    spread = rate * (1 - rate) / trials + (z / (2 * trials)) ** 2
    half = z * math.sqrt(spread) / (1 + z * z / trials)
    return Interval(rate, min(max(centre - half, 0.0), rate), max(min(centre + half, 1.0), rate))


def design_effect(successes: Sums, trials: Sums) -> float:
    """Return how many trials, of sums `[blocks]`, are worth one that is independent; 1 or more.

    Failures that come together tell less than as many apart (Kish, Survey Sampling, 8.2).
    """
    total, hits, count = float(trials.sum()), float(successes.sum()), len(trials)
    if not 0 < hits < total or count < 2:
        return 1.0
    value = hits / total
    together = count / (count - 1) * float(((successes - value * trials) ** 2).sum())
    return max(1.0, together / (total * value * (1 - value)))


def rate_difference(a: Interval, b: Interval) -> Interval:
    """Return by how much rate b is above rate a, from intervals of one level (Newcombe 1998)."""
    value = b.value - a.value
    low = value - math.hypot(b.value - b.low, a.high - a.value)
    return Interval(value, low, value + math.hypot(b.high - b.value, a.value - a.low))


def student(level: float, freedom: int) -> float:
    """Return Student's t that two-sided intervals of a level reach to.

    Abramowitz and Stegun 26.7.5; right to a thousandth from 8 degrees of freedom on.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(
        term / math.pow(freedom, power) for power, term in enumerate(terms, start=1)
    )


def _around(value: float, error: float, freedom: int, level: float) -> Interval:
    if freedom < 1:
        return Interval(value, math.nan, math.nan)
    half = student(level, freedom) * error
    return Interval(value, value - half, value + half)
