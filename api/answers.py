"""From response messages to plain values, for the clients."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from unface.anonymize import Limits, decode
from unface.arguments import Anonymized
from unface.errors import ServerError
from unface.mtcnn.faces import Faces
from unface.mtcnn.options import DetectOptions
from unface.v1 import unface_pb2 as pb
from unface.worker.covering import Verification
from unface.worker.messages import (
    detect_options_from_message,
    faces_from_message,
    pixels_from_message,
)


@dataclass(frozen=True)
class ServedFaces(Faces):
    """Faces that a server found, and what a report about them says."""

    request_id: str = field(default="", compare=False)  # what the server's log calls the request
    profile: str = ""  # that served; another than was asked for while the operator tries one


@dataclass(frozen=True)
class ServerInfo:
    """What serves, and within which limits."""

    version: str
    backend: str  # "native", "tflite", "cuda"
    precision: str  # "fp32", "int8", "fp16"
    threads: int  # CPU threads of one detection
    engines: dict[str, str]  # network -> SHA-256 of its engine of that precision
    max_bytes: int  # of a picture as sent
    max_pixels: int  # width x height
    formats: tuple[str, ...]
    profiles: dict[str, DetectOptions]
    device: str  # name of the GPU that computes; empty: the CPU does
    device_reason: str  # why no GPU does
    audit_signed: bool  # whether audit records are signed


@dataclass(frozen=True)
class Reloaded:
    """What serves after the engines were loaded anew."""

    backend: str
    precision: str
    engines: dict[str, str]  # network -> SHA-256 of its engine of that precision


@dataclass(frozen=True)
class Reported:
    """What became of a report."""

    report_id: int  # its number in the operator's store
    crops_kept: bool  # whether encrypted crops of the reported places were kept


def faces_from_answer(response: pb.DetectResponse | pb.AnonymizeResponse) -> ServedFaces:
    """Return the faces of an answer; raises `ServerError` for one that says nothing."""
    if not (response.width and response.height):  # no picture is so small: not "no faces"
        raise ServerError("the server's answer is empty")
    return ServedFaces(
        **vars(faces_from_message(response)),
        request_id=response.request_id,
        profile=response.profile,
    )


def anonymized_from_answer(response: pb.AnonymizeResponse, was_file: bool) -> Anonymized[Any]:
    """Return the covered picture and its faces: file bytes if a file was sent, else an array.

    Raises `ServerError` when there is no such picture in the answer.
    """
    faces, image = faces_from_answer(response), response.image
    beside = (
        faces,
        faces_from_message(response, response.kept),
        _verification(response),
        response.audit_record,
    )
    if was_file and image.encoded:
        return Anonymized(image.encoded, *beside)
    if was_file or image.WhichOneof("source") is None:
        raise ServerError("the server's answer has no picture in it")
    try:
        if image.WhichOneof("source") == "raw":
            return Anonymized(pixels_from_message(image), *beside)
        own = Limits(max(1, len(image.encoded)), faces.width * faces.height)
        return Anonymized(decode(image.encoded, own).pixels, *beside)
    except ValueError as error:
        raise ServerError(f"the picture in the server's answer is broken: {error}") from error


def info_from_answer(response: pb.GetServerInfoResponse) -> ServerInfo:
    """Return what serves."""
    return ServerInfo(
        version=response.version,
        backend=response.backend,
        precision=response.precision,
        threads=response.threads,
        engines=_engines(response.engines, response.precision),
        max_bytes=response.limits.max_bytes,
        max_pixels=response.limits.max_pixels,
        formats=tuple(response.formats),
        profiles={
            profile.name: replace(
                detect_options_from_message(profile.options),
                precision=profile.precision or None,
            )
            for profile in response.profiles
        },
        device=response.device,
        device_reason=response.device_reason,
        audit_signed=response.audit_signed,
    )


def reloaded_from_answer(response: pb.ReloadResponse) -> Reloaded:
    """Return what serves now."""
    engines = _engines(response.engines, response.precision)
    return Reloaded(response.backend, response.precision, engines)


def _verification(response: pb.AnonymizeResponse) -> Verification | None:
    if not response.HasField("verification"):
        return None
    said = response.verification
    residual = tuple(faces_from_message(response, said.residual))
    return Verification(residual, said.rounds, tuple(faces_from_message(response, said.covered)))


def _engines(engines: Iterable[pb.Engine], precision: str) -> dict[str, str]:
    return {engine.name: engine.sha256 for engine in engines if engine.precision == precision}
