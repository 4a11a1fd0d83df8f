"""A real server process to test against."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ODD_SERVER = Path(__file__).parent / "server" / "odd_server.py"
START_SECONDS = 30


class ServerProcess:
    """A server in a process of its own; `target` is where it listens.

    Unless a flag gives it an `--http-port`, it serves neither the page nor REST; `http` is where it
    does, without the last slash.
    """

    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *command],
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={"UNFACE_SERVE_HTTP_PORT": "none", **os.environ},
        )
        self.lines: list[str] = []  # of its stderr
        self.target = self.http = ""
        self._announced = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_until_announced(self) -> None:
        assert self._announced.wait(START_SECONDS), "the server has not started"
        assert self.target, f"the server ended: {self.log}"

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    def terminate(self) -> int:
        """Send SIGTERM and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self, timeout: float = 20) -> int:
        code = self.process.wait(timeout)
        self._reader.join(timeout)
        return code

    def kill(self) -> None:
        self.process.kill()
        self.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))
            if found := re.match(r"unface page on (\S+)/$", line.rstrip()):
                self.http = found[1]
            if found := re.match(r"unface serving on (\S+)", line):
                self.target = found[1]
                self._announced.set()
        self._announced.set()


@contextmanager
def started(*command: str) -> Iterator[ServerProcess]:
    """Start a server and end it, without waiting for it to serve."""
    server = ServerProcess(*command)
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def serving(*flags: str) -> Iterator[ServerProcess]:
    """Run `python -m unface.server` on a free port; yields once it serves."""
    with started("-m", "unface.server", "--port", "0", *flags) as server:
        server.wait_until_announced()
        yield server


@contextmanager
def serving_oddly(*flags: str) -> Iterator[ServerProcess]:
    """Run `odd_server.py` on a free port; yields once it serves."""
    with started(str(ODD_SERVER), "--port", "0", *flags) as server:
        server.wait_until_announced()
        yield server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
