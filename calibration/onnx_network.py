"""ONNX engines in ONNX Runtime, on the CPU: to prove and to judge what `onnx_writer` writes."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from unface.engines.shelf import NETWORKS
from unface.errors import EngineError
from unface.mtcnn.network import FloatArray, Networks, UInt8Array


class OnnxNetwork:
    """An ONNX model as a `Network` (see `unface.mtcnn.network`); raises `EngineError`."""

    max_batch = 256

    def __init__(self, model: bytes, name: str, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(
                model, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise EngineError(f"engine {name} cannot be loaded: {error}") from error
        self._outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, images: UInt8Array) -> dict[str, FloatArray]:
        """Run the network on uint8 `[N, H, W, 3]`."""
        results = dict(zip(self._outputs, self._session.run(None, {"pixels": images}), strict=True))
        if results["logit"].shape[1:3] == (1, 1):
            results = {name: values[:, 0, 0] for name, values in results.items()}
        results["logit"] = results["logit"][..., 0]
        return results

    def close(self) -> None:
        """Nothing to free: the session goes with its last reference."""


def open_onnx(folder: Path, precision: str, threads: int = 1) -> Networks:
    """Load the three ONNX engines of a precision from a folder."""
    pnet, rnet, onet = (
        OnnxNetwork((folder / f"{name}.{precision}.onnx").read_bytes(), name, threads)
        for name in NETWORKS
    )
    return Networks(pnet, rnet, onet, backend="onnxruntime", precision=precision)
