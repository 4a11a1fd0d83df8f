"""INT8 arithmetic that every writer shares: one rule, so that all engines carry the same scales."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from unface.mtcnn.network import FloatArray

Scales = Mapping[str, float]  # by layer: real value = scale * int8 value

# Pixels 0-255 are exactly the 256 values of int8: the one tensor with a zero point. ONNX engines
# subtract 128 first, which is the same.
INPUT_SCALE, INPUT_ZERO_POINT = 1.0, -128
LARGEST = 127


def quantize_weight(
    weight: FloatArray, axis: int
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Return int8 values and one scale for each index of `axis`; 127 is the largest magnitude.

    TFLite quantization specification, "per-axis, zero_point = 0, [-127, 127]"; TensorRT asks for
    the same.
    """
    others = tuple(a for a in range(weight.ndim) if a != axis)
    largest = np.abs(weight).max(axis=others)
    scale = (np.where(largest > 0, largest, 1) / LARGEST).astype(np.float32)
    shape = [1] * weight.ndim
    shape[axis] = -1
    values = np.rint(weight / scale.reshape(shape))
    return np.clip(values, -LARGEST, LARGEST).astype(np.int8), scale
