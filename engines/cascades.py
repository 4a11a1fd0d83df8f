"""Cascades by precision: what serves calls that ask for different engines."""

from __future__ import annotations

from pathlib import Path

from unface.engines.shelf import open_networks
from unface.mtcnn.cascade import Cascade
from unface.mtcnn.faces import Faces
from unface.mtcnn.network import UInt8Array
from unface.mtcnn.options import DetectOptions


class Cascades:
    """A cascade for each precision that is asked for, opened when it first is.

    `precision` serves the options that name none, and is opened at once; for the arguments and
    what is raised see `unface.engines.open_networks`. Not thread-safe: one caller at a time.
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
        self.backend = self._cascade(precision).networks.backend

    def detect(self, image: UInt8Array, options: DetectOptions) -> Faces:
        """Find the faces of an image; see `unface.mtcnn.cascade.Cascade.detect`."""
        return self._cascade(options.precision or self.precision).detect(image, options)

    def close(self) -> None:
        """Free the engines."""
        for cascade in self._open.values():
            cascade.close()
        self._open.clear()

    def _cascade(self, precision: str) -> Cascade:
        if precision not in self._open:
            networks = open_networks(
                precision,
                self._threads,
                self._folder,
                allow_uncertified=self._allow_uncertified,
            )
            self._open[precision] = Cascade(networks)
        return self._open[precision]
