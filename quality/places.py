"""Reported places of a picture: what a report holds, and whether it can be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from unface.errors import InvalidOption

MAX_PLACES = 1000  # in one report


Kind = Literal["missed", "false"]


class Place(NamedTuple):
    """A face that was missed, or a box that is no face; pixels of the upright picture."""

    kind: Kind
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True)
class Report:
    """What was reported about one answer. `width` and `height` are None if not known."""

    request_id: str
    profile: str
    width: int | None
    height: int | None
    places: tuple[Place, ...]
    id: int = 0  # in the store
    time: float = 0.0  # of time.time(), when it came


class Window(NamedTuple):
    """A part of a picture, in whole pixels."""

    x: int
    y: int
    width: int
    height: int


class Crop(NamedTuple):
    """A crop of the place with the number `place` in its report: where it lies, and a PNG file."""

    place: int
    window: Window
    png: bytes


def check_report(report: Report) -> None:
    """Raise `InvalidOption` unless there are places, not too many, and each inside the picture.

    Where the picture's size is not known, coordinates need only be finite and 0 or more.
    """
    count = len(report.places)
    if not 1 <= count <= MAX_PLACES:
        raise InvalidOption(f"{count} places are reported; 1 to {MAX_PLACES} are accepted")
    width = math.inf if report.width is None else report.width
    height = math.inf if report.height is None else report.height
    for kind, x1, y1, x2, y2 in report.places:
        # NaN fails every comparison.
        if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height and math.isfinite(x2 + y2)):
            raise InvalidOption(
                f"a {kind} place is {x1:g}, {y1:g}, {x2:g}, {y2:g}; x1 < x2 and y1 < y2 inside of "
                f"the picture are needed, which is {width:g} x {height:g}"
            )
