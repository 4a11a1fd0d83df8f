"""The GPU's tests find their helpers beside them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # pytest adds `tests` alone
