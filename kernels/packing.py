"""Networks as the compiled core wants them: four int8 or one float input channel a word."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from unface.errors import EngineError
from unface.kernels.library import Head, Layer

FloatArray = npt.NDArray[np.float32]

WORD = 4  # int8 values; also the step in which the core computes output channels
MAX_VALUE = 255  # of an INT8 activation, its zero point taken away
LARGEST = 1 << 30  # in steps of an INT8 activation: conversion to int32 does not saturate


@dataclass(frozen=True)
class Convolution:
    """A convolution and its PReLU, in float or in INT8.

    `weight` float32 or int8 `[out, in, k, k]`, `bias` `[out]`, PReLU `slopes` `[out]` (ones: none).
    INT8: `weight_scale` `[out]`, and `scale` and `zero_point` of the output, which is uint8: real =
    scale * (value - zero point). Scale 1 and zero point 0 leave it real.
    """

    weight: npt.NDArray[np.int8] | FloatArray
    bias: FloatArray
    slopes: FloatArray
    weight_scale: FloatArray | None = None
    scale: float = 1.0
    zero_point: int = 0


@dataclass(frozen=True)
class Pool:
    """Max-pooling: window, stride, and whether a last window may reach over the edge."""

    size: int = 0
    stride: int = 0
    ceil: bool = False


class PackedLayer:
    """A `Layer` and the arrays it points to.

    `input_scale` and `zero_point` are those of its INT8 input: real = scale * (value - zero point).
    """

    def __init__(
        self,
        conv: Convolution,
        pool: Pool | None = None,
        input_scale: float = 1.0,
        zero_point: int = 0,
    ) -> None:
        out, _, kernel, _ = conv.weight.shape
        padded = -(-out // WORD) * WORD
        self._weights = _words(conv.weight, padded)
        start, factor = np.zeros(out), np.ones(out)
        if conv.weight_scale is not None:
            start = -zero_point * conv.weight.sum(axis=(1, 2, 3), dtype=np.int64)
            factor = conv.weight_scale.astype(np.float64) * input_scale / conv.scale
            _check_range(conv, factor)
        self._start = _padded(start, padded, np.int32)
        self._factor = _padded(factor, padded, np.float32)
        self._bias = _padded(conv.bias.astype(np.float64) / conv.scale, padded, np.float32)
        self._slope = _padded(conv.slopes, padded, np.float32)
        self.is_float = conv.weight_scale is None
        pool = pool or Pool()
        self.layer = Layer(
            len(self._weights) // kernel**2,
            padded,
            kernel,
            pool.size,
            pool.stride,
            pool.ceil,
            self._weights.ctypes.data,
            self._start.ctypes.data,
            self._factor.ctypes.data,
            self._bias.ctypes.data,
            self._slope.ctypes.data,
            conv.zero_point - 128.0,
        )


class PackedHead:
    """A `Head` and the arrays it points to: float weights `[out, in]`.

    `input_scale` and `zero_point` as for `PackedLayer`.
    """

    def __init__(
        self,
        weight: FloatArray,
        bias: FloatArray,
        input_scale: float = 1.0,
        zero_point: int = 0,
    ) -> None:
        scaled = weight.astype(np.float64) * input_scale
        self._weights = np.ascontiguousarray(scaled.T, np.float32)
        self._bias = (bias - zero_point * scaled.sum(axis=1)).astype(np.float32)
        out, channels = weight.shape
        self.head = Head(channels, out, self._weights.ctypes.data, self._bias.ctypes.data)


def _check_range(conv: Convolution, factor: npt.NDArray[np.float64]) -> None:
    """Raise `EngineError` where an output could be beyond the integers that it is rounded to."""
    products = MAX_VALUE * abs(conv.weight.astype(np.float64)).sum(axis=(1, 2, 3)) * factor
    largest = products + abs(conv.bias.astype(np.float64) / conv.scale)
    if not (largest * np.maximum(abs(conv.slopes.astype(np.float64)), 1) < LARGEST).all():
        raise EngineError("a layer gives numbers beyond all measure: the engine is damaged")


def _words(weight: npt.NDArray[np.int8] | FloatArray, out: int) -> npt.NDArray[np.int32]:
    """Return weights `[o, i, k, k]` as words `[k * k * vectors, out]`."""
    outputs, channels, kernel, _ = weight.shape
    packed = WORD if weight.dtype == np.int8 else 1
    vectors = -(-channels // packed)
    values = np.zeros((kernel, kernel, vectors * packed, out), weight.dtype)
    values[:, :, :channels, :outputs] = weight.transpose(2, 3, 1, 0)
    values = values.reshape(kernel * kernel * vectors, packed, out).transpose(0, 2, 1)
    return np.ascontiguousarray(values).view(np.int32)[:, :, 0]


def _padded(values: npt.ArrayLike, length: int, dtype: type) -> npt.NDArray[np.generic]:
    given = np.asarray(values)
    padded: npt.NDArray[np.generic] = np.zeros(length, dtype)
    padded[: len(given)] = given
    return padded
