"""What covering faces costs: one face of 3000 pixels, and 300 faces in a 1080p picture.

python -m benchmarks.mask_cost
"""

from __future__ import annotations

import statistics
import time

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import describe
from unface.anonymize import METHODS, MaskOptions, apply_masks

ROUNDS = 5


def milliseconds(image: NDArray[np.uint8], boxes: NDArray[np.float32], method: str) -> float:
    """Return the median time of covering the boxes `[n, 4]` of an image `[H, W, 3]`."""
    options, taken = MaskOptions(method=method), []
    for _ in range(ROUNDS + 1):
        begin = time.perf_counter()
        apply_masks(image, boxes, options)
        taken.append((time.perf_counter() - begin) * 1000)
    return statistics.median(taken[1:])


def main() -> None:
    """Print the table."""
    rng = np.random.default_rng(0)
    large = rng.integers(0, 256, (4000, 4000, 3), dtype=np.uint8)
    one = np.array([[500, 500, 3500, 3500]], np.float32)
    x, y = np.meshgrid(np.arange(20) * 95, np.arange(15) * 70)
    corners = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
    crowd = np.hstack([corners, corners + 40])
    print(", ".join(describe().values()))
    print("| method | one face of 3000 px | 300 faces at 1080p |\n|---|---|---|")
    for method in METHODS:
        a = milliseconds(large, one, method)
        b = milliseconds(large[:1080, :1920], crowd, method)
        print(f"| {method} | {a:.0f} ms | {b:.0f} ms |")


if __name__ == "__main__":
    main()
