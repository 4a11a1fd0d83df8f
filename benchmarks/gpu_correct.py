"""Whether the GPU computes what the FP32 reference in torch does, and the same every time.

The reference is `unface.mtcnn.networks` (float32, on the CPU) in the cascade that `reference.py`
specifies. Pictures are drawn anew in every run; the seed is told.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu_probe import borrowed, detect, download, lanes_of, poison, read, upload
from benchmarks.gpu_probe import counters as counters_of
from benchmarks.gpu_setting import Photo, Setting, photo
from unface.gpu.cascade import to_faces
from unface.gpu.lane import Crowded, Lane
from unface.gpu.networks import DeviceNetworks
from unface.gpu.plan import CHANNELS, Plan, plan_frame
from unface.gpu.tables import CANDIDATE, SQUARE
from unface.mtcnn.cascade import CROP_OFFSET, O_NET_SIZE, R_NET_SIZE
from unface.mtcnn.crops import crop_squares
from unface.mtcnn.faces import Faces
from unface.mtcnn.network import Network, Networks, UInt8Array
from unface.mtcnn.options import DetectOptions
from unface.mtcnn.pyramid import Level, Mipmap

MOST_ERROR = 0.02  # of |out - reference| / |reference|; half precision leaves some thousandths
MOST_GREY = 1  # levels of grey between two ways to average
LITTLE = 1e-6  # a threshold that everything passes
ALL = DetectOptions(thresholds=(0.02, LITTLE, LITTLE))  # of R- and O-Net; of P-Net more than usual


class Checks:
    """What was checked, told as it comes."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(self, name: str, passed: object, detail: str) -> None:
        """Note a check."""
        self.rows.append({"check": name, "passed": bool(passed), "detail": detail})
        print(f"{'ok    ' if passed else 'FAILED'} {name}: {detail}", flush=True)

    def answer(self) -> dict[str, Any]:
        """Return all of them as figures."""
        return {"failed": sum(not row["passed"] for row in self.rows), "rows": self.rows}


@cache
def reference() -> Networks:
    """Return the three networks in float32, in torch on the CPU."""
    from unface.mtcnn.networks import torch_networks

    return torch_networks()


# --- each stage, on random pictures --------------------------------------------------------------


def check_stages(setting: Setting, networks: DeviceNetworks, checks: Checks) -> None:
    """Hold pyramid, P-, R- and O-Net each against the reference, on pictures never seen before."""
    seed = int.from_bytes(os.urandom(4), "big")
    rng = np.random.default_rng(seed)
    checks.add("random pictures", True, f"seed {seed}")
    with lanes_of(setting.device, networks, 1) as (lane,):
        for index in range(setting.extent.random_pictures):
            image = random_picture(rng, setting.is_tiny, smooth=index % 2 == 1)
            plan = plan_frame(image.shape[1], image.shape[0], ALL, pages=networks.pages)
            name = f"random {image.shape[1]} x {image.shape[0]}"
            detect(lane, image, plan)  # takes its room
            poison(lane, 0xFF)
            detect(lane, image, plan)
            mipmap, counted = Mipmap(image), counters_of(lane)
            if not networks.pages:
                _check_pyramid(lane, plan, mipmap, name, checks)
            _check_pnet(lane, plan, mipmap, counted, name, checks)
            _check_crops(lane, mipmap, 0, name, checks)
            _check_crops(lane, mipmap, 1, name, checks)


def random_picture(rng: np.random.Generator, is_tiny: bool, *, smooth: bool) -> UInt8Array:
    """Return noise of any size, of single pixels or of spots some pixels wide."""
    import cv2

    most = 80 if is_tiny else 360
    height, width = (int(side) for side in rng.integers(most // 2, most, 2))
    if not smooth:
        return rng.integers(0, 256, (height, width, 3), np.uint8)
    small = rng.integers(0, 256, (height // 6 + 1, width // 6 + 1, 3), np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def levels_of(plan: Plan) -> list[Level]:
    """Return a plan's levels; `scale` so that each comes from the same halving."""
    return [
        Level(2.0 ** -int(row["source"]), int(row["width"]), int(row["height"]))
        for row in plan.levels
    ]


def _check_pyramid(lane: Lane, plan: Plan, mipmap: Mipmap, name: str, checks: Checks) -> None:
    canvas = read(lane, "canvas", np.uint8, plan.canvas_pixels * CHANNELS)
    most, others, total = 0, 0, 0
    for tile, level in zip(plan.tiles, levels_of(plan), strict=True):
        begin, size = int(tile["offset"]) * CHANNELS, level.width * level.height * CHANNELS
        ours = canvas[begin : begin + size].astype(np.int16)
        difference = np.abs(ours - mipmap.level(level).reshape(-1))
        most, others = max(most, int(difference.max())), others + int((difference > 0).sum())
        total += size
    detail = f"greatest difference {most} of 255; {others / max(total, 1):.2%} of the values differ"
    checks.add(f"pyramid, {name}", most <= MOST_GREY, detail)


def _check_pnet(
    lane: Lane, plan: Plan, mipmap: Mipmap, counted: dict[str, int], name: str, checks: Checks
) -> None:
    """Logits of cells that suppression left as they were; the others are infinite."""
    logits = read(lane, "logits", "<f4", plan.cells)
    expected = [
        reference().pnet(mipmap.level(level)[None])["logit"].reshape(-1)
        for level in levels_of(plan)
    ]
    flat = np.concatenate([*expected, np.empty(0, np.float32)])
    written = not np.isnan(logits).any()
    settled = np.isinf(logits)
    error = _error(logits[~settled], flat[~settled])
    wrong = abs(int(settled.sum()) - counted["hits"])
    detail = f"{plan.cells} cells, {counted['hits']} hits, relative error {error:.1e}"
    checks.add(f"P-Net, {name}", written and error < MOST_ERROR and not wrong, detail)


def _check_crops(lane: Lane, mipmap: Mipmap, stage: int, name: str, checks: Checks) -> None:
    """R-Net (0) or O-Net (1) on the squares that the device chose itself."""
    network: Network = (reference().rnet, reference().onet)[stage]
    title, size = ("R-Net", "O-Net")[stage], (R_NET_SIZE, O_NET_SIZE)[stage]
    counted = counters_of(lane)
    count = counted[("rnet_crops", "onet_crops")[stage]]
    kept = counted[("rnet_kept", "onet_kept")[stage]]
    squares = read(lane, f"squares{stage}", SQUARE, count)
    candidates = read(lane, f"candidates{stage + 1}", CANDIDATE, kept)
    if not count:
        checks.add(f"{title}, {name}", True, "no crops")
        return
    squares = squares[np.argsort(squares["key"])]
    candidates = candidates[np.argsort(candidates["key"])]
    if not np.array_equal(squares["key"], candidates["key"]):
        detail = f"{count} crops, {kept} candidates, though everything passes"
        checks.add(f"{title}, {name}", False, detail)
        return
    places = np.stack([squares["x"], squares["y"], squares["side"]], axis=1).astype(np.float64)
    places[:, :2] -= places[:, 2:] * (CROP_OFFSET / size)
    parts = [
        network(crop_squares(mipmap, places[begin : begin + 512], size))
        for begin in range(0, count, 512)
    ]
    outputs = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    errors = {"logit": _error(candidates["logit"], outputs["logit"])}
    errors["box"] = _error(candidates["offsets"], outputs["box"])
    if stage == 1:
        landmarks = _landmarks(lane, kept, places)
        errors["landmarks"] = _error(landmarks, outputs["landmarks"])
    told = ", ".join(f"{key} {error:.1e}" for key, error in errors.items())
    passed = max(errors.values()) < MOST_ERROR
    checks.add(f"{title}, {name}", passed, f"{count} crops, relative errors: {told}")


def _landmarks(lane: Lane, kept: int, places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the landmarks of all candidates, by key, as fractions of their squares."""
    keys = read(lane, "candidates2", CANDIDATE, kept)["key"]
    found = read(lane, "landmarks", "<f4", 10 * kept).reshape(kept, 10)[np.argsort(keys)]
    corners = np.repeat(places[:, :2], 5, axis=1)
    return np.asarray((found - corners) / places[:, 2:], np.float64)


def _error(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return |found - expected| / |expected|; NaN where something is no number."""
    if not expected.size:
        return 0.0
    difference = found.astype(np.float64) - expected
    return float(np.linalg.norm(difference) / np.linalg.norm(expected.astype(np.float64)))


# --- the same every time -------------------------------------------------------------------------


def check_state(setting: Setting, networks: DeviceNetworks, checks: Checks) -> None:
    """Hold that the same picture has the same faces, whatever is in memory or under way beside."""
    first, second = (case_photo(setting, kind).image for kind in ("few", "crowd"))
    options = DetectOptions(min_face=40 if setting.is_tiny else 20)
    pictures = [first, second, first[: first.shape[0] // 2].copy(), *_odd_sizes(setting)]
    with lanes_of(setting.device, networks, 3) as lanes:
        lane = lanes[0]

        def faces(image: UInt8Array, lane: Lane = lane) -> Faces:
            plan = plan_frame(image.shape[1], image.shape[0], options, pages=networks.pages)
            return to_faces(detect(lane, image, plan), plan, networks)

        before = [faces(picture) for picture in pictures]
        found = [len(one) for one in before]
        checks.add("A-B-A", same(before[0], faces(first)), f"faces of the pictures: {found}")
        for byte in (0xFF, 0x55):
            poison(lane, byte)
            checks.add("poisoned buffers", same(before[0], faces(first)), f"filled with {byte:#x}")
        times = 2 if setting.is_tiny else 20
        again = [faces(second, lanes[n % 3]) for n in range(times)]
        equal = sum(same(before[1], one) for one in again)
        checks.add("repeated, three lanes", equal == times, f"{equal} of {times} equal")
        _check_resident(setting, lane, first, options, before[0], checks)
    with borrowed(setting.device, networks, lanes=3) as cascade:
        many = cascade.detect_all([*pictures, *pictures[::-1]], options)
        wanted = [*before, *before[::-1]]
        equal = sum(same(a, b) for a, b in zip(many, wanted, strict=True))
        checks.add("batch = singles", equal == len(many), f"{equal} of {len(many)} equal")
        alone = cascade.detect(first, options)
        checks.add("urgent lane", same(before[0], alone), "as any other")


def case_photo(setting: Setting, kind: str) -> Photo:
    """Return a middling picture of a kind."""
    return photo("tiny" if setting.is_tiny else "720p", kind)


def _odd_sizes(setting: Setting) -> list[UInt8Array]:
    rng = np.random.default_rng(3)
    sizes = [(1, 1), (11, 300), (20, 20), (21, 1500), (301, 1)]
    return [
        rng.integers(0, 256, (h, w, 3), np.uint8)
        for h, w in (sizes[:3] if setting.is_tiny else sizes)
    ]


def same(first: Faces, second: Faces) -> bool:
    """Return whether two answers are equal bit by bit."""
    return all(
        np.array_equal(getattr(first, name), getattr(second, name))
        for name in ("boxes", "scores", "landmarks")
    )


def _check_resident(
    setting: Setting,
    lane: Lane,
    image: UInt8Array,
    options: DetectOptions,
    expected: Faces,
    checks: Checks,
) -> None:
    plan = plan_frame(image.shape[1], image.shape[0], options, pages=lane.networks.pages)
    with closing(upload(setting.device, lane.stream, image)) as memory:
        while True:
            lane.submit_resident(memory.pointer, plan)
            try:
                found = to_faces(lane.collect(), plan, lane.networks)
                break
            except Crowded:
                continue
        left = download(setting.device, lane.stream, memory.pointer, image.nbytes)
    untouched = np.array_equal(left, image.reshape(-1))
    checks.add(
        "resident picture", untouched and same(expected, found), "same faces, left as it was"
    )


def check_all(
    setting: Setting, networks: DeviceNetworks, steps: Sequence[Callable[..., None]]
) -> dict[str, Any]:
    """Return what some steps of checking found."""
    checks = Checks()
    for step in steps:
        step(setting, networks, checks)
    return checks.answer()
