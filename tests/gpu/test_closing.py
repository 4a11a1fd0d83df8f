"""A part of a cascade that cannot be closed does not keep the others open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest
from simulated import Block, SimulatedDevice
from workbench import needs_simulator, noise, weights

from unface.anonymize import MaskOptions, plan_masks
from unface.errors import EngineError
from unface.gpu.cascade import GpuCascade
from unface.gpu.device import DeviceFailure, close_all
from unface.gpu.masks import Masks
from unface.gpu.networks import KernelNetworks
from unface.mtcnn.faces import Faces

pytestmark = needs_simulator


class Part(Block):
    """Memory that may refuse to be freed."""

    refuses = False

    def close(self) -> None:
        super().close()
        if self.refuses:
            raise DeviceFailure("this part does not close")


class Owner(SimulatedDevice):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[Part] = []
        self.closed = 0

    def allocate(self, size: int) -> Part:
        self.parts.append(Part(size))
        return self.parts[-1]

    allocate_host = allocate

    def close(self) -> None:
        self.closed += 1


def everywhere(faces: Faces) -> Masks:
    return plan_masks(faces.width, faces.height, [(2, 2, 20, 20)], MaskOptions())


def a_used_cascade() -> tuple[Owner, GpuCascade]:
    """Return a cascade with three lanes, each with a coverer."""
    device = Owner()
    cascade = GpuCascade(device, KernelNetworks(device, weights()), lanes=2)
    cascade.anonymize(noise(30, 24), None, everywhere)
    assert len(list(cascade.anonymize_all([noise(30, 24)] * 3, None, everywhere))) == 3
    return device, cascade


def open_parts(device: Owner) -> list[int]:
    return [number for number, part in enumerate(device.parts) if part.pointer]


def places() -> Iterator[int]:
    device, _ = a_used_cascade()
    yield from open_parts(device)


def test_all_is_closed() -> None:
    device, cascade = a_used_cascade()
    assert len(open_parts(device)) > 60
    cascade.close()
    assert open_parts(device) == []
    assert device.closed == 1


def test_whatever_part_cannot_be_closed_the_others_are() -> None:
    for place in [*places()][::5]:
        device, cascade = a_used_cascade()
        device.parts[place].refuses = True
        with pytest.raises(DeviceFailure, match="this part does not close"):
            cascade.close()
        assert open_parts(device) == []
        assert device.closed == 1


def test_a_gpu_that_does_not_finish_is_closed_all_the_same() -> None:
    device, cascade = a_used_cascade()

    def lost(number: int, what: str) -> None:
        raise DeviceFailure(f"{what} {number}")

    first = device.calls + 1
    device.fail = lost
    with pytest.raises(DeviceFailure, match=f"synchronize {first}$"):
        cascade.close()
    assert open_parts(device) == []
    assert device.closed == 1


def test_the_first_failure_is_the_one_that_is_raised() -> None:
    done: list[int] = []

    def part(number: int) -> None:
        done.append(number)
        if number:
            raise EngineError(f"part {number}")

    with pytest.raises(EngineError, match="part 1"):
        close_all(*(lambda n=n: part(n) for n in range(4)))  # type: ignore[misc]
    assert done == [0, 1, 2, 3]
    close_all()


def test_an_interrupt_is_not_kept_back() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        close_all(interrupted)


def test_threads_that_copy_pictures_end_with_it() -> None:
    _, cascade = a_used_cascade()
    cascade.detect(noise(700, 600))  # large enough to be shared
    cascade.close()
    assert cascade._team._others is None
    with suppress(EngineError):
        cascade.close()
