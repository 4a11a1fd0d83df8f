"""Weights as the kernels read them: half-precision factors in chunks of 16, then biases and slopes.

`src/convolution.cuh` says what a chunk is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from unface.errors import EngineError

Arrays = Mapping[str, npt.NDArray[Any]]
FloatArray = npt.NDArray[np.float32]

CHUNK = 16  # halves that one instruction multiplies
GROUP = 8  # output channels of one instruction
PIXEL_MEAN, PIXEL_SCALE = 127.5, 128.0  # networks take (x - mean) / scale here, not 0-255

CONVOLUTIONS = {
    "pnet": ("conv1", "conv2", "conv3"),
    "rnet": ("conv1", "conv2", "conv3"),
    "onet": ("conv1", "conv2", "conv3", "conv4"),
}
DENSE = {"rnet": "dense4", "onet": "dense5"}
HEADS = {
    "pnet": ("logit", "box"),
    "rnet": ("logit", "box"),
    "onet": ("logit", "box", "landmarks"),
}


def pack_network(network: str, arrays: Arrays) -> bytes:
    """Return the weights of "pnet", "rnet" or "onet" in the kernels' order.

    `arrays` are those of a float32 engine (`unface.engines.native`): weights `[out, in, h, w]`,
    biases and slopes `[out]`, taking pixels 0-255. Raises `EngineError` when a value does not fit
    into half precision.
    """
    parts = []
    for name in CONVOLUTIONS[network]:
        weight, bias, slopes = (arrays[f"{name}.{part}"] for part in ("weight", "bias", "slopes"))
        if name == "conv1":
            bias = bias + PIXEL_MEAN * weight.sum((1, 2, 3), dtype=np.float64)
            parts.append(_layer(_pixel_chunks(weight * np.float32(PIXEL_SCALE)), bias, slopes))
        else:
            parts.append(_layer(_map_chunks(weight), bias, slopes))
    if network == "pnet":
        weight, bias = _joined(arrays, network)
        parts.append(_layer(_register_chunks(weight), bias, None))
    else:
        name = DENSE[network]
        weight, bias, slopes = (arrays[f"{name}.{part}"] for part in ("weight", "bias", "slopes"))
        rows = weight.transpose(0, 2, 3, 1).reshape(len(weight), -1, 1, 1)  # features by position
        parts.append(_layer(_map_chunks(rows), bias, slopes))
        weight, bias = _joined(arrays, network)
        parts.append(np.ascontiguousarray(weight.T, np.float32).tobytes())
        parts.append(bias.astype(np.float32).tobytes())
    return b"".join(parts)


def _joined(arrays: Arrays, network: str) -> tuple[FloatArray, FloatArray]:
    """Return weights `[outputs, channels]` and biases of all heads."""
    weight = np.concatenate([arrays[f"{head}.weight"] for head in HEADS[network]])[:, :, 0, 0]
    return weight, np.concatenate([arrays[f"{head}.bias"] for head in HEADS[network]])


def _pixel_chunks(weight: FloatArray) -> FloatArray:
    """Return `[rows, out, 16]`: four pixels of a row of taps, R, G, B, 0 each, the last unused."""
    outputs, colors, height, width = weight.shape
    chunks = np.zeros((height, outputs, 4, 4), np.float32)
    chunks[:, :, :width, :colors] = weight.transpose(2, 0, 3, 1)
    return chunks.reshape(height, outputs, CHUNK)


def _map_chunks(weight: FloatArray) -> FloatArray:
    """Return `[taps, out, 16]`, tap by tap, within one 16 channels after the other."""
    outputs, channels, height, width = weight.shape
    padded = -(-channels // CHUNK) * CHUNK
    taps = np.zeros((height, width, padded // CHUNK, outputs, CHUNK), np.float32)
    filled = np.zeros((outputs, padded, height, width), np.float32)
    filled[:, :channels] = weight
    taps[:] = filled.reshape(outputs, -1, CHUNK, height, width).transpose(3, 4, 1, 0, 2)
    return taps.reshape(-1, outputs, CHUNK)


def _register_chunks(weight: FloatArray) -> FloatArray:
    """Return `[chunks, out, 16]` for inputs that lie in registers as a product left them.

    A lane then holds channels 2t, 2t + 1 and 8 + 2t, 9 + 2t of a chunk.
    """
    pairs = weight.reshape(len(weight), -1, 2, 4, 2)  # chunk, half of it, t, pair
    chunks: FloatArray = pairs.transpose(1, 0, 3, 2, 4).reshape(-1, len(weight), CHUNK)
    return chunks


def _layer(chunks: FloatArray, bias: FloatArray, slopes: FloatArray | None) -> bytes:
    """Return a layer: channels padded to groups, with zeros, in half precision."""
    outputs = chunks.shape[1]
    # What the next layer takes in chunks of 16 must be there, if only as zeros.
    padded = -(-outputs // GROUP) * GROUP if slopes is None else -(-outputs // CHUNK) * CHUNK
    filled = np.zeros((len(chunks), padded, CHUNK), np.float32)
    filled[:, :outputs] = chunks
    with np.errstate(over="ignore"):  # said below
        halves = filled.astype("<f2")
    if not np.isfinite(halves).all():
        raise EngineError("a weight does not fit into half precision")
    floats = np.zeros((1 if slopes is None else 2, padded), "<f4")
    floats[0, :outputs] = bias
    if slopes is not None:
        floats[1, :outputs] = slopes
    return halves.tobytes() + floats.tobytes()
