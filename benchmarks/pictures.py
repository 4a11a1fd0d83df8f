"""The composed pictures of the tests, whose faces are known: measuring needs no photographs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from scenes import Scene, compose  # type: ignore[import-not-found]

__all__ = ["KINDS", "SIZES", "Picture", "Scene", "compose", "draw", "write"]

SIZES = {"480p": (640, 480), "720p": (1280, 720), "1080p": (1920, 1080), "4k": (3840, 2160)}
JPEG_QUALITY = 92
# Corner of the head and width of the face, in a picture 1920 pixels wide.
FEW = ((100, 80, 24), (500, 60, 90), (900, 100, 180), (200, 600, 40), (1300, 500, 250))
SMALLEST = 24  # pixels a face of `FEW` is wide at least, however small the picture
CROWD_COLUMNS, CROWD_ROWS = 15, 10
CROWD_FACE = 44 / 1080  # width of a face, in heights of the picture
Places = list[tuple[int, int, int]]


@dataclass(frozen=True)
class Picture:
    """A composed picture on disk: JPEG, its RGB pixels as `.npy` uint8 `[H, W, 3]`, its faces.

    `faces` float64 `[n, 4]` `x1 y1 x2 y2`.
    """

    size: str
    kind: str
    jpeg: Path
    pixels: Path
    faces: NDArray[np.float64]


def few(width: int, height: int) -> Places:
    """Return five faces, 24 to 250 pixels wide: smaller in pictures below 1080p, not larger."""
    scale = width / 1920
    return [
        (round(x * scale), round(y * scale), max(SMALLEST, round(size * min(scale, 1))))
        for x, y, size in FEW
    ]


def crowd(width: int, height: int) -> Places:
    """Return 150 faces, 44 pixels wide at 1080p and in proportion at other sizes."""
    face = round(CROWD_FACE * height)
    return [
        (round(column * width / CROWD_COLUMNS), round(row * height / CROWD_ROWS), face)
        for row in range(CROWD_ROWS)
        for column in range(CROWD_COLUMNS)
    ]


def none(width: int, height: int) -> Places:
    """Return no face."""
    return []


KINDS: dict[str, Callable[[int, int], Places]] = {"none": none, "few": few, "crowd": crowd}


def draw(size: str, kind: str) -> Scene:
    """Return a picture of a size (`SIZES`) and kind (`KINDS`), with the truth about its faces."""
    width, height = SIZES[size]
    return compose(width, height, KINDS[kind](width, height))


def write(folder: Path, size: str, kind: str) -> Picture:
    """Write a picture as JPEG and the pixels that every detector is given, decoded from it once."""
    scene = draw(size, kind)
    jpeg, pixels = (folder / f"{size}-{kind}.{suffix}" for suffix in ("jpg", "npy"))
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    encoded = cv2.imencode(".jpg", scene.image[..., ::-1], options)[1]
    jpeg.write_bytes(encoded.tobytes())
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert decoded is not None
    np.save(pixels, np.ascontiguousarray(decoded[..., ::-1]))
    return Picture(size, kind, jpeg, pixels, scene.faces)
