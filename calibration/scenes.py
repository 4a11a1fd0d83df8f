"""Pictures that ship: composed scenes with known faces, for calibrating and for the gate.

One public-domain portrait in many sizes, angles, colours and lights, on scenes without faces. That
is one person: it shows what a change of number format does, not how good a detector is; for that,
and whenever there are any, use labelled photographs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files

import cv2
import numpy as np
from numpy.typing import NDArray

from unface.calibration.labels import LabelledPicture, LabelledSet
from unface.errors import InvalidImage
from unface.mtcnn.network import UInt8Array

BACKGROUNDS = ("coffee", "chelsea", "rocket", "hubble", "brick", "grass", "gravel")
# In the portrait, marked by hand on a sevenfold enlargement; x y.
HEAD = (130, 20, 310, 220)  # what is pasted: x1 y1 x2 y2
FACE = (177, 63, 264, 170)
LANDMARKS = ((204.5, 101), (247.5, 104), (222.5, 127.5), (203.5, 139.5), (246.5, 140.5))
FADE = 0.06  # of the head's width: soft edges, so that no frame is seen as an edge
MOST_TILT = 12.0  # degrees
WIDTH, HEIGHT = 800, 600  # pixels of a scene

# (columns, rows, smallest face, largest face in pixels of height, scenes) of the labelled scenes.
GRIDS = ((8, 5, 16, 20, 3), (6, 4, 20, 40, 5), (5, 3, 40, 80, 7), (3, 2, 80, 140, 18))
SEED_LABELLED, SEED_CALIBRATION = 20_160_401, 7  # other places, lights and angles in each
SAME_RULES = LabelledSet(0.5)


@dataclass(frozen=True)
class Head:
    """Where and how the portrait's head is pasted: face centre and height in pixels, degrees."""

    x: float
    y: float
    height: float
    tilt: float
    stretch: float  # width over height, 1 as in the portrait
    mirrored: bool
    tint: tuple[float, float, float]  # factors of red, green, blue


@dataclass(frozen=True)
class Scene:
    """A picture to be composed: `seed` makes its noise, `look` is one of `LOOKS`."""

    background: str
    heads: tuple[Head, ...]
    look: str
    seed: int


def calibration_images() -> list[UInt8Array]:
    """Return the pictures to calibrate on when there are no others, RGB uint8 `[H, W, 3]`.

    Heads in all sizes, also crowds, under all lights, and scenes without faces.
    """
    rng = np.random.default_rng(SEED_CALIBRATION)
    scenes = []
    for look in LOOKS:
        for columns, rows, low, high in ((10, 7, 14, 24), (6, 4, 22, 60), (3, 2, 60, 160)):
            scenes.append(_grid(rng, columns, rows, (low, high), look))
        scenes.append(_grid(rng, 1, 1, (160, 260), look))
        scenes.append(Scene(str(rng.choice(BACKGROUNDS)), (), look, int(rng.integers(2**31))))
    return [picture("astronaut"), *(render(scene) for scene in scenes)]


def labelled_scenes() -> list[LabelledPicture]:
    """Return the pictures of the gate when there are no others, with the truth about their faces.

    Over a hundred faces in each size band, and every background without a face.
    """
    rng = np.random.default_rng(SEED_LABELLED)
    scenes = [
        _grid(rng, columns, rows, (low, high), list(LOOKS)[(band + index) % len(LOOKS)])
        for band, (columns, rows, low, high, count) in enumerate(GRIDS)
        for index in range(count)
    ]
    scenes += [Scene(name, (), "plain", 0) for name in BACKGROUNDS]
    return [_labelled(scene, f"scene-{number:02}") for number, scene in enumerate(scenes)]


@cache
def picture(name: str) -> UInt8Array:
    """Return a picture that ships, RGB uint8 `[H, W, 3]`; see `pictures/README.md`.

    It is shared: do not write into it. Raises `InvalidImage` when it is missing or damaged.
    """
    try:
        data = (files("unface.calibration") / "pictures" / f"{name}.jpg").read_bytes()
    except OSError as error:
        raise InvalidImage(f"picture {name}.jpg is missing: reinstall unface") from error
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    if pixels is None:
        raise InvalidImage(f"picture {name}.jpg is damaged: reinstall unface")
    return np.asarray(pixels, np.uint8)


def render(scene: Scene) -> UInt8Array:
    """Compose a scene, RGB uint8 `[HEIGHT, WIDTH, 3]`; the same scene gives the same pixels."""
    source = picture(scene.background)
    canvas = cv2.resize(source, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA).astype(np.float32)
    for head in scene.heads:
        _paste(canvas, head)
    looked = LOOKS[scene.look](canvas, np.random.default_rng(scene.seed))
    return np.clip(np.rint(looked), 0, 255).astype(np.uint8)


def face_box(head: Head) -> tuple[float, float, float, float]:
    """Return the face of a pasted head as x1, y1, x2, y2; it does not turn with the head."""
    width = (FACE[2] - FACE[0]) * head.stretch * head.height / (FACE[3] - FACE[1])
    x, y, height = head.x, head.y, head.height
    return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def face_landmarks(head: Head) -> NDArray[np.float64]:
    """Return the five landmarks of a pasted head, float64 `[5, 2]` x y, image left first."""
    points = np.array(LANDMARKS, np.float64) - HEAD[:2]
    matrix = _placement(head)
    placed: NDArray[np.float64] = points @ matrix[:, :2].T + matrix[:, 2]
    # In a mirrored head the left eye is the right one.
    return placed[[1, 0, 2, 4, 3]] if head.mirrored else placed


def _labelled(scene: Scene, name: str) -> LabelledPicture:
    faces = np.array([face_box(head) for head in scene.heads], np.float64).reshape(-1, 4)
    points = np.array([face_landmarks(head) for head in scene.heads], np.float64)
    ignored, load = np.zeros(len(faces), bool), partial(render, scene)
    landmarks = points.reshape(-1, 5, 2)
    return LabelledPicture("scenes", name, SAME_RULES, faces, ignored, landmarks, load)


def _grid(
    rng: np.random.Generator, columns: int, rows: int, heights: tuple[float, float], look: str
) -> Scene:
    """Return a scene with a head in every cell of a grid, somewhere in the cell."""
    cell_x, cell_y = WIDTH / columns, HEIGHT / rows
    heads = []
    for row in range(rows):
        for column in range(columns):
            height = rng.uniform(*heights)
            free_x, free_y = (max(0.0, (c - 1.7 * height) / 2) for c in (cell_x, cell_y))
            tint = rng.uniform(0.75, 1.2) * rng.uniform(0.9, 1.1, 3)
            heads.append(
                Head(
                    x=(column + 0.5) * cell_x + rng.uniform(-free_x, free_x),
                    y=(row + 0.5) * cell_y + rng.uniform(-free_y, free_y),
                    height=height,
                    tilt=rng.uniform(-MOST_TILT, MOST_TILT),
                    stretch=rng.uniform(0.88, 1.12),
                    mirrored=bool(rng.integers(2)),
                    tint=(float(tint[0]), float(tint[1]), float(tint[2])),
                )
            )
    background = str(rng.choice(BACKGROUNDS))
    return Scene(background, tuple(heads), look, int(rng.integers(2**31)))


def _placement(head: Head) -> NDArray[np.float64]:
    """Return the affine map `[2, 3]` from the cut-out head's coordinates to the scene's."""
    scale = head.height / (FACE[3] - FACE[1])
    angle = np.deg2rad(head.tilt)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    flip = -1.0 if head.mirrored else 1.0
    linear = turn @ np.diag([scale * head.stretch * flip, scale])
    x1, y1, x2, y2 = FACE
    centre = np.array([(x1 + x2) / 2 - HEAD[0], (y1 + y2) / 2 - HEAD[1]])
    shift = np.array([head.x, head.y]) - linear @ centre
    return np.concatenate([linear, shift[:, None]], axis=1)


def _paste(canvas: NDArray[np.float32], head: Head) -> None:
    """Draw a head onto a float canvas `[H, W, 3]`; what lies outside is cut off."""
    x1, y1, x2, y2 = HEAD
    cut = picture("astronaut")[y1:y2, x1:x2].astype(np.float32) * np.array(head.tint, np.float32)
    alpha = np.zeros(cut.shape[:2], np.float32)
    edge = round(FADE * cut.shape[1])
    alpha[edge:-edge, edge:-edge] = 1
    alpha = cv2.GaussianBlur(alpha, (0, 0), edge / 2).astype(np.float32)
    matrix = _placement(head)
    # Averaged down first: `warpAffine` alone would skip pixels.
    shrink = min(1.0, head.height / (FACE[3] - FACE[1]))
    size = tuple(max(1, round(side * shrink)) for side in (cut.shape[1], cut.shape[0]))
    small = cv2.resize(np.dstack([cut, alpha]), size, interpolation=cv2.INTER_AREA)
    matrix[:, :2] *= [cut.shape[1] / size[0], cut.shape[0] / size[1]]
    # OpenCV counts from the centre of a pixel, the labels from its corner.
    matrix[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5
    corners = np.array([[0, 0], [size[0], 0], [0, size[1]], size]) @ matrix[:, :2].T + matrix[:, 2]
    low = np.clip(np.floor(corners.min(axis=0)).astype(int) - 1, 0, None)
    high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 2, low, canvas.shape[1::-1])
    if (low >= high).any():
        return  # wholly outside
    matrix[:, 2] -= low
    placed = cv2.warpAffine(small, matrix, (high - low).tolist())
    part, weight = canvas[low[1] : high[1], low[0] : high[0]], placed[..., 3:]
    part *= 1 - weight
    part += placed[..., :3] * weight


Look = Callable[[NDArray[np.float32], np.random.Generator], NDArray[np.float32]]


def _noisy(pixels: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    return pixels + rng.normal(0, 12, pixels.shape).astype(np.float32)


def _blurred(pixels: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.6, 1.2)), np.float32)


def _grey(pixels: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    grey = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.repeat(grey[..., None], 3, axis=2)


def _compressed(pixels: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    clipped = np.clip(pixels, 0, 255).astype(np.uint8)
    _, data = cv2.imencode(".jpg", clipped, [cv2.IMWRITE_JPEG_QUALITY, 35])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.float32)


LOOKS: dict[str, Look] = {
    "plain": lambda pixels, rng: pixels,
    "dark": lambda pixels, rng: pixels * np.float32(rng.uniform(0.25, 0.45)),
    "bright": lambda pixels, rng: pixels * np.float32(rng.uniform(1.3, 1.6)) + 15,
    "flat": lambda pixels, rng: pixels * np.float32(rng.uniform(0.4, 0.6)) + 80,
    "noisy": _noisy,
    "blurred": _blurred,
    "grey": _grey,
    "compressed": _compressed,
}
