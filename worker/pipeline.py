"""The steps of one picture: decode, mask, encode. What lies between, the detection, is for batches.

Each step is a plain function that may run on any thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unface.anonymize import Limits, Picture, apply_masks, decode, encode, raw_rgb
from unface.anonymize.formats import NAMES, identify
from unface.errors import ImageTooLarge, InvalidImage
from unface.mtcnn.faces import Faces
from unface.mtcnn.options import DetectOptions
from unface.v1 import unface_pb2 as pb
from unface.worker import messages
from unface.worker.messages import RAW, OutputOptions

Request = pb.DetectRequest | pb.AnonymizeRequest
Response = pb.DetectResponse | pb.AnonymizeResponse
STAGES = ("pnet", "rnet", "onet")  # of `Faces.timings_ms`


@dataclass(frozen=True)
class Accepted:
    """The largest pictures and the formats that are accepted."""

    limits: Limits
    formats: tuple[str, ...]


def request_from_bytes(method: str, data: bytes) -> Request:
    """Return the request of "Detect" or "Anonymize"."""
    if method == "Detect":
        return pb.DetectRequest.FromString(data)
    return pb.AnonymizeRequest.FromString(data)


def decode_step(
    request: Request, image: memoryview, raw_size: tuple[int, int] | None, accepted: Accepted
) -> Picture:
    """Return the decoded picture: of a file, or of raw pixels of a size.

    A raw one has the format `RAW`, shares the memory of the request and is read-only. Raises
    `InvalidImage` and `ImageTooLarge`.
    """
    if raw_size is not None:
        return Picture(raw_rgb(*raw_size, image, accepted.limits), RAW)
    data = bytes(image)
    format = identify(data)
    if format not in accepted.formats:
        names = " or ".join(NAMES[name] for name in accepted.formats)
        raise InvalidImage(f"image is {NAMES[format]}, not accepted by this server; send {names}")
    keep_exif = isinstance(request, pb.AnonymizeRequest) and request.anonymize_options.keep_exif
    return decode(data, accepted.limits, keep_exif=keep_exif)


def mask_step(request: pb.AnonymizeRequest, picture: Picture, faces: Faces) -> Picture:
    """Return the picture with its faces covered, in place where its memory is our own."""
    masks = messages.mask_options_from_message(
        request.anonymize_options, request.detect_options.profile
    )
    pixels = apply_masks(picture.pixels, faces.boxes, masks, scores=faces.scores, in_place=True)
    return Picture(pixels, picture.format, picture.icc_profile, picture.exif)


def encode_step(
    request: pb.AnonymizeRequest, picture: Picture, max_bytes: int
) -> pb.AnonymizeResponse:
    """Return the answer with the picture and nothing else; raises `ImageTooLarge`."""
    output = messages.output_options_from_message(request.anonymize_options)
    return _encoded(picture, output, max_bytes)


def check_options(request: Request) -> DetectOptions:
    """Return the detection's options; raises `InvalidOption` for any of the request's."""
    options = messages.detect_options_from_message(request.detect_options)
    if isinstance(request, pb.AnonymizeRequest):
        messages.mask_options_from_message(
            request.anonymize_options, request.detect_options.profile
        )
        messages.output_options_from_message(request.anonymize_options)
    return options


def describe(response: Response, faces: Faces, steps_ms: Mapping[str, float]) -> None:
    """Add to an answer the faces, the size, what computed them, and where the time went."""
    response.faces.extend(messages.faces_to_message(faces))
    response.width, response.height = faces.width, faces.height
    response.backend, response.precision = faces.backend, faces.precision
    timings: dict[str, Any] = {f"{step}_ms": ms for step, ms in steps_ms.items()}
    response.timings.MergeFrom(pb.Timings(**timings))


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
