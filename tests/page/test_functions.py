"""The page's pure functions, by node's own test runner: the files `*.test.mjs` here."""

from __future__ import annotations

import subprocess

import pytest
from page.browsing import FOLDER, NODE


def test_the_pages_functions_pass_their_tests() -> None:
    if NODE is None:
        pytest.skip("node is not on this machine")
    files = sorted(FOLDER.glob("*.test.mjs"))
    assert files
    ran = subprocess.run(
        [NODE, "--test", *map(str, files)], capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-2000:]
