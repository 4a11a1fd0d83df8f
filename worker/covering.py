"""From faces to a picture without them: who stays clear, what is covered, what is left after it.

For the worker and for a detection in this process alike; the detector itself is theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from unface.anonymize import MaskOptions, Regions, Verify, apply_masks
from unface.anonymize.regions import left_clear
from unface.anonymize.verification import stronger
from unface.mtcnn.faces import Face, Faces
from unface.mtcnn.network import UInt8Array
from unface.mtcnn.options import DetectOptions, profile_options


class Covered(NamedTuple):
    """A covered picture, the faces found that were covered, and those that were left clear."""

    pixels: UInt8Array
    faces: Faces
    kept: Faces


class Verification(NamedTuple):
    """What a search of the result found."""

    residual: Sequence[Face]  # in the picture as it is returned, but for those to be left clear
    rounds: int  # how often more was covered
    covered: Sequence[Face]  # then

    @property
    def clean(self) -> bool:
        """Whether no face is left."""
        return not self.residual


def no_faces(width: int, height: int, backend: str = "", precision: str = "") -> Faces:
    """Return that nothing was found, or searched for, in a picture."""
    empty = np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty((0, 5, 2), np.float32)
    return Faces(*empty, width, height, backend, precision)


def cover_faces(
    pixels: UInt8Array, faces: Faces, masks: MaskOptions, regions: Regions, *, in_place: bool
) -> Covered:
    """Return a picture, uint8 `[H, W, 3]`, with its faces covered but for those to be left clear.

    For `in_place` see `unface.anonymize.apply_masks`. Raises `InvalidImage` where the regions do
    not fit the picture.
    """
    regions.check(faces.width, faces.height, masks)
    clear = left_clear(faces.boxes, regions.keep)
    found, kept = faces.select(~clear), faces.select(clear)
    covered = apply_masks(pixels, found.boxes, masks, scores=found.scores, in_place=in_place)
    covered = apply_masks(covered, regions.cover, masks, in_place=True)
    return Covered(covered, found, kept)


class Verifier:
    """Judges what searches of a result find."""

    def __init__(
        self,
        verify: Verify,
        options: DetectOptions,
        masks: MaskOptions,
        regions: Regions,
        kept: Faces,
    ) -> None:
        self._verify, self._masks = verify, masks
        # Where nothing was searched for, the caller's word is all there is of who stays clear.
        self._by_word = regions.cover_only
        self._keep = regions.keep if self._by_word else [face.box for face in kept]
        self.kept = kept  # faces that stay clear; by a caller's word, those that the search found
        privacy = profile_options("privacy")
        # How the result is searched: for faces as small as were searched for before, or smaller.
        self.options = replace(privacy, min_face=min(privacy.min_face, options.min_face))
        self._residual: Faces | None = None
        self.searched: tuple[str, str] | None = None  # backend and precision that searched last
        self._rounds = 0
        self._covered: list[Face] = []

    @property
    def verification(self) -> Verification:
        """What was found; once the result has been searched."""
        if self._residual is None:
            raise RuntimeError("the result has not been searched")
        return Verification(tuple(self._residual), self._rounds, tuple(self._covered))

    def judge(self, found: Faces) -> MaskOptions | None:
        """Take what a search found; return how `residual_boxes` are to be covered, None if over.

        The result is searched again once they are.
        """
        self.searched = found.backend, found.precision
        clear = left_clear(found.boxes, self._keep)
        self._residual = found.select(~clear)
        if self._by_word:
            self.kept = found.select(clear)
        if not len(self._residual) or self._rounds == self._verify.rounds:
            return None
        self._rounds += 1
        self._covered += self._residual
        return stronger(self._masks, self._rounds)

    @property
    def residual_boxes(self) -> Sequence[tuple[float, float, float, float]]:
        """Boxes of the faces that the last search found."""
        return [face.box for face in self.verification.residual]
