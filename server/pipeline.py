"""The way of one request: admission, decode, detect, mask, encode. Knows nothing of gRPC.

Whatever takes long runs on a thread: the event loop only waits. A request that is cancelled stops
at the next step, and keeps its place until the step it is in has let go of the picture.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, NamedTuple, ParamSpec, TypeVar

from unface.anonymize import Limits, MaskOptions, Picture, apply_masks, encode
from unface.errors import ImageTooLarge
from unface.mtcnn.faces import Faces
from unface.mtcnn.network import UInt8Array
from unface.mtcnn.options import DetectOptions
from unface.server import messages
from unface.server.admission import Admission
from unface.server.messages import RAW, OutputOptions
from unface.server.scheduler import Scheduler, finish
from unface.v1 import unface_pb2 as pb

Value = TypeVar("Value")
Args = ParamSpec("Args")


class DetectJob(NamedTuple):
    """What the scheduler's worker is given: uint8 `[H, W, 3]` RGB pixels and options."""

    pixels: UInt8Array
    options: DetectOptions


@dataclass(frozen=True)
class Timed(Generic[Value]):
    """A value and how long it took to compute."""

    value: Value
    ms: float


class Pipeline:
    """Answers `Detect` and `Anonymize` requests.

    `max_bytes` bounds the picture of an answer: a gRPC message holds no more. All methods raise
    the errors of `unface.server.status.CODES`.
    """

    def __init__(
        self,
        detector: Scheduler[DetectJob, Timed[Faces]],
        admission: Admission,
        codec_threads: ThreadPoolExecutor,
        limits: Limits,
    ) -> None:
        self.admission = admission
        self._detector = detector
        self._threads = codec_threads
        self._limits = limits

    async def detect(self, request: pb.DetectRequest, expires_at: float) -> pb.DetectResponse:
        """Answer a request that must begin before `expires_at`, of `time.monotonic()`."""
        options = messages.detect_options_from_message(request.detect_options)
        begin = time.perf_counter()
        async with self.admission.picture(request.ByteSize()):
            picture = await self._on_thread(
                messages.picture_from_message, request.image, self._limits
            )
            faces = await self._detector.run(DetectJob(picture.value.pixels, options), expires_at)
        timings = _timings(begin, decode_ms=picture.ms, detect_ms=faces.ms)
        return messages.detect_response_from_faces(faces.value, timings)

    async def anonymize(
        self, request: pb.AnonymizeRequest, expires_at: float
    ) -> pb.AnonymizeResponse:
        """Answer a request that must begin before `expires_at`, of `time.monotonic()`."""
        options = messages.detect_options_from_message(request.detect_options)
        masks = messages.mask_options_from_message(
            request.anonymize_options, request.detect_options.profile
        )
        output = messages.output_options_from_message(request.anonymize_options)
        begin = time.perf_counter()
        async with self.admission.picture(request.ByteSize()):
            picture = await self._on_thread(
                messages.picture_from_message,
                request.image,
                self._limits,
                keep_exif=output.keep_exif,
            )
            faces = await self._detector.run(DetectJob(picture.value.pixels, options), expires_at)
            masked = await self._on_thread(_masked, picture.value, faces.value, masks)
            answer = await self._on_thread(_encoded, masked.value, output, self._limits.max_bytes)
        answer.value.faces.extend(messages.faces_to_message(faces.value))
        answer.value.width, answer.value.height = faces.value.width, faces.value.height
        answer.value.backend, answer.value.precision = faces.value.backend, faces.value.precision
        answer.value.timings.CopyFrom(
            _timings(
                begin,
                decode_ms=picture.ms,
                detect_ms=faces.ms,
                mask_ms=masked.ms,
                encode_ms=answer.ms,
            )
        )
        return answer.value

    async def _on_thread(
        self, function: Callable[Args, Value], *args: Args.args, **kwargs: Args.kwargs
    ) -> Timed[Value]:
        return await finish(self._threads.submit(timed(function), *args, **kwargs))


def timed(function: Callable[Args, Value]) -> Callable[Args, Timed[Value]]:
    """Return the function with its duration added to what it returns."""

    def run(*args: Args.args, **kwargs: Args.kwargs) -> Timed[Value]:
        begin = time.perf_counter()
        value = function(*args, **kwargs)
        return Timed(value, (time.perf_counter() - begin) * 1000)

    return run


def _masked(picture: Picture, faces: Faces, options: MaskOptions) -> Picture:
    pixels = apply_masks(picture.pixels, faces.boxes, options, scores=faces.scores, in_place=True)
    return Picture(pixels, picture.format, picture.icc_profile, picture.exif)


def _encoded(picture: Picture, output: OutputOptions, max_bytes: int) -> pb.AnonymizeResponse:
    format = output.format or ("png" if picture.format == RAW else picture.format)
    answer = pb.AnonymizeResponse(
        format=messages.number_of(messages.OUTPUT_FORMATS, format, "format")
    )
    if format == RAW:
        size = picture.pixels.nbytes
        if size <= max_bytes:
            messages.put_pixels(answer.image, picture.pixels)
    else:
        data = encode(
            picture.pixels,
            format,
            quality=output.quality,
            icc_profile=picture.icc_profile,
            exif=picture.exif,
        )
        size = len(data)
        answer.image.encoded = data
    if size > max_bytes:
        raise ImageTooLarge(
            f"the anonymized image has {size} bytes as {format}; an answer holds {max_bytes}, "
            "ask for JPEG, for WebP or for a lower quality"
        )
    return answer


def _timings(begin: float, **steps: float) -> pb.Timings:
    """Return the timings of steps; what passed since `begin` besides was queueing."""
    passed = (time.perf_counter() - begin) * 1000
    return pb.Timings(queue_ms=max(0.0, passed - sum(steps.values())), **steps)
