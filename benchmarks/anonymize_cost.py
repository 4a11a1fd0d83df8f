"""What anonymizing a JPEG costs beside its bare steps: decode, detect, encode, with nothing around.

    python -m benchmarks.anonymize_cost [--rounds 15]

1080p with 5 and with 150 faces, profile fast, every mask method. Whole calls, their steps and the
bare steps (`cv2.imdecode`, `Detector.detect`, `cv2.imencode` at the same quality) take turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import describe
from benchmarks.pictures import JPEG_QUALITY, draw
from unface import Detector
from unface.anonymize import METHODS, MaskOptions, apply_masks, decode, encode
from unface.local import Local
from unface.mtcnn.faces import Faces

PROFILE = "fast"
QUALITY = 95  # the default of `unface.anonymize`
JPEG_95 = (cv2.IMWRITE_JPEG_QUALITY, QUALITY)
KINDS = ("few", "crowd")

Value = TypeVar("Value")
Args = ParamSpec("Args")


class Clock:
    """Milliseconds of named steps, over many rounds."""

    def __init__(self) -> None:
        self._taken: dict[str, list[float]] = defaultdict(list)

    def run(
        self, step: str, function: Callable[Args, Value], *args: Args.args, **kwargs: Args.kwargs
    ) -> Value:
        """Return what the function returns, its time written down under the name of the step."""
        begin = time.perf_counter()
        value = function(*args, **kwargs)
        self._taken[step].append((time.perf_counter() - begin) * 1000)
        return value

    def median(self, step: str) -> float:
        """Return the median of a step, the first round left out: it warms up."""
        return statistics.median(self._taken[step][1:])


def one_round(clock: Clock, local: Local, data: bytes) -> int:
    """Do everything once; returns the number of faces."""
    array = np.frombuffer(data, np.uint8)
    clock.run("decode, bare", cv2.imdecode, array, cv2.IMREAD_COLOR_RGB)
    pixels = clock.run("decode", decode, data).pixels
    faces = clock.run("detect", local.detector.detect, pixels)
    for method in METHODS:
        options, covered = MaskOptions(method=method), pixels.copy()
        clock.run(f"mask {method}", mask, covered, faces, options)
        clock.run(f"encode {method}, bare", cv2.imencode, ".jpg", covered, JPEG_95)
        clock.run(f"encode {method}", encode, covered, "jpeg", quality=QUALITY)
        clock.run(f"whole {method}, bare", bare, local.detector, data)
        clock.run(f"whole {method}", local.anonymize, data, profile=PROFILE, method=method)
    return len(faces)


def mask(pixels: NDArray[np.uint8], faces: Faces, options: MaskOptions) -> None:
    """Cover the faces as `unface.anonymize` does with a picture that it decoded itself."""
    apply_masks(pixels, faces.boxes, options, scores=faces.scores, in_place=True)


def bare(detector: Detector, data: bytes) -> None:
    """Decode, detect, encode what was decoded: no check, no mask."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert pixels is not None
    detector.detect(pixels.astype(np.uint8, copy=False))
    cv2.imencode(".jpg", pixels, JPEG_95)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    print(", ".join(describe().values()) + "; times in ms, in brackets of the bare step")
    for kind in KINDS:
        image = draw("1080p", kind).image
        data = cv2.imencode(".jpg", image[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))[
            1
        ].tobytes()
        clock, local = Clock(), Local(Detector(profile=PROFILE))
        faces = max(one_round(clock, local, data) for _ in range(rounds + 1))
        print(f"\n1080p, {faces} faces, profile {PROFILE}\n")
        print("| method | decode | detect | mask | encode | whole | whole / bare |")
        print("|---|---|---|---|---|---|---|")
        for method in METHODS:
            print(row(clock, method))


def row(clock: Clock, method: str) -> str:
    """Return a method's line of the table."""

    def beside(step: str) -> str:
        return f"{clock.median(step):.1f} ({clock.median(f'{step}, bare'):.1f})"

    whole = f"whole {method}"
    ratio = clock.median(whole) / clock.median(f"{whole}, bare")
    return (
        f"| {method} | {beside('decode')} | {clock.median('detect'):.1f} "
        f"| {clock.median(f'mask {method}'):.2f} | {beside(f'encode {method}')} "
        f"| {beside(whole)} | {ratio:.2f} |"
    )


if __name__ == "__main__":
    main()
