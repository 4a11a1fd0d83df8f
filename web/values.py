"""Values of options, read from text: strictly, and by one way of writing each.

What cannot be read raises a `ValueError` whose message ends the sentence "NAME is 'TEXT'; ...".
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import EnumDescriptor

from unface.v1 import unface_pb2 as pb

MAX_FLOAT = 3.4028234663852886e38  # of float32, in which boxes are sent
MAX_BOXES = 1000  # as unface.proto says
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"\d{1,10}", re.ASCII)


def number(text: str) -> float:
    """Return a finite number in decimal digits."""
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise ValueError("it must be a number")
    return float(text)


def whole(text: str) -> int:
    """Return a whole number that fits 32 bits."""
    if not _WHOLE.fullmatch(text) or int(text) >= 1 << 32:
        raise ValueError("it must be a whole number")
    return int(text)


def truth(text: str) -> bool:
    """Return what "true" or "false" says."""
    if text not in ("true", "false"):
        raise ValueError("it must be true or false")
    return text == "true"


def three(text: str, read: Callable[[str], Any], what: str) -> list[Any]:
    """Return three values with commas between."""
    parts = text.split(",")
    if len(parts) != 3:
        raise ValueError(f"it must be three {what} with commas between")
    return [read(part.strip()) for part in parts]


def boxes(text: str) -> list[pb.Box]:
    """Return the boxes in a JSON list of lists of four numbers."""
    wanted = ValueError("it must be boxes as JSON, such as [[10,20,110,140]] (x1, y1, x2, y2)")
    if text.count(",") > 4 * MAX_BOXES:  # what is longer takes a moment to read
        raise ValueError(f"there are more than {MAX_BOXES} boxes")
    try:
        found = json.loads(text, parse_constant=_refuse, parse_int=float)
    except (ValueError, RecursionError):
        raise wanted from None
    if not isinstance(found, list) or not all(map(_is_box, found)):
        raise wanted
    return [pb.Box(x1=x1, y1=y1, x2=x2, y2=y2) for x1, y1, x2, y2 in found]


def _is_box(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 4
        and all(isinstance(side, float) and abs(side) <= MAX_FLOAT for side in value)
    )


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def names_of(enum: EnumDescriptor) -> dict[str, int]:
    """Return an enum's values by short names, such as "mosaic"; the unset one is left out."""
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return {v.name.removeprefix(prefix).lower(): v.number for v in enum.values if v.number}


def choice(enum: EnumDescriptor, *without: str) -> tuple[dict[str, Any], Callable[[str], int]]:
    """Return the schema of an enum, and what reads it."""
    names = {name: n for name, n in names_of(enum).items() if name not in without}

    def read(text: str) -> int:
        if text not in names:
            raise ValueError(f"there are {', '.join(names)}")
        return names[text]

    return {"type": "string", "enum": [*names]}, read
