"""A lane does not hold for ever what one huge or crowded picture needed."""

from __future__ import annotations

import numpy as np
import pytest
from scenes import astronaut
from simulated import SimulatedDevice
from workbench import needs_simulator, same, weights

from unface.gpu import lane
from unface.gpu.cascade import GpuCascade
from unface.gpu.networks import KernelNetworks
from unface.mtcnn import DetectOptions

pytestmark = needs_simulator
LARGE_FACES = DetectOptions(min_face=60)


@pytest.mark.parametrize(
    "kept",
    [
        lane.Sizes(image=1 << 19, hits=1 << 20, candidates=1 << 14),
        lane.Sizes(image=1 << 26, hits=16, candidates=1 << 14),
        lane.Sizes(image=1 << 26, hits=1 << 20, candidates=16),
    ],
    ids=["a huge picture", "many cells", "many candidates"],
)
def test_what_one_picture_needed_is_let_go_of_with_the_next(
    kept: lane.Sizes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "KEPT", kept)
    monkeypatch.setattr(lane, "FIRST_HITS", 16)
    monkeypatch.setattr(lane, "FIRST_CANDIDATES", 32)
    device = SimulatedDevice()
    cascade = GpuCascade(device, KernelNetworks(device, weights()))
    first = cascade.detect(astronaut(), LARGE_FACES)
    grown = cascade.urgent.sizes
    assert grown.beyond(kept)
    cascade.detect(np.zeros((100, 100, 3), np.uint8), LARGE_FACES)
    assert cascade.urgent.sizes.image < grown.image
    assert (cascade.urgent.sizes.hits, cascade.urgent.sizes.candidates) == (16, 32)
    assert same(cascade.detect(astronaut(), LARGE_FACES), first)
    cascade.close()
