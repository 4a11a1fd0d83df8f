"""What computes P-, R- and O-Net on the device: the project's own kernels, or engines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from unface.gpu.device import Device, Memory, Recorder, Stream, close_all
from unface.gpu.tables import FEATURES
from unface.gpu.weights import Arrays, pack_network


class DeviceNetworks(Protocol):
    """The three networks, each a step of a lane's graph."""

    backend: str  # "cuda", "tensorrt"
    precision: str
    pages: bool  # whether the canvas is pages of fixed size
    weights: tuple[int, int, int]  # pointers, 0 where the kernels need none

    def lane_memory(self, canvas_pixels: int, candidates: int) -> Mapping[str, int]:
        """Return what a lane needs beside its own lists: fields of `LANE`, numbered, and bytes."""
        ...

    def open_lane(self, stream: Stream, memory: Mapping[str, int], sizes: Mapping[str, int]) -> Any:
        """Return what belongs to one lane alone, such as execution contexts, ready to be recorded.

        `memory` are the pointers of what `lane_memory` asked for and of "canvas"; `sizes` "canvas"
        (pixels) and "candidates".
        """
        ...

    def close_lane(self, state: Any) -> None:
        """Free it."""
        ...

    def propose(self, recorder: Recorder, lane: int, state: Any) -> None:
        """Fill logits and hits from the canvas."""
        ...

    def refine(self, recorder: Recorder, lane: int, state: Any) -> None:
        """Fill candidates 1 from squares 0."""
        ...

    def finish(self, recorder: Recorder, lane: int, state: Any) -> None:
        """Fill candidates 2 and landmarks from squares 1."""
        ...

    def close(self) -> None:
        """Free the networks."""
        ...


class KernelNetworks:
    """The project's own kernels: half precision on tensor cores, sums in float32.

    `arrays` are those of float32 engines, by network (`unface.engines.native.read_arrays`).
    Raises `DeviceFailure`, and `EngineError` for weights that half precision does not hold.
    """

    backend, precision, pages = "cuda", "fp16", False

    def __init__(self, device: Device, arrays: Mapping[str, Arrays]) -> None:
        self._device = device
        self._memory: list[Memory] = []
        stream = device.stream(urgent=False)
        for network in ("pnet", "rnet", "onet"):
            data = pack_network(network, arrays[network])
            staged = device.allocate_host(len(data))
            staged.array[: len(data)] = bytearray(data)
            self._memory.append(device.allocate(len(data)))
            stream.copy(self._memory[-1].pointer, staged.pointer, len(data))
            stream.synchronize()
            staged.close()
        stream.close()
        pnet, rnet, onet = (memory.pointer for memory in self._memory)
        self.weights = (pnet, rnet, onet)

    def lane_memory(self, canvas_pixels: int, candidates: int) -> Mapping[str, int]:
        """See `DeviceNetworks`."""
        halves = {"features0": FEATURES["rnet"], "features1": FEATURES["onet"]}
        return {name: 2 * length * candidates for name, length in halves.items()}

    def open_lane(
        self, stream: Stream, memory: Mapping[str, int], sizes: Mapping[str, int]
    ) -> None:
        """Return nothing: the kernels have no state."""

    def close_lane(self, state: None) -> None:
        """Nothing to free."""

    def propose(self, recorder: Recorder, lane: int, state: None) -> None:
        """See `DeviceNetworks`."""
        recorder.launch("pnet", 4 * self._device.multiprocessors, 256, lane)

    def refine(self, recorder: Recorder, lane: int, state: None) -> None:
        """See `DeviceNetworks`."""
        recorder.launch("rnet_features", 4 * self._device.multiprocessors, 128, lane)
        recorder.launch("rnet_dense", self._device.multiprocessors, 128, lane)

    def finish(self, recorder: Recorder, lane: int, state: None) -> None:
        """See `DeviceNetworks`."""
        recorder.launch("onet_features", 2 * self._device.multiprocessors, 256, lane)
        recorder.launch("onet_dense", self._device.multiprocessors, 128, lane)

    def close(self) -> None:
        """Free the weights."""
        memory, self._memory = self._memory, []
        close_all(*(part.close for part in memory))
