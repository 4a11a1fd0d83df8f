"""GPUs that fail when a test wants it: the simulator of `tests/gpu`, with a hand on its switch."""

from __future__ import annotations

import platform
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unface.gpu.device import DeviceFailure

sys.path.append(str(Path(__file__).parent / "gpu"))
from simulated import Block, SimulatedDevice


def needs_the_simulator() -> None:
    if shutil.which("g++") is None or platform.machine() != "x86_64":
        pytest.skip("the simulated GPU needs g++ and an x86-64 processor")


class Socket:
    """Where simulated GPUs come from.

    `lost`: none can be opened, and those that are open fail at every call. `fail_at`: the number
    of the call, from when a device is opened, that fails; `calls` are those so far, by name.
    """

    def __init__(self, fail_at: int | None = None) -> None:
        self.fail_at, self.lost = fail_at, False
        self.error: Callable[[str], Exception] = DeviceFailure
        self.attempts = 0
        self.calls: list[str] = []
        self.devices: list[Simulated] = []

    def open(self) -> Any:
        self.attempts += 1
        if self.lost:
            raise DeviceFailure("no GPU answers")
        self.devices.append(Simulated(self))
        self.calls = []
        return self.devices[-1]

    def fail(self, number: int, name: str) -> None:
        self.calls.append(name)
        if self.lost or number == self.fail_at:
            raise self.error(f"call {number} ({name}) failed")


class Simulated(SimulatedDevice):
    """Keeps its memory in sight, and can be told to fail when it is closed."""

    def __init__(self, socket: Socket) -> None:
        super().__init__(fail=socket.fail)
        self.blocks: list[Block] = []
        self.closed, self.fails_to_close = 0, False

    def allocate(self, size: int) -> Block:
        self.blocks.append(super().allocate(size))
        return self.blocks[-1]

    def close(self) -> None:
        self.closed += 1
        if self.fails_to_close:
            raise DeviceFailure("the GPU does not let go")
        super().close()


def eventually(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it has not happened"
        time.sleep(0.005)
