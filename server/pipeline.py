"""The way of one request through the server: to a job, to a worker, to an answer. Not gRPC."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from unface.anonymize.limits import Limits, check_bytes
from unface.anonymize.sizes import declared_size
from unface.errors import InvalidImage, InvalidOption
from unface.server.config import ServerConfig
from unface.server.jobs import BULK, INTERACTIVE, Job, WorkFailed
from unface.server.record import STEPS, WORK, Observer, Record
from unface.server.scheduler import Scheduler
from unface.server.status import Failure, failure_from_exception
from unface.server.trial import Trial
from unface.server.wire import Parts
from unface.v1 import unface_pb2 as pb

Request = pb.DetectRequest | pb.AnonymizeRequest
Response = pb.DetectResponse | pb.AnonymizeResponse
HEAD_BYTES = 256 << 10  # of a file, in which it says its size
GUESSED_PIXELS = 10  # a byte, where it does not
DEFAULT_PROFILE = "accurate"  # as `unface.worker.messages`, which needs numpy and OpenCV
_PRIORITIES = {pb.PRIORITY_INTERACTIVE: INTERACTIVE, pb.PRIORITY_BULK: BULK}


@dataclass(frozen=True)
class Call:
    """Who asks for what, under which name and until when."""

    method: str  # "Detect", "AnonymizeStream", ...
    client: str
    request_id: str
    expires_at: float = float("inf")  # of time.monotonic()
    trace_parent: str = ""
    began: float = field(default_factory=time.time)
    arrived: float = field(default_factory=time.perf_counter)


class Pipeline:
    """Answers requests; every one becomes a `Record` for the observers."""

    def __init__(
        self,
        config: ServerConfig,
        scheduler: Scheduler,
        observers: Sequence[Observer],
        trial: Trial | None = None,
    ) -> None:
        self._limits = Limits(config.max_message_bytes, config.max_pixels)
        self._scheduler = scheduler
        self._observers = observers
        self._trial = trial

    async def answer(self, parts: Parts[Any] | InvalidOption, call: Call) -> Response | Failure:
        """Return the answer, or what the client is told instead."""
        if isinstance(parts, InvalidOption):
            failure = failure_from_exception(parts, call.request_id)
            self._observe(call, failure.code.name, failure.reason)
            return failure
        request = parts.request
        arm = self._trial.arm(request, call.request_id) if self._trial else ""
        job: Job | None = None
        try:
            job = self._job(parts, call)
            response = _response(call.method, (await self._scheduler.run(job)).body)
        except asyncio.CancelledError:
            self._observe(call, "CANCELLED", arm=arm, pixels=job.pixels if job else 0)
            raise
        except Exception as error:  # noqa: BLE001 - the boundary: logged and told by status.py
            failure = failure_from_exception(error, call.request_id)
            steps = error.steps_ms if isinstance(error, WorkFailed) else {}
            pixels = job.pixels if job else 0
            self._observe(
                call, failure.code.name, failure.reason, arm=arm, pixels=pixels, steps_ms=steps
            )
            return failure
        self._finish(response, request, call, arm)
        if self._trial and arm == "a":
            self._trial.shadow(self._scheduler, request, job, response)
        return response

    def refused(self, record: Record) -> None:
        """Tell the observers of a request that got no further."""
        for observe in self._observers:
            observe(record)

    def _job(self, parts: Parts[Any], call: Call) -> Job:
        """Return the job of a request; raises `InvalidImage` for what is no picture at all."""
        request, image = parts.request, parts.image
        if image is None:
            raise InvalidImage("image is missing; set encoded (a JPEG, PNG or WebP file) or raw")
        pixels = len(image) // 3 if parts.raw_size else self._declared_pixels(image)
        if call.method.startswith("Anonymize") and request.anonymize_options.HasField("verify"):
            pixels *= 2  # the result is decoded and searched too
        default = BULK if call.method.endswith("Stream") else INTERACTIVE
        return Job(
            request_id=call.request_id,
            method=call.method.removesuffix("Stream"),
            request=request.SerializeToString(),
            image=image,
            raw_size=parts.raw_size,
            pixels=pixels,
            client=call.client,
            priority=_PRIORITIES.get(request.priority, default),
            expires_at=call.expires_at,
            bucket=bucket(request, pixels),
        )

    def _declared_pixels(self, image: memoryview) -> int:
        """Return what a file says of its size, or a guess; more than is accepted costs no more."""
        check_bytes(len(image), self._limits)
        _, width, height = declared_size(bytes(image[:HEAD_BYTES]))
        return min(width * height or len(image) * GUESSED_PIXELS, self._limits.max_pixels)

    def _finish(self, response: Response, request: Request, call: Call, arm: str) -> None:
        """Add to an answer what the server alone knows, and tell the observers."""
        seconds = time.perf_counter() - call.arrived
        timings = response.timings
        worked = sum(getattr(timings, f"{step}_ms") for step in WORK)
        timings.queue_ms = max(0.0, seconds * 1000 - worked)
        response.request_id = call.request_id
        response.profile = request.detect_options.profile or DEFAULT_PROFILE
        steps = {step: getattr(timings, f"{step}_ms") for step in STEPS}
        self._observe(
            call,
            "OK",
            arm=arm,
            seconds=seconds,
            steps_ms={step: ms for step, ms in steps.items() if ms},
            pixels=response.width * response.height,
            scores=tuple(face.score for face in response.faces),
            backend=response.backend,
            precision=response.precision,
            profile=response.profile,
        )

    def _observe(self, call: Call, code: str, reason: str = "", **known: Any) -> None:
        record = Record(
            request_id=call.request_id,
            method=call.method,
            client=call.client,
            code=code,
            reason=reason,
            began=call.began,
            trace_parent=call.trace_parent,
            **{"seconds": time.perf_counter() - call.arrived, **known},
        )
        for observe in self._observers:
            observe(record)


def bucket(request: Request, pixels: int) -> tuple[bytes, int]:
    """Return what pictures detected together have in common: options, and about the size."""
    return request.detect_options.SerializeToString(deterministic=True), pixels.bit_length()


def _response(method: str, body: bytes) -> Response:
    if method.startswith("Detect"):
        return pb.DetectResponse.FromString(body)
    return pb.AnonymizeResponse.FromString(body)
