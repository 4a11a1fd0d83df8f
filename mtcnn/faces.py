"""The one value type that carries detected faces from the cascade to the wire."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

# Order of Zhang et al. 2016. "Left" is left in the picture, as in the training data and in every
# MTCNN implementation: the person's own right eye is `left_eye`.
LANDMARK_NAMES = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")


class Face(NamedTuple):
    """One detected face, in pixels of the upright image; pixel (0, 0) covers [0, 1) x [0, 1)."""

    box: tuple[float, float, float, float]  # x1, y1, x2, y2; inside the image
    score: float  # face probability of O-Net, 0-1
    landmarks: FloatArray  # float32 [5, 2], x y, in the order of LANDMARK_NAMES


@dataclass(frozen=True)
class Faces:
    """The faces of one image, best score first; iterating gives `Face` values.

    `boxes` float32 [n, 4] `x1 y1 x2 y2`, `scores` float32 [n], `landmarks` float32 [n, 5, 2]
    `x y`: pixels of the upright image of `width` x `height`. Boxes are clipped to the image.
    Landmarks are not: the mouth of a face cut by the border lies outside.
    """

    boxes: FloatArray
    scores: FloatArray
    landmarks: FloatArray
    width: int
    height: int
    backend: str = ""  # what served it: "native", "tflite", "torch"
    precision: str = ""  # "fp32", "int8", ...
    timings_ms: dict[str, float] = field(default_factory=dict, compare=False)

    def select(self, chosen: npt.NDArray[np.bool_]) -> Faces:
        """Return those faces for which `chosen`, bool `[n]`, is true."""
        boxes, scores = self.boxes[chosen], self.scores[chosen]
        return replace(self, boxes=boxes, scores=scores, landmarks=self.landmarks[chosen])

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Face]:
        for index in range(len(self)):
            yield self[index]

    def __getitem__(self, index: int) -> Face:
        x1, y1, x2, y2 = self.boxes[index].tolist()
        return Face((x1, y1, x2, y2), float(self.scores[index]), self.landmarks[index])
