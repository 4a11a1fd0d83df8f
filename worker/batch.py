"""What a worker does with the pictures it is given: decode each, detect together, mask, encode."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Protocol

from unface.anonymize import Picture
from unface.engines.cascades import Serving
from unface.errors import EngineError, UnfaceError
from unface.mtcnn.faces import Faces
from unface.mtcnn.network import UInt8Array
from unface.mtcnn.options import DetectOptions
from unface.v1 import unface_pb2 as pb
from unface.worker.pipeline import (
    STAGES,
    Accepted,
    Request,
    Response,
    decode_step,
    describe,
    encode_step,
    mask_step,
)


class Detector(Protocol):
    """What finds faces; `unface.engines.cascades.Cascades` is one. One caller at a time."""

    @property
    def serving(self) -> Serving:
        """What would serve a call now; for any thread."""
        ...

    def watch(self, changed: Callable[[], None]) -> None:
        """Have `changed` called, on any thread, when `serving` has changed."""
        ...

    def detect(self, image: UInt8Array, options: DetectOptions) -> Faces:
        """Find the faces of uint8 `[H, W, 3]` RGB pixels."""
        ...

    def detect_all(self, images: Sequence[UInt8Array], options: DetectOptions) -> list[Faces]:
        """Find the faces of each image; the same faces as one by one."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


class Expired(UnfaceError):
    """The deadline passed before the answer was there."""


class Gone(UnfaceError):
    """The caller has gone: nobody waits for the answer."""


@dataclass(eq=False)
class Ticket:
    """One picture in a worker: what is asked, until when, and what was made of it so far."""

    number: int
    request: Request  # without its picture
    image: memoryview  # a file, or raw pixels of `raw_size`
    raw_size: tuple[int, int] | None
    options: DetectOptions
    expires_at: float = float("inf")  # of time.monotonic(), the same clock in all processes
    request_id: str = ""
    cancelled: threading.Event = field(default_factory=threading.Event)
    steps_ms: dict[str, float] = field(default_factory=dict)
    picture: Picture | None = None
    faces: Faces | None = None
    response: Response | None = None
    error: Exception | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for the answer, and still may."""
        return not self.cancelled.is_set() and time.monotonic() < self.expires_at

    def check(self) -> None:
        """Raise `Gone` or `Expired` when the answer is not wanted any more."""
        if self.cancelled.is_set():
            raise Gone("the caller has gone")
        if time.monotonic() >= self.expires_at:
            raise Expired("the deadline passed before the answer was there")


Answered = Callable[[Ticket], None]  # a ticket with its response or its error
log = logging.getLogger("unface.worker")


class Batches:
    """Takes batches, and calls `answered` once for every ticket, on any thread.

    Pictures are decoded, masked and encoded on `codec_threads` threads, each on its own. One
    thread detects, batch after batch, so that the next one is decoded meanwhile. A ticket whose
    caller has gone, or whose time is over, stops at the next step. An error is its ticket's alone:
    where a batch fails in the detector, its pictures are tried one by one.
    """

    def __init__(
        self, detector: Detector, accepted: Accepted, codec_threads: int, answered: Answered
    ) -> None:
        self._detector = detector
        self._accepted = accepted
        self._answered = answered
        self._codec = ThreadPoolExecutor(codec_threads, "unface-codec")
        self._decoded: SimpleQueue[list[Ticket] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._detect_batches, name="unface-detector")
        self._thread.start()

    def start(self, tickets: Sequence[Ticket]) -> None:
        """Begin with a batch; all of its pictures have the same options."""
        batch = _Batch(list(tickets))
        for ticket in tickets:
            self._codec.submit(self._decode, ticket, batch)

    def close(self) -> None:
        """Finish what was begun and end the threads."""
        self._codec.shutdown()
        self._decoded.put(None)
        self._thread.join()

    def _decode(self, ticket: Ticket, batch: _Batch) -> None:
        def decode() -> None:
            ticket.picture = decode_step(
                ticket.request, ticket.image, ticket.raw_size, self._accepted
            )

        _step(ticket, "decode", decode)
        if batch.one_less():
            self._decoded.put(batch.tickets)

    def _detect_batches(self) -> None:
        while (tickets := self._decoded.get()) is not None:
            if len(tickets) > 1:
                self._detect_together(tickets)
            for ticket in tickets:
                if ticket.faces is None:
                    self._detect_one(ticket)
                self._go_on(ticket)
            del ticket, tickets  # or the pictures would live until the next batch comes

    def _detect_together(self, tickets: Sequence[Ticket]) -> None:
        """Set the faces of those that are still wanted; of none where the detector fails."""
        wanted = [ticket for ticket in tickets if ticket.picture and ticket.is_wanted]
        pictures = [ticket.picture.pixels for ticket in wanted if ticket.picture]
        begin = time.perf_counter()
        try:
            found = self._detector.detect_all(pictures, tickets[0].options)
        except Exception as error:  # noqa: BLE001 - whose it is shows when each is tried alone
            log.warning("%d pictures failed together and are tried alone: %r", len(wanted), error)
            return
        passed = (time.perf_counter() - begin) * 1000
        for ticket, faces in zip(wanted, found, strict=True):
            ticket.faces = faces
            ticket.steps_ms["detect"] = passed

    def _detect_one(self, ticket: Ticket) -> None:
        def detect() -> None:
            if ticket.picture is not None:
                ticket.faces = self._detector.detect(ticket.picture.pixels, ticket.options)

        _step(ticket, "detect", detect)

    def _go_on(self, ticket: Ticket) -> None:
        if ticket.error is None and isinstance(ticket.request, pb.AnonymizeRequest):
            self._codec.submit(self._cover, ticket, ticket.request)
        else:
            ticket.response = pb.DetectResponse()
            self._answer(ticket)

    def _cover(self, ticket: Ticket, request: pb.AnonymizeRequest) -> None:
        def mask() -> None:
            if ticket.picture is not None and ticket.faces is not None:
                ticket.picture = mask_step(request, ticket.picture, ticket.faces)

        def encode() -> None:
            if ticket.picture is not None and ticket.faces is not None:
                max_bytes = self._accepted.limits.max_bytes
                ticket.response = encode_step(request, ticket.picture, max_bytes)

        _step(ticket, "mask", mask)
        _step(ticket, "encode", encode)  # does nothing where masking failed
        self._answer(ticket)

    def _answer(self, ticket: Ticket) -> None:
        if ticket.error is None and ticket.faces is not None and ticket.response is not None:
            stages = {s: ms for s, ms in ticket.faces.timings_ms.items() if s in STAGES}
            describe(ticket.response, ticket.faces, {**ticket.steps_ms, **stages})
        else:
            ticket.response = None  # never a picture beside an error
            ticket.error = ticket.error or EngineError("the detector gave no answer")
        self._answered(ticket)
        ticket.picture = ticket.faces = None  # now: giving 6 MB back takes a millisecond


def _step(ticket: Ticket, name: str, function: Callable[[], None]) -> None:
    """Run a step and time it, unless the ticket is over; what it raises is the ticket's error."""
    if ticket.error is not None:
        return
    begin = time.perf_counter()
    try:
        ticket.check()
        function()
    except Exception as error:  # noqa: BLE001 - whatever it is belongs to the caller
        ticket.error = error
    ticket.steps_ms[name] = (time.perf_counter() - begin) * 1000


class _Batch:
    """Tickets that are decoded, each at its own time, and then detected together."""

    def __init__(self, tickets: list[Ticket]) -> None:
        self.tickets = tickets
        self._left = len(tickets)
        self._lock = threading.Lock()

    def one_less(self) -> bool:
        """Note that one more is decoded; returns whether it was the last."""
        with self._lock:
            self._left -= 1
            return self._left == 0
