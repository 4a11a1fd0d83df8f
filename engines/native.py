"""Engines for the compiled core: `.npz` files of weights, read into `unface.kernels`.

One file a network, arrays by layer: `conv1.weight` (float32, or int8 with `conv1.weight_scale`),
`conv1.bias`, `conv1.slopes`, and for INT8 `conv1.scale` and `conv1.zero_point` of its output, which
is uint8: real = scale * (value - zero point). Heads have weight and bias; those of R- and O-Net are
float also in INT8 engines, so that scores keep their order.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt

from unface.errors import EngineError
from unface.kernels.networks import CropKernel, ScanKernel
from unface.kernels.packing import Convolution, PackedHead, PackedLayer, Pool
from unface.mtcnn.canvas import cells
from unface.mtcnn.cascade import O_NET_SIZE, R_NET_SIZE
from unface.mtcnn.network import FloatArray, UInt8Array
from unface.mtcnn.pyramid import P_NET_SIZE
from unface.mtcnn.team import Team, shares

Shape = tuple[int, int, int, int]
Arrays = Mapping[str, npt.NDArray[Any]]

# Zhang et al. 2016, fig. 2: weights [out, in, height, width] and pooling of the hidden layers.
LAYERS: dict[str, tuple[tuple[str, Shape, Pool], ...]] = {
    "pnet": (
        ("conv1", (10, 3, 3, 3), Pool(2, 2)),
        ("conv2", (16, 10, 3, 3), Pool()),
        ("conv3", (32, 16, 3, 3), Pool()),
    ),
    "rnet": (
        ("conv1", (28, 3, 3, 3), Pool(3, 2, ceil=True)),
        ("conv2", (48, 28, 3, 3), Pool(3, 2)),
        ("conv3", (64, 48, 2, 2), Pool()),
        ("dense4", (128, 64, 3, 3), Pool()),
    ),
    "onet": (
        ("conv1", (32, 3, 3, 3), Pool(3, 2, ceil=True)),
        ("conv2", (64, 32, 3, 3), Pool(3, 2)),
        ("conv3", (64, 64, 3, 3), Pool(2, 2)),
        ("conv4", (128, 64, 2, 2), Pool()),
        ("dense5", (256, 128, 3, 3), Pool()),
    ),
}
HEADS = {  # outputs, in order
    "pnet": {"logit": 1, "box": 4},
    "rnet": {"logit": 1, "box": 4},
    "onet": {"logit": 1, "box": 4, "landmarks": 10},
}
INPUT_SIZES = {"rnet": R_NET_SIZE, "onet": O_NET_SIZE}
GROUP = 16  # crops the core takes at once: a vector of 16, or two of 8

# What numpy and zipfile raise for an array, a pickle, a damaged or an encrypted archive.
UNREADABLE = (
    *(OSError, KeyError, ValueError, TypeError, AttributeError, EOFError, RuntimeError),
    *(MemoryError, SyntaxError, TokenError, zlib.error, zipfile.BadZipFile),
)


class NativePNet:
    """P-Net on the compiled core; a `Scanner` (see `unface.mtcnn.network`).

    Raises `EngineError` when the engine cannot be read.
    """

    max_batch = 256

    def __init__(self, model: bytes, name: str) -> None:
        arrays = read_arrays(model, name, "pnet")
        layers, scale, zero_point = _hidden(arrays, "pnet")
        weight, bias = _joined_heads(arrays, "pnet")
        is_float = weight.dtype == np.float32
        heads = Convolution(
            weight,
            bias,
            np.ones(len(bias), np.float32),
            None if is_float else _joined(arrays, "pnet", "weight_scale"),
        )
        layers.append(PackedLayer(heads, input_scale=scale, zero_point=zero_point))
        self._kernel = ScanKernel(layers, is_float=is_float)

    def scan(
        self, image: UInt8Array, size: tuple[int, int], rows: tuple[int, int], lowest: float
    ) -> npt.NDArray[np.void]:
        """See `unface.mtcnn.network.Scanner`."""
        return self._kernel.scan(image, size, rows, lowest)

    def __call__(self, images: UInt8Array) -> dict[str, FloatArray]:
        """Run the network on uint8 `[N, H, W, 3]`, all cells."""
        height, width = images.shape[1:3]
        if min(height, width) < P_NET_SIZE:
            raise EngineError(f"P-Net looks at {P_NET_SIZE} pixels or more, not {height} x {width}")
        rows, columns = cells(height), cells(width)
        hits = np.stack(
            [
                self.scan(np.ascontiguousarray(image), (width, height), (0, rows), -np.inf)
                for image in images
            ]
        ).reshape(-1, rows, columns)
        return {"logit": hits["logit"], "box": hits["box"]}

    def close(self) -> None:
        """Nothing to free but memory."""


class NativeNetwork:
    """R- or O-Net on the compiled core (see `unface.mtcnn.network.Network`).

    Raises `EngineError` when the engine cannot be read.
    """

    max_batch = 1024

    def __init__(self, model: bytes, name: str, network: str, team: Team) -> None:
        arrays = read_arrays(model, name, network)
        layers, scale, zero_point = _hidden(arrays, network)
        weight, bias = _joined_heads(arrays, network)
        is_float = layers[0].is_float
        head = PackedHead(weight[:, :, 0, 0], bias, scale, zero_point)
        self._kernel = CropKernel(INPUT_SIZES[network], layers, head, is_float=is_float)
        self._heads, self._team = HEADS[network], team

    def __call__(self, images: UInt8Array) -> dict[str, FloatArray]:
        """Run the network on uint8 `[N, size, size, 3]`."""
        size = self._kernel.size
        if images.shape[1:] != (size, size, 3):
            raise EngineError(f"crops are {[*images.shape]}; [N, {size}, {size}, 3] is needed")
        return self._shared(lambda part: self._kernel.classify(images[part]), len(images))

    def cut_and_run(
        self, images: Sequence[UInt8Array], cuts: npt.NDArray[np.void]
    ) -> dict[str, FloatArray]:
        """See `unface.mtcnn.network.Cutter`."""
        # From top to bottom: what is cut after each other lies near in memory.
        order = np.lexsort((cuts["y"], cuts["picture"]))
        cuts = cuts[order]
        outputs = self._shared(
            lambda part: self._kernel.cut_and_classify(images, cuts[part]), len(cuts)
        )
        back = np.argsort(order)
        return {name: values[back] for name, values in outputs.items()}

    def _shared(self, classify: Callable[[slice], FloatArray], count: int) -> dict[str, FloatArray]:
        """Return the outputs for `count` crops, shared among the threads."""
        groups = shares(-(-count // GROUP), 4 * self._team.threads)
        parts = [slice(begin * GROUP, min(end * GROUP, count)) for begin, end in groups]
        values = np.concatenate(self._team.map(classify, parts))
        edges = np.cumsum(list(self._heads.values()))[:-1]
        outputs = dict(zip(self._heads, np.split(values, edges, axis=1), strict=True))
        return {**outputs, "logit": values[:, 0]}

    def close(self) -> None:
        """Nothing to free but memory."""


def read_arrays(model: bytes, name: str, network: str) -> Arrays:
    """Return the arrays of an engine; raises `EngineError` unless they are this network's."""
    try:
        with np.load(io.BytesIO(model), allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        _check(arrays, network)
    except UNREADABLE as error:
        raise EngineError(f"engine {name} cannot be loaded: {error}") from error
    return arrays


def _check(arrays: Arrays, network: str) -> None:
    """Raise `ValueError` or `KeyError` unless all arrays are there, of their shapes, and finite."""
    before = [shape[0] for _, shape, _ in LAYERS[network]][-1]
    shapes = {layer: shape for layer, shape, _ in LAYERS[network]}
    shapes |= {head: (outputs, before, 1, 1) for head, outputs in HEADS[network].items()}
    quantized = arrays["conv1.weight"].dtype == np.int8
    for layer, shape in shapes.items():
        integers = quantized and (layer not in HEADS[network] or network == "pnet")
        wanted: dict[str, tuple[tuple[int, ...], type]] = {
            "weight": (shape, np.int8 if integers else np.float32),
            "bias": (shape[:1], np.float32),
        }
        if layer not in HEADS[network]:
            wanted["slopes"] = (shape[:1], np.float32)
        if integers:
            wanted["weight_scale"] = (shape[:1], np.float32)
        if integers and layer not in HEADS[network]:
            wanted["scale"] = ((), np.float32)
            wanted["zero_point"] = ((), np.int32)
        for field, (size, dtype) in wanted.items():
            array = arrays[f"{layer}.{field}"]
            if array.shape != size or array.dtype != dtype:
                raise ValueError(f"{layer}.{field} is {array.dtype} {array.shape}")
            if not np.isfinite(array).all() or ("scale" in field and not (array > 0).all()):
                raise ValueError(f"{layer}.{field} holds values that cannot be")
            if field == "zero_point" and not 0 <= int(array) <= 255:
                raise ValueError(f"{layer}.{field} is {array}")


def _hidden(arrays: Arrays, network: str) -> tuple[list[PackedLayer], float, int]:
    """Return the hidden layers, and scale and zero point of the last one's output (float: 1, 0)."""
    layers, before = [], (1.0, 0)
    for name, _, pool in LAYERS[network]:
        weight, bias, slopes = (arrays[f"{name}.{f}"] for f in ("weight", "bias", "slopes"))
        quantized = weight.dtype == np.int8
        after = (1.0, 0)
        if quantized:
            after = float(arrays[f"{name}.scale"]), int(arrays[f"{name}.zero_point"])
        weight_scale = arrays[f"{name}.weight_scale"] if quantized else None
        layers.append(
            PackedLayer(Convolution(weight, bias, slopes, weight_scale, *after), pool, *before)
        )
        before = after
    return layers, *before


def _joined_heads(arrays: Arrays, network: str) -> tuple[FloatArray, FloatArray]:
    return _joined(arrays, network, "weight"), _joined(arrays, network, "bias")


def _joined(arrays: Arrays, network: str, field: str) -> FloatArray:
    return np.concatenate([arrays[f"{head}.{field}"] for head in HEADS[network]])
