"""Engines as the networks of the GPU cascade: fixed batches, whatever the device counted.

The engines are PyTorch's, on the memory of the simulated GPU; around them is what TensorRT's get.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from scenes import astronaut, crowd, iou
from simulated import SimulatedDevice
from workbench import needs_simulator

from unface.engines.device import open_device_networks
from unface.errors import EngineError
from unface.gpu.cascade import GpuCascade
from unface.gpu.engines import INPUT_SIDES, EngineNetworks
from unface.mtcnn import Cascade, DetectOptions
from unface.mtcnn.networks import TorchNetwork, load_network, torch_networks

pytestmark = needs_simulator
LARGE_FACES = DetectOptions(min_face=60)


@dataclass
class TorchEngine:
    """An engine and its contexts in one: what it runs is recorded as the kernels are."""

    device: SimulatedDevice
    name: str
    max_batch: int = 24
    batches: list[int] = field(default_factory=list)
    spoil: float = 0.0

    def __post_init__(self) -> None:
        self.network = TorchNetwork(load_network(self.name))

    def context(self) -> TorchEngine:
        return self

    def enqueue(
        self, stream_handle: int, batch: int, input_pointer: int, output_pointers: dict[str, int]
    ) -> None:
        assert 1 <= batch <= self.max_batch
        self.batches.append(batch)
        side = INPUT_SIDES[self.name]

        def run() -> None:
            memory = (ctypes.c_uint8 * (batch * side * side * 3)).from_address(input_pointer)
            images = np.ctypeslib.as_array(memory).reshape(batch, side, side, 3)
            for name, values in self.network(images).items():
                data = np.ascontiguousarray(values, np.float32) + np.float32(self.spoil)
                ctypes.memmove(output_pointers[name], data.ctypes.data, data.nbytes)

        recording = self.device.recording.get(stream_handle)
        recording.append(run) if recording is not None else run()


@pytest.fixture(autouse=True)
def small_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines compute all that a list has room for; here they do so on a CPU."""
    monkeypatch.setattr("unface.gpu.lane.FIRST_CANDIDATES", 64)


def open_cascade(**spoil: float) -> tuple[GpuCascade, dict[str, TorchEngine]]:
    device = SimulatedDevice()
    engines = {
        name: TorchEngine(device, name, spoil=spoil.get(name, 0.0))
        for name in ("pnet", "rnet", "onet")
    }
    return GpuCascade(device, EngineNetworks(device, engines, "tensorrt", "fp32")), engines


def test_engines_find_the_faces_that_the_cpu_finds() -> None:
    cascade, engines = open_cascade()
    reference = Cascade(torch_networks())
    for image, options in (
        (astronaut(), LARGE_FACES),
        (
            crowd(3, 2, 60).image,
            DetectOptions(min_face=40),
        ),  # more candidates than lists begin with
    ):
        faces, expected = cascade.detect(image, options), reference.detect(image, options)
        overlaps = iou(expected.boxes.astype(float), faces.boxes.astype(float))
        assert len(faces) == len(expected)
        assert overlaps.max(axis=1).min() > 0.98
        assert (faces.backend, faces.precision) == ("tensorrt", "fp32")
    assert sum(engines["rnet"].batches) > 64  # it grew
    cascade.close()


def test_engines_that_give_no_numbers_are_an_error_and_never_zero_faces() -> None:
    for name in ("pnet", "rnet", "onet"):
        cascade, _ = open_cascade(**{name: float("nan")})
        with pytest.raises(EngineError, match="no numbers"):
            cascade.detect(astronaut(), LARGE_FACES)


def test_plans_that_do_not_fit_are_said_so_and_the_kernels_serve(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    networks = open_device_networks(
        SimulatedDevice(), None, f"{tmp_path}:int8", allow_uncertified=False
    )
    assert (networks.backend, networks.precision) == ("cuda", "fp16")
    assert "THE PLANS DO NOT SERVE" in caplog.text
