"""What a figure must say of its machine, without naming it."""

from __future__ import annotations

import os
import platform
import re
from datetime import date
from pathlib import Path


def describe() -> dict[str, str]:
    """Return processor, cores and date."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "date": date.today().isoformat(),
    }
