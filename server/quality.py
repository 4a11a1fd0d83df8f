"""The opt-in quality loop beside the traffic: reports, and what trials showed."""

from __future__ import annotations

from unface.errors import UnfaceError
from unface.server.config import ServerConfig
from unface.server.record import Record
from unface.v1 import unface_pb2 as pb


class NotKept(UnfaceError):
    """The operator keeps no reports."""


class Quality:
    """Does nothing unless a file is configured."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config

    def __enter__(self) -> Quality:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def observe(self, record: Record) -> None:
        """Count a request for the trial."""

    def compared(
        self, first: object, second: object, seconds_first: float, seconds_second: float
    ) -> None:
        """Count what two profiles found in one picture."""

    async def report(self, request: pb.ReportRequest, client: str) -> pb.ReportResponse:
        """Keep a report."""
        raise NotKept("this server keeps no reports; its operator can set quality_file")
