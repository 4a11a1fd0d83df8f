"""How busy the machine's NVIDIA GPUs are, as NVML says; no library or driver, no figures."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple


class Card(NamedTuple):
    """One GPU at this moment."""

    number: int  # NVML's, which is that of nvidia-smi
    name: str
    utilization: float | None  # 0 to 1: share of the last second in which a kernel ran
    memory_used: int | None  # bytes; None where the GPU does not say (parts of a GPU, "MIG")
    memory_total: int | None  # bytes


class Cards:
    """Reads all GPUs of the machine."""

    def __init__(self) -> None:
        self._nvml = _opened()
        self._reading = threading.Lock()

    def read(self) -> list[Card]:
        """Return what each GPU says, leaving out those that are lost; for any thread.

        A driver that hangs holds one caller: whoever asks meanwhile gets nothing.
        """
        if self._nvml is None or not self._reading.acquire(blocking=False):
            return []
        try:
            found = (_card(self._nvml, number) for number in range(_count(self._nvml)))
            return [card for card in found if card is not None]
        finally:
            self._reading.release()


def _opened() -> Any:
    """Return the library, ready to be asked, or None."""
    try:
        import pynvml  # type: ignore[import-untyped]
    except ImportError:  # comes with unface[gpu]
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver
        return None
    return pynvml


def _count(nvml: Any) -> int:
    try:
        return int(nvml.nvmlDeviceGetCount())
    except nvml.NVMLError:
        return 0


def _card(nvml: Any, number: int) -> Card | None:
    try:
        device = nvml.nvmlDeviceGetHandleByIndex(number)
        name = str(nvml.nvmlDeviceGetName(device))
    except nvml.NVMLError:  # fallen off the bus
        return None
    try:
        utilization = nvml.nvmlDeviceGetUtilizationRates(device).gpu / 100
    except nvml.NVMLError:
        utilization = None
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(device)
    except nvml.NVMLError:
        return Card(number, name, utilization, None, None)
    return Card(number, name, utilization, int(memory.used), int(memory.total))
