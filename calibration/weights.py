"""The weights INT8 engines are made of: the trained ones, or tuned ones where there are some."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from unface.calibration.rewrite import Trained, read_trained
from unface.errors import EngineError
from unface.mtcnn.network import FloatArray


def int8_weights(network: str, folder: Path | None = None) -> Trained:
    """Return the weights to quantize for "pnet", "rnet" or "onet".

    Those of `folder/<network>.safetensors` (default: what ships) when there are any, else the
    trained ones. Raises `EngineError` when tuned weights are damaged or were tuned from others.
    """
    trained = read_trained(network)
    home = files("unface.calibration") / "tuned" if folder is None else folder
    path = Path(str(home)) / f"{network}.safetensors"
    return read_tuned(trained, path) if path.exists() else trained


def native_weights(network: str) -> tuple[Trained, str]:
    """Return the weights to quantize for the compiled core, and the name of their calibration.

    Its own where some were tuned ("pnet.native"), else those of all engines. Raises as
    `int8_weights` does.
    """
    name = f"{network}.native"
    path = Path(str(files("unface.calibration") / "tuned")) / f"{name}.safetensors"
    if path.exists():
        return read_tuned(read_trained(network), path), name
    return int8_weights(network), network


def tensors_of(trained: Trained) -> dict[str, FloatArray]:
    """Return all weights by name: "conv1.weight", "conv1.bias", "conv1.slopes"."""
    tensors = {}
    for conv in trained.convs:
        tensors[f"{conv.name}.weight"] = conv.weight
        tensors[f"{conv.name}.bias"] = conv.bias
    for layer in trained.layers:
        tensors[f"{layer.conv.name}.slopes"] = layer.slopes
    return tensors


def hashes_of(trained: Trained) -> dict[str, str]:
    """Return the SHA-256 of each tensor's shape and values, by name."""
    return {
        name: hashlib.sha256(f"{tensor.shape}".encode() + _bytes(tensor)).hexdigest()
        for name, tensor in sorted(tensors_of(trained).items())
    }


def hash_of(trained: Trained) -> str:
    """Return one SHA-256 for all tensors."""
    return hashlib.sha256(repr(sorted(hashes_of(trained).items())).encode()).hexdigest()


def write_tuned(tuned: Trained, trained_sha256: str, path: Path) -> None:
    """Write tuned weights; `trained_sha256` is the hash of what they were tuned from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        # Half precision is far finer than the int8 that these become.
        name: np.ascontiguousarray(t, np.float16 if name.endswith(".weight") else np.float32)
        for name, t in tensors_of(tuned).items()
    }
    save_file(tensors, path, {"trained_sha256": trained_sha256})


def read_tuned(trained: Trained, path: Path) -> Trained:
    """Return `trained` with the weights of a file; raises `EngineError`, see `int8_weights`."""
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            tensors = {
                name: file.get_tensor(name).astype(np.float32)
                for name in file.keys()  # noqa: SIM118 - not a dict
            }
    except (OSError, SafetensorError) as error:
        raise EngineError(f"{path.name} cannot be read ({error}); tune again") from error
    if metadata.get("trained_sha256") != hash_of(trained):
        raise EngineError(
            f"{path.name} is stale: other weights of {trained.network} were tuned; tune again"
        )
    shapes = {name: tensor.shape for name, tensor in tensors_of(trained).items()}
    if {name: tensor.shape for name, tensor in tensors.items()} != shapes:
        raise EngineError(f"{path.name} does not hold the weights of {trained.network}; tune again")
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise EngineError(f"{path.name} holds weights that are no numbers; tune again")
    return with_tensors(trained, tensors)


def with_tensors(trained: Trained, tensors: dict[str, FloatArray]) -> Trained:
    """Return the network with other weights, named as `tensors_of` names them."""
    layers = tuple(
        replace(
            layer,
            conv=replace(
                layer.conv,
                weight=tensors[f"{layer.conv.name}.weight"],
                bias=tensors[f"{layer.conv.name}.bias"],
            ),
            slopes=tensors[f"{layer.conv.name}.slopes"],
        )
        for layer in trained.layers
    )
    heads = tuple(
        replace(h, weight=tensors[f"{h.name}.weight"], bias=tensors[f"{h.name}.bias"])
        for h in trained.heads
    )
    return replace(trained, layers=layers, heads=heads)


def _bytes(tensor: FloatArray) -> bytes:
    return np.ascontiguousarray(tensor, "<f4").tobytes()
