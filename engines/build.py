"""Build the float TFLite engines from the PyTorch networks: the first half of `make engines`.

    python -m unface.engines.build engines/prebuilt

Engines take NHWC pixels 0-255 and batches of any size; outputs are named as in the `Network`
contract. INT8 engines come from these by `python -m unface.calibration.quantize`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from unface.mtcnn.canvas import PAGE_SIDE
from unface.mtcnn.networks import ARCHITECTURES, INPUT_SIZES, load_network

TOOLCHAIN = ("torch", "litert-torch", "ai-edge-quantizer", "ai-edge-litert")


class _NamedOutputs(nn.Module):
    def __init__(self, network: nn.Module, outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.network = network
        self.outputs = outputs

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.outputs, self.network(pixels), strict=True))


def build_float(name: str, target: Path) -> None:
    """Write the FP32 engine of "pnet", "rnet" or "onet" to a `.tflite` file."""
    import litert_torch

    network = load_network(name)
    outputs = list(range(len(network.outputs)))
    channels_last = litert_torch.to_channel_last_io(network, args=[0], outputs=outputs)
    size = INPUT_SIZES.get(name, PAGE_SIDE)
    sample = torch.zeros(1, size, size, 3)
    named = _NamedOutputs(channels_last, network.outputs).eval()
    litert_torch.convert(named, (sample,)).export(str(target))


def write_manifest(folder: Path) -> None:
    """Write `manifest.json`: every engine in the folder, its hash, and the tools that made it."""
    engines = []
    for path in sorted(folder.glob("*.tflite")):
        network, precision = path.stem.split(".")
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        engines.append(
            {"network": network, "precision": precision, "file": path.name, "sha256": sha256}
        )
    manifest = {"toolchain": {tool: version(tool) for tool in TOOLCHAIN}, "engines": engines}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def main() -> None:
    """Build all float engines into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path)
    target: Path = parser.parse_args().target
    target.mkdir(parents=True, exist_ok=True)
    for name in ARCHITECTURES:
        build_float(name, target / f"{name}.fp32.tflite")
    write_manifest(target)


if __name__ == "__main__":
    # Tensors are named after the module that defines them: the same names however it is started.
    from unface.engines import build

    build.main()
