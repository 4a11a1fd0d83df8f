"""A server that cannot write to any file system does all it does: pixels live in memory only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import landlocked
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from PIL import Image
from serving import ServerProcess, started

import unface

SERVER = (landlocked.__file__, sys.executable, "-m", "unface.server", "--port", "0")
LARGE_BYTES = 30_000_000  # of a raw picture; passed on by memfd, not by the socket
AGAIN_SECONDS = 30
CRASHES = (  # runs a command as a system does that keeps core dumps of whatever crashes
    "-c",
    "import os, resource as r, sys; hard = r.getrlimit(r.RLIMIT_CORE)[1]; "
    "r.setrlimit(r.RLIMIT_CORE, (hard, hard)); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])",
)

pytestmark = pytest.mark.skipif(
    not landlocked.is_possible(), reason="this kernel has no Landlock that covers truncation"
)


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """One that can write nothing, and listens on HTTP too."""
    with started(*SERVER, "--metrics-port", "0", "--log-format", "json") as running:
        running.wait_until_announced()
        yield running
        assert running.terminate() == 0


@pytest.fixture
def client(server: ServerProcess) -> Iterator[unface.Client]:
    with unface.Client(server.target, timeout=60) as client:
        yield client


@pytest.mark.parametrize(
    "attempt",
    [
        "open('{0}/new', 'w')",
        "open('{0}/there', 'r+')",
        "os.truncate('{0}/there', 0)",
        "os.rename('{0}/there', '{0}/new')",
        "os.link('{0}/there', '{0}/new')",
        "os.remove('{0}/there')",
        "os.mkdir('{0}/new')",
        "os.symlink('a', '{0}/new')",
        "os.mkfifo('{0}/new')",
        "tempfile.TemporaryFile()",
        "subprocess.run(['touch', '{0}/new'], check=True)",
        "multiprocessing.shared_memory.SharedMemory(create=True, size=4)",
    ],
)
def test_what_would_write_cannot(attempt: str, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("as before")
    modules = "import os, subprocess, tempfile, multiprocessing.shared_memory; "
    command = [sys.executable, "-Bc", modules + attempt.format(tmp_path)]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    held = [sys.executable, landlocked.__file__, *command]
    assert subprocess.run(held, env=environment, stderr=subprocess.PIPE).returncode != 0
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert (tmp_path / "there").read_text() == "as before"
    freely = subprocess.run(command, env=environment, stderr=subprocess.PIPE)
    assert freely.returncode == 0, "it fails anyway"


def test_a_server_that_is_to_keep_reports_does_not_even_start(tmp_path: Path) -> None:
    with started(*SERVER, "--quality-file", str(tmp_path / "reports.sqlite")) as running:
        assert running.wait() != 0
    assert list(tmp_path.iterdir()) == []


def test_pictures_are_detected_and_covered(
    client: unface.Client, astronaut: NDArray[np.uint8]
) -> None:
    assert len(client.detect(astronaut)) == 1
    for format in ("JPEG", "PNG", "WEBP"):
        covered = client.anonymize(encoded(astronaut, format))
        assert len(client.detect(covered)) == 0


def test_many_at_once_are_served(client: unface.Client, astronaut: NDArray[np.uint8]) -> None:
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(client.detect, [astronaut] * 40))
    assert [len(faces) for faces in found] == [1] * 40


def test_a_large_picture_is_served(client: unface.Client) -> None:
    side = int((LARGE_BYTES / 3) ** 0.5)
    image = np.zeros((side, side, 3), np.uint8)
    assert np.array_equal(client.anonymize(image), image)


def test_streams_are_served(client: unface.Client, astronaut: NDArray[np.uint8]) -> None:
    answers = list(client.detect_stream([astronaut, b"no picture", astronaut]))
    assert [type(answer).__name__ for answer in answers] == [
        "ServedFaces",
        "InvalidImage",
        "ServedFaces",
    ]
    assert len(list(client.anonymize_stream([astronaut] * 3))) == 3


@pytest.mark.parametrize(
    "bad", [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n" + bytes(9), b"RIFF0000WEBPVP8 "]
)
def test_broken_pictures_are_refused(client: unface.Client, bad: bytes) -> None:
    with pytest.raises(unface.errors.InvalidImage):
        client.detect(bad)


def test_engines_are_loaded_anew(client: unface.Client, astronaut: NDArray[np.uint8]) -> None:
    client.reload()
    assert len(client.detect(astronaut)) == 1


def test_a_worker_that_crashes_leaves_nothing_and_is_replaced(
    server: ServerProcess, client: unface.Client, astronaut: NDArray[np.uint8]
) -> None:
    process = psutil.Process(server.process.pid)
    until(lambda: len(process.children()) == 1)  # those from before a reload have gone
    (worker,) = process.children()
    worker.send_signal(signal.SIGSEGV)
    until(lambda: not worker.is_running())
    until(lambda: detects(client, astronaut))
    assert "Permission denied" not in server.log
    assert "Traceback" not in server.log, server.log


def test_no_process_of_the_server_may_dump_its_memory() -> None:
    with started(*CRASHES, "-m", "unface.server", "--port", "0") as running:
        running.wait_until_announced()
        front = psutil.Process(running.process.pid)
        for process in (front, *front.children()):
            assert process.rlimit(psutil.RLIMIT_CORE) == (0, 0)


def encoded(image: NDArray[np.uint8], format: str) -> bytes:
    file = BytesIO()
    Image.fromarray(image).save(file, format)
    return file.getvalue()


def detects(client: unface.Client, image: NDArray[np.uint8]) -> bool:
    try:
        return len(client.detect(image)) == 1
    except unface.errors.Unavailable:
        return False


def until(condition: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + AGAIN_SECONDS
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.05)
