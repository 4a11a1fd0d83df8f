"""Random networks for the compiled core, and what they compute, said in numpy step by step."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from unface.engines.native import HEADS, INPUT_SIZES, LAYERS, NativeNetwork, NativePNet
from unface.kernels.library import ISAS, LIMIT, instruction_set
from unface.kernels.packing import Pool
from unface.mtcnn.team import ALONE

Arrays = dict[str, NDArray[Any]]
Outputs = dict[str, NDArray[Any]]
Pixels = NDArray[np.uint8]
NETWORKS = tuple(LAYERS)
SLOPES = (-2.0, -1.0, -0.3, 0.0, 0.25, 1.0, 1.5, 6.0)


@contextmanager
def limited_to(isa: str) -> Iterator[None]:
    """Make kernels for an instruction set; it must be on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(LIMIT, isa)
        yield


def available() -> list[str]:
    """Return the instruction sets of this machine, by name, slowest first."""
    if os.environ.get(LIMIT, ISAS[-1]) != ISAS[-1]:
        return [instruction_set()] * (instruction_set() != "none")
    found = []
    for isa in ISAS[1:]:
        with limited_to(isa):
            if instruction_set() == isa:
                found.append(isa)
    return found


def random_arrays(
    network: str, rng: np.random.Generator, *, quantized: bool, loudness: float = 1.0
) -> Arrays:
    """Return the arrays of an engine: random weights, all kinds of slopes.

    `loudness` above 1 gives INT8 values beyond what a byte holds.
    """
    arrays: Arrays = {}
    shapes = [(name, shape) for name, shape, _ in LAYERS[network]]
    before, amplitude = shapes[-1][1][0], 128.0 if not quantized else 70.0
    shapes += [(head, (outputs, before, 1, 1)) for head, outputs in HEADS[network].items()]
    for name, shape in shapes:
        head, fan = name in HEADS[network], float(np.prod(shape[1:]))
        if quantized and (not head or network == "pnet"):
            arrays[f"{name}.weight"] = rng.integers(-127, 128, shape, dtype=np.int8)
            scale = loudness * rng.uniform(0.5, 1.5, shape[0]) / (73 * np.sqrt(fan))
            arrays[f"{name}.weight_scale"] = scale.astype(np.float32)
        else:
            weight = rng.normal(0, 1 / np.sqrt(fan), shape) / (amplitude if head else 1)
            if name == "conv1":
                weight /= 64
            arrays[f"{name}.weight"] = weight.astype(np.float32)
        arrays[f"{name}.bias"] = rng.normal(0, 1, shape[0]).astype(np.float32)
        if not head:
            arrays[f"{name}.slopes"] = rng.choice(SLOPES, shape[0]).astype(np.float32)
            if quantized:
                arrays[f"{name}.scale"] = np.float32(rng.uniform(0.7, 1.2))
                arrays[f"{name}.zero_point"] = np.int32(rng.integers(0, 256))
    return arrays


def engine(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return arrays as the file that an engine is."""
    file = io.BytesIO()
    np.savez(file, **dict(arrays))  # type: ignore[arg-type]
    return file.getvalue()


def open_native(arrays: Arrays, network: str) -> Callable[[Pixels], Outputs]:
    """Return the network on the compiled core: uint8 `[N, H, W, 3]` to outputs by name."""
    if network == "pnet":
        return NativePNet(engine(arrays), "random")
    return NativeNetwork(engine(arrays), "random", network, ALONE)


def literal(arrays: Arrays, network: str, images: Pixels) -> Outputs:
    """Return what a network gives, `[N, h, w]` and `[N, h, w, 4]` from P-Net, else `[N, ...]`.

    INT8 in integers and single steps of float32, as the core promises; float in float64.
    """
    x = images.astype(np.float64)
    quantized = arrays["conv1.weight"].dtype == np.int8
    step = _int8_layer if quantized else _float_layer
    scale, zero = 1.0, 0
    for name, _, pool in LAYERS[network]:
        part = {field: arrays[f"{name}.{field}"] for field in FIELDS if f"{name}.{field}" in arrays}
        x = _pooled(step(part, x, scale, zero), pool)
        if quantized:
            scale, zero = float(part["scale"]), int(part["zero_point"])
    outputs = {}
    for head in HEADS[network]:
        weight, bias = arrays[f"{head}.weight"], arrays[f"{head}.bias"]
        real = weight.astype(np.float64)
        if weight.dtype == np.int8:
            real = real * arrays[f"{head}.weight_scale"].astype(np.float64)[:, None, None, None]
        outputs[head] = convolve((x - zero) * scale, real) + bias
        if network != "pnet":
            outputs[head] = outputs[head][:, 0, 0]
    return {**outputs, "logit": outputs["logit"][..., 0]}


FIELDS = ("weight", "weight_scale", "bias", "slopes", "scale", "zero_point")


def convolve(x: NDArray[Any], weight: NDArray[Any]) -> NDArray[np.float64]:
    """Return `[N, h, w, out]` for `[N, H, W, in]` and weights `[out, in, k, k]`, not padded."""
    kernel = weight.shape[2]
    windows = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(1, 2))
    sums = np.tensordot(windows, weight.astype(np.float64), axes=((3, 4, 5), (1, 2, 3)))
    return np.asarray(sums, np.float64)


def int8_values(
    sums: NDArray[Any],
    factor: NDArray[np.float32],
    bias: NDArray[np.float32],
    slopes: NDArray[np.float32],
    zero_point: int,
) -> NDArray[np.float64]:
    """Return what sums of products become, 0 to 255: each step rounded to float32, as promised."""
    whole = sums.astype(np.float32).astype(np.longdouble)  # multiply-add rounds once
    y = (whole * factor.astype(np.longdouble) + bias.astype(np.longdouble)).astype(np.float32)
    y = np.where(y < 0, y * slopes, y) + np.float32(zero_point - 128)
    return np.clip(np.rint(y), -128, 127).astype(np.float64) + 128


def _int8_layer(
    part: Arrays, x: NDArray[np.float64], scale: float, zero: int
) -> NDArray[np.float64]:
    sums = convolve(x - zero, part["weight"])  # exact: far less than 2 ** 53
    own = float(part["scale"])
    factor = (part["weight_scale"].astype(np.float64) * scale / own).astype(np.float32)
    bias = (part["bias"].astype(np.float64) / own).astype(np.float32)
    return int8_values(sums, factor, bias, part["slopes"], int(part["zero_point"]))


def _float_layer(
    part: Arrays, x: NDArray[np.float64], scale: float, zero: int
) -> NDArray[np.float64]:
    y = convolve(x, part["weight"]) + part["bias"]
    return np.where(y < 0, y * part["slopes"], y)


def _pooled(x: NDArray[np.float64], pool: Pool) -> NDArray[np.float64]:
    if not pool.size:
        return x
    height, width = x.shape[1:3]
    reach = pool.stride - 1 if pool.ceil else 0
    rows, columns = ((side - pool.size + reach) // pool.stride + 1 for side in (height, width))
    starts = [(r * pool.stride, c * pool.stride) for r in range(rows) for c in range(columns)]
    tops = [x[:, r : r + pool.size, c : c + pool.size].max(axis=(1, 2)) for r, c in starts]
    return np.stack(tops, axis=1).reshape(len(x), rows, columns, x.shape[3])


def noise(network: str, count: int, rng: np.random.Generator) -> Pixels:
    """Return crops for R- or O-Net, or small pictures for P-Net: noise with the extremes in it."""
    side = INPUT_SIZES.get(network, 27)
    pixels = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    pixels[0], pixels[-1] = 0, 255
    return pixels
