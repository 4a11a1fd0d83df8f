"""Latencies as counts in bins, each bin 9% wider than the one before."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

FIRST = 1e-4  # seconds: upper bins begin here; whatever is faster is in bin 0
PER_OCTAVE = 8
BINS = 24 * PER_OCTAVE  # up to 28 minutes; what took longer is in the last one

Counts = NDArray[np.float64]


def bin_of(seconds: float) -> int:
    """Return the bin of a latency."""
    if not seconds > FIRST:
        return 0
    return min(int(PER_OCTAVE * math.log2(seconds / FIRST)), BINS - 1)


def quantile(counts: Counts, part: float) -> Counts:
    """Return the latency in seconds that `part` of the answers do not exceed, `[...]`.

    `counts` is `[..., BINS]`. Within a bin, answers are taken to lie evenly on the logarithmic
    scale. NaN where there are no answers.
    """
    reached = np.cumsum(counts, axis=-1)
    wanted = part * reached[..., -1:]
    index = np.argmax(reached >= np.maximum(wanted, 1e-9), axis=-1)[..., None]
    inside = np.take_along_axis(counts, index, -1)
    before = np.take_along_axis(reached, index, -1) - inside
    with np.errstate(invalid="ignore", divide="ignore"):
        position = index + (wanted - before) / inside
    seconds: Counts = (FIRST * 2 ** (position / PER_OCTAVE))[..., 0]
    return seconds
