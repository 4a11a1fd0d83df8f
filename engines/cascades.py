"""Cascades by precision: what serves calls that ask for different engines, or for many images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from queue import SimpleQueue

from unface.engines.shelf import open_networks
from unface.mtcnn.cascade import Cascade
from unface.mtcnn.faces import Faces
from unface.mtcnn.network import UInt8Array
from unface.mtcnn.options import DetectOptions
from unface.mtcnn.team import Team


class Cascades:
    """A cascade for each precision that is asked for, opened when it first is.

    `precision` serves the options that name none, and is opened at once; for the arguments and
    what is raised see `unface.engines.open_networks`. One image is shared among all threads; of
    several, each thread takes one at a time, with a cascade of its own: the same number of threads
    works either way. Not thread-safe: one caller at a time.
    """

    def __init__(
        self,
        precision: str = "fp32",
        threads: int | None = None,
        folder: Path | None = None,
        *,
        allow_uncertified: bool = False,
    ) -> None:
        self.precision = precision
        self._threads, self._folder = threads, folder
        self._allow_uncertified = allow_uncertified
        self._open: dict[str, Cascade] = {}
        self._single: dict[str, list[Cascade]] = {}  # of one thread each
        networks = self._cascade(precision).networks
        self.backend = networks.backend
        self._team = Team(networks.team.threads)

    def detect(self, image: UInt8Array, options: DetectOptions) -> Faces:
        """Find the faces of an image; see `unface.mtcnn.cascade.Cascade.detect`."""
        return self._cascade(options.precision or self.precision).detect(image, options)

    def detect_all(self, images: Sequence[UInt8Array], options: DetectOptions) -> list[Faces]:
        """Find the faces of each image, in order; the same faces as one by one."""
        if len(images) < 2 or self._team.threads == 1:
            return [self.detect(image, options) for image in images]
        idle: SimpleQueue[Cascade] = SimpleQueue()
        for cascade in self._singles(options.precision or self.precision):
            idle.put(cascade)

        def detect_one(image: UInt8Array) -> Faces:
            cascade = idle.get()
            try:
                return cascade.detect(image, options)
            finally:
                idle.put(cascade)

        return self._team.map(detect_one, images)

    def close(self) -> None:
        """Free the engines."""
        self._team.close()
        for cascade in chain(self._open.values(), *self._single.values()):
            cascade.close()
        self._open.clear()
        self._single.clear()

    def _cascade(self, precision: str) -> Cascade:
        if precision not in self._open:
            self._open[precision] = self._new(precision, self._threads)
        return self._open[precision]

    def _singles(self, precision: str) -> list[Cascade]:
        if precision not in self._single:
            self._single[precision] = [self._new(precision, 1) for _ in range(self._team.threads)]
        return self._single[precision]

    def _new(self, precision: str, threads: int | None) -> Cascade:
        networks = open_networks(
            precision, threads, self._folder, allow_uncertified=self._allow_uncertified
        )
        return Cascade(networks)
