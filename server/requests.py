"""From plain arguments to request messages, for the client. Values are checked by the server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unface.errors import InvalidOption
from unface.v1 import unface_pb2 as pb
from unface.worker.messages import METHODS, OUTPUT_FORMATS, SHAPES, number_of


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
) -> pb.AnonymizeOptions:
    """Return options of an anonymization; None is the server's default.

    `format` is a picture format or "raw". Raises `InvalidOption` for what cannot be said in the
    message at all.
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
    message = pb.AnonymizeOptions()
    _fill(message, fields)
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
