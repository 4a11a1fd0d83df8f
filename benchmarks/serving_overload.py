"""Three times as many calls as a server can answer, for a minute, and what is left of it after."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from statistics import median

from benchmarks.pictures import JPEG_QUALITY, compose
from benchmarks.serving_client import REFUSED, Load, Sent, client_processes, send
from benchmarks.serving_figures import (
    Section,
    as_figures,
    calm_after,
    growth,
    milliseconds,
    outcome,
    per_second,
    percentile,
)
from benchmarks.serving_server import Watch, serving, watching
from benchmarks.serving_speed import PATIENT, request
from unface.anonymize import encode

TIMES = 3  # the capacity
LATENCY, REFUSAL_MS, RECOVERY_SECONDS, GROWTH = 5, 50, 2, 0.10  # targets
CLIENTS = 16
TURN_SECONDS, TURNS, AFTER_SECONDS = 3.0, 3, 5.0
CALM = 1.5  # unloaded medians, from which on a server is as fast as before
# A picture of a webcam: work enough that sending three times as many is cheap beside it.
SIZE, FACES = (640, 480), [(60, 40, 60), (330, 120, 110)]
PROFILE = "fast"
ALONE = ("--batch-size", "1")  # short waits: no picture is held up by its batch-mates
WAIT = 0.75  # of an unhurried answer's time, that a request may wait


@dataclass(frozen=True)
class Unhurried:
    """What a server does without too much to do."""

    p50_ms: float  # of one client alone
    capacity: float  # answers a second to many


def overload(seconds: float = 60, flags: Sequence[str] = ()) -> Section:
    """Send three times the capacity to a server that is told how long a request may wait.

    That time (`--queue-ms`) is chosen as an operator would: from the median of an unhurried server,
    so that what is accepted is answered in five times it. `flags` are the server's instead.
    """
    load = Load("", (webcam_request(),), TURN_SECONDS)
    with client_processes(2) as processes:
        with serving(*(flags or ALONE), *PATIENT) as server:
            before = unhurried(processes, replace(load, target=server.target))
        if not flags:
            flags = (*ALONE, "--queue-ms", f"{max(1.0, WAIT * before.p50_ms):.0f}")
        with serving(*flags) as server, watching(server) as watch:
            section = Section("overload", {"server": " ".join(flags)})
            load = replace(load, target=server.target)
            _measure(section, processes, load, before, watch, seconds)
    return section


def unhurried(processes: ProcessPoolExecutor, load: Load) -> Unhurried:
    """Return a server's median to one client and its capacity, both from closed loops.

    The best of some turns: what other programs take at times is not the server's doing.
    """
    many = replace(load, clients=CLIENTS)
    processes.submit(send, many).result()  # warm
    alone, together = [], []
    for _ in range(TURNS):
        alone.append(median(milliseconds(processes.submit(send, load).result().calls)))
        together.append(per_second(processes.submit(send, many).result().calls, many.seconds))
    return Unhurried(min(alone), max(together))


def webcam_request() -> bytes:
    """Return a serialized DetectRequest of a picture with two faces."""
    picture = encode(compose(*SIZE, FACES).image, "jpeg", quality=JPEG_QUALITY)
    return request(picture, PROFILE)


def _measure(
    section: Section,
    processes: ProcessPoolExecutor,
    load: Load,
    before: Unhurried,
    watch: Watch,
    seconds: float,
) -> None:
    processes.submit(send, load).result()  # warm
    rate = TIMES * before.capacity
    flood = replace(load, seconds=seconds, clients=CLIENTS, rate=rate)
    sent = processes.submit(send, flood).result()
    after = processes.submit(send, replace(load, seconds=AFTER_SECONDS)).result()
    begin = min(call.sent for call in sent.calls)
    end = max(call.sent for call in sent.calls)
    recovery = calm_after(after.calls, end, CALM * before.p50_ms)
    memory = watch.between(begin, end)
    section.add(
        "unloaded",
        f"p50 {before.p50_ms:.1f} ms; capacity {before.capacity:.0f}/s to {CLIENTS} clients",
    )
    _add_client(section, sent, rate, seconds)
    _add_accepted(section, sent, before.p50_ms)
    _add_refused(section, sent)
    _add_counts(section, sent)
    section.add(
        "memory of all processes, last quarter to first",
        f"{growth(memory):+.1%}, {max(memory, default=0) / 1e6:.0f} MB at most",
        f"within {GROWTH:.0%}",
        growth(memory) <= GROWTH,
    )
    section.add(
        "until an answer takes its unloaded time again",
        f"{recovery:.2f} s",
        f"under {RECOVERY_SECONDS} s",
        recovery < RECOVERY_SECONDS,
    )
    section.figures |= as_figures(
        unloaded_p50_ms=before.p50_ms, capacity=before.capacity, sent_per_second=rate,
        seconds=seconds, recovery_seconds=recovery, memory_growth=growth(memory),
        memory_mb=[resident / 1e6 for resident in _thinned(memory)],
    )  # fmt: skip


def _add_client(section: Section, sent: Sent, rate: float, seconds: float) -> None:
    accepted = outcome(sent.calls).accepted / seconds
    section.add(
        "sent",
        f"{rate:.0f}/s, {accepted:.0f}/s were accepted; the client took {sent.busy:.0%} of a core, "
        f"the latest hundredth of its calls was {sent.late_seconds * 1000:.0f} ms late",
    )
    section.figures |= as_figures(client_busy=sent.busy, late_ms=sent.late_seconds * 1000)


def _add_accepted(section: Section, sent: Sent, unloaded_ms: float) -> None:
    taken = milliseconds(sent.calls)
    p50, p99 = percentile(taken, 0.50), percentile(taken, 0.99)
    times = p99 / unloaded_ms if taken else math.inf
    section.add(
        "accepted: p99 to the unloaded p50",
        f"{times:.2f}; p50 {p50:.1f} ms, p99 {p99:.1f} ms",
        f"under {LATENCY}",
        times < LATENCY,
    )
    section.figures |= as_figures(accepted_p50_ms=p50, accepted_p99_ms=p99, times=times)


def _add_refused(section: Section, sent: Sent) -> None:
    taken = milliseconds(sent.calls, REFUSED)
    p50, p99, most = (percentile(taken, share) for share in (0.50, 0.99, 1.0))
    for name, value in (("p99", p99), ("most", most)):
        section.add(
            f"refused, seen by the client: {name}",
            f"{value:.1f} ms" + (f"; p50 {p50:.1f} ms" if name == "p99" else ""),
            f"under {REFUSAL_MS} ms",
            value < REFUSAL_MS,
        )
    section.figures |= as_figures(refused_p50_ms=p50, refused_p99_ms=p99, refused_most_ms=most)


def _add_counts(section: Section, sent: Sent) -> None:
    counted = outcome(sent.calls)
    other = sum(counted.other.values())
    section.add(
        "sent = accepted + refused + other",
        f"{counted.sent} = {counted.accepted} + {counted.refused} + {other} "
        + ", ".join(f"{code} {count}" for code, count in counted.other.items()),
        "other 0",
        other == 0,
    )
    section.figures |= as_figures(**counted._asdict())


def _thinned(values: Sequence[int], most: int = 60) -> list[int]:
    return list(values[:: max(1, len(values) // most)])
