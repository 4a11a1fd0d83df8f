"""The opt-in quality loop beside the traffic: what users report, and what a trial shows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from unface.server.config import ServerConfig
from unface.server.record import Record
from unface.server.reports import NotKept, open_reports
from unface.v1 import unface_pb2 as pb

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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
        self._reports = open_reports(config)
        self._trials = None
        if config.quality_file is not None and config.trial_profile is not None:
            from unface.quality.counting import Trials
            from unface.quality.store import Store
            from unface.quality.trials import Trial

            trial = Trial(config.trial_profile, config.trial_share, config.trial_shadow)
            self._trials = Trials(Store(config.quality_file, days=config.quality_days), trial)

    def __enter__(self) -> Quality:
        return self

    def __exit__(self, *_: object) -> None:
        for part in (self._reports, self._trials):
            if part is not None:
                part.close()

    def observe(self, record: Record) -> None:
        """Count a request of a trial."""
        if self._trials is not None and record.arm:
            arm: Arm = "b" if record.arm == "b" else "a"
            self._trials.observe(arm, record.profile, record.code, record.seconds, record.scores)

    def compared(self, first: Answer, second: Answer) -> None:
        """Count how far two profiles agree on one picture, and how long each took to detect."""
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


def _boxes(answer: Answer) -> NDArray[np.float32]:
    import numpy as np

    boxes = [(f.box.x1, f.box.y1, f.box.x2, f.box.y2) for f in answer.faces]
    return np.array(boxes, np.float32).reshape(-1, 4)


def _seconds(answer: Answer) -> float:
    """Return how long the work took that both had to do."""
    return (answer.timings.decode_ms + answer.timings.detect_ms) / 1000
