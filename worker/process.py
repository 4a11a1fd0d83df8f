"""A worker: the process that owns engines, and all that touches pixels.

It takes batches from the server over `unface.worker.packets` and ends when the server has gone. A
picture that kills it takes the pictures of its own batches along, and nothing else.

    server -> worker   open      settings; once, first
                       batch     jobs, and a body with their requests and pictures, in order
                       cancel    a job's number: its caller has gone
                       close     finish what was begun and end
    worker -> server   serving   what it is; body: GetServerInfoResponse. First when warm
                       refused   why it cannot serve, and that it ends
                       done      a job's answer; body: DetectResponse or AnonymizeResponse
                       failed    a job's error: its type and message
                       log       a line for the server's log
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from unface.anonymize import Limits
from unface.anonymize.threads import limit_threads
from unface.audit import SigningKey, read_signing_key
from unface.engines.cascades import Cascades
from unface.engines.shelf import read_engine_key
from unface.errors import EngineError, UnfaceError
from unface.mtcnn.team import cores
from unface.worker import packets
from unface.worker.batch import Batches, Detector, Ticket
from unface.worker.facts import server_info
from unface.worker.memory import give_large_buffers_back
from unface.worker.packets import Packet
from unface.worker.pipeline import Accepted, check_thresholds, options_of, request_from_bytes
from unface.worker.settings import Settings
from unface.worker.warmup import warm_up

Opener = Callable[[Settings], Detector]
log = logging.getLogger("unface.worker")
INTERNAL = "Internal"  # the type of an error that is no `UnfaceError`: a defect


def open_cascade(settings: Settings) -> Detector:
    """Return the cascades of the engines that were asked for."""
    return Cascades(
        settings.precision,
        settings.threads,
        None if settings.engines is None else Path(settings.engines),
        allow_uncertified=settings.allow_uncertified,
        device=settings.device,
        plans=settings.plans,
        key=read_engine_key(settings.engine_key_file),
    )


def run(descriptor: int, open_detector: Opener = open_cascade) -> int:
    """Work for the server at the other end of a socket until it says so or has gone."""
    link = _Link(socket.socket(fileno=descriptor))
    logging.basicConfig(handlers=[_LogHandler(link)], level=logging.INFO, force=True)
    give_large_buffers_back()
    limit_threads(1)  # the detector and the codecs share the cores; OpenCV would take all for each
    opening = link.receive()
    if opening is None:
        return 0
    settings = Settings(**opening.header["settings"])
    if settings.threads is None:  # one budget of cores for all workers
        settings = replace(settings, threads=max(1, cores() // settings.workers))
    try:
        key = read_signing_key(settings.audit_key_file) if settings.audit_key_file else None
        detector = open_detector(settings)
        warm_up(detector)
    except UnfaceError as error:
        link.send({"kind": "refused", "message": str(error)})
        return 1
    except Exception as error:
        log.exception("the engines cannot be opened")
        link.send({"kind": "refused", "message": f"the engines cannot be opened: {error!r}"})
        return 1
    _Worker(link, settings, detector, key).serve()
    return 0


class _Link:
    """The worker's end of the socket; any thread may send."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._lock = threading.Lock()

    def receive(self) -> Packet | None:
        """Wait for a message; None when the server has gone."""
        return packets.receive(self._end)

    def send(self, header: dict[str, Any], body: bytes = b"") -> None:
        """Send a message; in silence when the server has gone, for then this process ends too."""
        with self._lock, suppress(OSError):
            packets.send(self._end, header, (body,))


class _LogHandler(logging.Handler):
    """Has the server write what this process logs: one log, one format."""

    def __init__(self, link: _Link) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(message)s"))
        self._link = link

    def emit(self, record: logging.LogRecord) -> None:
        message = self.format(record)[:8000]
        self._link.send(
            {"kind": "log", "logger": record.name, "level": record.levelno, "message": message}
        )


class _Worker:
    """Takes packets and gives their pictures to `Batches`."""

    def __init__(
        self,
        link: _Link,
        settings: Settings,
        detector: Detector,
        audit_key: SigningKey | None,
    ) -> None:
        self._link = link
        self._detector = detector
        self._min_threshold = settings.min_threshold
        self._tickets: dict[int, Ticket] = {}
        self._info = server_info(settings, lambda: detector.serving)
        threads = settings.threads or cores()
        limits = Limits(settings.max_message_bytes, settings.max_pixels)
        accepted = Accepted(limits, tuple(settings.formats))
        self._batches = Batches(detector, accepted, max(2, threads), self._answered, audit_key)

    def serve(self) -> None:
        """Work until told to end."""
        self._detector.watch(self._tell_serving)
        self._tell_serving()
        while packet := self._link.receive():
            kind = packet.header["kind"]
            if kind == "batch":
                self._start(packet)
            elif kind == "cancel" and (ticket := self._tickets.get(packet.header["number"])):
                ticket.cancelled.set()
            elif kind == "close":
                self._batches.close()
                self._detector.close()
                return
            del packet  # or its pictures would live until the next one comes
        os._exit(0)  # the server has gone: nobody waits for what is under way

    def _tell_serving(self) -> None:
        self._link.send({"kind": "serving"}, self._info().SerializeToString())

    def _start(self, packet: Packet) -> None:
        body, tickets = packet.body, []
        for job in packet.header["jobs"]:
            request, image = body[: job["request"]], body[job["request"] :][: job["image"]]
            body = body[job["request"] + job["image"] :]
            if ticket := self._ticket(job, bytes(request), image):
                tickets.append(ticket)
        self._batches.start(tickets)

    def _ticket(self, job: dict[str, Any], data: bytes, image: memoryview) -> Ticket | None:
        try:
            request = request_from_bytes(job["method"], data)
            options = options_of(request)
            check_thresholds(options.detect.thresholds, self._min_threshold)
        except UnfaceError as error:
            self._fail(job["number"], error, {})
            return None
        size = None if job["raw"] is None else (job["raw"][0], job["raw"][1])
        expires_at = float("inf") if job["expires_at"] is None else job["expires_at"]
        ticket = Ticket(job["number"], request, image, size, options, expires_at, job["request_id"])
        self._tickets[ticket.number] = ticket
        return ticket

    def _answered(self, ticket: Ticket) -> None:
        self._tickets.pop(ticket.number, None)
        if ticket.response is not None:
            header = {"kind": "done", "number": ticket.number}
            self._link.send(header, ticket.response.SerializeToString())
            return
        error = ticket.error or EngineError("there is neither an answer nor an error")
        if not isinstance(error, UnfaceError) or isinstance(error, EngineError):
            log.error("request %s failed", ticket.request_id, exc_info=error)
        self._fail(ticket.number, error, ticket.steps_ms)

    def _fail(self, number: int, error: Exception, steps_ms: dict[str, float]) -> None:
        known = isinstance(error, UnfaceError)
        self._link.send(
            {
                "kind": "failed",
                "number": number,
                "error": type(error).__name__ if known else INTERNAL,
                "message": str(error)[:500] if known else "",
                "steps_ms": steps_ms,
            }
        )
