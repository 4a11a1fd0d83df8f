"""The rules where unface differs from the original MTCNN, each against the alternative.

    python -m benchmarks.rules --data ../shared/data

Each rule is exchanged in the running cascade for the other one; recall and false positives are
those of `benchmarks.accuracy`. Differences of a point or so are noise: single faces near a
threshold fall to either side when any pixel changes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np

from benchmarks.accuracy import SETS, evaluate
from benchmarks.machine import describe
from unface.engines import open_networks
from unface.mtcnn import PROFILES, Cascade, DetectOptions
from unface.mtcnn.boxes import BoxArray
from unface.mtcnn.network import UInt8Array
from unface.mtcnn.pyramid import Level, Mipmap

RESULTS = Path(__file__).parent / "results" / "rules.json"


def level_from_full_image(self: Mipmap, level: Level) -> UInt8Array:
    """Resize a level from the full image at once, as the original does."""
    size = (level.width, level.height)
    return np.asarray(cv2.resize(self.halved(0), size, interpolation=cv2.INTER_AREA), np.uint8)


def crops_of_whole_pixels(mipmap: Mipmap, squares: BoxArray, size: int) -> UInt8Array:
    """Cut crops along whole pixels and average their areas, one by one, as the original does."""
    image = mipmap.halved(0)
    crops = np.zeros((len(squares), size, size, 3), np.uint8)
    for index, (x, y, side) in enumerate(squares):
        left, top = int(np.fix(x)), int(np.fix(y))
        length = max(1, int(np.fix(x + side)) - left)
        patch_of = np.zeros((length, length, 3), np.uint8)
        x1, y1 = max(0, left), max(0, top)
        x2, y2 = min(mipmap.width, left + length), min(mipmap.height, top + length)
        if x2 > x1 and y2 > y1:
            patch_of[y1 - top : y2 - top, x1 - left : x2 - left] = image[y1:y2, x1:x2]
        crops[index] = cv2.resize(patch_of, (size, size), interpolation=cv2.INTER_AREA)
    return crops


@contextmanager
def exchanged(*changes: tuple[str, Any]) -> Iterator[None]:
    """Exchange parts of the cascade, named `module.attribute`, for the time of a block."""
    patches = [patch(f"unface.mtcnn.{name}", value) for name, value in changes]
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in patches:
            one.stop()


WHOLE_PIXELS = ("cascade.crop_squares", crops_of_whole_pixels)
FULL_IMAGE = ("pyramid.Mipmap.level", level_from_full_image)
VARIANTS: dict[str, tuple[tuple[str, Any], ...]] = {
    "as shipped": (),
    "levels from the full image (original)": (FULL_IMAGE,),
    "crops of whole pixels (original)": (WHOLE_PIXELS, ("cascade.CROP_OFFSET", 0.0)),
    "both (original)": (FULL_IMAGE, WHOLE_PIXELS, ("cascade.CROP_OFFSET", 0.0)),
    "no crop offset": (("cascade.CROP_OFFSET", 0.0),),
    "crop offset 0.25": (("cascade.CROP_OFFSET", 0.25),),
    "crop offset 0.5": (("cascade.CROP_OFFSET", 0.5),),
    "one sample a crop pixel": (("crops.SUPERSAMPLING", 1),),
}


def finder(cascade: Cascade, options: DetectOptions) -> Callable[[Path], dict[str, Any]]:
    """Return the cascade as `evaluate` wants it."""

    def find(path: Path) -> dict[str, Any]:
        pixels = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
        faces = cascade.detect(np.asarray(pixels, np.uint8), options)
        return {"boxes": faces.boxes, "scores": faces.scores}

    return find


def main() -> None:
    """Measure all variants, print the table, write `results/rules.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    data: Path = parser.parse_args().data
    cascade = Cascade(open_networks())
    rows: dict[str, Any] = {}
    print("| | " + " | ".join(SETS) + " |\n|---|" + "---|" * len(SETS))
    runs = [(name, changes, DetectOptions()) for name, changes in VARIANTS.items()]
    runs.append(("profile privacy", (), PROFILES["privacy"]))
    for name, changes, options in runs:
        with exchanged(*changes):
            counts = {s: evaluate(finder(cascade, options), data, s) for s in SETS}
        rows[name] = {s: [c.faces, c.found, c.false_positives] for s, c in counts.items()}
        cells = [
            (f"{c.recall:.1%}, " if c.faces else "") + str(c.false_positives)
            for c in counts.values()
        ]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    RESULTS.write_text(json.dumps({**describe(), "rules": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
