"""The range of every layer's output over calibration samples, by one of four methods."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d, prelu

from unface.calibration.cache import Method
from unface.calibration.rewrite import Trained
from unface.calibration.scales import LARGEST
from unface.mtcnn.network import FloatArray, UInt8Array

BINS = 4096
BATCH = {"pnet": 4, "rnet": 256, "onet": 64}
PERCENTILE = 99.99
CHANNEL_SAMPLES = {"pnet": 200, "rnet": 4000, "onet": 1500}
Histogram = npt.NDArray[np.int64]


def activations(trained: Trained, images: UInt8Array) -> dict[str, Tensor]:
    """Return by layer what it computes for uint8 `[n, H, W, 3]`: float32 `[2, n, C, h, w]`.

    First what the convolution gives, then what PReLU makes of it (a head's twice): a scale must
    hold both, whatever form the layer is written in.
    """
    x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
    found = {}
    for layer in trained.layers:
        before = conv2d(x, torch.from_numpy(layer.conv.weight), torch.from_numpy(layer.conv.bias))
        after = prelu(before, torch.from_numpy(layer.slopes))
        found[layer.conv.name] = torch.stack([before, after])
        x = after
        if layer.pool:
            x = max_pool2d(x, layer.pool.size, layer.pool.stride, ceil_mode=layer.pool.ceil)
    for head in trained.heads:
        y = conv2d(x, torch.from_numpy(head.weight), torch.from_numpy(head.bias))
        found[head.name] = torch.stack([y, y])
    return found


def channel_limits(trained: Trained, samples: UInt8Array) -> dict[str, FloatArray]:
    """Return by layer the magnitude that 99.99% of each channel's values stay below, `[C]`.

    The mean over batches: a quantile of all values at once would need them all.
    """
    quantiles: dict[str, list[FloatArray]] = {}
    for found in _batches(trained, samples[: CHANNEL_SAMPLES[trained.network]]):
        for name, values in found.items():
            by_channel = values.abs().transpose(0, 2).flatten(1)
            place = max(1, round(by_channel.shape[1] * PERCENTILE / 100))
            quantiles.setdefault(name, []).append(by_channel.kthvalue(place, dim=1).values.numpy())
    return {name: np.mean(found, axis=0) for name, found in quantiles.items()}


def histograms(trained: Trained, samples: UInt8Array) -> dict[str, tuple[float, Histogram]]:
    """Return by layer the largest magnitude and the histogram of magnitudes up to it, `[BINS]`."""
    largest: dict[str, float] = {}
    for found in _batches(trained, samples):
        for name, values in found.items():
            largest[name] = max(largest.get(name, 0.0), float(values.abs().max()))
    counts = {name: np.zeros(BINS, np.int64) for name in largest}
    for found in _batches(trained, samples):
        for name, values in found.items():
            # torch.histc counts in the tensor's own float32, which stops at 2^24.
            bins = (values.abs() * (BINS / max(largest[name], 1e-30))).int().clamp_(max=BINS - 1)
            counts[name] += torch.bincount(bins.flatten(), minlength=BINS).numpy()
    return {name: (largest[name], counts[name]) for name in largest}


def spans(trained: Trained, samples: UInt8Array) -> dict[str, tuple[float, float]]:
    """Return by layer the range after PReLU, zero in it, beyond which 0.01% lie on either side.

    What the compiled core stores: it has no scale for what is before PReLU, and needs none.
    """
    ends: dict[str, tuple[float, float]] = {}
    for found in _batches(trained, samples):
        for name, (_, after) in found.items():
            low, high = ends.get(name, (0.0, 0.0))
            ends[name] = (min(low, float(after.min())), max(high, float(after.max())))
    counts = {name: np.zeros(BINS, np.int64) for name in ends}
    for found in _batches(trained, samples):
        for name, (_, after) in found.items():
            low, high = ends[name]
            bins = ((after - low) * (BINS / max(high - low, 1e-30))).int().clamp_(0, BINS - 1)
            counts[name] += torch.bincount(bins.flatten(), minlength=BINS).numpy()
    return {name: _without_tails(*ends[name], counts[name]) for name in ends}


def _without_tails(low: float, high: float, counts: Histogram) -> tuple[float, float]:
    share = np.cumsum(counts) / counts.sum()
    first = int(np.searchsorted(share, 1 - PERCENTILE / 100, side="right"))
    last = int(np.searchsorted(share, PERCENTILE / 100))
    step = (high - low) / BINS
    return min(0.0, low + first * step), max(0.0, low + (last + 1) * step)


def threshold(largest: float, counts: Histogram, method: Method) -> float:
    """Return the magnitude that int8 127 stands for: what is larger is clipped to it.

    - "min-max": the largest seen;
    - "percentile": 99.99% of all values are smaller;
    - "mse": the least mean squared error of the quantized values;
    - "entropy": the least Kullback-Leibler divergence between the distributions of the values
      before and after (TensorRT's entropy calibration; Migacz, "8-bit Inference with TensorRT",
      GTC 2017).
    """
    if method == "min-max" or not counts.any():
        return largest
    if method == "percentile":
        share = np.cumsum(counts) / counts.sum()
        return largest * float(np.searchsorted(share, PERCENTILE / 100) + 1) / BINS
    error = _squared_error if method == "mse" else _divergence
    ends = np.unique(np.linspace(LARGEST + 1, BINS, 128).astype(int))
    errors = [error(counts, int(end)) for end in ends]
    return largest * float(ends[int(np.argmin(errors))]) / BINS


def _batches(trained: Trained, samples: UInt8Array) -> Iterator[dict[str, Tensor]]:
    step = BATCH[trained.network]
    with torch.inference_mode():
        for begin in range(0, len(samples), step):
            yield activations(trained, samples[begin : begin + step])


def _squared_error(counts: Histogram, end: int) -> float:
    """Return the sum of squared errors, in bins, when bin `end` becomes 127."""
    middle = np.arange(BINS) + 0.5
    scale = end / LARGEST
    restored = np.minimum(np.rint(middle / scale), LARGEST) * scale
    return float((counts * (middle - restored) ** 2).sum())


def _divergence(counts: Histogram, end: int) -> float:
    """Return the divergence of the first `end` bins from what 128 levels keep of them."""
    clipped = counts[:end].astype(np.float64)
    clipped[-1] += counts[end:].sum()
    level = np.minimum(np.arange(end) * (LARGEST + 1) // end, LARGEST)
    filled = counts[:end] > 0
    totals = np.bincount(level, weights=counts[:end], minlength=LARGEST + 1)
    members = np.bincount(level, weights=filled, minlength=LARGEST + 1)
    kept = np.where(filled, totals[level] / np.maximum(members[level], 1), 0)
    p = (clipped + 1e-4) / (clipped + 1e-4).sum()
    q = (kept + 1e-4) / (kept + 1e-4).sum()
    return float((p * np.log(p / q)).sum())
