"""A worker killed and a server told to stop, each under load: who fails, and for how long."""

from __future__ import annotations

import math
import signal
import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.serving_client import OK, Call, Load, client_processes, send
from benchmarks.serving_figures import Section, as_figures, full_speed_after
from benchmarks.serving_overload import webcam_request
from benchmarks.serving_server import ServerProcess, is_serving, serving, workers

CLIENTS = 16
KILLED, STOPPED = "UNAVAILABLE", {"UNAVAILABLE", "CANCELLED"}  # the latter by gRPC itself


class Around(NamedTuple):
    """Calls around an event: those sent before it that had no answer yet, and those sent after."""

    under_way: list[Call]
    after: list[Call]


def kill(seconds: float = 12) -> Section:
    """Kill a worker under load with SIGKILL, then stop the server under load with SIGTERM."""
    section = Section("kill", {"server": "defaults"})
    with serving() as server:
        _add_killed(section, *killed_worker(server, seconds))
        section.add("health after it", "SERVING", "SERVING", is_serving(server))
        calls, event, code = terminated(server, seconds)
        _add_terminated(section, calls, event, code)
    return section


def killed_worker(server: ServerProcess, seconds: float) -> tuple[list[Call], float]:
    """Kill a worker after half of the time; returns all calls and when it was (`monotonic`)."""
    load = Load(server.target, (webcam_request(),), seconds, CLIENTS)
    with client_processes() as processes:
        running = processes.submit(send, load)
        time.sleep(seconds / 2)
        found = workers(server)
        if not found:
            raise RuntimeError("the server has no worker process that could be killed")
        event = time.monotonic()
        found[0].send_signal(signal.SIGKILL)
        return running.result().calls, event


def terminated(server: ServerProcess, seconds: float) -> tuple[list[Call], float, int]:
    """Send SIGTERM after half of the time; returns all calls, when it was, the exit code."""
    load = Load(server.target, (webcam_request(),), seconds, CLIENTS)
    with client_processes() as processes:
        running = processes.submit(send, load)
        time.sleep(seconds / 2)
        event = time.monotonic()
        code: int = server.terminate()
        return running.result().calls, event, code


def around(calls: Sequence[Call], event: float) -> Around:
    """Return the calls that an event may have touched, and those sent after it."""
    return Around(
        [call for call in calls if call.sent <= event < call.ended],
        [call for call in calls if call.sent > event],
    )


def failures(calls: Sequence[Call]) -> Counter[str]:
    """Count the calls that were not answered by their status."""
    return Counter(call.code for call in calls if call.code != OK)


def _add_killed(section: Section, calls: Sequence[Call], event: float) -> None:
    under_way, after = around(calls, event)
    lost, other = failures(under_way), failures(calls) - failures(under_way)
    again = full_speed_after(calls, event)
    section.add(
        "a worker killed: calls that were under way",
        f"{len(under_way)}, failed {_counts(lost)}",
        f"fail with {KILLED} or not at all",
        set(lost) <= {KILLED},
    )
    section.add(
        "- all others", f"{len(calls) - len(under_way)}, failed {_counts(other)}", "none", not other
    )
    section.add("- until full speed", f"{again:.2f} s", "ever", math.isfinite(again))
    section.figures |= as_figures(
        under_way=len(under_way), lost=lost, others=len(calls) - len(under_way),
        others_failed=other, sent_after=len(after), full_speed_seconds=again,
    )  # fmt: skip


def _add_terminated(section: Section, calls: Sequence[Call], event: float, code: int) -> None:
    before = [call for call in calls if call.sent < event]
    failed = [call for call in before if call.code != OK]
    latest = max((event - call.sent for call in failed), default=0.0)
    after = failures([call for call in calls if call.sent >= event])
    section.add(
        "SIGTERM: calls sent before",
        f"{len(before)}, failed {_counts(failures(before))}"
        + (f", the earliest sent {latest * 1000:.1f} ms before" if failed else ""),
        "none",
        not failed,
    )
    section.add(
        "- calls sent after", _counts(after), "UNAVAILABLE, CANCELLED", set(after) <= STOPPED
    )
    section.add("- exit code", str(code), "0", code == 0)
    section.figures |= as_figures(
        before=len(before), before_failed=len(failed), failed_sent_before_ms=latest * 1000,
        after_failed=after, exit_code=code,
    )  # fmt: skip


def _counts(codes: Counter[str]) -> str:
    return ", ".join(f"{count} {code}" for code, count in codes.items()) or "0"
