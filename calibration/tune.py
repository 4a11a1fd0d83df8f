"""Tune a network for INT8: quantization-aware distillation from the float network.

    python -m unface.calibration.tune pnet --samples samples.npz [--native]

The compiled core rounds less than LiteRT, and has P-Net weights of its own (`--native`).

No labels are used: the network learns to give, through INT8 rounding, what the float network gives
for the same pixels (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015; rounding
is passed straight through, Bengio et al. 2013). What comes out are float weights,
`tuned/<network>.safetensors`, that lose less when they are quantized.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d, prelu, smooth_l1_loss
from tqdm import tqdm

from unface.calibration.calibrate import calibrate
from unface.calibration.native_writer import LEVELS
from unface.calibration.ranges import channel_limits
from unface.calibration.rewrite import (
    INT8_FORMS,
    MERGED_HEADS_OF,
    Layer,
    Trained,
    equalize,
    read_trained,
)
from unface.calibration.samples import read_samples
from unface.calibration.scales import LARGEST, Scales
from unface.calibration.weights import hash_of, tensors_of, with_tensors, write_tuned
from unface.engines.tflite import BOX_GAIN, MERGED_HEADS
from unface.mtcnn.network import UInt8Array

BATCH = {"pnet": 6, "rnet": 192, "onet": 48}
RATE = 2e-3  # of a tensor's mean magnitude, at the beginning; falls as a cosine
FLOOR = -3.0  # logits below are background for sure: how far below need not be learnt


class _Stored(torch.autograd.Function):
    """Values as uint8 with a zero point; the gradient passes where nothing was clipped."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        scale = (high - low) / LEVELS
        zero = round(-low / scale)
        steps = torch.round(x / scale) + zero
        ctx.save_for_backward((steps >= 0) & (steps <= LEVELS))
        return (steps.clamp(0, LEVELS) - zero) * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None, None


class _Rounded(torch.autograd.Function):
    """Values as int8 holds them; the gradient passes where nothing was clipped."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor | float) -> Tensor:
        steps = torch.round(x / scale)
        ctx.save_for_backward(steps.abs() <= LARGEST)
        return steps.clamp(-LARGEST, LARGEST) * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None


def rounded(x: Tensor, scale: Tensor | float) -> Tensor:
    """Return `x` rounded to int8 steps of `scale`."""
    result: Tensor = _Rounded.apply(x, scale)  # type: ignore[no-untyped-call]
    return result


class QuantizedNetwork(nn.Module):
    """A trained network computed in float32 with every rounding of its INT8 engine.

    `scales` are those of `Calibration.engine_scales`.
    """

    def __init__(self, trained: Trained, scales: Scales) -> None:
        super().__init__()
        self._trained, self._scales = trained, scales
        self.weights = nn.ParameterList(torch.from_numpy(c.weight.copy()) for c in trained.convs)
        self.biases = nn.ParameterList(torch.from_numpy(c.bias.copy()) for c in trained.convs)
        self.slopes = nn.ParameterList(
            torch.from_numpy(np.minimum(layer.slopes, 1)) for layer in trained.layers
        )

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Return the heads for pixels 0-255, float32 `[n, 3, H, W]`."""
        x = pixels
        forms = INT8_FORMS[self._trained.network]
        for index, layer in enumerate(self._trained.layers):
            name = layer.conv.name
            y = self._conv(index, x)
            if forms.get(name) != "halves":  # there both halves come from the convolution
                y = rounded(y, self._scales[name])
            slopes = self.slopes[index].clamp(max=1)[None, :, None, None]
            x = rounded(torch.maximum(y, slopes * y), self._scales[name])
            if layer.pool:
                x = max_pool2d(x, layer.pool.size, layer.pool.stride, ceil_mode=layer.pool.ceil)
        first = len(self._trained.layers)
        if self._trained.network in MERGED_HEADS_OF:
            scale = self._scales[MERGED_HEADS]
            logit, box = self._conv(first, x), self._conv(first + 1, x)
            return [rounded(logit, scale), rounded(box, scale / BOX_GAIN)]
        heads = range(first, first + len(self._trained.heads))
        return [conv2d(x, self.weights[index], self.biases[index]) for index in heads]

    def trained(self) -> Trained:
        """Return the network with its present weights."""
        tensors = {}
        for index, conv in enumerate(self._trained.convs):
            tensors[f"{conv.name}.weight"] = _array(self.weights[index])
            tensors[f"{conv.name}.bias"] = _array(self.biases[index])
        for layer, slopes in self._layers_and_slopes():
            tensors[f"{layer.conv.name}.slopes"] = np.minimum(_array(slopes), 1)
        return with_tensors(self._trained, tensors)

    def _layers_and_slopes(self) -> Iterator[tuple[Layer, Tensor]]:
        return zip(self._trained.layers, self.slopes, strict=True)

    def _conv(self, index: int, x: Tensor) -> Tensor:
        weight = self.weights[index]
        scale = weight.detach().abs().amax((1, 2, 3), keepdim=True) / LARGEST
        return conv2d(x, rounded(weight, scale), self.biases[index])


class StoredNetwork(QuantizedNetwork):
    """The same with the rounding of the compiled core: of what is stored, and of weights.

    `spans` are those of `Calibration.spans`. P-Net only: the heads of the others stay in float.
    """

    def __init__(self, trained: Trained, spans: Mapping[str, tuple[float, float]]) -> None:
        super().__init__(trained, {})
        self._spans = spans
        self.slopes = nn.ParameterList(
            torch.from_numpy(layer.slopes.copy()) for layer in trained.layers
        )

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Return the heads for pixels 0-255, float32 `[n, 3, H, W]`."""
        x = pixels
        for index, layer in enumerate(self._trained.layers):
            x = prelu(self._conv(index, x), self.slopes[index])
            x = _Stored.apply(x, *self._spans[layer.conv.name])  # type: ignore[no-untyped-call]
            if layer.pool:
                x = max_pool2d(x, layer.pool.size, layer.pool.stride, ceil_mode=layer.pool.ceil)
        first = len(self._trained.layers)
        return [self._conv(first + index, x) for index in range(len(self._trained.heads))]

    def trained(self) -> Trained:
        """Return the network with its present weights; slopes may be above 1."""
        slopes = {f"{layer.conv.name}.slopes": _array(s) for layer, s in self._layers_and_slopes()}
        return with_tensors(self._trained, {**tensors_of(super().trained()), **slopes})


def tune(
    trained: Trained, samples: UInt8Array, steps: int, seed: int = 0, *, native: bool = False
) -> Trained:
    """Return the network tuned on samples, uint8 `[n, H, W, 3]`; deterministic on one machine."""
    from unface.mtcnn.networks import load_network

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    teacher = load_network(trained.network)
    even = equalize(trained, channel_limits(trained, samples))
    measured = calibrate(even, samples)
    student = (
        StoredNetwork(even, measured.spans())
        if native
        else QuantizedNetwork(even, measured.engine_scales())
    )
    rates = [RATE * float(p.detach().abs().mean()) for p in student.parameters()]
    groups = [{"params": [p], "lr": r} for p, r in zip(student.parameters(), rates, strict=True)]
    optimizer = torch.optim.Adam(groups)
    for step in tqdm(range(steps), desc=f"tuning {trained.network}", unit="step", disable=None):
        decay = 0.5 * (1 + np.cos(np.pi * step / steps)) + 0.01
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * decay
        pixels = _varied(samples[rng.choice(len(samples), BATCH[trained.network])], rng)
        with torch.no_grad():
            wanted = teacher(pixels)
        loss = _loss(student(pixels), wanted)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return student.trained()


def _loss(given: list[Tensor], wanted: tuple[Tensor, ...]) -> Tensor:
    """Return the distance of logits where it matters, and of the rest where there is a face."""
    logit, target = given[0].clamp(min=FLOOR), wanted[0].clamp(min=FLOOR)
    near = target > FLOOR
    weight = torch.where(near, 1.0, 0.3)
    distance = smooth_l1_loss(logit, target, reduction="none", beta=0.5)
    loss = (distance * weight).sum() / (near.sum() + 500)
    face = (target > -1).float()
    for values, aims in zip(given[1:], wanted[1:], strict=True):
        error = ((values - aims) ** 2 * face).sum()
        loss = loss + 20 * error / (face.sum() * values.shape[1] + 50)
    return loss


def _varied(images: UInt8Array, rng: np.random.Generator) -> Tensor:
    """Return float32 `[n, 3, H, W]`, half of them mirrored, most brighter or darker."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    if rng.random() < 0.5:
        pixels = pixels.flip(3)
    if rng.random() < 0.6:
        gain, shift = rng.uniform(0.6, 1.3), rng.uniform(-50, 50)
        pixels = ((pixels - 128) * gain + 128 + shift).clamp(0, 255).round()
    return pixels


def _array(tensor: Tensor) -> np.ndarray:
    return np.asarray(tensor.detach().numpy().copy(), np.float32)


def main() -> None:
    """Tune one network and write its weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", choices=list(BATCH))
    parser.add_argument("--samples", type=Path, required=True, help="of unface calibrate")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--native", action="store_true", help="for the compiled core; P-Net only")
    parser.add_argument("--out", type=Path, default=Path("calibration/tuned"))
    arguments = parser.parse_args()
    samples = getattr(read_samples(arguments.samples), arguments.network)
    trained = read_trained(arguments.network)
    tuned = tune(trained, samples, arguments.steps, native=arguments.native)
    name = f"{arguments.network}{'.native' if arguments.native else ''}.safetensors"
    write_tuned(tuned, hash_of(trained), arguments.out / name)


if __name__ == "__main__":
    main()
