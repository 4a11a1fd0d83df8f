"""What the server adds to the detector's own time, and takes from its throughput.

Server and detector take turns, so that a machine whose speed drifts slows both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial
from statistics import median
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

import unface
from benchmarks.pictures import JPEG_QUALITY, compose, draw
from benchmarks.serving_client import Load, Sent, client_processes, send
from benchmarks.serving_figures import Section, as_figures, outcome, per_second
from benchmarks.serving_server import ServerProcess, serving
from unface.anonymize import Limits, decode, encode
from unface.local import Local
from unface.mtcnn.options import detect_options
from unface.mtcnn.team import cores
from unface.v1 import unface_pb2 as pb
from unface.v1.unface_pb2_grpc import UnfaceStub
from unface.worker.memory import give_large_buffers_back
from unface.worker.messages import put_pixels

OVERHEAD, SHARE, BATCHING = 1.10, 0.90, 1.3  # targets
CLIENTS = 16
BATCH_CLIENTS = 32
PATIENT = ("--queue-ms", "60000")  # refuses nothing: what a server can do is measured without
AHEAD = 16  # pictures that the detector is given at once
PROFILES = ("accurate", "fast")
FORMS = ("JPEG", "raw")
WARM_UP = 5
SETTLE_S = 0.01  # between turns: threads spin on for a moment when their work is done
BLOCKS = 5  # of a comparison, to show how far it spreads
SMALL = (320, 240)
SMALL_FACES = [(30, 20, 40), (150, 60, 60)]
Picture = NDArray[np.uint8]
Pair = tuple[float, float]


def overhead(seconds: float = 15) -> Section:
    """Time Detect of a 1080p picture through the server and in this process, turn by turn."""
    section = Section("overhead", {"server": "defaults"})
    pixels = draw("1080p", "few").image
    jpeg = encode(pixels, "jpeg", quality=JPEG_QUALITY)
    with (
        serving() as server,
        grpc.insecure_channel(server.target, _LARGE) as channel,
        unface.Detector() as detector,
    ):

        def compare(form: str, note: str = "") -> None:
            picture = jpeg if form == "JPEG" else pixels
            for profile in PROFILES:
                inside = partial(Local(detector).detect, picture, profile=profile)
                steps: list[pb.Timings] = []
                outside = partial(_detect, UnfaceStub(channel), picture, profile, steps)
                pairs = take_turns(inside, outside, seconds)
                _add_overhead(section, f"{form}, {profile}{note}", pairs, steps[-len(pairs) :])

        for form in FORMS:
            compare(form)
        # The server has glibc keep free memory, which a library leaves to the program it is in.
        give_large_buffers_back()
        compare("JPEG", " (same allocator)")
    return section


def throughput(seconds: float = 10, turns: int = 3) -> Section:
    """Compare 16 clients' pictures a second with the detector's own, decoding included."""
    flags = (*PATIENT, "--workers", str(cores()))  # a core each: the most pictures a second
    section = Section("throughput", {"server": " ".join(flags)})
    jpeg = encode(draw("1080p", "few").image, "jpeg", quality=JPEG_QUALITY)
    with serving(*flags) as server, client_processes(2) as processes:
        for profile in PROFILES:
            load = Load(server.target, (request(jpeg, profile),), seconds, CLIENTS)
            inside, outside, busy = [], [], []
            for _ in range(turns):
                inside.append(processes.submit(in_process, jpeg, profile, seconds).result())
                sent = _all_answered(processes, load)
                outside.append(per_second(sent.calls, seconds))
                busy.append(sent.busy)
            ratios = [out / within for within, out in zip(inside, outside, strict=True)]
            share = median(ratios)
            section.add(
                f"1080p JPEG, {profile}: 16 clients of the detector's own throughput",
                f"{share:.1%} ({spread(ratios, '{:.1%}')}), {median(outside):.1f} of "
                f"{median(inside):.1f} pictures/s",
                f"at least {SHARE:.0%}",
                share >= SHARE,
            )
            section.figures[profile] = as_figures(
                share=share, server=outside, in_process=inside, client_busy=max(busy)
            )
    return section


def batching(seconds: float = 6, turns: int = 3) -> Section:
    """Compare 320 x 240 frames a second of a server that batches and of one that does not."""
    section = Section("batching", {"both": " ".join(PATIENT), "single": "--batch-size 1"})
    pixels = compose(*SMALL, SMALL_FACES).image
    jpeg = encode(pixels, "jpeg", quality=JPEG_QUALITY)
    with (
        serving(*PATIENT, "--batch-size", "1") as single,
        serving(*PATIENT) as batched,
        client_processes() as processes,
    ):
        for form in FORMS:
            for profile in PROFILES:
                message = request(jpeg if form == "JPEG" else pixels, profile)
                load = Load("", (message,), seconds, BATCH_CLIENTS)
                rates = _alternate(processes, load, (single, batched), turns)
                ratios = [with_ / without for without, with_ in rates]
                gain = median(ratios)
                section.add(
                    f"{form}, {profile}: batched to unbatched, {BATCH_CLIENTS} clients",
                    f"{gain:.2f} ({spread(ratios)}), {median(r[1] for r in rates):.0f} of "
                    f"{median(r[0] for r in rates):.0f} frames/s",
                    f"at least {BATCHING}",
                    gain >= BATCHING,
                )
                section.figures[f"{form}, {profile}"] = as_figures(ratio=gain, rates=rates)
    return section


def take_turns(
    inside: Callable[[], object], outside: Callable[[], object], seconds: float
) -> list[Pair]:
    """Return pairs of milliseconds, of one call of each; who begins changes with every pair."""
    pairs: list[Pair] = []
    for _ in range(WARM_UP):
        inside(), outside()
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(pairs) < 2 * BLOCKS:
        if len(pairs) % 2:
            second, first = _milliseconds(outside), _milliseconds(inside)
        else:
            first, second = _milliseconds(inside), _milliseconds(outside)
        pairs.append((first, second))
    return pairs


def ratios_of_blocks(pairs: Sequence[Pair]) -> list[float]:
    """Return the ratio of the medians in each of `BLOCKS` parts of a comparison."""
    size = len(pairs) // BLOCKS
    blocks = [pairs[begin : begin + size] for begin in range(0, size * BLOCKS, size)]
    return [median(o for _, o in block) / median(i for i, _ in block) for block in blocks]


def spread(values: Sequence[float], form: str = "{:.2f}") -> str:
    """Return the least and the largest of some values as text."""
    return f"{form.format(min(values))}..{form.format(max(values))}"


def request(picture: bytes | Picture, profile: str = "accurate") -> bytes:
    """Return a serialized DetectRequest."""
    return _request(picture, profile).SerializeToString()


def in_process(jpeg: bytes, profile: str, seconds: float) -> float:
    """Return the pictures a second that this process decodes and detects, whichever way is faster.

    Either lists are decoded on all cores and then searched on all cores, or the next list is
    decoded while one is searched.
    """
    detector, options = _detector(), detect_options(profile=profile)
    files = [jpeg] * AHEAD
    with ThreadPoolExecutor() as threads:

        def decoded() -> Iterator[Picture]:
            return threads.map(lambda file: decode(file, Limits()).pixels, files)

        def apart() -> None:
            detector.detect(list(decoded()), options)

        def together() -> None:
            pictures = list(ahead.pop())
            ahead.append(decoded())
            detector.detect(pictures, options)

        apart()
        ahead = [decoded()]
        rate = max(_lists_per_second(way, seconds / 2) for way in (apart, together))
    return rate * AHEAD


_LARGE = [("grpc.max_send_message_length", -1)]


@cache
def _detector() -> unface.Detector:
    return unface.Detector()


def _lists_per_second(way: Callable[[], None], seconds: float) -> float:
    begin, lists = time.monotonic(), 0
    while time.monotonic() < begin + seconds or not lists:
        way()
        lists += 1
    return lists / (time.monotonic() - begin)


def _alternate(
    processes: ProcessPoolExecutor, load: Load, servers: Sequence[ServerProcess], turns: int
) -> list[tuple[float, ...]]:
    """Return the rates of the servers, turn by turn; a first short one does not count."""
    rates = []
    for turn in range(turns + 1):
        seconds = load.seconds if turn else min(2.0, load.seconds)
        loads = [replace(load, target=one.target, seconds=seconds) for one in servers]
        rates.append(
            tuple(per_second(_all_answered(processes, one).calls, seconds) for one in loads)
        )
    return rates[1:]


def _all_answered(processes: ProcessPoolExecutor, load: Load) -> Sent:
    sent = processes.submit(send, load).result()
    counted = outcome(sent.calls)
    if counted.accepted != counted.sent:
        raise RuntimeError(f"a server that is not overloaded has refused calls: {counted}")
    return sent


def _milliseconds(call: Callable[[], object]) -> float:
    time.sleep(SETTLE_S)
    begin = time.perf_counter()
    call()
    return (time.perf_counter() - begin) * 1000


def _request(picture: bytes | Picture, profile: str) -> pb.DetectRequest:
    message = pb.DetectRequest(detect_options=pb.DetectOptions(profile=profile))
    if isinstance(picture, bytes):
        message.image.encoded = picture
    else:
        put_pixels(message.image, picture)
    return message


def _detect(
    stub: UnfaceStub, picture: bytes | Picture, profile: str, steps: list[pb.Timings]
) -> None:
    answer = stub.Detect(_request(picture, profile), timeout=30)
    assert answer.faces, "the server has found no face"
    steps.append(answer.timings)


def _add_overhead(
    section: Section, case: str, pairs: Sequence[Pair], steps: Sequence[pb.Timings]
) -> None:
    inside, outside = (median(column) for column in zip(*pairs, strict=True))
    ratios = ratios_of_blocks(pairs)
    ratio = outside / inside
    of_steps: dict[str, Any] = {
        name: median(getattr(one, name) for one in steps)
        for name in ("queue_ms", "decode_ms", "detect_ms")
    }
    section.add(
        f"1080p {case}: p50 through the server to in process",
        f"{ratio:.3f} ({spread(ratios, '{:.3f}')}), {outside:.1f} ms to {inside:.1f} ms",
        f"at most {OVERHEAD:.2f}",
        ratio <= OVERHEAD,
    )
    told = ", ".join(f"{name[:-3]} {value:.1f}" for name, value in of_steps.items())
    section.add("- of it, ms that the server tells", told)
    section.figures[case] = as_figures(
        ratio=ratio, blocks=ratios, server_ms=outside, in_process_ms=inside,
        pairs=len(pairs), **of_steps,
    )  # fmt: skip
