"""Two engines' single networks on the same inputs: how far their outputs lie apart."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unface.calibration.labels import LabelledPicture
from unface.calibration.samples import harvest
from unface.engines.shelf import NETWORKS
from unface.mtcnn.network import Network, Networks, UInt8Array, run

SAMPLED_PICTURES = 48
BATCH = 32  # inputs a call


@dataclass(frozen=True)
class Difference:
    """One output of one network on the same inputs: cosine similarity, largest difference."""

    cosine: float
    max_error: float


def sampled(pictures: Sequence[LabelledPicture]) -> Iterator[UInt8Array]:
    """Yield the pixels of some pictures with faces, spread evenly over all of them."""
    shown = [picture for picture in pictures if len(picture.faces)]
    count = min(len(shown), SAMPLED_PICTURES)
    for index in np.linspace(0, len(shown) - 1, count).round().astype(int):
        yield shown[index].load()


def compare_networks(
    reference: Networks, candidate: Networks, pictures: Sequence[LabelledPicture]
) -> dict[str, dict[str, Difference]]:
    """Compare the networks on what the reference's cascade shows them in some of the pictures.

    Returns the difference by network and output. Raises `InvalidImage` when it sees no candidate.
    """
    samples = harvest(sampled(pictures), reference)
    return {
        name: difference(getattr(reference, name), getattr(candidate, name), getattr(samples, name))
        for name in NETWORKS
    }


def difference(reference: Network, candidate: Network, inputs: UInt8Array) -> dict[str, Difference]:
    """Compare one network's outputs, by name, on inputs uint8 `[n, H, W, 3]`."""
    sums: dict[str, NDArray[np.float64]] = {}  # a.b, a.a, b.b
    largest: dict[str, float] = {}
    for begin in range(0, len(inputs), BATCH):
        batch = inputs[begin : begin + BATCH]
        ours, theirs = run(reference, batch), run(candidate, batch)
        for name in ours:
            a, b = (o[name].astype(np.float64).ravel() for o in (ours, theirs))
            sums[name] = sums.get(name, np.zeros(3)) + np.array([a @ b, a @ a, b @ b])
            largest[name] = max(largest.get(name, 0.0), float(np.abs(a - b).max()))
    return {name: Difference(_cosine(sums[name]), largest[name]) for name in sums}


def _cosine(sums: NDArray[np.float64]) -> float:
    product, first, second = sums.tolist()
    if first == second == 0:
        return 1.0  # both are nothing
    return product / math.sqrt(first * second) if first and second else 0.0
