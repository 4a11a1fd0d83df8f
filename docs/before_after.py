"""Make the README's picture: `python docs/before_after.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import unface
from unface.anonymize import decode, encode

IMAGES = Path(__file__).parent / "images"
TOP, BOTTOM = 0, 340  # rows shown
GAP = 8  # white pixels between the pictures


def main() -> None:
    """Write `before-after.jpg`: the sample, its mosaic, and the frame drawn for review."""
    before = decode((IMAGES / "astronaut.jpg").read_bytes()).pixels
    pictures = [before, unface.anonymize(before), unface.anonymize(before, method="box")]
    gap = np.full((BOTTOM - TOP, GAP, 3), 255, np.uint8)
    row = [part for picture in pictures for part in (picture[TOP:BOTTOM], gap)][:-1]
    (IMAGES / "before-after.jpg").write_bytes(encode(np.hstack(row), "jpeg", quality=90))


if __name__ == "__main__":
    main()
