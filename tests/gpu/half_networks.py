"""The three networks in half precision, said in numpy: what the kernels are to compute.

Every rounding is where a kernel has one: factors to halves, sums in more than that. In which order
a sum is taken is all that is left open.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from native_networks import _pooled as pooled
from native_networks import convolve
from numpy.typing import NDArray

from unface.engines.native import HEADS, LAYERS, Arrays
from unface.gpu.weights import PIXEL_MEAN, PIXEL_SCALE

UNROUNDED = ("dense4", "dense5")  # what they give stays float32, and so do the heads behind


def half(values: NDArray[Any]) -> NDArray[np.float64]:
    return values.astype(np.float32).astype(np.float16).astype(np.float64)


def in_halves(arrays: Arrays, network: str, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """Return the outputs for uint8 `[N, H, W, 3]`, as `unface.mtcnn.network.Network` has them."""
    x = (images - PIXEL_MEAN) / PIXEL_SCALE  # exact in halves
    for name, _, pool in LAYERS[network]:
        weight, bias, slopes = (arrays[f"{name}.{part}"] for part in ("weight", "bias", "slopes"))
        if name == "conv1":
            bias = bias + PIXEL_MEAN * weight.sum((1, 2, 3), dtype=np.float64)
            weight = weight * PIXEL_SCALE
        y = convolve(x, half(weight)) + bias.astype(np.float32)
        x = pooled(np.where(y > 0, y, y * slopes), pool)
        x = x if name in UNROUNDED else half(x)
    outputs = {}
    for head in HEADS[network]:
        weight = arrays[f"{head}.weight"]
        outputs[head] = convolve(x, half(weight) if network == "pnet" else weight)
        outputs[head] = outputs[head] + arrays[f"{head}.bias"]
        if network != "pnet":
            outputs[head] = outputs[head][:, 0, 0]
    return {**outputs, "logit": outputs["logit"][..., 0]}
