"""Costs that decided the design: the pyramid, P-Net by page, R- and O-Net by batch, huge pictures.

python -m benchmarks.parts [--huge]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np

from benchmarks.machine import describe
from benchmarks.pictures import compose
from benchmarks.rules import level_from_full_image
from unface.engines.shelf import read_shelf
from unface.engines.tflite import TfliteNetwork
from unface.local import default
from unface.mtcnn.canvas import PAGE_SIDE, plan_pages
from unface.mtcnn.pyramid import Mipmap, pyramid_levels
from unface.mtcnn.team import cores

ROUNDS = 9
PRECISIONS = ("fp32", "int8")


def milliseconds(call: Callable[[], object]) -> float:
    """Return the median time of a call, after one that does not count."""
    taken = []
    for _ in range(ROUNDS + 1):
        begin = time.perf_counter()
        call()
        taken.append((time.perf_counter() - begin) * 1000)
    return statistics.median(taken[1:])


def engine(name: str, precision: str, batch: int) -> TfliteNetwork:
    """Return a shipped engine planned for another batch."""
    shelf = read_shelf()
    return TfliteNetwork(shelf.read(shelf.of(precision, "tflite")[name]), name, (batch,), cores())


def pyramid() -> None:
    """Print what building a 1080p pyramid costs both ways."""
    image = compose(1920, 1080, [(200, 100, 80)]).image
    levels = pyramid_levels(1920, 1080, 20, 0.709)
    full, halved = (
        milliseconds(lambda build=build: [build(m, v) for m in [Mipmap(image)] for v in levels])  # type: ignore[misc]
        for build in (level_from_full_image, Mipmap.level)
    )
    print(f"pyramid of 1080p: {full:.0f} ms from the full picture, {halved:.0f} ms from halvings")


def pages() -> None:
    """Print P-Net's cost by precision, of planning anew, and how full the pages are."""
    page = np.zeros((1, PAGE_SIDE, PAGE_SIDE, 3), np.uint8)
    for precision in PRECISIONS:
        network = engine("pnet", precision, 1)
        run = milliseconds(lambda network=network: network(page))  # type: ignore[misc]

        def plan(network: TfliteNetwork = network) -> None:
            network.close()
            network(page)

        megapixels = PAGE_SIDE**2 / 1e6
        print(
            f"P-Net {precision}, page of {PAGE_SIDE}: {run / megapixels:.0f} ms a megapixel; "
            f"planned anew {milliseconds(plan) / megapixels:.0f} ms"
        )
    for width, height in ((1920, 1080), (640, 480)):
        levels = tuple(pyramid_levels(width, height, 20, 0.709))
        used = sum(level.width * level.height for level in levels)
        count = len(plan_pages(levels))
        print(f"{width} x {height}: {count} pages, {used / (count * PAGE_SIDE**2):.0%} full")


def batches() -> None:
    """Print what a crop costs R- and O-Net by precision, in batches of several sizes."""
    for name, side in (("rnet", 24), ("onet", 48)):
        for precision in PRECISIONS:
            for size in (1, 4, 8, 32, 64):
                crops = np.zeros((size, side, side, 3), np.uint8)
                network = engine(name, precision, size)
                took = milliseconds(lambda network=network, crops=crops: network(crops))  # type: ignore[misc]
                print(f"{name} {precision}, batch of {size}: {took / size:.3f} ms a crop")


def huge() -> None:
    """Print how long 100 megapixels take, with one face and with 10,000."""
    portrait = cv2.resize(compose(500, 500, [(50, 50, 200)]).image, (10000, 10000))
    crowd = compose(10000, 10000, [(100 * x, 100 * y, 44) for x in range(100) for y in range(100)])
    for name, image in (("one face", portrait), ("10,000 faces", crowd.image)):
        begin = time.perf_counter()
        faces = default().detect(np.asarray(image, np.uint8))
        print(f"100 megapixels, {name}: {len(faces)} found, {time.perf_counter() - begin:.1f} s")


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--huge", action="store_true", help="100-megapixel pictures too: a minute")
    print(", ".join(describe().values()))
    pyramid()
    pages()
    batches()
    if parser.parse_args().huge:
        huge()


if __name__ == "__main__":
    main()
