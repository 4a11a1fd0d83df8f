"""From plain arguments to request messages, for the clients. Values are checked by the server."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, cast

from unface.anonymize import Limits, encode
from unface.anonymize.limits import check_rgb_image
from unface.answers import ServedFaces, anonymized_from_answer, faces_from_answer
from unface.arguments import (
    AnonymizeArguments,
    Anonymized,
    DetectArguments,
    Image,
    Said,
    check_for_array,
    is_file,
    read_file,
    split_arguments,
)
from unface.errors import InvalidOption, ServerError
from unface.v1 import unface_pb2 as pb
from unface.worker.messages import METHODS, OUTPUT_FORMATS, RAW, SHAPES, number_of, put_pixels

FILE_LIMITS = Limits(max_bytes=1 << 30)  # gRPC counts in 31 bits; the server has its own limit
RAW_LIMIT = Limits().max_bytes  # larger arrays travel as PNG, which loses nothing

Priority = Literal["interactive", "bulk"]
PRIORITIES = {pb.PRIORITY_INTERACTIVE: "interactive", pb.PRIORITY_BULK: "bulk"}

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Exchange(Generic[Answer]):
    """How a picture becomes a request, and a response the answer to that picture."""

    request: Callable[[Image], Any]  # raises InvalidImage and InvalidOption
    answer: Callable[[Any, bool], Answer]  # of the response, and whether the picture was a file


def detection(options: DetectArguments, priority: Priority | None) -> Exchange[ServedFaces]:
    """Return how to ask for faces; raises `InvalidOption` for options that cannot be sent."""
    message = detect_options_message(**options)
    number = priority_number(priority)

    def request(image: Image) -> pb.DetectRequest:
        sent = pb.DetectRequest(detect_options=message, priority=number)
        put_image(sent.image, image)
        return sent

    return Exchange(request, lambda response, _was_file: faces_from_answer(response))


def anonymization(
    options: AnonymizeArguments, priority: Priority | None
) -> Exchange[Anonymized[Any]]:
    """Return how to have faces covered; raises `InvalidOption` for what cannot be sent."""
    said = split_arguments(options)
    detect_message = detect_options_message(**said.detect)
    message = anonymize_options_message(
        **said.mask, **said.output, **said.regions, rounds=said.rounds, audit=said.audit
    )
    number = priority_number(priority)

    def request(image: Image) -> pb.AnonymizeRequest:
        _check_output(image, said)
        sent = pb.AnonymizeRequest(
            detect_options=detect_message, anonymize_options=message, priority=number
        )
        put_image(sent.image, image)
        if not is_file(image):
            raw = sent.image.WhichOneof("source") == "raw"
            sent.anonymize_options.format = pb.OUTPUT_FORMAT_RAW if raw else pb.OUTPUT_FORMAT_PNG
        return sent

    def answer(response: pb.AnonymizeResponse, was_file: bool) -> Anonymized[Any]:
        if said.rounds is not None and not response.HasField("verification"):
            raise ServerError("the server did not search the result; it is too old for verify")
        if said.audit and not response.audit_record:
            raise ServerError("the server's answer has no audit record; it is too old for audit")
        return anonymized_from_answer(response, was_file)

    return Exchange(request, answer)


def report_request(
    image: Image,
    missed: Sequence[Sequence[float]],
    false_faces: Sequence[Sequence[float]],
    request_id: str,
    profile: str,
) -> pb.ReportRequest:
    """Return a report; boxes are `x1 y1 x2 y2`. Raises `InvalidImage` and `InvalidOption`."""
    sent = pb.ReportRequest(
        request_id=request_id,
        missed=_boxes("missed", missed),
        false_faces=_boxes("false_faces", false_faces),
        profile=profile,
    )
    put_image(sent.image, image)
    return sent


def put_image(message: pb.Image, image: Image) -> None:
    """Put a picture into a message as it travels; raises `InvalidImage` for what is none."""
    if isinstance(image, (str, os.PathLike)):
        message.encoded = read_file(image, FILE_LIMITS)
    elif isinstance(image, (bytes, bytearray, memoryview)):
        message.encoded = bytes(image)
    else:
        check_rgb_image(image)
        if image.nbytes <= RAW_LIMIT:
            put_pixels(message, image)
        else:
            message.encoded = encode(image, "png")


def priority_number(priority: Priority | None) -> pb.Priority.ValueType:
    """Return a priority as the message says it; None is the server's default."""
    if priority is None:
        return pb.PRIORITY_UNSPECIFIED
    return cast("pb.Priority.ValueType", number_of(PRIORITIES, priority, "priority"))


def detect_options_message(
    *,
    profile: str | None = None,
    min_face: float | None = None,
    scale_factor: float | None = None,
    thresholds: tuple[float, float, float] | None = None,
) -> pb.DetectOptions:
    """Return options of a detection; None is the server's default.

    Raises `InvalidOption` for what cannot be said in the message at all.
    """
    fields: dict[str, Any] = {
        "profile": profile,
        "min_face": min_face,
        "scale_factor": scale_factor,
    }
    if thresholds is not None:
        if len(thresholds) != 3:
            raise InvalidOption(
                f"thresholds are {thresholds}; three numbers between 0 and 1 are needed"
            )
        names = ("pnet_threshold", "rnet_threshold", "onet_threshold")
        fields.update(zip(names, thresholds, strict=True))
    message = pb.DetectOptions()
    _fill(message, fields)
    return message


def anonymize_options_message(
    *,
    method: str | None = None,
    shape: str | None = None,
    margin: float | None = None,
    cells: int | None = None,
    kernel: float | None = None,
    color: tuple[int, int, int] | None = None,
    format: str | None = None,
    quality: int | None = None,
    keep_exif: bool | None = None,
    keep: Sequence[Sequence[float]] = (),
    cover: Sequence[Sequence[float]] = (),
    cover_only: bool = False,
    rounds: int | None = None,
    audit: bool = False,
) -> pb.AnonymizeOptions:
    """Return options of an anonymization; None is the server's default.

    `format` is a picture format or "raw". `rounds` None has no result searched. Raises
    `InvalidOption` for what cannot be said in the message at all.
    """
    fields: dict[str, Any] = {
        "margin": margin,
        "cells": cells,
        "kernel": kernel,
        "quality": quality,
        "keep_exif": keep_exif,
    }
    for name, value, numbers in (
        ("method", method, METHODS),
        ("shape", shape, SHAPES),
        ("format", format, OUTPUT_FORMATS),
    ):
        if value is not None:
            fields[name] = number_of(numbers, value, name)
    message = pb.AnonymizeOptions(audit=audit)
    _fill(message, fields)
    if len(keep) or len(cover) or cover_only:
        message.regions.keep.extend(_boxes("keep", keep))
        message.regions.cover.extend(_boxes("cover", cover))
        message.regions.cover_only = cover_only
    if rounds is not None:
        _fill(message.verify, {"rounds": rounds})
    if color is not None:
        if len(color) != 3:
            raise InvalidOption(f"color is {color!r}; red, green and blue from 0 to 255 are needed")
        try:
            message.color.CopyFrom(pb.Color(red=color[0], green=color[1], blue=color[2]))
        except (TypeError, ValueError) as error:
            raise InvalidOption(f"color is {color!r}, which cannot be sent: {error}") from error
    return message


def _fill(message: Any, fields: Mapping[str, Any]) -> None:
    """Set the fields that are not None."""
    for name, value in fields.items():
        if value is None:
            continue
        try:
            setattr(message, name, value)
        except (TypeError, ValueError) as error:
            raise InvalidOption(f"{name} is {value!r}, which cannot be sent: {error}") from error


def _boxes(name: str, boxes: Sequence[Sequence[float]]) -> list[pb.Box]:
    try:
        return [pb.Box(x1=x1, y1=y1, x2=x2, y2=y2) for x1, y1, x2, y2 in boxes]
    except (TypeError, ValueError) as error:
        raise InvalidOption(
            f"{name} is {boxes!r}; boxes of four numbers x1, y1, x2, y2 are needed"
        ) from error


def _check_output(image: Image, said: Said) -> None:
    """Raise `InvalidOption` for a form that the picture cannot come back in."""
    if is_file(image):
        if said.output.get("format") == RAW:
            raise InvalidOption("format is 'raw'; a file comes back as jpeg, png or webp")
    else:
        check_for_array(said)
