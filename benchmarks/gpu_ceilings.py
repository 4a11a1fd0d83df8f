"""What the card does at best, and where a picture's time goes beside it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from statistics import median
from typing import Any

from benchmarks.gpu_floor import Ceilings, microseconds, work_of
from benchmarks.gpu_floor import show as show_floor
from benchmarks.gpu_probe import Clock, detect, held, lanes_of, record_prefix
from benchmarks.gpu_report import NotMeasured
from benchmarks.gpu_setting import Case, Setting, photo, variants
from unface.gpu.lane import Lane
from unface.gpu.networks import DeviceNetworks
from unface.gpu.plan import Plan, plan_frame
from unface.mtcnn.options import DetectOptions

STAGE_REPEATS = 20
ASSUMED_OPERATIONS = 1e15  # a second, FP16; an H200 by its datasheet

Figures = dict[str, Any]


def ceilings(setting: Setting) -> Figures:
    """Return what the card and its host do at best: copies, empty work, products of matrices."""
    device, size = setting.device, setting.extent.copy_bytes
    stream = device.stream(urgent=False)
    first, second = device.allocate(size), device.allocate(size)
    pinned = device.allocate_host(size)
    pinned.array[:] = 90

    def seconds(work: Callable[[], object], repeats: int = 7) -> float:
        work()
        stream.synchronize()
        taken = []
        for _ in range(repeats):
            begin = time.perf_counter()
            work()
            stream.synchronize()
            taken.append(time.perf_counter() - begin)
        return median(taken)

    with closing(stream), held([first, second, pinned]):
        stream.copy(first.pointer, pinned.pointer, size)  # nothing is timed on zeros
        there = seconds(lambda: stream.copy(first.pointer, pinned.pointer, size))
        back = seconds(lambda: stream.copy(pinned.pointer, first.pointer, size))
        copies = 10
        across = seconds(
            lambda: repeat(lambda: stream.copy(second.pointer, first.pointer, size), copies)
        )
        graph = stream.record(lambda recorder: recorder.clear(second.pointer, 64))
        with closing(graph):
            alone = seconds(lambda: stream.replay(graph), 200)
            behind = seconds(lambda: repeat(lambda: stream.replay(graph), 100))
    found = {
        "copy_gb_s": 2 * copies * size / across / 1e9,
        "to_device_gb_s": size / there / 1e9,
        "from_device_gb_s": size / back / 1e9,
        "empty_graph_us": 1e6 * alone,
        "empty_graph_queued_us": 1e6 * behind / 100,
        "memcpy_one_thread_gb_s": _memcpy(setting),
        "fp16_tflops": _products(),
    }
    for name, value in found.items():
        print(f"{name:24} {'-' if value is None else f'{value:.4g}'}")
    return found


def repeat(work: Callable[[], object], times: int) -> None:
    """Do something so many times."""
    for _ in range(times):
        work()


def _memcpy(setting: Setting) -> float:
    """Return bytes a second, in 1e9, of copying pictures into pinned memory by one thread."""
    image = photo("tiny" if setting.is_tiny else "1080p", "few").image
    sources = variants(image, 8)
    with closing(setting.device.allocate_host(image.nbytes)) as pinned:
        taken = []
        for source in sources * 4:
            begin = time.perf_counter()
            pinned.array[: source.size].reshape(source.shape)[:] = source
            taken.append(time.perf_counter() - begin)
    return image.nbytes / median(taken) / 1e9


def _products() -> float | None:
    """Return operations a second, in 1e12, of a large FP16 product in torch; None without it."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    side = 8192
    a, b = (torch.randn(side, side, device="cuda", dtype=torch.float16) for _ in range(2))
    taken = []
    for _ in range(8):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        a @ b
        end.record()
        end.synchronize()
        taken.append(begin.elapsed_time(end))
    return float(2 * side**3 / (median(taken[3:]) / 1e3) / 1e12)


def stages(setting: Setting, networks: DeviceNetworks, cases: Sequence[Case]) -> Figures:
    """Return the device's microseconds for each step of a picture, by case.

    From graphs that end after the first, the second ... step, each on cold caches: a step's time is
    what its graph takes more than the one before.
    """
    found: Figures = {}
    for case in cases:
        one = photo(case.size, case.kind)
        plan = _plan(case, pages=networks.pages)
        with lanes_of(setting.device, networks, 1) as (lane,):
            detect(lane, one.image, plan)
            with closing(Clock(setting.device, lane.stream, setting.extent.spacer_bytes)) as clock:
                found[str(case)] = _steps(lane, plan, clock, setting)
        steps = found[str(case)]
        print(f"{case}: " + ", ".join(f"{k} {v:.1f}" for k, v in steps.items()) + " us", flush=True)
    return found


def _steps(lane: Lane, plan: Plan, clock: Clock, setting: Setting) -> dict[str, float]:
    repeats = 1 if setting.is_tiny else STAGE_REPEATS
    totals, most = [0.0], 1
    found: dict[str, float] = {}
    while True:
        graph, names = record_prefix(lane, plan, most)
        with closing(graph):
            if len(names) < most:
                return {**found, "all": totals[-1]}
            taken = clock.milliseconds(partial(lane.stream.replay, graph), repeats)
        totals.append(1000 * median(taken))
        name = names[-1] if names[-1] not in found else f"{names[-1]} #{most}"
        found[name] = totals[-1] - totals[-2]
        most += 1


def floors(cases: Sequence[Case], found: Figures) -> Figures:
    """Return for every case its bytes, multiply-adds and what they take at the measured ceilings.

    `found` are the figures of the run so far.
    """
    measured = found.get("ceilings")
    if measured is None:
        raise NotMeasured("there are no ceilings")
    if measured["fp16_tflops"] is None:
        print(f"no product of matrices was measured: {ASSUMED_OPERATIONS:g} operations/s assumed")
    limits = Ceilings(
        1e9 * measured["copy_gb_s"],
        1e12 * measured["fp16_tflops"] if measured["fp16_tflops"] else ASSUMED_OPERATIONS,
        1e9 * measured["to_device_gb_s"],
    )
    rows, answer = {}, {}
    speeds = found.get("speed kernels", {})
    for case in cases:
        speed = speeds.get(str(case))
        counted = speed["counted"] if speed else {"rnet_crops": 0, "onet_crops": 0}
        work = work_of(_plan(case), counted["rnet_crops"], counted["onet_crops"])
        times = microseconds(work, limits)
        rows[str(case)] = (work, times, speed)
        answer[str(case)] = {**vars(work), "us": times}
    print(show_floor(rows))
    return answer


def _plan(case: Case, *, pages: bool = False) -> Plan:
    height, width = photo(case.size, case.kind).image.shape[:2]
    return plan_frame(width, height, DetectOptions(min_face=case.min_face), pages=pages)
