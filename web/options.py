"""Options of a call, as text in a query or a form, and what they are in a request of `unface.v1`.

Here they are only read: which values are accepted is what the worker says, as for gRPC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from unface.errors import InvalidOption
from unface.v1 import unface_pb2 as pb
from unface.web.values import boxes, choice, number, three, truth, whole

Request: TypeAlias = "pb.DetectRequest | pb.AnonymizeRequest"
DETECT, ANONYMIZE, BATCH = "detect", "anonymize", "batch"  # calls; BATCH: archives too
ANSWERS = ("image", "json", "report")
MAX_TEXT = 1 << 10  # bytes of a value
MAX_REGIONS = 1 << 20  # of keep and of cover


@dataclass(frozen=True)
class Option:
    """An option: its JSON Schema, what it does, and how its text gets into a request."""

    name: str
    help: str
    schema: Mapping[str, Any]
    put: Callable[[Any, str], None]
    example: str
    calls: tuple[str, ...] = (ANONYMIZE, BATCH)

    @property
    def most_bytes(self) -> int:
        """How long its text may be, in UTF-8."""
        return MAX_REGIONS if self.name in ("keep", "cover") else MAX_TEXT


@dataclass(frozen=True)
class Chosen:
    """What a client asks for: a request without its picture, and the form of the answer."""

    request: Any  # DetectRequest or AnonymizeRequest
    answer: str | None = None  # of ANSWERS; None: not said


def read_options(given: Iterable[tuple[str, str]], call: str) -> Chosen:
    """Return the request that pairs of name and text ask for; `call` is DETECT, ANONYMIZE or BATCH.

    Raises `InvalidOption` naming the option, for an unknown or repeated one too.
    """
    request: Request = pb.DetectRequest() if call == DETECT else pb.AnonymizeRequest()
    answer, seen = None, set[str]()
    for name, text in given:
        option = find_option(name, call)
        if name in seen:
            raise InvalidOption(f"{name} is given twice; once is enough")
        seen.add(name)
        if len(text.encode("utf-8", "replace")) > option.most_bytes:
            raise InvalidOption(f"{name} is longer than {option.most_bytes} bytes")
        try:
            option.put(request, text)
        except ValueError as error:
            raise InvalidOption(f"{name} is {_quoted(text)}; {error}") from None
        if name == "answer":
            answer = text
    return Chosen(request, answer)


def find_option(name: str, call: str) -> Option:
    """Return the option of a name; raises `InvalidOption` where the call has none such."""
    option = OPTIONS.get(name)
    if option is None or call not in option.calls:
        known = ", ".join(option.name for option in options_of(call))
        raise InvalidOption(f"{_quoted(name)} is no option of {call}; there are {known}")
    return option


def options_of(call: str) -> list[Option]:
    """Return the options that a call takes."""
    return [option for option in OPTIONS.values() if call in option.calls]


# From values into requests ----------------------------------------------------------------------


def _set(field: str, read: Callable[[str], Any], message: str = "") -> Callable[[Any, str], None]:
    """Return what sets a field of the request, or of the message in it that is named."""

    def put(request: Any, text: str) -> None:
        setattr(getattr(request, message) if message else request, field, read(text))

    return put


def _detect(field: str) -> Callable[[Any, str], None]:
    return _set(field, number, "detect_options")


def _put_profile(request: Any, text: str) -> None:
    request.detect_options.profile = text


def _put_thresholds(request: Any, text: str) -> None:
    options = request.detect_options
    found = three(text, number, "numbers")
    for name, value in zip(("pnet", "rnet", "onet"), found, strict=True):
        # onet_threshold says it more exactly, in whatever order the two come.
        if not (name == "onet" and options.HasField("onet_threshold")):
            setattr(options, f"{name}_threshold", value)


def _cover(field: str, read: Callable[[str], Any]) -> Callable[[Any, str], None]:
    return _set(field, read, "anonymize_options")


def _put_color(request: Any, text: str) -> None:
    red, green, blue = three(text, whole, "whole numbers")
    request.anonymize_options.color.CopyFrom(pb.Color(red=red, green=green, blue=blue))


def _put_boxes(field: str) -> Callable[[Any, str], None]:
    def put(request: Any, text: str) -> None:
        getattr(request.anonymize_options.regions, field).extend(boxes(text))

    return put


def _put_cover_only(request: Any, text: str) -> None:
    request.anonymize_options.regions.cover_only = truth(text)


def _put_verify(request: Any, text: str) -> None:
    if text == "false":
        return
    verify = pb.Verify()
    if text != "true":
        try:
            verify.rounds = whole(text)
        except ValueError:
            raise ValueError("it must be true, false, or a number of rounds") from None
    request.anonymize_options.verify.CopyFrom(verify)


def _put_answer(_: Any, text: str) -> None:
    if text not in ANSWERS:
        raise ValueError(f"there are {', '.join(ANSWERS)}")


_METHODS, _method = choice(pb.MaskMethod.DESCRIPTOR)
_SHAPES, _shape = choice(pb.MaskShape.DESCRIPTOR)
_FORMATS, _format = choice(pb.OutputFormat.DESCRIPTOR, "raw")
_PRIORITIES, _priority = choice(pb.Priority.DESCRIPTOR)


def _numeric(least: float, most: float | None = None, **more: Any) -> dict[str, Any]:
    upper = {} if most is None else {"maximum": most}
    return {"type": "number", "minimum": least, **upper, **more}


def _text(pattern: str) -> dict[str, Any]:
    return {"type": "string", "pattern": pattern}


_TRUTH = {"type": "boolean", "default": False}
_PROBABILITY = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
_BOXES = _text(r"^\[.*\]$")
_ALL: Sequence[Option] = (
    Option(
        "profile",
        "accurate, fast (INT8), privacy (finds more, covers more), or another of GET /v1/info",
        {"type": "string", "default": "accurate"},
        _put_profile,
        "privacy",
        calls=(DETECT, ANONYMIZE, BATCH),
    ),
    Option(
        "min_face",
        "Side of the smallest face searched for, in pixels.",
        _numeric(12, default=20),
        _detect("min_face"),
        "40",
        calls=(DETECT, ANONYMIZE, BATCH),
    ),
    Option(
        "scale_factor",
        "Size of one pyramid level relative to the one before: more is slower and finds more.",
        _numeric(0.3, 0.95, default=0.709),
        _detect("scale_factor"),
        "0.8",
        calls=(DETECT, ANONYMIZE, BATCH),
    ),
    Option(
        "thresholds",
        "Least face probability that each of the three networks passes on; default: the profile's.",
        _text(r"^[^,]+,[^,]+,[^,]+$"),
        _put_thresholds,
        "0.6,0.7,0.7",
        calls=(DETECT, ANONYMIZE, BATCH),
    ),
    Option(
        "onet_threshold",
        "That of the third network alone, and so the least score in an answer.",
        _PROBABILITY,
        _detect("onet_threshold"),
        "0.9",
        calls=(DETECT, ANONYMIZE, BATCH),
    ),
    Option(
        "method",
        "How faces are covered. Blurred faces can be recognised; box covers nothing.",
        {**_METHODS, "default": "mosaic"},
        _cover("method", _method),
        "solid",
    ),
    Option(
        "shape",
        "The outline of what is covered.",
        {**_SHAPES, "default": "ellipse"},
        _cover("shape", _shape),
        "rectangle",
    ),
    Option(
        "margin",
        "Part of a box's sides added all around. Default 0.1, with the profile privacy 0.25.",
        _numeric(0, 2),
        _cover("margin", number),
        "0.3",
    ),
    Option(
        "cells",
        "Mosaic: cells along the longer side.",
        {"type": "integer", "minimum": 2, "maximum": 16, "default": 5},
        _cover("cells", whole),
        "4",
    ),
    Option(
        "kernel",
        "Blur: strength, as a part of the box's longer side.",
        _numeric(0.3, 2, default=0.6),
        _cover("kernel", number),
        "1.5",
    ),
    Option(
        "color",
        "Solid: red, green and blue, 0 to 255 each.",
        {**_text(r"^\d+,\d+,\d+$"), "default": "0,0,0"},
        _put_color,
        "255,204,0",
    ),
    Option(
        "format",
        "Format of the covered picture; default: as it came.",
        _FORMATS,
        _cover("format", _format),
        "png",
    ),
    Option(
        "quality",
        "Of JPEG and WebP.",
        {"type": "integer", "minimum": 1, "maximum": 100, "default": 95},
        _cover("quality", whole),
        "90",
    ),
    Option(
        "keep_exif",
        "Keep EXIF data; without it only the colour profile stays.",
        _TRUTH,
        _cover("keep_exif", truth),
        "true",
    ),
    Option(
        "keep",
        "Faces to leave clear: boxes as of detect, in JSON.",
        _BOXES,
        _put_boxes("keep"),
        "[[178,64,265,173]]",
    ),
    Option(
        "cover",
        "Places to cover, whatever is found there: boxes in JSON.",
        _BOXES,
        _put_boxes("cover"),
        "[[10,20,110,140]]",
    ),
    Option(
        "cover_only",
        "Search for nothing, cover only these places.",
        _TRUTH,
        _put_cover_only,
        "true",
    ),
    Option(
        "verify",
        "Search the result for faces that are left, and cover them more strongly: true, or in how "
        "many rounds at most, 0 to 4; true is 2.",
        {"type": "string", "pattern": "^(true|false|[0-4])$", "default": "false"},
        _put_verify,
        "true",
    ),
    Option(
        "audit",
        "Answer with an audit record too.",
        _TRUTH,
        _cover("audit", truth),
        "true",
    ),
    Option(
        "priority",
        "Who goes first when requests wait. Default: interactive, for archives bulk.",
        _PRIORITIES,
        _set("priority", _priority),
        "bulk",
        calls=(DETECT, ANONYMIZE, BATCH),
    ),
    Option(
        "answer",
        "image: the picture alone; json: faces, and the picture in base64; report: without it.",
        {"type": "string", "enum": [*ANSWERS], "default": "image"},
        _put_answer,
        "json",
        calls=(ANONYMIZE,),
    ),
)
OPTIONS: Mapping[str, Option] = {option.name: option for option in _ALL}


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "...")
