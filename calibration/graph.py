"""A network as the writers of engines see it: a trunk of simple nodes, then named heads.

Weights are float32 in PyTorch's order `[out, in, height, width]`; nothing pads but `MaxPool` with
`ceil`, which ignores what it pads with.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unface.mtcnn.network import FloatArray


@dataclass(frozen=True)
class Conv:
    """A convolution, stride 1, by name; a dense layer is one over all that is left."""

    name: str
    weight: FloatArray  # [out, in, height, width]
    bias: FloatArray  # [out]
    relu: bool = False

    @property
    def outputs(self) -> int:
        """Channels that come out."""
        return len(self.bias)


@dataclass(frozen=True)
class Prelu:
    """PReLU as one node: `x` where it is positive, `slopes * x` elsewhere; slopes `[C]`."""

    slopes: FloatArray


@dataclass(frozen=True)
class Maximum:
    """`max(x, slopes * x)`: PReLU for slopes of at most 1, `[C]`."""

    slopes: FloatArray


@dataclass(frozen=True)
class HalvesMaximum:
    """Channels `[a, b]`, 2C, to `max(a, b)`, C."""


@dataclass(frozen=True)
class MaxPool:
    """Greatest of each window; with `ceil` a last window may reach over the edge."""

    size: int
    stride: int
    ceil: bool = False


Node = Conv | Prelu | Maximum | HalvesMaximum | MaxPool


@dataclass(frozen=True)
class Graph:
    """One of P-, R-, O-Net, ready to be written.

    `columns` is how many neighbouring columns the first convolution computes at once (see
    `unface.calibration.tflite_writer`); it changes no value.
    """

    network: str  # "pnet", "rnet", "onet"
    trunk: tuple[Node, ...]
    heads: tuple[Conv, ...]
    columns: int = 1

    @property
    def layers(self) -> tuple[Conv, ...]:
        """All convolutions, in order."""
        return tuple(node for node in self.trunk if isinstance(node, Conv)) + self.heads


def in_columns(conv: Conv, columns: int) -> Conv:
    """Return the convolution that computes `columns` neighbouring columns at once.

    It takes `[H, W / columns, columns * C]`, the same bytes as `[H, W, C]`, and gives the channels
    of the columns one after the other. With three input channels most of what a matrix kernel
    multiplies is padding; side by side there is less of it.
    """
    outputs, inputs, height, width = conv.weight.shape
    across = -(-(width + columns - 1) // columns)
    weight = np.zeros((columns, outputs, columns * across, inputs, height), np.float32)
    for column in range(columns):
        weight[column, :, column : column + width] = conv.weight.transpose(0, 3, 1, 2)
    weight = weight.reshape(columns * outputs, across, columns * inputs, height)
    return Conv(conv.name, weight.transpose(0, 2, 3, 1), np.tile(conv.bias, columns), conv.relu)
