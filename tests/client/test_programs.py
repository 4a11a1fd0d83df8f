"""The Python programs of docs/clients.md, as they stand there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from serving import ServerProcess

DOCS = Path(__file__).parents[2] / "docs"
PROGRAMS = [
    program
    for program in re.findall(
        r"^```python\n(.*?)^```", (DOCS / "clients.md").read_text(), re.M | re.S
    )
    if "localhost:50051" in program
]


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0, ["bytes; request ", "1 face(s)", "image format is not accepted", "1 face(s)"]),
        (1, ["1 1", "bytes, 1 face(s)", "bytes, 1 face(s)", "bytes, 1 face(s)"]),
    ],
)
def test_a_program_of_the_documentation_does_what_it_says(
    number: int, expected: list[str], server: ServerProcess, tmp_path: Path
) -> None:
    assert len(PROGRAMS) == 2
    shutil.copy(DOCS / "images" / "astronaut.jpg", tmp_path / "portrait.jpg")
    program = PROGRAMS[number].replace("localhost:50051", server.target)
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()[-4:]
    assert len(lines) == len(expected)
    for line, part in zip(lines, expected, strict=True):
        assert part in line
