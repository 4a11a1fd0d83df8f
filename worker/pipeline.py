"""The steps of one picture: decode, mask, encode. What lies between, the detection, is for batches.

Each step is a plain function that may run on any thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unface.anonymize import Limits, MaskOptions, Picture, Regions, Verify, decode, encode, raw_rgb
from unface.anonymize.formats import NAMES, identify
from unface.anonymize.verification import check_verifiable
from unface.errors import ImageTooLarge, InvalidImage, InvalidOption
from unface.mtcnn.faces import Faces
from unface.mtcnn.network import UInt8Array
from unface.mtcnn.options import DetectOptions
from unface.v1 import unface_pb2 as pb
from unface.worker import messages
from unface.worker.covering import Verification
from unface.worker.messages import RAW, OutputOptions

Request = pb.DetectRequest | pb.AnonymizeRequest
Response = pb.DetectResponse | pb.AnonymizeResponse
STAGES = ("pnet", "rnet", "onet")  # of `Faces.timings_ms`


@dataclass(frozen=True)
class Options:
    """What a request asks for; of a detection all but the first are absent.

    Raises `InvalidOption` for a search of a result in which every face is left.
    """

    detect: DetectOptions
    profile: str = messages.DEFAULT_PROFILE
    masks: MaskOptions = field(default_factory=MaskOptions)
    output: OutputOptions = field(default_factory=OutputOptions)
    regions: Regions = field(default_factory=Regions)
    verify: Verify | None = None
    audit: bool = False

    def __post_init__(self) -> None:
        if self.verify:
            check_verifiable(self.masks)


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
    image: memoryview, raw_size: tuple[int, int] | None, accepted: Accepted, keep_exif: bool = False
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
    return decode(data, accepted.limits, keep_exif=keep_exif)


def encode_step(picture: Picture, output: OutputOptions, max_bytes: int) -> pb.AnonymizeResponse:
    """Return the answer with the picture and nothing else; raises `ImageTooLarge`."""
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


def result_pixels(answer: pb.AnonymizeResponse, picture: Picture) -> UInt8Array:
    """Return the pixels that whoever gets an answer to `picture` sees."""
    if answer.format == pb.OUTPUT_FORMAT_RAW:
        return picture.pixels
    own = Limits(len(answer.image.encoded), picture.pixels.shape[0] * picture.pixels.shape[1])
    return decode(answer.image.encoded, own).pixels


def options_of(request: Request) -> Options:
    """Return a request's options; raises `InvalidOption` for any of them."""
    detect = messages.detect_options_from_message(request.detect_options)
    if not isinstance(request, pb.AnonymizeRequest):
        return Options(detect)
    said = request.anonymize_options
    return Options(
        detect,
        request.detect_options.profile or messages.DEFAULT_PROFILE,
        messages.mask_options_from_message(said, request.detect_options.profile),
        messages.output_options_from_message(said),
        messages.regions_from_message(said),
        messages.verify_from_message(said),
        said.audit,
    )


def check_thresholds(thresholds: Sequence[float], least: float) -> None:
    """Raise `InvalidOption` for thresholds that let everything through: minutes of work."""
    names = ("pnet_threshold", "rnet_threshold", "onet_threshold")
    for name, threshold in zip(names, thresholds, strict=True):
        if threshold < least:
            raise InvalidOption(
                f"{name} is {threshold:g}; this server takes {least:g} or more, its operator can "
                "lower min_threshold"
            )


def describe(response: Response, faces: Faces, steps_ms: Mapping[str, float]) -> None:
    """Add to an answer the faces, the size, what computed them, and where the time went."""
    response.faces.extend(messages.faces_to_message(faces))
    response.width, response.height = faces.width, faces.height
    response.backend, response.precision = faces.backend, faces.precision
    timings: dict[str, Any] = {f"{step}_ms": ms for step, ms in steps_ms.items()}
    response.timings.MergeFrom(pb.Timings(**timings))


def describe_covering(
    response: pb.AnonymizeResponse, kept: Faces, verification: Verification | None
) -> None:
    """Add to an answer the faces that were left clear, and what a search of the result found."""
    response.kept.extend(messages.faces_to_message(kept))
    if verification is not None:
        response.verification.clean = verification.clean
        response.verification.residual.extend(messages.faces_to_message(verification.residual))
        response.verification.rounds = verification.rounds
        response.verification.covered.extend(messages.faces_to_message(verification.covered))
