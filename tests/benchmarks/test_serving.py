"""What `benchmarks.serving` counts and sends; the sections themselves run for minutes."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import started

from benchmarks import serving as command
from benchmarks import serving_http2 as http2
from benchmarks.serving_client import DETECT, OK, REFUSED, Call, Load, client_processes, send
from benchmarks.serving_figures import (
    Section,
    as_figures,
    busy_cores,
    calm_after,
    full_speed_after,
    growth,
    keep,
    outcome,
    per_second,
    percentile,
    record,
    show,
)
from benchmarks.serving_kill import around
from benchmarks.serving_server import tracebacks
from benchmarks.serving_speed import ratios_of_blocks, take_turns

PICTURE = b"a request"


class Echo(grpc.GenericRpcHandler):
    """A server that answers with what came, and refuses every `refuse`-th call."""

    def __init__(self, refuse: int = 0) -> None:
        self.refuse, self.seen = refuse, 0
        self._lock = threading.Lock()

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._answer)

    def _answer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        with self._lock:
            self.seen += 1
            refused = self.refuse and self.seen % self.refuse == 0
        if refused:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        return request


@pytest.fixture
def echo() -> Iterator[tuple[Echo, str]]:
    handler = Echo(refuse=3)
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield handler, f"127.0.0.1:{port}"
    server.stop(None).wait()


# --- the client ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [None, 200.0])
def test_every_call_of_a_load_has_an_answer_that_counts(
    echo: tuple[Echo, str], rate: float | None
) -> None:
    handler, target = echo
    sent = send(Load(target, (PICTURE, b"2"), 0.3, clients=3, rate=rate))
    counted = outcome(sent.calls)
    assert counted.sent == handler.seen == counted.accepted + counted.refused
    assert counted.refused == handler.seen // 3
    assert counted.other == {}
    if rate is not None:
        assert counted.sent == 60


def test_a_load_is_sent_from_a_process_of_its_own(echo: tuple[Echo, str]) -> None:
    with client_processes() as processes:
        sent = processes.submit(send, Load(echo[1], (PICTURE,), 0.2)).result()
    assert outcome(sent.calls).accepted
    assert sent.busy > 0
    assert max(call.ended for call in sent.calls) < time.monotonic()  # one clock for all processes


def test_a_server_that_is_not_there_is_an_error() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.serving_client.CONNECT_SECONDS", 0.2)
        with pytest.raises(asyncio.TimeoutError):
            send(Load("127.0.0.1:1", (PICTURE,), 0.1))


# --- figures -------------------------------------------------------------------------------------


def calls(*ends: float, code: str = OK, seconds: float = 0.01) -> list[Call]:
    return [Call(end - seconds, seconds, code) for end in ends]


def every(step: float, begin: float, end: float) -> list[Call]:
    return calls(*(begin + step * number for number in range(round((end - begin) / step))))


def test_what_is_neither_answered_nor_refused_is_named() -> None:
    counted = outcome([*calls(1, 2), *calls(3, code=REFUSED), *calls(4, code="INTERNAL")])
    assert counted == (4, 2, 1, {"INTERNAL": 1})


def test_a_rate_counts_answers_within_the_time() -> None:
    assert per_second(every(0.1, 1, 5), 2) == pytest.approx(10, rel=0.1)
    assert per_second(calls(1, 2, code=REFUSED), 2) == 0
    assert per_second([], 2) == 0


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 1))
def test_a_percentile_is_a_value_that_so_many_do_not_exceed(
    values: list[float], share: float
) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)


def test_percentiles_of_a_hundred() -> None:
    hundred = [float(number) for number in range(1, 101)]
    assert [percentile(hundred, share) for share in (0, 0.5, 0.99, 1)] == [1, 50, 99, 100]
    assert math.isnan(percentile([], 0.5))


def test_full_speed_is_back_when_as_many_are_answered_as_before() -> None:
    before, after = every(0.01, 0, 10), every(0.01, 11.5, 20)
    assert full_speed_after([*before, *after], 10) == pytest.approx(1.5, abs=0.1)
    assert full_speed_after(every(0.01, 0, 20), 10) == pytest.approx(0, abs=0.06)
    assert full_speed_after([*before, *every(0.05, 11, 20)], 10) == math.inf
    assert full_speed_after([], 10) == math.inf


def test_it_is_calm_when_answers_take_what_they_took_before() -> None:
    slow = calls(*(10 + n for n in range(5)), seconds=0.5)
    quick = calls(*(15 + n / 10 for n in range(9)))
    assert calm_after([*slow, *quick], 10, 20) == pytest.approx(5)
    luck = [*slow[:2], *calls(10.6), *slow[2:], *quick]
    assert calm_after(luck, 10, 20) == pytest.approx(5)
    assert calm_after(slow, 10, 20) == math.inf
    refused = calls(*(15 + n / 10 for n in range(9)), code=REFUSED)
    assert calm_after(refused, 10, 20) == math.inf


def test_growth_is_between_the_first_and_the_last_quarter() -> None:
    assert growth([100] * 4 + [500] * 8 + [110] * 4) == pytest.approx(0.1)
    assert growth([100]) == 0
    assert math.isnan(growth([]))


def test_calls_under_way_are_those_that_an_event_may_touch() -> None:
    before, touched, after = Call(1, 1, OK), Call(4, 2, "UNAVAILABLE"), Call(6, 1, OK)
    assert around([before, touched, after], 5) == ([touched], [after])


# --- taking turns --------------------------------------------------------------------------------


def test_server_and_detector_take_turns_and_change_who_begins() -> None:
    order: list[str] = []
    pairs = take_turns(lambda: order.append("in"), lambda: order.append("out"), 0)
    assert len(pairs) == 10
    counted = order[-20:]
    assert [set(counted[at : at + 2]) for at in range(0, 20, 2)] == [{"in", "out"}] * 10
    assert counted[:4] == ["in", "out", "out", "in"]


def test_ratios_are_of_medians_by_blocks() -> None:
    pairs = [(10.0, 11.0)] * 10 + [(20.0, 20.0)] * 10
    assert ratios_of_blocks(pairs) == pytest.approx([1.1, 1.1, 1.05, 1.0, 1.0], abs=0.06)


# --- what is shown and kept ----------------------------------------------------------------------


def section(met: bool | None = True) -> Section:
    made = Section("overload", {"server": "--queue-ms 20"}, figures=as_figures(ratio=1 / 3))
    made.add("refused", "12 ms", "under 50 ms", met)
    return made


@pytest.mark.parametrize(("met", "word"), [(True, " met |"), (False, " MISSED |"), (None, "|")])
def test_a_target_stands_beside_its_figure_with_the_verdict(met: bool | None, word: str) -> None:
    shown = show(section(met))
    assert "server: --queue-ms 20" in shown
    assert shown.splitlines()[-1].endswith(word)
    assert section(met).missed == (met is False)


def test_sections_are_kept_beside_those_measured_before(tmp_path: Path) -> None:
    file = tmp_path / "serving.json"
    keep(file, {"fuzz": {"old": 1}, "kill": {"old": 1}})
    keep(file, {"kill": record(section(), others_busy=0.5)})
    kept = json.loads(file.read_text())
    assert kept["fuzz"] == {"old": 1}
    assert kept["kill"]["figures"] == {"ratio": 0.3333}
    assert kept["kill"]["flags"] == {"server": "--queue-ms 20"}
    assert {"machine", "versions", "rows", "others_busy"} <= kept["kill"].keys()


def test_a_busy_machine_is_noticed() -> None:
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        assert busy_cores(0.5) > 0.3
    finally:
        busy.kill()
        busy.wait()


def test_figures_that_are_no_numbers_are_words_in_json() -> None:
    figures = as_figures(never=math.inf, nothing=math.nan, codes={"OK": 1}, rates=[(1.23456, 2)])
    assert figures == {"never": "inf", "nothing": "nan", "codes": {"OK": 1}, "rates": [[1.235, 2]]}
    assert "Infinity" not in json.dumps(figures)


@pytest.mark.parametrize("name", command.SECTIONS)
def test_every_section_is_a_function_that_takes_seconds(name: str) -> None:
    assert command.section_named(name).__name__ == name
    assert "seconds" in command.section_named(name).__annotations__


def test_a_section_that_is_none_is_named() -> None:
    run = [sys.executable, "-m", "benchmarks.serving", "speed"]
    root = Path(__file__).parent.parent.parent
    ended = subprocess.run(run, capture_output=True, text=True, cwd=root)
    assert ended.returncode == 2
    assert "speed: there are overhead, rest, throughput" in ended.stderr


def test_tracebacks_in_a_log_are_told_by_their_exception() -> None:
    with started("-c", "import sys; print('before', file=sys.stderr); int('seven')") as process:
        process.wait()
        assert process.log.startswith("before")
        assert tracebacks(process) == [process.lines[-1]]
        assert process.lines[-1].startswith("ValueError: invalid literal")


# --- HTTP/2 --------------------------------------------------------------------------------------


def test_a_request_written_by_hand_is_one_that_grpc_answers(echo: tuple[Echo, str]) -> None:
    handler, target = echo
    host, port = target.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as one:
        one.sendall(http2.opening() + http2.headers(DETECT) + http2.body(PICTURE))
        said = b""
        while PICTURE not in said:
            received = one.recv(4096)
            assert received, "the server has closed the connection"
            said += received
    assert handler.seen == 1


@given(st.binary(max_size=60_000))
def test_a_body_is_cut_into_frames_that_every_server_takes(message: bytes) -> None:
    rest, data, ends = http2.body(message), b"", []
    while rest:
        size = int.from_bytes(rest[:3], "big")
        assert size <= http2.MOST_FRAME
        data += rest[9 : 9 + size]
        ends.append(rest[4] & http2.END_STREAM)
        rest = rest[9 + size :]
    assert data == b"\0" + len(message).to_bytes(4, "big") + message
    assert ends == [0] * (len(ends) - 1) + [1]


def test_what_would_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 65535 fit"):
        http2.body(bytes(http2.MOST_REQUEST))
    with pytest.raises(ValueError, match="at most 126"):
        http2.headers("/" + "x" * 200)
