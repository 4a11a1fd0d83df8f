"""The composed pictures of the tests: measuring needs nobody's photographs."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from scenes import compose  # type: ignore[import-not-found]

__all__ = ["compose"]
