"""What each network really sees: pyramid pages for P-Net, candidate crops for R-Net and O-Net."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from unface.errors import InvalidImage
from unface.mtcnn.canvas import PAGE_SIDE, fill_page, plan_pages
from unface.mtcnn.cascade import O_NET_SIZE, R_NET_SIZE, input_squares, refine
from unface.mtcnn.crops import crop_squares
from unface.mtcnn.network import Networks, UInt8Array
from unface.mtcnn.options import DetectOptions
from unface.mtcnn.proposals import propose
from unface.mtcnn.pyramid import Mipmap, pyramid_levels

PER_IMAGE = {"pnet": 2, "rnet": 16, "onet": 8}  # so that one crowd does not outweigh the rest


@dataclass(frozen=True)
class Samples:
    """Inputs of the three networks: uint8 `[n, H, W, 3]` RGB, by the networks' names."""

    pnet: UInt8Array
    rnet: UInt8Array
    onet: UInt8Array


def harvest(images: Iterable[UInt8Array], networks: Networks, seed: int = 0) -> Samples:
    """Run the float cascade over images (uint8 `[H, W, 3]`) and keep what the networks are given.

    The same packing, crops and bytes as in use. Raises `InvalidImage` when there is nothing to
    keep for one of the networks.
    """
    kept: dict[str, list[UInt8Array]] = {"pnet": [], "rnet": [], "onet": []}
    rng = np.random.default_rng(seed)
    options = DetectOptions()
    for image in images:
        mipmap = Mipmap(image)
        size = (mipmap.width, mipmap.height)
        levels = tuple(pyramid_levels(*size, options.min_face, options.scale_factor))
        if not levels:
            continue
        squares = propose(mipmap, levels, networks.pnet, options.thresholds[0])
        refined = refine(mipmap, squares, networks.rnet, options.thresholds[1])
        pages = np.zeros((len(plan_pages(levels)), PAGE_SIDE, PAGE_SIDE, 3), np.uint8)
        for page, tiles in zip(pages, plan_pages(levels), strict=True):
            fill_page(page, tiles, lambda index: mipmap.level(levels[index]))  # noqa: B023
        kept["pnet"].append(_some(pages, PER_IMAGE["pnet"], rng))
        crops = crop_squares(mipmap, input_squares(squares, R_NET_SIZE), R_NET_SIZE)
        kept["rnet"].append(_some(crops, PER_IMAGE["rnet"], rng))
        crops = crop_squares(mipmap, input_squares(refined, O_NET_SIZE), O_NET_SIZE)
        kept["onet"].append(_some(crops, PER_IMAGE["onet"], rng))
    if not all(sum(map(len, arrays)) for arrays in kept.values()):
        raise InvalidImage("the images show no face at all; calibration needs pictures with faces")
    return Samples(**{name: np.concatenate(arrays) for name, arrays in kept.items()})


def read_images(folder: Path) -> Iterator[UInt8Array]:
    """Yield the pictures of a folder in the order of their names; others are passed over."""
    for path in sorted(folder.rglob("*")):
        pixels = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB) if path.is_file() else None
        if pixels is not None:
            yield np.asarray(pixels, np.uint8)


def _some(arrays: UInt8Array, most: int, rng: np.random.Generator) -> UInt8Array:
    """Return at most so many of the arrays, chosen at random, in their order."""
    if len(arrays) <= most:
        return arrays
    return arrays[np.sort(rng.choice(len(arrays), most, replace=False))]
