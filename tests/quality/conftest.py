"""Makes `tests/corpus.py` importable: pytest's importlib mode leaves `sys.path` alone."""

import sys
from pathlib import Path

TESTS = str(Path(__file__).parents[1])
if TESTS not in sys.path:
    sys.path.append(TESTS)
