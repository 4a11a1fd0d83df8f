"""P-, R- and O-Net of Zhang et al. 2016 as PyTorch modules: the networks every engine comes from.

Layer names and shapes are those of the published weights (`weights/README.md`). Each module takes
pixels, RGB 0-255 as float32 `[N, 3, H, W]`: the normalization `(x - 127.5) / 128` is folded into
the first convolution when the weights are loaded, which is exact because none of them pads. Instead
of a softmax over two classes they give one logit, face minus background: its sigmoid is the same
probability, and a threshold on the probability is a threshold on the logit.

Needs torch and safetensors: `pip install unface[engines]`.
"""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from unface.mtcnn.network import FloatArray, Networks, UInt8Array

PIXEL_MEAN = 127.5  # (x - 127.5) * 0.0078125 in the original's detect_face.m
PIXEL_SCALE = 128.0


class PNet(nn.Module):
    """Proposal network: `[N, 3, H, W]` to logit `[N, 1, h, w]`, box `[N, 4, h, w]`.

    h = (H - 2) // 2 - 4: the original's pooling also takes a last half window, whose cell would
    look at 11 pixels; it is left out, so that a cell always sees its 12 x 12 pixels.
    """

    outputs = ("logit", "box")

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3), nn.PReLU(10)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), nn.PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), nn.PReLU(32)
        self.conv4_1 = nn.Conv2d(32, 2, 1)
        self.conv4_2 = nn.Conv2d(32, 4, 1)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Run the network."""
        x = max_pool2d(self.prelu1(self.conv1(pixels)), 2, 2)
        x = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))
        return self.conv4_1(x), self.conv4_2(x)


class RNet(nn.Module):
    """Refinement network: `[N, 3, 24, 24]` to logit `[N, 1, 1, 1]`, box `[N, 4, 1, 1]`.

    The dense layers are convolutions over what is left, 3 x 3 and 1 x 1 cells: the same sums, and
    no reshaping that would fix the batch size of an exported engine.
    """

    outputs = ("logit", "box")

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), nn.PReLU(28)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), nn.PReLU(48)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.dense4, self.prelu4 = nn.Conv2d(64, 128, 3), nn.PReLU(128)
        self.dense5_1 = nn.Conv2d(128, 2, 1)
        self.dense5_2 = nn.Conv2d(128, 4, 1)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Run the network."""
        x = max_pool2d(self.prelu1(self.conv1(pixels)), 3, 2, ceil_mode=True)
        x = max_pool2d(self.prelu2(self.conv2(x)), 3, 2)
        x = self.prelu4(self.dense4(self.prelu3(self.conv3(x))))
        return self.dense5_1(x), self.dense5_2(x)


class ONet(nn.Module):
    """Output network: `[N, 3, 48, 48]` to logit `[N, 1, 1, 1]`, box `[N, 4, 1, 1]`, landmarks.

    Landmarks are `[N, 10, 1, 1]`; dense layers are convolutions, as in `RNet`.
    """

    outputs = ("logit", "box", "landmarks")

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3), nn.PReLU(32)
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3), nn.PReLU(64)
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3), nn.PReLU(64)
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2), nn.PReLU(128)
        self.dense5, self.prelu5 = nn.Conv2d(128, 256, 3), nn.PReLU(256)
        self.dense6_1 = nn.Conv2d(256, 2, 1)
        self.dense6_2 = nn.Conv2d(256, 4, 1)
        self.dense6_3 = nn.Conv2d(256, 10, 1)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Run the network."""
        x = max_pool2d(self.prelu1(self.conv1(pixels)), 3, 2, ceil_mode=True)
        x = max_pool2d(self.prelu2(self.conv2(x)), 3, 2)
        x = max_pool2d(self.prelu3(self.conv3(x)), 2, 2)
        x = self.prelu5(self.dense5(self.prelu4(self.conv4(x))))
        return self.dense6_1(x), self.dense6_2(x), self.dense6_3(x)


ARCHITECTURES: dict[str, type[PNet | RNet | ONet]] = {"pnet": PNet, "rnet": RNet, "onet": ONet}
INPUT_SIZES = {"rnet": 24, "onet": 48}  # P-Net takes any size


def load_network(name: str) -> PNet | RNet | ONet:
    """Return "pnet", "rnet" or "onet" with the published weights, ready for pixels 0-255."""
    with as_file(files("unface.mtcnn") / "weights" / f"{name}.safetensors") as path:
        weights = load_file(path)
    network = ARCHITECTURES[name]()
    shapes = {key: tensor.shape for key, tensor in network.state_dict().items()}
    network.load_state_dict({key: _as_convolution(w, shapes[key]) for key, w in weights.items()})
    _fold_normalization(network.conv1)
    _fold_softmax(network)
    return network.eval().requires_grad_(False)


def _as_convolution(weight: Tensor, shape: torch.Size) -> Tensor:
    """Return a dense layer's weight as the convolution's; anything else as it is.

    The published weights flatten x, then y, then channel, as MATLAB stores pictures.
    """
    if weight.dim() != 2:
        return weight
    outputs, channels, height, width = shape
    return weight.reshape(outputs, width, height, channels).permute(0, 3, 2, 1)


def _fold_normalization(conv: nn.Conv2d) -> None:
    """Let the first convolution take 0-255 instead of `(x - 127.5) / 128`."""
    assert conv.bias is not None  # noqa: S101 - for the type checker
    weight = conv.weight.data / PIXEL_SCALE
    conv.bias.data -= weight.sum((1, 2, 3)) * PIXEL_MEAN
    conv.weight.data = weight


def _fold_softmax(network: PNet | RNet | ONet) -> None:
    """Turn the two class scores (background, face) into one: their difference."""
    name = next(name for name in ("conv4_1", "dense5_1", "dense6_1") if hasattr(network, name))
    scores = getattr(network, name)
    scores.weight = nn.Parameter(scores.weight[1:] - scores.weight[:1])
    scores.bias = nn.Parameter(scores.bias[1:] - scores.bias[:1])


class TorchNetwork:
    """A torch module as a `Network` (see there for shapes): the FP32 reference, on the CPU."""

    max_batch = 1024

    def __init__(self, module: PNet | RNet | ONet) -> None:
        self._module = module
        self._dense = not isinstance(module, PNet)

    def __call__(self, images: UInt8Array) -> dict[str, FloatArray]:
        """Run the network on uint8 `[N, H, W, 3]`."""
        pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
        with torch.inference_mode():
            results = self._module(pixels)
        arrays = {}
        for name, result in zip(self._module.outputs, results, strict=True):
            array = result.movedim(1, -1).numpy()
            arrays[name] = array[:, 0, 0] if self._dense else array
        arrays["logit"] = arrays["logit"][..., 0]
        return arrays

    def close(self) -> None:
        """Nothing to free: torch frees the module with its last reference."""


def torch_networks() -> Networks:
    """Return the three reference networks."""
    pnet, rnet, onet = (TorchNetwork(load_network(name)) for name in ARCHITECTURES)
    return Networks(pnet, rnet, onet, backend="torch", precision="fp32")
