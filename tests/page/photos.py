"""Photos for the page, whose faces are known: heads pasted into pictures without a face."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scenes import Scene, compose

from unface.anonymize import encode

EMPTY_PLACE = (720.0, 560.0, 800.0, 650.0)  # a box in `group` that no face is near
MEGAPIXELS_12 = (4000, 3000)
BLURS = (0.0, 7.0, 8.0, 8.5)  # pixels: scores near 1, 0.97, 0.93 and 0.67


@dataclass(frozen=True)
class Photo:
    """A file, and where its faces are: float `[n, 4]` `x1 y1 x2 y2` in pixels."""

    path: Path
    width: int
    height: int
    faces: NDArray[np.float64]

    @property
    def size(self) -> dict[str, int]:
        """Width and height, for the driver."""
        return {"width": self.width, "height": self.height}

    def face(self, number: int) -> list[float]:
        """Return one face's box, for the driver."""
        return [float(side) for side in self.faces[number]]


def write(path: Path, scene: Scene, quality: int = 92) -> Photo:
    """Write a scene as the format that the file's name ends in."""
    kind = {".png": "png", ".webp": "webp"}.get(path.suffix, "jpeg")
    path.write_bytes(encode(scene.image, kind, quality=quality))
    height, width = scene.image.shape[:2]
    return Photo(path, width, height, scene.faces)


def group(path: Path) -> Photo:
    """Three faces side by side, 1200 x 800."""
    places = [(40, 120, 100), (420, 40, 90), (900, 260, 110)]
    return write(path, compose(1200, 800, places))


def pair(path: Path) -> Photo:
    """Two faces, 900 x 600."""
    return write(path, compose(900, 600, [(60, 80, 70), (500, 150, 100)], "chelsea", mirrored=True))


def single(path: Path) -> Photo:
    """One face, 700 x 500: nothing needs shrinking anywhere."""
    return write(path, compose(700, 500, [(250, 100, 100)], "coins"))


def unsure(path: Path) -> Photo:
    """Four faces, 1200 x 800, each more blurred: "accurate" finds three, "privacy" the last too."""
    scene = compose(1200, 800, [(60 + 280 * n, 250, 90) for n in range(4)], "brick")
    for (x1, y1, x2, y2), sigma in zip(scene.faces.astype(int), BLURS, strict=True):
        part = scene.image[y1 - 20 : y2 + 20, x1 - 20 : x2 + 20]
        part[:] = cv2.GaussianBlur(part, (0, 0), sigma) if sigma else part
    return write(path, scene)


def large(path: Path, number: int = 0) -> Photo:
    """12 megapixels with seven faces, another picture for each number; about 4 MB."""
    width, height = MEGAPIXELS_12
    places = [(200 + 540 * n, 300 + (n * 370 + number * 53) % 1800, 110 + 35 * n) for n in range(7)]
    scene = compose(width, height, places, "retina" if number % 2 else "coffee")
    noise = np.random.default_rng(number).integers(0, 12, (height, width, 1), np.uint8)
    return write(path, Scene(cv2.add(scene.image, np.repeat(noise, 3, 2)), scene.faces), 90)


def video(path: Path) -> Path:
    """Write a camera's Motion JPEG, 640 x 480, a face in the middle."""
    scene = compose(640, 480, [(200, 100, 140)], "coffee")
    frame = encode(scene.image, "jpeg", quality=90)
    path.write_bytes(frame * 4)
    return path


def many(folder: Path, number: int) -> list[Path]:
    """Write so many photos of 12 megapixels; every eighth shows the same."""
    different = [large(folder / f"photo-{n}.jpg", n).path for n in range(min(number, 8))]
    files = list(different)
    for n in range(len(different), number):
        files.append(folder / f"photo-{n}.jpg")
        files[-1].hardlink_to(different[n % len(different)])
    return files
