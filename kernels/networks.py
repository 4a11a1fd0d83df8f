"""The three networks through the compiled core."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from unface.kernels import library as core
from unface.kernels.arrays import UInt8Array, check_shrinking, checked_cuts, picture, pictures
from unface.kernels.library import HIT, ISAS, check, instruction_set, library
from unface.kernels.packing import FloatArray, PackedHead, PackedLayer

CELL, STRIDE = 12, 2  # pixels a P-Net cell looks at, and from one cell to the next


class ScanKernel:
    """P-Net over an image resized on the way. May be shared between threads.

    `layers` are conv1, conv2, conv3 and the heads (logit, dx1, dy1, dx2, dy2) as one layer.
    """

    def __init__(self, layers: Sequence[PackedLayer], *, is_float: bool) -> None:
        self._layers = tuple(layers)  # the core has the addresses of their arrays
        self._net = core.PNet(*(packed.layer for packed in layers))
        self._isa, self._is_float = ISAS.index(instruction_set()), is_float

    def scan(
        self, image: UInt8Array, size: tuple[int, int], rows: tuple[int, int], lowest: float
    ) -> npt.NDArray[np.void]:
        """Return the cells of rows `[begin, end)` whose logit is at least `lowest`, as `HIT`.

        `image` uint8 `[H, W, 3]` is first shrunk to `size` (width, height), its own or less.
        """
        (width, height), (begin, end) = size, rows
        columns = (width - CELL) // STRIDE + 1
        source = picture(image)
        if not 0 <= begin <= end <= (height - CELL) // STRIDE + 1 or columns < 1:
            raise ValueError(f"rows {begin} to {end} are not all in {width} x {height} pixels")
        check_shrinking(source, width, height)
        hits = np.empty((end - begin) * columns, HIT)
        found = library().unface_scan(
            self._isa,
            self._is_float,
            ctypes.addressof(self._net),
            ctypes.addressof(source),
            width,
            height,
            begin,
            end - begin,
            lowest,
            hits.ctypes.data,
        )
        kept: npt.NDArray[np.void] = hits[: check(found)].copy()  # the rest is memory untouched
        return kept


class CropKernel:
    """R- or O-Net over crops of `size` pixels a side. May be shared between threads."""

    def __init__(
        self, size: int, layers: Sequence[PackedLayer], head: PackedHead, *, is_float: bool
    ) -> None:
        self._parts = tuple(layers), head
        self.size, self._outputs = size, head.head.out
        self._array = (core.Layer * len(layers))(*(packed.layer for packed in layers))
        self._net = core.Network(size, len(layers), self._array, ctypes.pointer(head.head))
        self._isa, self._is_float = ISAS.index(instruction_set()), is_float

    def classify(self, crops: UInt8Array) -> FloatArray:
        """Return the outputs `[n, outputs]` for crops uint8 `[n, size, size, 3]`."""
        crops = np.ascontiguousarray(crops)
        if crops.dtype != np.uint8 or crops.shape[1:] != (self.size, self.size, 3):
            raise ValueError(f"crops are {crops.dtype} {crops.shape}")
        return self._run(list(crops), None, len(crops))

    def cut_and_classify(
        self, images: Sequence[UInt8Array], cuts: npt.NDArray[np.void]
    ) -> FloatArray:
        """Return the outputs `[n, outputs]` for `cuts` of images; see `arrays.crop`."""
        cuts = checked_cuts(images, cuts, self.size)
        return self._run(images, cuts.ctypes.data, len(cuts))

    def _run(self, images: Sequence[UInt8Array], cuts: int | None, count: int) -> FloatArray:
        outputs = np.empty((count, self._outputs), np.float32)
        sources = pictures(images)
        check(
            library().unface_classify(
                self._isa,
                self._is_float,
                ctypes.addressof(self._net),
                sources,
                cuts,
                count,
                outputs.ctypes.data,
            )
        )
        return outputs
