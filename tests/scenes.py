"""Pictures with known faces, composed from what scikit-image ships in its wheel."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage import data

Image = NDArray[np.uint8]
HEAD = (slice(20, 220), slice(130, 310))  # rows and columns of the astronaut's head in her portrait
FACE_IN_HEAD = (47, 43, 134, 150)  # her face within the head, x1 y1 x2 y2
TEXTURES = (  # pictures without a face
    "coffee", "chelsea", "rocket", "brick", "grass", "gravel", "coins", "moon", "page", "text",
    "hubble_deep_field", "retina", "immunohistochemistry",
)  # fmt: skip
FACE_WIDTH = FACE_IN_HEAD[2] - FACE_IN_HEAD[0]


@dataclass(frozen=True)
class Scene:
    """A picture, uint8 RGB `[H, W, 3]`, and its faces, float `[n, 4]` `x1 y1 x2 y2`."""

    image: Image
    faces: NDArray[np.float64]


def astronaut() -> Image:
    """Return the portrait, 512 x 512, one face."""
    return np.ascontiguousarray(data.astronaut())  # type: ignore[no-untyped-call]


def background(width: int, height: int, texture: str = "coffee") -> Image:
    """Return a picture without faces, any size: one of `TEXTURES`."""
    picture = getattr(data, texture)()
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, axis=2)
    resized = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(resized, np.uint8)


def compose(
    width: int,
    height: int,
    places: list[tuple[int, int, int]],
    texture: str = "coffee",
    mirrored: bool = False,
) -> Scene:
    """Paste heads whose faces are `size` pixels wide with their corner at x, y: `(x, y, size)`.

    A head may lie across the border; what is outside is cut off.
    """
    canvas = background(width, height, texture)
    portrait, face = astronaut()[HEAD], np.array(FACE_IN_HEAD, np.float64)
    if mirrored:
        portrait = np.ascontiguousarray(portrait[:, ::-1])
        face[[0, 2]] = portrait.shape[1] - face[[2, 0]]
    faces = []
    for x, y, size in places:
        scale = size / FACE_WIDTH
        head = cv2.resize(portrait, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        x1, y1 = max(x, 0), max(y, 0)
        x2, y2 = min(x + head.shape[1], width), min(y + head.shape[0], height)
        canvas[y1:y2, x1:x2] = head[y1 - y : y2 - y, x1 - x : x2 - x]
        faces.append(face * scale + [x, y, x, y])
    return Scene(canvas, np.array(faces, np.float64).reshape(-1, 4))


def crowd(columns: int, rows: int, size: int) -> Scene:
    """Return a grid of heads, faces `size` pixels wide."""
    step_x, step_y = round(size * 2.2), round(size * 2.4)
    places = [(4 + c * step_x, 4 + r * step_y, size) for r in range(rows) for c in range(columns)]
    return compose(columns * step_x + 8, rows * step_y + 8, places)


def iou(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the intersection over union of boxes `[n, 4]` and `[m, 4]` as `[n, m]`."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    area_a, area_b = ((box[:, 2:] - box[:, :2]).prod(axis=1) for box in (a, b))
    return np.asarray(shared / (area_a[:, None] + area_b[None] - shared), np.float64)


def found(scene: Scene, boxes: NDArray[np.floating], at_least: float = 0.5) -> int:
    """Return how many of a scene's faces are covered by boxes with that much overlap."""
    if not len(boxes):
        return 0
    return int((iou(scene.faces, boxes).max(axis=1) >= at_least).sum())
