"""Taking turns: every round asks all detectors, so that a machine whose speed drifts slows all."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from benchmarks.figures import Answer, Case, Times, row, times
from benchmarks.peers import OURS, Failed, NotInstalled, Worker, install
from benchmarks.pictures import Picture, write
from benchmarks.selection import Selection

WARM_UP, WARM_UP_CAP_S = 2, 4.0  # onnxruntime's second run on a new size is slow, too
DECODINGS = 5
SETTLE_S = 0.01  # between turns: threads of some libraries spin on when their work is done


class Detector(Protocol):
    """What rounds need of a worker."""

    name: str

    def detect(self, picture: Path) -> Answer:
        """Return boxes, scores, `ms`, `standin_ms`, `peak_mb`; raises `Failed`."""

    def decode(self, picture: Path) -> Answer:
        """Return `decode_ms`; raises `Failed`."""


@dataclass
class Measured:
    """All of a run: cases, and by detector the libraries' versions or why it has no environment."""

    cases: list[Case] = field(default_factory=list)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    not_measured: dict[str, str] = field(default_factory=dict)


def measure(selection: Selection) -> Measured:
    """Return the cases of a selection, telling on the way where it is."""
    begin = time.monotonic()
    measured = Measured(not_measured=install(selection.detectors))
    with tempfile.TemporaryDirectory() as folder:
        pictures = [write(Path(folder), size, kind) for size, kind in selection.pictures()]
        for threads, min_face in selection.openings():
            with opened(selection, threads, min_face, measured) as (workers, closed):
                for picture in pictures:
                    case = run_case(workers, picture, threads, min_face, selection)
                    case = replace(case, failed={**closed, **case.failed})
                    measured.cases.append(case)
                    print(f"{time.monotonic() - begin:5.0f} s  {case.title}", file=sys.stderr)
    return measured


@contextmanager
def opened(
    selection: Selection, threads: int, min_face: int, measured: Measured
) -> Iterator[tuple[list[Worker], dict[str, str]]]:
    """Open all detectors that have an environment for the time of a block.

    Gives their workers, and why by name where one does not start; notes their versions.
    """
    with ExitStack() as stack:
        workers, closed = [], {}
        for name in selection.detectors:
            if name in measured.not_measured:
                continue
            try:
                worker = Worker(name, threads, min_face)
            except NotInstalled as error:
                closed[name] = str(error)
                continue
            stack.callback(worker.close)
            measured.versions[name] = worker.versions
            workers.append(worker)
        yield workers, closed


def run_case(
    detectors: Sequence[Detector],
    picture: Picture,
    threads: int,
    min_face: int,
    selection: Selection,
) -> Case:
    """Return the figures of all detectors on one picture."""
    runs, failed = take_turns(detectors, picture.pixels, selection.rounds, selection.cap_s)
    rows = {name: row(answers, picture.faces, min_face) for name, answers in runs.items()}
    decode = decoding(detectors, picture.jpeg)
    return Case(picture.size, picture.kind, threads, min_face, rows, failed, decode)


def take_turns(
    detectors: Sequence[Detector], pixels: Path, rounds: int, cap_s: float
) -> tuple[dict[str, list[Answer]], dict[str, str]]:
    """Return the answers that count by detector, and why by detector where one failed."""
    turns = {detector.name: Turns(rounds, cap_s) for detector in detectors}
    failed: dict[str, str] = {}
    while waiting := [d for d in detectors if d.name not in failed and turns[d.name].open]:
        for detector in waiting:
            time.sleep(SETTLE_S)
            try:
                turns[detector.name].add(detector.detect(pixels))
            except Failed as error:
                failed[detector.name] = str(error)
    return {name: turn.counted for name, turn in turns.items() if name not in failed}, failed


@dataclass
class Turns:
    """The runs of one detector on one picture: first some that warm it up, then those that count.

    Both end early for a slow detector, when it has spent its time on them, but it has one of each.
    """

    rounds: int
    cap_s: float
    warm_up: list[Answer] = field(default_factory=list)
    counted: list[Answer] = field(default_factory=list)

    @property
    def open(self) -> bool:
        """Whether another run is due."""
        return self._more(self.counted, self.rounds, self.cap_s)

    def add(self, answer: Answer) -> None:
        """Take the answer of a run."""
        warming = self._more(self.warm_up, WARM_UP, WARM_UP_CAP_S)
        (self.warm_up if warming else self.counted).append(answer)

    @staticmethod
    def _more(runs: list[Answer], most: int, cap_s: float) -> bool:
        spent_ms = sum(run["ms"] for run in runs)
        return not runs or (len(runs) < most and spent_ms < cap_s * 1000)


def decoding(detectors: Sequence[Detector], jpeg: Path) -> Times | None:
    """Return what unface's decoder takes; None if unface is not among the detectors."""
    ours = next((detector for detector in detectors if detector.name in OURS), None)
    if ours is None:
        return None
    taken = [ours.decode(jpeg)["decode_ms"] for _ in range(WARM_UP + DECODINGS)]
    return times(taken[WARM_UP:])
