"""A simulated GPU that is late: a stream does nothing before somebody waits for it.

What is copied from memory that changed in between, or was freed, is not what it was. On
`SimulatedDevice` everything is done at once, and such mistakes stay unseen.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np
from simulated import Block, Graph, SimulatedDevice, Stream


class LateStream(Stream):
    def __init__(self, device: SimulatedDevice) -> None:
        super().__init__(device)
        self.pending: list[Callable[[], None]] = []

    def copy(self, target: int, source: int, size: int) -> None:
        self.device.called("copy")
        self.pending.append(lambda: ctypes.memmove(target, source, size) and None)

    def replay(self, graph: Graph) -> None:
        self.device.called("replay")
        self.pending += graph.steps

    def synchronize(self) -> None:
        self.device.called("synchronize")
        while self.pending:
            self.pending.pop(0)()


class RememberedBlock(Block):
    """Memory that stays there when it is freed, filled with something else."""

    def close(self) -> None:
        self.array[:] = 0xEE
        self.freed = self.array
        self.array = np.empty(0, np.uint8)
        self.pointer = 0


class LateDevice(SimulatedDevice):
    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.blocks: list[Block] = []
        self.streams: list[LateStream] = []

    def allocate(self, size: int) -> Block:
        self.called("allocate")
        self.blocks.append(RememberedBlock(size))
        return self.blocks[-1]

    allocate_host = allocate

    def stream(self, *, urgent: bool) -> LateStream:
        self.called("stream")
        self.streams.append(LateStream(self))
        return self.streams[-1]

    def synchronize(self) -> None:
        for stream in self.streams:
            stream.synchronize()
