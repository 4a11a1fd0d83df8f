"""The three networks as engines, such as TensorRT's, in a lane's graph.

Engines run in batches of fixed size, whatever the device counted: all pages of the canvas, and as
many crops as a list has room for. The rest is the kernels'.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from unface.gpu.device import Device, Recorder, Stream
from unface.gpu.plan import CHANNELS
from unface.mtcnn.canvas import PAGE_SIDE, cells
from unface.mtcnn.cascade import O_NET_SIZE, R_NET_SIZE

FLOAT = 4  # bytes
PAGE_CELLS = cells(PAGE_SIDE) ** 2
OUTPUTS = {"logit": 1, "box": 4, "landmarks": 10}  # floats a cell or crop
OUTPUTS_OF = {
    "pnet": ("logit", "box"),
    "rnet": ("logit", "box"),
    "onet": ("logit", "box", "landmarks"),
}
INPUT_SIDES = {"pnet": PAGE_SIDE, "rnet": R_NET_SIZE, "onet": O_NET_SIZE}


class Context(Protocol):
    """An engine ready to run on one stream."""

    def enqueue(
        self, stream_handle: int, batch: int, input_pointer: int, output_pointers: dict[str, int]
    ) -> None:
        """Run on uint8 `[batch, side, side, 3]`; float32 outputs by name. Raises `EngineError`."""
        ...


class DeviceEngine(Protocol):
    """An engine on the device, for any number of streams."""

    max_batch: int

    def context(self) -> Context:
        """Return a context of its own."""
        ...


@dataclass(frozen=True)
class LaneEngines:
    """One lane's contexts and memory."""

    contexts: Mapping[str, Context]
    memory: Mapping[str, int]  # pointers: "canvas", "crops", "outputs0" to "outputs2"
    pages: int
    candidates: int


class EngineNetworks:
    """Engines as `unface.gpu.networks.DeviceNetworks`; `engines` by network.

    Raises `DeviceFailure`, and `EngineError` where an engine does not fit.
    """

    pages = True
    weights = (0, 0, 0)

    def __init__(
        self, device: Device, engines: Mapping[str, DeviceEngine], backend: str, precision: str
    ) -> None:
        self._device, self._engines = device, dict(engines)
        self.backend, self.precision = backend, precision

    def lane_memory(self, canvas_pixels: int, candidates: int) -> Mapping[str, int]:
        """See `DeviceNetworks`."""
        pages = canvas_pixels // (PAGE_SIDE * PAGE_SIDE)
        rows = max(pages * PAGE_CELLS, candidates)
        return {
            "crops": candidates * O_NET_SIZE * O_NET_SIZE * CHANNELS,
            "outputs0": rows * OUTPUTS["logit"] * FLOAT,
            "outputs1": rows * OUTPUTS["box"] * FLOAT,
            "outputs2": candidates * OUTPUTS["landmarks"] * FLOAT,
        }

    def open_lane(
        self, stream: Stream, memory: Mapping[str, int], sizes: Mapping[str, int]
    ) -> LaneEngines:
        """See `DeviceNetworks`. Each engine runs once: what a first run plans is not to record."""
        lane = LaneEngines(
            {name: engine.context() for name, engine in self._engines.items()},
            memory,
            sizes["canvas"] // (PAGE_SIDE * PAGE_SIDE),
            sizes["candidates"],
        )
        for network in self._engines:
            self._run(stream.handle, lane, network)
        stream.synchronize()
        return lane

    def close_lane(self, state: LaneEngines) -> None:
        """Nothing to free: contexts go with their last reference."""

    def propose(self, recorder: Recorder, lane: int, state: LaneEngines) -> None:
        """See `DeviceNetworks`."""
        self._run(recorder.handle, state, "pnet")
        recorder.launch("collect_cells", 4 * self._device.multiprocessors, 256, lane)

    def refine(self, recorder: Recorder, lane: int, state: LaneEngines) -> None:
        """See `DeviceNetworks`."""
        self._judge(recorder, lane, state, 0)

    def finish(self, recorder: Recorder, lane: int, state: LaneEngines) -> None:
        """See `DeviceNetworks`."""
        self._judge(recorder, lane, state, 1)

    def close(self) -> None:
        """Let go of the engines."""
        self._engines.clear()

    def _judge(self, recorder: Recorder, lane: int, state: LaneEngines, stage: int) -> None:
        recorder.launch("cut_crops", 4 * self._device.multiprocessors, 256, lane, stage)
        self._run(recorder.handle, state, ("rnet", "onet")[stage])
        recorder.launch("judge_crops", self._device.multiprocessors, 256, lane, stage)

    def _run(self, stream: int, lane: LaneEngines, network: str) -> None:
        """Run a network over all there is room for, as many a call as its engine takes."""
        is_pages, side = network == "pnet", INPUT_SIDES[network]
        total = lane.pages if is_pages else lane.candidates
        source = lane.memory["canvas" if is_pages else "crops"]
        rows = PAGE_CELLS if is_pages else 1
        step = self._engines[network].max_batch
        for begin in range(0, total, step):
            outputs = {
                name: lane.memory[f"outputs{place}"] + begin * rows * OUTPUTS[name] * FLOAT
                for place, name in enumerate(OUTPUTS_OF[network])
            }
            at = source + begin * side * side * CHANNELS
            lane.contexts[network].enqueue(stream, min(step, total - begin), at, outputs)
