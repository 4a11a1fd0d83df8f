"""Memory stays bounded on huge pictures and on crowds; measured in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
CODE = """
import resource, sys
import cv2, numpy as np
sys.path.insert(0, {tests!r})
from scenes import astronaut, crowd, found
import unface

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

image, expected, options = {picture}
detector = unface.Detector(threads=2, **options)
before = peak()
faces = detector.detect(image)
print(len(faces), expected, peak() - before)
"""
HUGE = "cv2.resize(astronaut(), (10000, 10000), interpolation=cv2.INTER_LINEAR), 1, {}"
CROWD = "crowd(50, 40, 26).image, 2000, {}"
CANDIDATES = (  # clouds in which P-Net, if it may be this unsure, believes everywhere
    "cv2.resize(np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8), "
    "(1600, 1200), interpolation=cv2.INTER_CUBIC), 0, {'thresholds': (0.008, 0.7, 0.7)}"
)
MANY_SIZES = """
import resource, sys
import numpy as np, psutil
sys.path.insert(0, {tests!r})
from scenes import crowd
import unface
image = crowd(5, 4, 40).image
detector = unface.Detector(threads=2)
rng = np.random.default_rng(0)
for count in range(120):
    if count == 40:
        before = psutil.Process().memory_info().rss
    height, width = rng.integers(60, image.shape[:2])
    detector.detect(image[:height, :width])
print((psutil.Process().memory_info().rss - before) / 2**20)
"""


pytestmark = pytest.mark.usefixtures("runtime")  # the processes inherit it


def detect_alone(picture: str) -> tuple[int, int, float]:
    """Return faces found, faces there, and MiB that the detection took."""
    code = CODE.format(tests=str(TESTS), picture=picture)
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ},
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    found, expected, grown = result.stdout.split()
    return int(found), int(expected), float(grown)


@pytest.mark.slow
def test_a_picture_of_100_megapixels_takes_less_than_twice_its_pixels() -> None:
    found, expected, grown = detect_alone(HUGE)
    assert found == expected
    # Its pixels are 286 MiB; halvings and pyramid levels are a third and two thirds of that.
    assert grown < 450


@pytest.mark.slow
def test_a_crowd_of_two_thousand_is_found_in_bounded_memory() -> None:
    found, expected, grown = detect_alone(CROWD)
    assert 0.97 * expected <= found <= 1.03 * expected
    assert grown < 450


@pytest.mark.slow
def test_a_picture_with_more_candidates_than_16_bits_count_takes_bounded_memory() -> None:
    """Some 35,000 squares after suppression: all pairs of them would be 10 GB."""
    _, _, grown = detect_alone(CANDIDATES)
    assert grown < 400


@pytest.mark.slow
def test_pictures_of_many_sizes_do_not_add_up() -> None:
    code = MANY_SIZES.format(tests=str(TESTS))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 60  # plans for a size would be megabytes each
