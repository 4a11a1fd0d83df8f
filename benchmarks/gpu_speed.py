"""How fast the GPU cascade is: frames a second, from wherever they come, and one frame alone.

Many frames of the same faces take turns, together more than the card's cache holds. Every figure is
the median of some rounds, with the least and the greatest beside it.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from statistics import median
from typing import Any

import numpy as np

from benchmarks.gpu_probe import borrowed, counters, detect, held, lanes_of, upload
from benchmarks.gpu_setting import Case, Setting, photo, variants
from benchmarks.tables import markdown
from unface.gpu.cascade import GpuCascade
from unface.gpu.device import HostMemory, Memory
from unface.gpu.lane import Lane
from unface.gpu.networks import DeviceNetworks
from unface.gpu.plan import Plan, plan_frame
from unface.mtcnn.network import UInt8Array
from unface.mtcnn.options import DetectOptions

JPEG_QUALITY = 92
COPIERS = 4  # threads that copy pictures into pinned memory

Figures = dict[str, Any]


def speeds(setting: Setting, networks: DeviceNetworks, cases: Sequence[Case]) -> Figures:
    """Return speed and latency of every case, by its name."""
    found: Figures = {}
    lanes = setting.extent.lanes
    with borrowed(setting.device, networks) as cascade:
        for case in cases:
            found[str(case)] = Frames(setting, networks, case).measure(cascade, lanes)
            lanes = (found[str(case)]["resident"]["lanes"],)
            print(f"{case!s:18} {brief(found[str(case)])}", flush=True)
    print("\n" + show(found))
    return found


class Frames:
    """The frames of one case: arrays, JPEG, and how each gets to the device."""

    def __init__(self, setting: Setting, networks: DeviceNetworks, case: Case) -> None:
        one = photo(case.size, case.kind)
        self.setting, self.networks = setting, networks
        count = max(4, int(1.5 * setting.l2_bytes / one.image.nbytes) + 1)
        self.images = variants(one.image, 2 if setting.is_tiny else min(count, 128))
        self.options = DetectOptions(min_face=case.min_face)
        height, width = one.image.shape[:2]
        self.plan = plan_frame(width, height, self.options, pages=networks.pages)

    def measure(self, cascade: GpuCascade, lanes: Sequence[int]) -> Figures:
        """Return all figures of the case; `lanes` to be tried for frames on the device."""
        found = self.resident(lanes)
        found["host"] = self.rate(lambda count: cascade.detect_all(self.take(count), self.options))
        found["pinned"] = self.from_pinned(0)
        found[f"pinned, {COPIERS} threads copy"] = self.from_pinned(COPIERS)
        found["jpeg"] = self.from_jpeg(cascade)
        found["latency"] = self.alone(lambda image: cascade.detect(image, self.options))
        return found

    @contextmanager
    def warm_lanes(self, count: int) -> Iterator[list[Lane]]:
        """Open lanes that have room for all frames, for the time of a block."""
        with lanes_of(self.setting.device, self.networks, count) as lanes:
            for image in self.images:
                detect(lanes[0], image, self.plan)
            for lane in lanes[1:]:
                lane.sizes = lanes[0].sizes
                detect(lane, self.images[0], self.plan)
            yield lanes

    def take(self, count: int) -> list[UInt8Array]:
        """Return so many frames, in turn."""
        return [self.images[n % len(self.images)] for n in range(count)]

    def rate(self, work: Callable[[int], object]) -> Figures:
        """Return frames a second of `work(count)`, from calls of some length."""
        extent = self.setting.extent
        least = 2 * extent.lanes[-1] if not self.setting.is_tiny else 2
        work(least)
        begin = time.perf_counter()
        work(least)
        guess = least / (time.perf_counter() - begin)
        count = max(least, int(guess * extent.round_s))
        rates = []
        for _ in range(extent.rounds):
            begin = time.perf_counter()
            work(count)
            rates.append(count / (time.perf_counter() - begin))
        return {"fps": median(rates), "low": min(rates), "high": max(rates), "frames": count}

    def alone(self, work: Callable[[UInt8Array], object]) -> Figures:
        """Return the milliseconds of one frame after the other."""
        for image in self.images[:3]:
            work(image)
        taken = []
        for image in self.take(self.setting.extent.single_frames):
            begin = time.perf_counter()
            work(image)
            taken.append(1000 * (time.perf_counter() - begin))
        return _percentiles(taken)

    def resident(self, counts: Sequence[int]) -> Figures:
        """Return speed and latency of frames that lie on the device, by the number of lanes."""
        setting = self.setting
        with self.warm_lanes(max(counts)) as lanes:
            memories = [upload(setting.device, lanes[0].stream, image) for image in self.images]
            with held(memories):
                by_lanes = {}
                for count in counts:
                    stream = _Resident(lanes[:count], memories, self.plan)
                    by_lanes[str(count)] = {**self.rate(stream.run), **stream.host()}
                single = _Resident(lanes[:1], memories, self.plan)
                latencies = []
                for n in range(setting.extent.single_frames):
                    begin = time.perf_counter()
                    single.run(1, n)
                    latencies.append(1000 * (time.perf_counter() - begin))
            counted = counters(lanes[0])
        best = max(by_lanes, key=lambda key: by_lanes[key]["fps"])
        return {
            "counted": counted,
            "resident": {**by_lanes[best], "lanes": int(best)},
            "resident by lanes": by_lanes,
            "resident latency": _percentiles(latencies),
        }

    def from_pinned(self, threads: int) -> Figures:
        """Return the speed of frames from pinned memory; `threads` copy them there first, or none.

        Not what the API does: what it could reach if its caller's pictures lay there already.
        """
        device, most = self.setting.device, self.setting.extent.lanes[-1]
        size, slots = self.images[0].nbytes, most + max(threads, 1)
        pinned: list[HostMemory] = [device.allocate_host(size) for _ in range(slots)]
        there: list[Memory] = [device.allocate(size) for _ in range(most)]
        for n, memory in enumerate(pinned):
            memory.array[:size] = self.images[n % len(self.images)].reshape(-1)
        with (
            self.warm_lanes(most) as lanes,
            held([*pinned, *there]),
            ThreadPoolExecutor(max(threads, 1)) as pool,
        ):
            copiers = pool if threads else None
            stream = _Pinned(lanes, there, pinned, self.plan, self.images, copiers)
            return self.rate(stream.run)

    def from_jpeg(self, cascade: GpuCascade) -> Figures:
        """Return the speed of JPEG bytes, decoded by as many threads as there are cores."""
        import cv2

        from unface.anonymize.codec import decode

        options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        files = [
            cv2.imencode(".jpg", image[..., ::-1], options)[1].tobytes()
            for image in self.images[:16]
        ]
        cores = len(os.sched_getaffinity(0))
        begin = time.perf_counter()
        for file in files[:4]:
            decode(file)
        decode_ms = 1000 * (time.perf_counter() - begin) / len(files[:4])
        with ThreadPoolExecutor(cores) as pool:

            def run(count: int) -> None:
                pictures = ahead(
                    pool, lambda file: decode(file).pixels, _cycle(files, count), 2 * cores
                )
                for group in _groups(pictures, 2 * self.setting.extent.lanes[-1]):
                    cascade.detect_all(group, self.options)

            return {**self.rate(run), "threads": cores, "decode_ms": decode_ms}


class _Resident:
    """Frames on the device through some lanes; `host` is what the host's part took of it."""

    def __init__(self, lanes: Sequence[Lane], memories: Sequence[Memory], plan: Plan) -> None:
        self._lanes, self._memories, self._plan = lanes, memories, plan
        self._submitting = self._waiting = 0.0
        self._count = 0

    def run(self, count: int, first: int = 0) -> None:
        """Find the faces of so many frames."""
        under_way: deque[Lane] = deque()
        idle = deque(self._lanes)
        for n in range(first, first + count):
            if not idle:
                idle.append(self._collect(under_way.popleft()))
            lane = idle.popleft()
            begin = time.perf_counter()
            lane.submit_resident(self._memories[n % len(self._memories)].pointer, self._plan)
            self._submitting += time.perf_counter() - begin
            under_way.append(lane)
        for lane in under_way:
            self._collect(lane)
        self._count += count

    def _collect(self, lane: Lane) -> Lane:
        begin = time.perf_counter()
        lane.collect()
        self._waiting += time.perf_counter() - begin
        return lane

    def host(self) -> Figures:
        """Return the host's microseconds a frame: to submit it, to collect (mostly waiting)."""
        frames = max(self._count, 1)
        return {
            "submit_us": 1e6 * self._submitting / frames,
            "collect_us": 1e6 * self._waiting / frames,
        }


class _Pinned:
    """Frames from pinned memory, copied there by threads where there is a pool."""

    def __init__(
        self,
        lanes: Sequence[Lane],
        there: Sequence[Memory],
        pinned: Sequence[HostMemory],
        plan: Plan,
        images: Sequence[UInt8Array],
        pool: ThreadPoolExecutor | None,
    ) -> None:
        self._lanes, self._there, self._pinned = lanes, there, pinned
        self._plan, self._images, self._pool = plan, images, pool

    def run(self, count: int) -> None:
        """Find the faces of so many frames."""
        frames: Iterable[HostMemory]
        places = [(n % len(self._pinned), n % len(self._images)) for n in range(count)]
        if self._pool is None:
            frames = (self._pinned[place] for place, _ in places)
        else:
            # A place is filled again when the lane that took it last has given its faces.
            depth = len(self._pinned) - len(self._lanes)
            frames = ahead(self._pool, self._fill, iter(places), depth)
        under_way: deque[int] = deque()
        for n, memory in enumerate(frames):
            at = n % len(self._lanes)
            if len(under_way) == len(self._lanes):
                self._lanes[under_way.popleft()].collect()
            lane = self._lanes[at]
            lane.stream.copy(self._there[at].pointer, memory.pointer, self._images[0].nbytes)
            lane.submit_resident(self._there[at].pointer, self._plan)
            under_way.append(at)
        for at in under_way:
            self._lanes[at].collect()

    def _fill(self, places: tuple[int, int]) -> HostMemory:
        memory, image = self._pinned[places[0]], self._images[places[1]]
        memory.array[: image.size].reshape(image.shape)[:] = image
        return memory


def ahead(
    pool: ThreadPoolExecutor, work: Callable[[Any], Any], items: Iterator[Any], depth: int
) -> Iterator[Any]:
    """Yield `work(item)` in order, up to `depth` of them begun before they are asked for."""
    # The range first: `zip` must not take an item that it then has no number for.
    waiting = deque(pool.submit(work, item) for _, item in zip(range(depth), items, strict=False))
    for item in items:
        done = waiting.popleft().result()
        yield done
        waiting.append(pool.submit(work, item))
    for future in waiting:
        yield future.result()


def _cycle(items: Sequence[Any], count: int) -> Iterator[Any]:
    return (items[n % len(items)] for n in range(count))


def _groups(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    group = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _percentiles(taken: Sequence[float]) -> Figures:
    p50, p99 = np.percentile(taken, [50, 99]).tolist()
    return {"p50_ms": p50, "p99_ms": p99, "low_ms": min(taken), "frames": len(taken)}


def brief(speed: Figures) -> str:
    """Return a case's speed in a line."""
    resident, alone = speed["resident"], speed["latency"]
    return (
        f"{resident['fps']:.0f} frames/s resident ({resident['lanes']} lanes), "
        f"{speed['host']['fps']:.0f} from host memory, {speed['jpeg']['fps']:.0f} from JPEG; "
        f"one {alone['p50_ms']:.2f} ms, {speed['counted']['faces']} faces"
    )


def show(speeds: Figures) -> str:
    """Return all cases as a table."""
    lines = []
    for name, s in speeds.items():
        r, alone, counted = s["resident"], s["latency"], s["counted"]
        lines.append([
            name,
            f"{r['fps']:.0f} ({r['low']:.0f}..{r['high']:.0f})",
            f"{s['host']['fps']:.0f}",
            f"{s['pinned']['fps']:.0f}",
            f"{s[f'pinned, {COPIERS} threads copy']['fps']:.0f}",
            f"{s['jpeg']['fps']:.0f}",
            f"{alone['p50_ms']:.2f} / {alone['p99_ms']:.2f}",
            f"{s['resident latency']['p50_ms']:.2f} / {s['resident latency']['p99_ms']:.2f}",
            f"{r['submit_us']:.0f} + {r['collect_us']:.0f}",
            f"{counted['hits']}, {counted['rnet_crops']}, {counted['onet_crops']}",
            str(counted["faces"]),
        ])  # fmt: skip
    head = (
        "frames/s", "resident", "host", "pinned", "copied", "JPEG", "one p50 / p99 ms",
        "resident ms", "host us", "hits, R, O", "faces",
    )  # fmt: skip
    return markdown(head, lines)
