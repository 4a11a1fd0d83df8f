"""Whichever call of a GPU fails: the caller learns it, and nobody gets faces that are not there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
from scenes import astronaut
from simulated import SimulatedDevice
from workbench import Image, needs_simulator, same, weights

from unface.errors import EngineError
from unface.gpu.cascade import GpuCascade
from unface.gpu.device import DeviceFailure
from unface.gpu.networks import KernelNetworks
from unface.mtcnn import DetectOptions, Faces

pytestmark = needs_simulator

OPTIONS = DetectOptions(min_face=30, thresholds=(0.97, 0.95, 0.95))  # few crops, one face


def portrait(step: int = 3) -> Image:
    """One face, 200 pixels through `step` a side."""
    return np.ascontiguousarray(astronaut()[20:220:step, 120:320:step])


def gpu(fail: Callable[[int, str], None] | None = None) -> GpuCascade:
    device = SimulatedDevice(fail=fail)
    return GpuCascade(device, KernelNetworks(device, weights()))


@pytest.fixture(autouse=True)
def short_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists that are too short at first, so that growing may fail too."""
    monkeypatch.setattr("unface.gpu.lane.FIRST_HITS", 4)
    monkeypatch.setattr("unface.gpu.lane.FIRST_CANDIDATES", 32)


class Switch:
    """Lets the call of a number fail, and all after it unless `once`."""

    def __init__(self, number: int, *, once: bool) -> None:
        self.number, self.once, self.failed = number, once, 0

    def __call__(self, number: int, what: str) -> None:
        if number == self.number or (number > self.number and not self.once):
            self.failed += 1
            raise DeviceFailure(f"call {number} ({what}) failed")


def test_whatever_call_fails_the_caller_learns_it_and_a_fresh_cascade_works() -> None:
    sound = gpu()
    expected = sound.detect(portrait(), OPTIONS)
    total = sound.device.calls
    assert len(expected) == 1
    for number in range(1, total + 1):
        opened: list[GpuCascade] = []
        with pytest.raises(DeviceFailure, match=rf"call {number} "):
            detect_on(Switch(number, once=False), opened)
        for cascade in opened:
            with suppress(DeviceFailure):
                cascade.close()
        if number % 25 == 0:
            assert same(gpu().detect(portrait(), OPTIONS), expected)
    assert total > 90


def detect_on(switch: Switch, opened: list[GpuCascade]) -> Faces:
    opened.append(gpu(switch))
    return opened[0].detect(portrait(), OPTIONS)


@pytest.mark.parametrize("step", [17, pytest.param(5, marks=pytest.mark.slow)])
def test_after_one_failed_call_a_cascade_gives_the_same_or_fails_again(step: int) -> None:
    """As when memory was short for a moment: the cascade goes on and must not go astray."""
    first, second = portrait(4), portrait()
    wanted = [gpu().detect(image, OPTIONS) for image in (first, second)]
    sound = gpu()
    begin = sound.device.calls
    run(sound, first, second)
    total = sound.device.calls
    recovered = 0
    for number in range(begin + 1, total + 1, step):
        switch = Switch(number, once=True)
        cascade = gpu(switch)
        with pytest.raises(DeviceFailure, match=rf"call {number} "):
            run(cascade, first, second)
        for image, expected in ((first, wanted[0]), (second, wanted[1])):
            try:
                faces = cascade.detect(image, OPTIONS)
            except EngineError:
                continue
            assert same(faces, expected), f"call {number}"
            recovered += 1
        cascade.close()
    assert recovered > (total - begin) // step


def run(cascade: GpuCascade, *images: Image) -> list[Faces]:
    """Small, large, small: memory is taken, let go and taken again."""
    return [cascade.detect(image, OPTIONS) for image in images]
