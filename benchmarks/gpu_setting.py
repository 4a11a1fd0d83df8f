"""What a run on a GPU works with: device, networks, pictures, and how much it measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np

from benchmarks.gpu_report import NotMeasured
from unface.calibration.matching import Boxes
from unface.engines.native import Arrays, read_arrays
from unface.gpu.device import Device
from unface.gpu.networks import DeviceNetworks, KernelNetworks
from unface.mtcnn.network import UInt8Array

NETWORKS = ("pnet", "rnet", "onet")
PREBUILT = Path(__file__).parent.parent / "engines" / "prebuilt"
SIZES = {"480p": (640, 480), "720p": (1280, 720), "1080p": (1920, 1080), "4k": (3840, 2160)}
Opener = Callable[[Device], DeviceNetworks]


@dataclass(frozen=True)
class Case:
    """A picture size by name, a kind of picture ("none", "few", "crowd") and a minimum face."""

    size: str
    kind: str
    min_face: int

    def __str__(self) -> str:
        return f"{self.size} {self.kind} {self.min_face}"


@dataclass(frozen=True)
class Extent:
    """How much a run measures."""

    cases: tuple[Case, ...]
    rounds: int  # of each speed; the median counts
    round_s: float
    single_frames: int  # one after the other, for their latency
    lanes: tuple[int, ...]  # tried for the first case; the best of them for the others
    random_pictures: int
    peer_s: float  # a case of a peer
    spacer_bytes: int
    copy_bytes: int
    sanitizer_s: float


def _cases(sizes: tuple[str, ...], min_faces: tuple[int, ...]) -> tuple[Case, ...]:
    few = [Case(size, "few", min_face) for size in sizes for min_face in min_faces]
    others = [Case("1080p", kind, 20) for kind in ("none", "crowd")]
    return (*few, *others)


WHOLE = Extent(
    _cases(("1080p", "480p", "720p", "4k"), (20, 40)),
    5, 0.2, 300, (1, 2, 3, 4, 6, 8, 12), 6, 1.0, 512 << 20, 1 << 30, 55.0,
)  # fmt: skip
QUICK = Extent(
    (Case("1080p", "few", 20), Case("1080p", "crowd", 20), Case("480p", "few", 20)),
    3, 0.15, 100, (1, 2, 4, 6), 2, 0.5, 256 << 20, 1 << 28, 40.0,
)  # fmt: skip
# For a simulator: every section, nothing that is worth measuring.
TINY = Extent((Case("tiny", "few", 40),), 1, 0.0, 2, (1, 2), 1, 0.5, 1 << 16, 1 << 16, 300.0)


@dataclass
class Setting:
    """One card: `networks` are those that a section asked for and that opened."""

    device: Device
    extent: Extent
    is_tiny: bool = False
    l2_bytes: int = 1 << 26
    networks: dict[str, DeviceNetworks] = field(default_factory=dict)

    def open(self, name: str, opener: Opener) -> DeviceNetworks:
        """Return networks by name, opened when first asked for."""
        if name not in self.networks:
            self.networks[name] = opener(self.device)
        return self.networks[name]


def arrays() -> Mapping[str, Arrays]:
    """Return the weights that ship, by network."""
    return {
        name: read_arrays((PREBUILT / f"{name}.fp32.npz").read_bytes(), name, name)
        for name in NETWORKS
    }


def kernel_networks(device: Device) -> DeviceNetworks:
    """Return the project's own kernels."""
    return KernelNetworks(device, arrays())


@dataclass(frozen=True, eq=False)
class Photo:
    """A picture, RGB uint8 `[H, W, 3]`, and its faces, float64 `[n, 4]` `x1 y1 x2 y2`."""

    image: UInt8Array
    faces: Boxes


@cache
def photo(size: str, kind: str) -> Photo:
    """Return a composed picture: a size of `SIZES`, or "tiny"; a kind of `benchmarks.pictures`."""
    if size == "tiny":
        return _tiny(kind)
    try:
        from benchmarks.pictures import KINDS, compose
    except ImportError as error:
        raise NotMeasured(f"there are no pictures: {error}") from error
    width, height = SIZES[size]
    scene = compose(width, height, KINDS[kind](width, height))
    return Photo(np.ascontiguousarray(scene.image), scene.faces)


def _tiny(kind: str) -> Photo:
    """Return two heads of what ships, or none, in 150 x 100 pixels; four for a crowd."""
    file = files("unface.calibration") / "pictures" / "astronaut.jpg"
    portrait = cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    assert portrait is not None
    head = portrait[20:220, 130:310, ::-1]
    picture = np.zeros((100, 150, 3), np.uint8)
    picture[:, :90] = head[::2, ::2]
    picture[:67, 90:] = head[::3, ::-3]
    faces = np.array([[23.5, 21.5, 67.0, 75.0], [105.0, 14.0, 135.0, 50.0]])
    if kind == "none":
        return Photo(np.ascontiguousarray(picture[:, ::-1] // 8), faces[:0])
    if kind == "few":
        return Photo(picture, faces)
    return Photo(
        np.tile(picture, (2, 1, 1)), np.concatenate([faces, faces + np.array([0, 100, 0, 100])])
    )


def variants(image: UInt8Array, count: int, seed: int = 1) -> list[UInt8Array]:
    """Return so many pictures of the same faces, moved around the border and in another light."""
    rng = np.random.default_rng(seed)
    found = [image]
    for _ in range(count - 1):
        height, width = image.shape[:2]
        moved = np.roll(image, (rng.integers(height), rng.integers(width)), (0, 1))
        light = rng.integers(-12, 13)
        found.append(np.clip(moved.astype(np.int16) + light, 0, 255).astype(np.uint8))
    return found
