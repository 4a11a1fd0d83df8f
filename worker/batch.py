"""What a worker does with its pictures: decode each, detect together, mask, encode, verify."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from queue import SimpleQueue
from typing import Protocol

from unface.anonymize import MaskOptions, Picture, apply_masks
from unface.audit import SigningKey
from unface.engines.cascades import Serving
from unface.engines.provenance import Provenance
from unface.errors import EngineError, UnfaceError
from unface.mtcnn.faces import Faces
from unface.mtcnn.network import UInt8Array
from unface.mtcnn.options import DetectOptions
from unface.v1 import unface_pb2 as pb
from unface.worker.covering import Covered, Verification, Verifier, cover_faces, no_faces
from unface.worker.messages import OUTPUT_FORMATS
from unface.worker.pipeline import (
    STAGES,
    Accepted,
    Options,
    Request,
    Response,
    decode_step,
    describe,
    describe_covering,
    encode_step,
    result_pixels,
)
from unface.worker.records import audit_record


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

    def provenance(self, backend: str, precision: str) -> Provenance:
        """Return which engines gave an answer; for any thread."""
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
    options: Options
    expires_at: float = float("inf")  # of time.monotonic(), the same clock in all processes
    request_id: str = ""
    cancelled: threading.Event = field(default_factory=threading.Event)
    steps_ms: dict[str, float] = field(default_factory=dict)
    picture: Picture | None = None
    faces: Faces | None = None
    covered: Covered | None = None
    verifier: Verifier | None = None
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
        self,
        detector: Detector,
        accepted: Accepted,
        codec_threads: int,
        answered: Answered,
        audit_key: SigningKey | None = None,
    ) -> None:
        self._detector = detector
        self._accepted = accepted
        self._answered = answered
        self._audit_key = audit_key
        self._codec = ThreadPoolExecutor(codec_threads, "unface-codec")
        self._searches: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._search_all, name="unface-detector")
        self._under_way = 0
        self._idle = threading.Condition()
        self._thread.start()

    def start(self, tickets: Sequence[Ticket]) -> None:
        """Begin with a batch; all of its pictures have the same options of a detection."""
        batch = _Batch([one for one in tickets if not one.options.regions.cover_only])
        with self._idle:
            self._under_way += len(tickets)
        for ticket in tickets:
            self._codec.submit(self._decode, ticket, batch)

    def close(self) -> None:
        """Finish what was begun and end the threads."""
        with self._idle:
            self._idle.wait_for(lambda: not self._under_way)
        self._codec.shutdown()
        self._searches.put(None)
        self._thread.join()

    def _decode(self, ticket: Ticket, batch: _Batch) -> None:
        def decode() -> None:
            keep_exif = ticket.options.output.keep_exif
            ticket.picture = decode_step(
                ticket.image, ticket.raw_size, self._accepted, keep_exif=keep_exif
            )
            if ticket.options.regions.cover_only:
                height, width = ticket.picture.pixels.shape[:2]
                ticket.faces = no_faces(width, height, *self._detector.serving[:2])

        _step(ticket, "decode", decode)
        if ticket.options.regions.cover_only:
            self._go_on(ticket)  # past the detector, which others wait for
        elif batch.one_less():
            self._searches.put(partial(self._detect, batch.tickets))

    def _search_all(self) -> None:
        """Do, on one thread, all that needs the detector."""
        while (search := self._searches.get()) is not None:
            search()
            del search  # or its pictures would live until the next one comes

    def _detect(self, tickets: Sequence[Ticket]) -> None:
        if len(tickets) > 1:
            self._detect_together(tickets)
        for ticket in tickets:
            if ticket.faces is None:
                self._detect_one(ticket)
            self._go_on(ticket)

    def _detect_together(self, tickets: Sequence[Ticket]) -> None:
        """Set the faces of those that are still wanted; of none where the detector fails."""
        wanted = [ticket for ticket in tickets if ticket.picture and ticket.is_wanted]
        pictures = [ticket.picture.pixels for ticket in wanted if ticket.picture]
        begin = time.perf_counter()
        try:
            found = self._detector.detect_all(pictures, tickets[0].options.detect)
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
                pixels = ticket.picture.pixels
                ticket.faces = self._detector.detect(pixels, ticket.options.detect)

        _step(ticket, "detect", detect)

    def _go_on(self, ticket: Ticket) -> None:
        if ticket.error is None and isinstance(ticket.request, pb.AnonymizeRequest):
            self._codec.submit(self._cover, ticket)
        else:
            ticket.response = pb.DetectResponse()
            self._answer(ticket)

    def _cover(self, ticket: Ticket) -> None:
        picture, faces, options = ticket.picture, ticket.faces, ticket.options

        def mask() -> None:
            if picture is not None and faces is not None:
                ticket.covered = cover_faces(
                    picture.pixels, faces, options.masks, options.regions, in_place=True
                )
                ticket.picture = replace(picture, pixels=ticket.covered.pixels)

        _step(ticket, "mask", mask)
        _step(ticket, "encode", partial(self._encode, ticket))  # nothing where masking failed
        if ticket.error is None and ticket.covered and options.verify:
            ticket.verifier = Verifier(
                options.verify, options.detect, options.masks, options.regions, ticket.covered.kept
            )
            self._search_result(ticket)
        else:
            self._answer(ticket)

    def _encode(self, ticket: Ticket) -> None:
        if ticket.picture is not None and ticket.covered is not None:
            max_bytes = self._accepted.limits.max_bytes
            ticket.response = encode_step(ticket.picture, ticket.options.output, max_bytes)

    def _search_result(self, ticket: Ticket) -> None:
        """Have the picture searched as its caller would see it; for a thread of the codecs."""
        result: UInt8Array | None = None  # stays so after an error

        def decode() -> None:
            nonlocal result
            if isinstance(ticket.response, pb.AnonymizeResponse) and ticket.picture is not None:
                result = result_pixels(ticket.response, ticket.picture)

        _step(ticket, "verify", decode)
        if result is not None and ticket.verifier is not None:
            self._searches.put(partial(self._verify, ticket, ticket.verifier, result))
        else:
            self._answer(ticket)

    def _verify(self, ticket: Ticket, verifier: Verifier, result: UInt8Array) -> None:
        masks: MaskOptions | None = None

        def search() -> None:
            nonlocal masks
            masks = verifier.judge(self._detector.detect(result, verifier.options))

        _step(ticket, "verify", search)
        if masks is not None:
            self._codec.submit(self._cover_more, ticket, verifier, masks)
        else:
            self._codec.submit(self._answer, ticket)

    def _cover_more(self, ticket: Ticket, verifier: Verifier, masks: MaskOptions) -> None:
        def cover() -> None:
            if ticket.picture is not None:
                boxes = verifier.residual_boxes
                pixels = apply_masks(ticket.picture.pixels, boxes, masks, in_place=True)
                ticket.picture = replace(ticket.picture, pixels=pixels)
                self._encode(ticket)

        _step(ticket, "verify", cover)
        self._search_result(ticket)

    def _answer(self, ticket: Ticket) -> None:
        try:
            self._describe(ticket)
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to the caller
            ticket.error = error
        if ticket.error is not None:
            ticket.response = None  # never a picture beside an error
        try:
            self._answered(ticket)
        finally:
            # Now: giving 6 MB back takes a millisecond.
            ticket.picture = ticket.faces = ticket.covered = ticket.verifier = None
            with self._idle:
                self._under_way -= 1
                self._idle.notify_all()

    def _describe(self, ticket: Ticket) -> None:
        """Complete the response; raises where there is none."""
        if ticket.error is not None:
            return
        faces, response, covered = ticket.faces, ticket.response, ticket.covered
        if faces is None or response is None:
            raise EngineError("the detector gave no answer")
        stages = {s: ms for s, ms in faces.timings_ms.items() if s in STAGES}
        steps_ms = {**ticket.steps_ms, **stages}
        if isinstance(response, pb.DetectResponse):
            describe(response, faces, steps_ms)
        elif covered is None:
            raise EngineError("the picture was not covered")
        else:
            if ticket.verifier:
                covered = covered._replace(kept=ticket.verifier.kept)
            verification = ticket.verifier.verification if ticket.verifier else None
            describe(response, covered.faces, steps_ms)
            describe_covering(response, covered.kept, verification)
            if ticket.options.audit:
                response.audit_record = self._audit_record(ticket, response, covered, verification)

    def _audit_record(
        self,
        ticket: Ticket,
        response: pb.AnonymizeResponse,
        covered: Covered,
        verification: Verification | None,
    ) -> str:
        options = ticket.options
        return audit_record(
            ticket.image,
            response.image.encoded or response.image.raw.rgb,
            OUTPUT_FORMATS[response.format],
            profile=options.profile,
            options=options.detect,
            masks=options.masks,
            regions=options.regions,
            faces=covered.faces,
            kept=covered.kept,
            verification=verification,
            searched=ticket.verifier.searched if ticket.verifier else None,
            provenance=self._detector.provenance,
            key=self._audit_key,
            request_id=ticket.request_id,
        )


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
    passed = (time.perf_counter() - begin) * 1000
    ticket.steps_ms[name] = ticket.steps_ms.get(name, 0.0) + passed


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
