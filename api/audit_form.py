"""What an audit record may hold; imports no room."""

from __future__ import annotations

import math
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

VERSION = 1
ALGORITHM = "Ed25519"
SIGNATURE_BYTES, PUBLIC_BYTES = 64, 32  # RFC 8032, section 5.1
MASK_FIELDS: dict[str, tuple[str, ...]] = {  # by method, beside those of every mask
    "mosaic": ("cells",),
    "blur": ("kernel",),
    "solid": ("color",),
    "box": (),
}
DETECTION_FIELDS = ("profile", "min_face", "scale_factor", "thresholds", "precision")
ENGINE_FIELDS = ("network", "precision", "sha256")
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"  # RFC 3339, in UTC
_MOST_COUNT = 2**53 - 1

# A form is: what says whether a value fits, fields by name, [the form of each item], or (a form,)
# of what may be null.
Form = Callable[[Any], bool] | dict[str, Any] | list[Any] | tuple[Any]


def check_file(value: Any) -> None:
    """Raise `ValueError` unless parsed JSON is a record with its signature, or with null."""
    _check(value, {"record": _is_object, "signature": (_SIGNATURE,)}, "the file")
    check_record(value["record"])


def check_record(record: Mapping[str, Any]) -> None:
    """Raise `ValueError`, with the field's name, for what no record of this version holds."""
    number = record.get("unface_audit")
    if number != VERSION or type(number) is not int:
        raise ValueError(
            f"it is no record of version {VERSION}, the one that is known here: unface_audit is "
            f"{_shown(number)}"
        )
    _check(record, _RECORD, "record")
    method = record["mask"].get("method")
    if not isinstance(method, str) or method not in MASK_FIELDS:
        raise ValueError(f"record.mask.method is {_shown(method)}")
    names = ("method", "shape", "margin", *MASK_FIELDS[method])
    _check(record["mask"], {name: _MASK[name] for name in names}, "record.mask")


def _check(value: Any, form: Form, name: str) -> None:
    if isinstance(form, tuple):
        if value is not None:
            _check(value, form[0], name)
    elif isinstance(form, list):
        if not isinstance(value, list):
            raise ValueError(f"{name} is {_shown(value)}, not a list")
        for index, item in enumerate(value):
            _check(item, form[0], f"{name}[{index}]")
    elif isinstance(form, dict):
        if not isinstance(value, Mapping):
            raise ValueError(f"{name} is {_shown(value)}, not an object")
        if missing := sorted(form.keys() - value.keys()):
            raise ValueError(f"{name} lacks {', '.join(missing)}")
        if more := sorted(value.keys() - form.keys()):
            raise ValueError(f"{name} has {_shown(more[0])}, which no record has")
        for field, own in form.items():
            _check(value[field], own, f"{name}.{field}")
    elif not form(value):
        raise ValueError(f"{name} is {_shown(value)}, which cannot be")


def _shown(value: Any) -> str:
    """Return a value for a message: short, ASCII, without control characters."""
    if isinstance(value, (list, Mapping)):
        return "a list" if isinstance(value, list) else "an object"
    text = ascii(value if not isinstance(value, str) else value[:60])
    return text if len(text) <= 60 else text[:57] + "..."


def _matches(pattern: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _is_time(value: Any) -> bool:
    if not _matches(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")(value):
        return False
    try:
        datetime.strptime(value, TIME_FORMAT)
    except ValueError:
        return False
    return True


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MOST_COUNT


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_box(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 4 or not all(map(_is_number, value)):
        return False
    x1, y1, x2, y2 = value
    return bool(x1 <= x2 and y1 <= y2)


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_base64(length: int) -> Callable[[Any], bool]:
    """Return what takes base64 of so many bytes, in the one way of writing it."""

    def fits(value: Any) -> bool:
        if not isinstance(value, str):
            return False
        try:
            data = b64decode(value, validate=True)
        except ValueError:
            return False
        return len(data) == length and b64encode(data).decode() == value

    return fits


_WORD = _matches(r"[ -~]{0,64}")
_SHA256 = _matches(r"[0-9a-f]{64}")
_FACE = {"box": _is_box, "score": lambda v: _is_number(v) and 0 <= v <= 1}
_DETECTION: dict[str, Form] = {
    "profile": _WORD,
    "min_face": _is_number,
    "scale_factor": _is_number,
    "thresholds": lambda v: isinstance(v, list) and len(v) == 3 and all(map(_is_number, v)),
    "precision": (_WORD,),
}
_MASK: dict[str, Form] = {
    "method": _WORD,
    "shape": _WORD,
    "margin": _is_number,
    "cells": _is_count,
    "kernel": _is_number,
    "color": lambda v: (
        isinstance(v, list) and len(v) == 3 and all(_is_count(c) and c <= 255 for c in v)
    ),
}
_VERIFICATION = {
    "clean": lambda v: isinstance(v, bool),
    "residual": [_FACE],
    "rounds": _is_count,
    "covered": [_FACE],
}
_RECORD: dict[str, Form] = {
    "unface_audit": _is_count,
    "version": _matches(r"[0-9A-Za-z.+!_-]{1,64}"),  # of unface, PEP 440
    "time": _is_time,
    "request_id": _matches(r"[A-Za-z0-9._-]{0,64}"),
    "input": {"sha256": _SHA256, "bytes": _is_count},
    "output": {
        "sha256": _SHA256,
        "bytes": _is_count,
        "format": _matches("jpeg|png|webp|raw"),
        "width": _is_count,
        "height": _is_count,
    },
    "detection": (_DETECTION,),
    "faces": [_FACE],
    "kept": [_FACE],
    "keep": [_is_box],
    "cover": [_is_box],
    "mask": _is_object,  # its fields hang on the method
    "verification": (_VERIFICATION,),
    "backend": _WORD,
    "precision": _WORD,
    "engines": [{"network": _WORD, "precision": _WORD, "sha256": _SHA256}],
    "certificates": [_SHA256],
}
_SIGNATURE: dict[str, Form] = {
    "algorithm": _matches(ALGORITHM),
    "public_key": _is_base64(PUBLIC_BYTES),
    "value": _is_base64(SIGNATURE_BYTES),
}
