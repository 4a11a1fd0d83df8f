"""The opt-in quality loop beside the traffic: what users report, and what a trial shows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from unface.server.config import ServerConfig
from unface.server.record import Record
from unface.server.reports import NotKept, open_reports
from unface.v1 import unface_pb2 as pb

if TYPE_CHECKING:
    from unface.quality.counting import Trials
    from unface.quality.trials import Arm

Answer = pb.DetectResponse | pb.AnonymizeResponse
Shadowed = Callable[[int, int, int], None]  # faces that agree, of the first alone, of the second


class Quality:
    """Keeps what the configuration asks for, in its `quality_file`; nothing without one.

    `shadowed` is told how far the answers of a shadow trial agree, kept or not. Raises
    `InvalidOption` for a key, and `StoreError` for a file, that is of no use.
    """

    def __init__(self, config: ServerConfig, shadowed: Shadowed) -> None:
        self._shadowed = shadowed
        self._closing = ExitStack()
        self._trials: Trials | None = None
        with ExitStack() as opened:
            self._reports = open_reports(config)
            if self._reports is not None:
                opened.callback(self._reports.close)
            if config.trial_profile is not None and config.quality_file is not None:
                self._trials = _open_trials(config.trial_profile, config.quality_file, config)
                opened.callback(self._trials.close)
            self._closing = opened.pop_all()

    def __enter__(self) -> Quality:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def observe(self, record: Record) -> None:
        """Count a request of a trial."""
        if self._trials is not None and record.arm:
            arm: Arm = "b" if record.arm == "b" else "a"
            self._trials.observe(arm, record.profile, record.code, record.seconds, record.scores)

    def compared(self, first: Answer, second: Answer) -> None:
        """Count how far two profiles agree on one picture, and how long each took to detect.

        Safe to call on any thread, and better not on the event loop's.
        """
        from unface.quality.agreement import compare

        agreement = compare(_boxes(first), _boxes(second))
        self._shadowed(agreement.matched, agreement.only_a, agreement.only_b)
        if self._trials is not None:
            self._trials.observe_pair(agreement, _seconds(first), _seconds(second))

    async def report(self, request: pb.ReportRequest) -> pb.ReportResponse:
        """Keep a report; raises `NotKept` where none are, and what `Reports` raises."""
        if self._reports is None:
            raise NotKept("this server keeps no reports; its operator can set quality_file")
        return await asyncio.to_thread(self._reports.store_report, request)


def _open_trials(profile: str, file: str, config: ServerConfig) -> Trials:
    from unface.quality.counting import Trials
    from unface.quality.store import Store
    from unface.quality.trials import Trial

    trial = Trial(profile, config.trial_share, config.trial_shadow)
    return Trials(Store(file, days=config.quality_days), trial)


def _boxes(answer: Answer) -> list[tuple[float, ...]]:
    return [(f.box.x1, f.box.y1, f.box.x2, f.box.y2) for f in answer.faces]


def _seconds(answer: Answer) -> float:
    """Return how long the work took that both had to do."""
    return (answer.timings.decode_ms + answer.timings.detect_ms) / 1000
