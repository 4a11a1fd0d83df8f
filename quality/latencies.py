"""Bins for latencies, each 9% wider than the one before."""

from __future__ import annotations

import math

FIRST = 1e-4  # seconds: where the bins begin; whatever is faster is in the first
PER_OCTAVE = 8
BINS = 24 * PER_OCTAVE  # up to 28 minutes; what took longer is in the last


def bin_of(seconds: float) -> int:
    """Return the bin of a latency, 0 to `BINS` - 1."""
    if not seconds > FIRST:
        return 0
    return min(int(PER_OCTAVE * math.log2(seconds / FIRST)), BINS - 1)
