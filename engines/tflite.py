"""TFLite engines on the CPU, run by LiteRT with its XNNPACK kernels."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np

from unface.errors import EngineError
from unface.mtcnn.network import FloatArray, UInt8Array

# P-Net's two heads in one tensor, logit first, boxes times a gain that brings them to the logits'
# magnitude, so that one scale serves both: a second convolution would take as long again.
MERGED_HEADS, BOX_GAIN = "logit_box", 32
PLANS_KEPT = 4  # interpreters, one for each input shape, least recently used goes first


class TfliteNetwork:
    """A `.tflite` engine as a `Network` (see `unface.mtcnn.network` for shapes).

    LiteRT plans memory for one input shape and planning costs as much as running, so there is one
    interpreter for each shape: a batch is cut into `batches`, of which the last is padded.

    Raises `EngineError` when the engine cannot be loaded.
    """

    max_batch = 256

    def __init__(self, model: bytes, name: str, batches: tuple[int, ...], threads: int) -> None:
        self._model = model
        self._name = name
        self._batches = sorted(batches)
        self._threads = threads
        self._plans: OrderedDict[tuple[int, ...], _Plan] = OrderedDict()

    def __call__(self, images: UInt8Array) -> dict[str, FloatArray]:
        """Run the network on uint8 `[N, H, W, 3]`."""
        results: list[dict[str, FloatArray]] = []
        begin = 0
        while begin < len(images):
            batch = images[begin : begin + self._next_batch(len(images) - begin)]
            results.append(self._run(batch))
            begin += len(batch)
        return {name: np.concatenate([r[name] for r in results]) for name in results[0]}

    def close(self) -> None:
        """Free all interpreters."""
        self._plans.clear()

    def _next_batch(self, left: int) -> int:
        """Return the largest planned batch that is full, else the smallest that holds the rest."""
        full = [batch for batch in self._batches if batch <= left]
        return full[-1] if full else self._batches[0]

    def _run(self, images: UInt8Array) -> dict[str, FloatArray]:
        planned = next(batch for batch in self._batches if batch >= len(images))
        if len(images) < planned:
            padding = np.zeros((planned - len(images), *images.shape[1:]), np.uint8)
            results = self._plan((planned, *images.shape[1:])).run(
                np.concatenate([images, padding])
            )
        else:
            results = self._plan(images.shape).run(images)
        return {output: values[: len(images)] for output, values in results.items()}

    def _plan(self, shape: tuple[int, ...]) -> _Plan:
        plan = self._plans.pop(shape, None)
        if plan is None:
            plan = _Plan(self._model, self._name, shape, self._threads)
            if len(self._plans) >= PLANS_KEPT:
                self._plans.popitem(last=False)
        self._plans[shape] = plan
        return plan


class _Plan:
    """An interpreter planned for one input shape."""

    def __init__(self, model: bytes, name: str, shape: tuple[int, ...], threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        try:
            self._interpreter = Interpreter(model_content=model, num_threads=threads)
            details = self._interpreter.get_input_details()[0]
            self._input: int = details["index"]
            # As many pixels in another shape would pass, and come out as another picture.
            if tuple(details["shape_signature"][1:]) != shape[1:]:
                raise ValueError(f"it takes {[*details['shape_signature']]}, not {[*shape]}")
            self._interpreter.resize_tensor_input(self._input, shape)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise EngineError(f"engine {name} cannot be loaded: {error}") from error
        self._dtype = details["dtype"]
        if self._dtype is np.int8 and details["quantization"] != (1.0, -128):
            raise EngineError(f"engine {name} does not take pixels as they are: calibrate it again")
        self._outputs = [_Output(d) for d in self._interpreter.get_output_details()]

    def run(self, images: UInt8Array) -> dict[str, FloatArray]:
        self._interpreter.set_tensor(self._input, _to_input(images, self._dtype))
        self._interpreter.invoke()
        answers: dict[str, FloatArray] = {}
        for output in self._outputs:
            answers.update(output.read(self._interpreter.get_tensor(output.index)))
        return answers


class _Output:
    """What is known of an output tensor: what it holds and its scale."""

    def __init__(self, details: dict[str, Any]) -> None:
        self._name: str = details["name"]
        self.index: int = details["index"]
        self._scale, self._zero_point = details["quantization"]
        self._per_crop = details["shape"][1] == details["shape"][2] == 1

    def read(self, values: np.ndarray) -> dict[str, FloatArray]:
        """Return float32 arrays by the names of the `Network` contract."""
        if values.dtype != np.float32:
            values = np.subtract(values, self._zero_point, dtype=np.float32)
            values *= np.float32(self._scale)
        if self._per_crop:
            values = values[:, 0, 0]
        if self._name == MERGED_HEADS:
            return {"logit": values[..., 0], "box": values[..., 1:] / np.float32(BOX_GAIN)}
        return {self._name: values[..., 0] if self._name == "logit" else values}


def _to_input(images: UInt8Array, dtype: type) -> np.ndarray:
    """Return pixels as the engine wants them: float32 0-255, or int8 with zero point -128."""
    if dtype is np.int8:
        return (images ^ 0x80).view(np.int8)
    return images.astype(np.float32)
