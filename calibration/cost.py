"""What engines cost: time beside each other, and peak memory in a process of their own.

`python -m unface.calibration.cost SPEC` prints the peak memory of SPEC's engines, as JSON.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import cv2
import numpy as np

from unface.calibration.labels import LabelledPicture
from unface.calibration.scenes import labelled_scenes, picture
from unface.engines import shelf
from unface.errors import EngineError
from unface.mtcnn.canvas import filled_pages
from unface.mtcnn.cascade import O_NET_SIZE, R_NET_SIZE, Cascade
from unface.mtcnn.network import Network, Networks, UInt8Array, run
from unface.mtcnn.options import DetectOptions
from unface.mtcnn.pyramid import Mipmap, pyramid_levels

ROUNDS = 5  # each engine once a round, so that a busy moment meets both
BATCH = 64  # crops a call of R- and O-Net
TIMED_PICTURES = 8
FULL_HD = (1920, 1080)
CHILD_SECONDS = 300


@dataclass(frozen=True)
class Pace:
    """Median times of the same work, in milliseconds."""

    reference_ms: float
    candidate_ms: float

    @property
    def ratio(self) -> float:
        """How many times faster the candidate is; below 1 it is slower."""
        return self.reference_ms / self.candidate_ms


def measure_speed(
    reference: Networks, candidate: Networks, pictures: Sequence[LabelledPicture]
) -> dict[str, Pace]:
    """Time two engines by turns: each network alone, then the cascade on some of the pictures.

    P-Net gets the pages of one 1080p pyramid, R- and O-Net a batch of crops.
    """
    pages = full_hd_pages()
    paces = {"pnet, pyramid of 1080p": _race(reference.pnet, candidate.pnet, list(pages[:, None]))}
    for name, size in (("rnet", R_NET_SIZE), ("onet", O_NET_SIZE)):
        crops = [natural_crops(BATCH, size)]
        pace = _race(getattr(reference, name), getattr(candidate, name), crops)
        paces[f"{name}, batch of {BATCH}"] = pace
    chosen = np.linspace(0, len(pictures) - 1, min(len(pictures), TIMED_PICTURES))
    images = [pictures[index].load() for index in chosen.round().astype(int)]
    ours, theirs = Cascade(reference), Cascade(candidate)
    first, second = by_turns(
        lambda: [ours.detect(image) for image in images],
        lambda: [theirs.detect(image) for image in images],
    )
    count = len(images)
    name = f"cascade, mean of {count} picture{'s' if count > 1 else ''}"
    return {**paces, name: Pace(first / count, second / count)}


def by_turns(first: Callable[[], object], second: Callable[[], object]) -> tuple[float, float]:
    """Return the median milliseconds of two pieces of work done by turns, after one of each."""
    times: tuple[list[float], list[float]] = ([], [])
    for round_number in range(ROUNDS + 1):
        for work, taken in zip((first, second), times, strict=True):
            begin = time.perf_counter()
            work()
            if round_number:  # the first plans memory
                taken.append((time.perf_counter() - begin) * 1000)
    return median(times[0]), median(times[1])


def full_hd_pages() -> UInt8Array:
    """Return the pages `[n, side, side, 3]` that P-Net sees of a 1080p picture, natural content."""
    options = DetectOptions()
    image = cv2.resize(picture("coffee"), FULL_HD, interpolation=cv2.INTER_LINEAR)
    mipmap = Mipmap(np.asarray(image, np.uint8))
    levels = tuple(pyramid_levels(*FULL_HD, options.min_face, options.scale_factor))
    return filled_pages(levels, lambda index: mipmap.level(levels[index]))


def natural_crops(count: int, size: int) -> UInt8Array:
    """Return cut-outs of a picture, uint8 `[count, size, size, 3]`, the same every time."""
    source, rng = picture("chelsea"), np.random.default_rng(0)
    rows = rng.integers(0, source.shape[0] - size, count)
    columns = rng.integers(0, source.shape[1] - size, count)
    return np.stack(
        [source[y : y + size, x : x + size] for y, x in zip(rows, columns, strict=True)]
    )


def peak_memory(spec: str) -> float:
    """Return the peak resident memory, MiB, of a fresh process that detects in a 1080p picture.

    Raises `EngineError` when that process fails.
    """
    command = [sys.executable, "-m", "unface.calibration.cost", spec]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=CHILD_SECONDS)
        if done.returncode == 0:
            return float(json.loads(done.stdout)["peak_mib"])
        said = done.stderr.strip().splitlines()[-1:] or ["no message"]
    except (subprocess.TimeoutExpired, ValueError, KeyError) as error:
        said = [str(error)]
    raise EngineError(f"the memory of {spec} cannot be measured: {said[0]}")


def own_peak() -> float:
    """Return this process's peak resident memory in MiB.

    `ru_maxrss` starts at what the parent held when it started this process, so it serves only
    where the kernel keeps no mark of the process's own.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _race(first: Network, second: Network, batches: list[UInt8Array]) -> Pace:
    """Time two networks on the same batches."""
    return Pace(
        *by_turns(
            lambda: [run(first, batch) for batch in batches],
            lambda: [run(second, batch) for batch in batches],
        )
    )


def main() -> None:
    """Detect once in a 1080p picture with the engines named on the command line; print the peak."""
    cascade = Cascade(shelf.open_named(sys.argv[1], threads=1, key=shelf.read_engine_key(None)))
    scene = labelled_scenes()[0].load()
    cascade.detect(np.asarray(cv2.resize(scene, FULL_HD), np.uint8))
    print(json.dumps({"peak_mib": own_peak()}))


if __name__ == "__main__":
    main()
