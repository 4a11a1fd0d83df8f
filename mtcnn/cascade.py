"""The three-stage cascade: an image in, faces out. `reference.py` states its rules."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from unface.errors import InvalidImage
from unface.kernels.arrays import can_cut
from unface.mtcnn import boxes as bx
from unface.mtcnn.boxes import BoxArray, FloatArray
from unface.mtcnn.crops import crop_squares, plan_cuts
from unface.mtcnn.faces import Faces
from unface.mtcnn.network import Network, Networks, UInt8Array, checked, is_cutter, run
from unface.mtcnn.options import DetectOptions
from unface.mtcnn.proposals import logit_from_probability, propose
from unface.mtcnn.pyramid import Mipmap, pyramid_levels

R_NET_SIZE, O_NET_SIZE = 24, 48  # pixels a side; Zhang et al. 2016, fig. 2
CROPS_AT_ONCE = 256  # bounds the memory of a crowd
# The networks answer best for crops a little up and left of where they look: recall is
# the same and false positives a third fewer (docs/performance.md). The box moves along, so that
# nothing else shifts.
CROP_OFFSET = 0.4  # output pixels
SMALLEST_SIDE = 1.0  # pixels; regression can turn a box inside out


class Cascade:
    """P-, R- and O-Net orchestrated on the CPU. Not thread-safe: one caller at a time."""

    def __init__(self, networks: Networks) -> None:
        self.networks = networks

    def detect(self, image: UInt8Array, options: DetectOptions | None = None) -> Faces:
        """Find the faces of an image, RGB uint8 `[H, W, 3]`; see `reference.py` for the rules.

        Raises `InvalidImage` for any other array and `EngineError` when an engine misbehaves.
        """
        check_image(image)
        options = options or DetectOptions()
        height, width = image.shape[:2]
        levels = tuple(pyramid_levels(width, height, options.min_face, options.scale_factor))
        timings: dict[str, float] = {}
        mipmap = Mipmap(image, self.networks.team)
        squares = np.empty((0, 3))
        if levels:
            with _timed(timings, "pnet"):
                squares = propose(mipmap, levels, self.networks.pnet, options.thresholds[0])
        with _timed(timings, "rnet"):
            squares = refine(mipmap, squares, self.networks.rnet, options.thresholds[1])
        with _timed(timings, "onet"):
            boxes, scores, landmarks = finish(
                mipmap, squares, self.networks.onet, options.thresholds[2]
            )
        backend, precision = self.networks.backend, self.networks.precision
        return Faces(boxes, scores, landmarks, width, height, backend, precision, timings)

    def close(self) -> None:
        """Free the engines."""
        for network in (self.networks.pnet, self.networks.rnet, self.networks.onet):
            network.close()
        self.networks.team.close()


def refine(mipmap: Mipmap, squares: BoxArray, rnet: Network, threshold: float) -> BoxArray:
    """Stage 2: return the candidate squares `[n, 3]` that R-Net keeps, moved, as squares."""
    squares, outputs = _judge(mipmap, squares, rnet, R_NET_SIZE, threshold)
    boxes = bx.boxes_from_squares(squares)
    kept = bx.nms(boxes, outputs["logit"], 0.7, "union")
    return bx.to_squares(bx.regress(boxes[kept], outputs["box"][kept]))


def finish(
    mipmap: Mipmap, squares: BoxArray, onet: Network, threshold: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Stage 3: return boxes `[n, 4]`, scores `[n]` and landmarks `[n, 5, 2]`, best first."""
    squares, outputs = _judge(mipmap, squares, onet, O_NET_SIZE, threshold)
    fractions = np.stack([outputs["landmarks"][:, :5], outputs["landmarks"][:, 5:]], axis=2)
    landmarks = squares[:, None, :2] + fractions * squares[:, None, 2:]
    boxes = bx.regress(bx.boxes_from_squares(squares), outputs["box"])
    kept = bx.nms(boxes, outputs["logit"], 0.7, "min")
    boxes = bx.clip(boxes[kept], mipmap.width, mipmap.height)
    inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    scores = 1 / (1 + np.exp(-outputs["logit"][kept][inside].astype(np.float64)))
    found = (boxes[inside], scores, landmarks[kept][inside])
    return found[0].astype(np.float32), found[1].astype(np.float32), found[2].astype(np.float32)


def check_image(image: UInt8Array) -> None:
    """Raise `InvalidImage` unless `image` is RGB uint8 `[H, W, 3]` with at least one pixel."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = getattr(image, "dtype", type(image).__name__)
        raise InvalidImage(f"image is {kind}; RGB uint8 0-255 of shape [H, W, 3] is needed")
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise InvalidImage(f"image has shape {list(image.shape)}; [H, W, 3] (RGB) is needed")


def input_squares(squares: BoxArray, size: int) -> BoxArray:
    """Return the squares `[n, 3]` shown to a network of input `size` for candidates `[n, 3]`."""
    squares = squares[squares[:, 2] >= SMALLEST_SIDE]
    shift = squares[:, 2:] * (CROP_OFFSET / size)
    return np.concatenate([squares[:, :2] - shift, squares[:, 2:]], axis=1)


def _judge(
    mipmap: Mipmap, squares: BoxArray, network: Network, size: int, threshold: float
) -> tuple[BoxArray, dict[str, FloatArray]]:
    """Return the squares that a network scores above `threshold`, with its outputs for them."""
    squares = input_squares(squares, size)
    least = logit_from_probability(threshold)
    passed, outputs = [squares[:0]], [_nothing()]
    for batch, answer in _answers(mipmap, squares, network, size):
        above = np.flatnonzero(answer["logit"] > least)
        passed.append(batch[above])
        outputs.append({name: values[above] for name, values in answer.items()})
    names = outputs[-1].keys()
    return np.concatenate(passed), {n: np.concatenate([o[n] for o in outputs]) for n in names}


def _answers(
    mipmap: Mipmap, squares: BoxArray, network: Network, size: int
) -> Iterator[tuple[BoxArray, dict[str, FloatArray]]]:
    """Yield squares and a network's outputs for them; a `Cutter` takes them all at once."""
    if is_cutter(network) and len(squares):
        images, cuts = plan_cuts(mipmap, squares, size)
        if can_cut(cuts, size):
            yield squares, checked(network.cut_and_run(images, cuts))
            return
    step = min(CROPS_AT_ONCE, network.max_batch)
    for begin in range(0, len(squares), step):
        batch = squares[begin : begin + step]
        yield batch, run(network, crop_squares(mipmap, batch, size))


def _nothing() -> dict[str, FloatArray]:
    shapes = {"logit": (0,), "box": (0, 4), "landmarks": (0, 10)}
    return {name: np.empty(shape, np.float32) for name, shape in shapes.items()}


@contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    timings[stage] = (time.perf_counter() - begin) * 1000
