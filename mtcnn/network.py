"""The smallest contract between the cascade and whatever computes its three networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeGuard

import numpy as np
import numpy.typing as npt

from unface.errors import EngineError
from unface.mtcnn.team import ALONE, Team

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]


class Network(Protocol):
    """One of P-, R-, O-Net, loaded and ready. Not thread-safe: one caller at a time.

    Called with RGB uint8 `[N, H, W, 3]`, N at most `max_batch`; normalization happens inside.
    Returns float32 arrays by name:

    - `logit`: face minus background logit, `[N, h, w]` from P-Net, `[N]` from R- and O-Net. Its
      sigmoid is the softmax face probability of the original networks.
    - `box`: regression dx1, dy1, dx2, dy2 as fractions of the box, `[N, h, w, 4]` or `[N, 4]`.
    - `landmarks` (O-Net): x1..x5, y1..y5 as fractions of the box, `[N, 10]`.

    P-Net gives h = (H - 2) // 2 - 4, w alike, for any H, W >= 12 in torch and for the pages it was
    built for as an engine (`unface.mtcnn.canvas.PAGE_SIDE`); R-Net takes 24 x 24 and O-Net 48 x 48.
    Other sizes raise `EngineError`.
    """

    max_batch: int

    def __call__(self, images: UInt8Array) -> dict[str, FloatArray]:
        """Run the network on a batch."""
        ...

    def close(self) -> None:
        """Free what the network holds; calling it afterwards is an error."""
        ...


class Scanner(Network, Protocol):
    """A P-Net that finds the cells above a threshold itself, in an image of any size."""

    def scan(
        self, image: UInt8Array, size: tuple[int, int], rows: tuple[int, int], lowest: float
    ) -> npt.NDArray[np.void]:
        """Return the cells of rows `[begin, end)` of the image shrunk to `size` (width, height).

        Those whose logit is at least `lowest`, by row, then column: fields `row`, `column`,
        `logit`, `box` (four). Called by several threads at once.
        """
        ...


class Cutter(Network, Protocol):
    """An R- or O-Net that cuts its crops out of images itself."""

    def cut_and_run(
        self, images: Sequence[UInt8Array], cuts: npt.NDArray[np.void]
    ) -> dict[str, FloatArray]:
        """Return the outputs for rectangles of images, `[n]` as `unface.mtcnn.crops.plan_cuts`."""
        ...


# `isinstance` with a protocol takes a tenth of a millisecond.
def is_scanner(network: Network) -> TypeGuard[Scanner]:
    """Return whether a P-Net is a `Scanner`."""
    return hasattr(network, "scan")


def is_cutter(network: Network) -> TypeGuard[Cutter]:
    """Return whether an R- or O-Net is a `Cutter`."""
    return hasattr(network, "cut_and_run")


def run(network: Network, images: UInt8Array) -> dict[str, FloatArray]:
    """Run a network and return its outputs.

    Raises `EngineError` when one of them is no number: NaN is above no threshold, and a failing
    device would look like a picture without faces.
    """
    return checked(network(images))


def checked(outputs: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """Return a network's outputs; raises `EngineError` as `run` does."""
    for name, values in outputs.items():
        if not np.isfinite(values).all():
            raise EngineError(
                f"a network gave {name} values that are no numbers; restart, or repair"
            )
    return outputs


@dataclass(frozen=True)
class Networks:
    """The three networks of one cascade and what serves them."""

    pnet: Network
    rnet: Network
    onet: Network
    backend: str  # "native", "tflite", "torch"
    precision: str  # "fp32", "int8"
    team: Team = ALONE  # shares the work beside the networks, and that of those that let it
