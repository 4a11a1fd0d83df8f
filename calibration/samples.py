"""What each network really sees: pyramid pages for P-Net, candidate crops for R-Net and O-Net."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from unface.engines.native import UNREADABLE
from unface.errors import InvalidImage, InvalidOption
from unface.mtcnn.boxes import BoxArray, to_squares
from unface.mtcnn.canvas import PAGE_SIDE, filled_pages
from unface.mtcnn.cascade import O_NET_SIZE, R_NET_SIZE, finish, input_squares, refine
from unface.mtcnn.crops import crop_squares
from unface.mtcnn.network import FloatArray, Network, Networks, UInt8Array, run
from unface.mtcnn.options import DetectOptions
from unface.mtcnn.proposals import logit_from_probability, propose
from unface.mtcnn.pyramid import Mipmap, pyramid_levels

SHAPES = {
    "pnet": (PAGE_SIDE, PAGE_SIDE, 3),
    "rnet": (R_NET_SIZE, R_NET_SIZE, 3),
    "onet": (O_NET_SIZE, O_NET_SIZE, 3),
}
PER_IMAGE = {"pnet": 2, "rnet": 24, "onet": 12}  # so that one crowd does not outweigh the rest
PER_STRATUM = {"pnet": 400, "rnet": 400, "onet": 160}  # so that the usual does not drown the rare
DARK, BRIGHT = 70, 185  # mean of a crop's pixels, 0-255
BACKLIT = 50  # so much darker than the picture around
SIZES = (20, 40, 80)  # pixels: between them the bands in which faces are counted
FEW_IMAGES, FEW_FACES = 100, 20  # fewer than these are worth a warning
Attributes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Samples:
    """Inputs of the three networks: uint8 `[n, H, W, 3]` RGB, by the networks' names.

    `images` is how many pictures they come from, `faces` how many faces of each kind were found
    ("dark", "20-40 px", ...).
    """

    pnet: UInt8Array
    rnet: UInt8Array
    onet: UInt8Array
    images: int = 0
    faces: dict[str, int] = field(default_factory=dict)

    def lacks(self) -> list[str]:
        """Return what the pictures lack for a calibration to rely on, in sentences."""
        missing = []
        if self.images < FEW_IMAGES:
            missing.append(f"{self.images} pictures are few: 100 to 500 are wanted")
        missing += [
            f"{self.faces.get(kind, 0)} {kind} faces are few: at least {FEW_FACES} are wanted"
            for kind in KINDS
            if self.faces.get(kind, 0) < FEW_FACES
        ]
        return missing


BANDS = ("under 20 px", "20-40 px", "40-80 px", "over 80 px")
LIGHTS = ("dark", "evenly lit", "bright", "back-lit")
SURENESS = ("hard", "clear")
KINDS = (*BANDS, *LIGHTS, *SURENESS)


def harvest(images: Iterable[UInt8Array], networks: Networks, seed: int = 0) -> Samples:
    """Run the float cascade over images (uint8 `[H, W, 3]`) and keep what the networks are given.

    The same packing, crops and bytes as in use. Crops are kept by stratum (size, light, how sure
    the network is), so that dark, back-lit, small and doubtful ones are in. Raises `InvalidImage`
    when there is nothing to keep for one of the networks.
    """
    harvester = _Harvester(networks, np.random.default_rng(seed))
    for image in images:
        harvester.add(image)
    return harvester.samples()


class _Harvester:
    def __init__(self, networks: Networks, rng: np.random.Generator) -> None:
        self._networks = networks
        self._kept = {name: _Strata(PER_STRATUM[name], rng) for name in SHAPES}
        self._rng = rng
        self._images = 0
        self._faces: Counter[str] = Counter()

    def add(self, image: UInt8Array) -> None:
        options = DetectOptions()
        mipmap = Mipmap(image)
        size = (mipmap.width, mipmap.height)
        levels = tuple(pyramid_levels(*size, options.min_face, options.scale_factor))
        self._images += 1
        if not levels:
            return
        pages = filled_pages(levels, lambda index: mipmap.level(levels[index]))
        for index in self._some(len(pages), "pnet"):
            self._kept["pnet"].add(int(_light(pages[index : index + 1], 128.0)[0]), pages[index])
        around = float(cv2.mean(image)[1])
        squares = propose(mipmap, levels, self._networks.pnet, options.thresholds[0])
        self._crops("rnet", mipmap, squares, around)
        squares = refine(mipmap, squares, self._networks.rnet, options.thresholds[1])
        self._crops("onet", mipmap, squares, around)
        boxes, scores, _ = finish(mipmap, squares, self._networks.onet, options.thresholds[2])
        shown = to_squares(boxes.astype(np.float64))
        lights = _light(crop_squares(mipmap, shown, R_NET_SIZE), around)
        for band, light, score in zip(_band(shown[:, 2]), lights, scores, strict=True):
            clear = logit_from_probability(min(float(score), 0.999999)) > HARD
            self._faces.update((BANDS[band], LIGHTS[light], SURENESS[int(clear)]))

    def samples(self) -> Samples:
        arrays = {name: strata.array(SHAPES[name]) for name, strata in self._kept.items()}
        if not all(map(len, arrays.values())):
            raise InvalidImage("the images show no face; calibration needs pictures with faces")
        return Samples(**arrays, images=self._images, faces=dict(self._faces))

    def _crops(self, name: str, mipmap: Mipmap, squares: BoxArray, around: float) -> None:
        """Keep some of the crops of squares `[n, 3]`, each in its stratum."""
        network: Network = getattr(self._networks, name)
        side = SHAPES[name][0]
        squares = input_squares(squares, side)
        crops = np.concatenate(
            [np.zeros((0, side, side, 3), np.uint8)]
            + [crop_squares(mipmap, part, side) for part in _parts(squares, network.max_batch)]
        )
        logits = np.concatenate(
            [np.zeros(0, np.float32)]
            + [run(network, part)["logit"] for part in _parts(crops, network.max_batch)]
        )
        doubt = np.digitize(logits, (-HARD, HARD))
        strata = _band(squares[:, 2]) * 100 + _light(crops, around) * 10 + doubt
        for index in self._some(len(crops), name):
            self._kept[name].add(int(strata[index]), crops[index])

    def _some(self, count: int, name: str) -> npt.NDArray[np.int64]:
        """Return which of `count` are kept of one picture, at random, in order."""
        if count <= PER_IMAGE[name]:
            return np.arange(count)
        return np.sort(self._rng.choice(count, PER_IMAGE[name], replace=False))


HARD = 2.0  # logits nearer to 0 than this are doubtful: probability 0.12 to 0.88


class _Strata:
    """At most so many arrays of each stratum, every one as likely as another (reservoir)."""

    def __init__(self, most: int, rng: np.random.Generator) -> None:
        self._most, self._rng = most, rng
        self._seen: Counter[int] = Counter()
        self._kept: dict[int, list[UInt8Array]] = {}

    def add(self, stratum: int, array: UInt8Array) -> None:
        kept = self._kept.setdefault(stratum, [])
        self._seen[stratum] += 1
        if len(kept) < self._most:
            kept.append(array.copy())
            return
        place = int(self._rng.integers(self._seen[stratum]))
        if place < self._most:
            kept[place] = array.copy()

    def array(self, shape: tuple[int, int, int]) -> UInt8Array:
        arrays = [array for stratum in sorted(self._kept) for array in self._kept[stratum]]
        return np.array(arrays, np.uint8).reshape(-1, *shape)


def _band(sides: FloatArray | BoxArray) -> Attributes:
    return np.asarray(np.digitize(sides, SIZES), np.int64)


def _light(images: UInt8Array, around: float) -> Attributes:
    """Return the index into `LIGHTS` of each image `[n, H, W, 3]` in a picture of mean `around`."""
    means = images.mean(axis=(1, 2, 3), dtype=np.float64)
    light = np.digitize(means, (DARK, BRIGHT))
    return np.asarray(np.where(means < around - BACKLIT, LIGHTS.index("back-lit"), light), np.int64)


def _parts(array: np.ndarray, most: int) -> Iterator[np.ndarray]:
    return (array[begin : begin + most] for begin in range(0, len(array), most))


def find_images(paths: Iterable[Path]) -> list[Path]:
    """Return the files named, and those of folders named, in the order of their names.

    Raises `InvalidOption` for a path that is not there.
    """
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise InvalidOption(f"{path} does not exist; name pictures or a folder of them")
        files += sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
    return files


def read_images(files: Iterable[Path]) -> Iterator[UInt8Array]:
    """Yield the pictures, uint8 `[H, W, 3]` RGB; files that are none are passed over."""
    for file in files:
        pixels = cv2.imread(str(file), cv2.IMREAD_COLOR_RGB)
        if pixels is not None:
            yield np.asarray(pixels, np.uint8)


def write_samples(samples: Samples, path: Path) -> None:
    """Write samples to an `.npz` file. It holds parts of the pictures: faces can be recognised."""
    counts = {f"faces {kind}": np.int64(count) for kind, count in samples.faces.items()}
    with path.open("wb") as file:
        np.savez_compressed(
            file,
            pnet=samples.pnet,
            rnet=samples.rnet,
            onet=samples.onet,
            images=np.int64(samples.images),
            **counts,
        )


def read_samples(path: Path) -> Samples:
    """Read samples from a file; raises `InvalidOption` when it is missing, damaged or foreign."""
    try:
        # Opened here: numpy leaves a damaged file open.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in SHAPES}
            images = int(file["images"])
            faces = {name[6:]: int(file[name]) for name in file.files if name.startswith("faces ")}
    except UNREADABLE as error:
        raise InvalidOption(
            f"{path} does not hold calibration samples ({error}); write them with "
            "unface calibrate --save-samples"
        ) from error
    for name, array in arrays.items():
        if array.dtype != np.uint8 or array.shape[1:] != SHAPES[name] or not len(array):
            raise InvalidOption(
                f"{path} has {name} samples {array.dtype} {list(array.shape)}; "
                f"uint8 {['n', *SHAPES[name]]} is needed: write them again"
            )
    return Samples(**arrays, images=images, faces=faces)
