"""What a server costs: time from process start to SERVING, memory, time of one request.

    python -m benchmarks.server_cost [--requests 1000] [--starts 5] [--threads 2]

A real server process over loopback; the picture is the astronaut of scikit-image, 512 x 512.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import psutil
from numpy.typing import NDArray
from skimage.data import astronaut

import unface
from unface.anonymize import encode

TARGETS = {"start to SERVING": "< 1.5 s", "resident memory": "< 300 MB"}


@contextmanager
def server(threads: int) -> Iterator[tuple[subprocess.Popen[str], str, float]]:
    """Run a server; yields its process, its target, and how many seconds it took to serve."""
    flags = ["--port", "0", "--http-port", "0", "--threads", str(threads)]
    command = [sys.executable, "-m", "unface.server", *flags]
    begin = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.match(r"unface serving on (\S+)", line):
                yield process, found[1], time.perf_counter() - begin
                return
        raise SystemExit("the server did not start")
    finally:
        process.terminate()
        process.wait()
        process.stderr.close()


def processes(pid: int) -> list[psutil.Process]:
    """Return a server's processes: its own, and its workers'."""
    server = psutil.Process(pid)
    return [server, *server.children()]


def resident_mb(pid: int) -> float:
    """Return the resident memory of a server and its workers together."""
    return float(sum(process.memory_info().rss for process in processes(pid)) / 1e6)


def start_seconds(starts: int, threads: int) -> list[float]:
    """Return the seconds that each of so many starts took."""
    seconds = []
    for _ in range(starts):
        with server(threads) as (_, _, took):
            seconds.append(took)
    return seconds


def milliseconds(call: Callable[[], object], times: int) -> list[float]:
    """Return the milliseconds that each of so many calls took."""
    durations = []
    for _ in range(times):
        begin = time.perf_counter()
        call()
        durations.append((time.perf_counter() - begin) * 1000)
    return durations


def spread(values: list[float], unit: str, digits: int) -> str:
    """Return the median and the largest of some values as text."""
    return f"{statistics.median(values):.{digits}f} {unit} (most {max(values):.{digits}f})"


def measure(requests: int, starts: int, threads: int) -> list[tuple[str, str, str]]:
    """Return rows of name, figure and target."""
    image: NDArray[np.uint8] = np.asarray(astronaut())  # type: ignore[no-untyped-call]
    jpeg = encode(image, "jpeg")
    rows = [("start to SERVING", spread(start_seconds(starts, threads), "s", 2))]
    with server(threads) as (process, target, _), unface.Client(target) as client:
        rows.append(("memory at start", f"{resident_mb(process.pid):.0f} MB"))
        quarter = max(1, requests // 4)
        resident = []
        detect, anonymize = [], []
        for _ in range(4):
            detect += milliseconds(lambda: client.detect(jpeg), quarter - quarter // 4)
            anonymize += milliseconds(lambda: client.anonymize(jpeg), quarter // 4)
            resident.append(resident_mb(process.pid))
        after = " ".join(f"{megabytes:.0f}" for megabytes in resident)
        rows.append(("resident memory", f"{after} MB after each quarter of {requests} requests"))
        counts = [each.num_threads() for each in processes(process.pid)]
        rows.append(("threads", " and ".join(map(str, counts)) + " (server, workers)"))
        rows.append(("detect, JPEG 512 x 512", spread(detect, "ms", 1)))
        rows.append(("anonymize, JPEG 512 x 512", spread(anonymize, "ms", 1)))
    return [(name, figure, TARGETS.get(name, "")) for name, figure in rows]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    rows = measure(arguments.requests, arguments.starts, arguments.threads)
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for name, figure, target in rows:
        print(f"{name:<{widths[0]}}  {figure:<{widths[1]}}  {target}".rstrip())


if __name__ == "__main__":
    main()
