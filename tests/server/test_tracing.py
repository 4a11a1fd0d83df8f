"""Traces as a real OTLP collector, in this process, gets them."""

from __future__ import annotations

import logging
import queue
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest
from records import ANSWERED, answered, refused
from serving import free_port

from unface.errors import InvalidOption
from unface.server.record import Record
from unface.server.tracing import MAX_SPANS, Tracing, open_tracing

pytest.importorskip("opentelemetry.sdk.trace")

from opentelemetry.proto.collector.trace.v1 import (
    trace_service_pb2,
    trace_service_pb2_grpc,
)

ERROR, UNSET = 2, 0  # of opentelemetry.proto.trace.v1.Status
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):  # type: ignore[misc]
    """Keeps what it is sent."""

    def __init__(self, port: int = 0, credentials: grpc.ServerCredentials | None = None) -> None:
        self.requests: queue.Queue[Any] = queue.Queue()
        self._server = grpc.server(ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        where = f"127.0.0.1:{port}"
        if credentials is None:
            self.port = self._server.add_insecure_port(where)
        else:
            self.port = self._server.add_secure_port(where, credentials)
        self._server.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.requests.put(request)
        return trace_service_pb2.ExportTraceServiceResponse()

    def close(self) -> None:
        self._server.stop(None).wait()


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()
    try:
        yield collector
    finally:
        collector.close()


def opened(endpoint: str) -> Tracing:
    tracing = open_tracing(endpoint, "1.2.3")
    assert tracing is not None
    return tracing


def sent(*records: Record) -> list[Any]:
    """Return the spans that a collector gets of some requests, by the time it is closed."""
    with collecting() as collector:
        tracing = opened(collector.endpoint)
        for record in records:
            tracing.observe(record)
        tracing.close()
        spans = []
        while not collector.requests.empty():
            for resource in collector.requests.get().resource_spans:
                assert {"service.name", "service.version"} <= set(attributes(resource.resource))
                assert attributes(resource.resource)["service.name"] == "unface"
                spans += [span for scope in resource.scope_spans for span in scope.spans]
        return spans


def attributes(of: Any) -> dict[str, object]:
    return {
        entry.key: getattr(entry.value, entry.value.WhichOneof("value")) for entry in of.attributes
    }


def request_span(*records: Record) -> Any:
    spans = sent(*records)
    (found,) = [span for span in spans if span.name.startswith(("unface.v1.", "other"))]
    return found


def test_a_request_is_a_span_named_by_its_method_with_a_span_for_each_step() -> None:
    spans = {span.name: span for span in sent(ANSWERED)}
    assert spans.keys() == {"unface.v1.Unface/Detect", *ANSWERED.steps_ms}
    request = spans.pop("unface.v1.Unface/Detect")
    assert request.start_time_unix_nano == 1_700_000_000_250_000_000
    assert request.end_time_unix_nano == 1_700_000_000_290_000_000
    assert request.kind == 2  # SERVER
    assert request.parent_span_id == b""
    for name, span in spans.items():
        inside = spans["detect"] if name in ("pnet", "rnet", "onet") else request
        assert span.parent_span_id == inside.span_id
        assert span.trace_id == request.trace_id
        took = span.end_time_unix_nano - span.start_time_unix_nano
        assert took == ANSWERED.steps_ms[name] * 1_000_000
        assert inside.start_time_unix_nano <= span.start_time_unix_nano
        assert span.end_time_unix_nano <= inside.end_time_unix_nano
    in_turn = [spans[name] for name in ("queue", "decode", "detect", "encode")]
    for before, after in pairwise(in_turn):
        assert before.end_time_unix_nano == after.start_time_unix_nano
    assert spans["pnet"].start_time_unix_nano == spans["detect"].start_time_unix_nano


def test_a_span_tells_of_the_request_and_not_of_the_client() -> None:
    span = request_span(answered(arm="b"))
    assert attributes(span) == {
        "rpc.system": "grpc",
        "rpc.service": "unface.v1.Unface",
        "rpc.method": "Detect",
        "rpc.grpc.status_code": 0,
        "unface.request_id": ANSWERED.request_id,
        "unface.pixels": 1920 * 1080,
        "unface.faces": 2,
        "unface.backend": "native",
        "unface.precision": "fp32",
        "unface.profile": "accurate",
        "unface.arm": "b",
    }
    assert b"alice" not in span.SerializeToString()


def test_steps_that_would_reach_beyond_the_request_end_with_it() -> None:
    spans = {span.name: span for span in sent(answered(seconds=0.005))}
    ends = spans["unface.v1.Unface/Detect"].end_time_unix_nano
    assert all(span.end_time_unix_nano <= ends for span in spans.values())
    assert all(s.start_time_unix_nano <= s.end_time_unix_nano for s in spans.values())


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("OK", UNSET),
        ("INVALID_ARGUMENT", UNSET),
        ("RESOURCE_EXHAUSTED", UNSET),
        ("CANCELLED", UNSET),
        ("DEADLINE_EXCEEDED", ERROR),
        ("INTERNAL", ERROR),
        ("UNAVAILABLE", ERROR),
    ],
)
def test_the_status_is_an_error_where_the_server_is_at_fault(code: str, status: int) -> None:
    span = request_span(refused(code=code, reason="Word"))
    assert span.status.code == status
    number = next(known.value[0] for known in grpc.StatusCode if known.name == code)
    assert attributes(span)["rpc.grpc.status_code"] == number
    assert attributes(span)["unface.reason"] == "Word"


def test_methods_of_other_services_are_named_by_theirs_or_not_at_all() -> None:
    assert request_span(answered(method="Reload")).name == "unface.v1.Admin/Reload"
    assert request_span(answered(method="a\nb")).name == "other/other"


@pytest.mark.parametrize("flags", ["01", "03"])
def test_the_client_s_span_is_the_parent(flags: str) -> None:
    span = request_span(answered(trace_parent=f"00-{TRACE}-{PARENT}-{flags}"))
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)


def test_what_the_client_does_not_sample_is_not_sent() -> None:
    assert sent(answered(trace_parent=f"00-{TRACE}-{PARENT}-00")) == []


def test_opentelemetry_s_own_variables_say_how_much_is_sampled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    assert sent(ANSWERED) == []
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_on")
    assert sent(ANSWERED) != []


@pytest.mark.parametrize(
    "wrong",
    [
        "nonsense",
        f"00-{TRACE}-{PARENT}",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE[:-1]}-{PARENT}-01",
        "\ud800" * 40,
        "0" * 10_000,
    ],
)
def test_a_parent_that_is_not_well_formed_is_none(wrong: str) -> None:
    span = request_span(answered(trace_parent=wrong))
    assert span.trace_id.hex() != TRACE
    assert span.parent_span_id == b""


def test_a_collector_that_is_down_is_told_of_once_and_costs_nothing_else(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")  # milliseconds
    port = free_port()
    tracing = opened(f"http://127.0.0.1:{port}")
    tracing.observe(ANSWERED)
    wait_for(lambda: bool(caplog.records), tracing)
    collector = Collector(port)
    try:
        wait_for(lambda: not collector.requests.empty(), tracing)
        wait_for(lambda: len(caplog.records) > 1, tracing)
    finally:
        tracing.close()
        collector.close()
    endpoint = f"http://127.0.0.1:{port}"
    assert [entry.getMessage() for entry in caplog.records] == [
        f"traces do not reach {endpoint}; requests go on without them",
        f"traces reach {endpoint} again",
    ]
    assert {entry.levelno for entry in caplog.records} == {logging.WARNING}


def wait_for(happened: Callable[[], bool], tracing: Tracing) -> None:
    """Trace requests until something has happened."""
    pause = queue.SimpleQueue[None]()
    while not happened():
        tracing.observe(ANSWERED)
        with pytest.raises(queue.Empty):
            pause.get(timeout=0.05)


def test_more_spans_than_may_wait_are_dropped() -> None:
    port = free_port()
    tracing = opened(f"http://127.0.0.1:{port}")
    for _ in range(2 * MAX_SPANS):
        tracing.observe(refused())
    collector = Collector(port)
    try:
        first = collector.requests.get(timeout=30)
        tracing.close()
        batches = [first, *(collector.requests.get() for _ in range(collector.requests.qsize()))]
    finally:
        collector.close()
    got = sum(len(s.spans) for batch in batches for s in batch.resource_spans[0].scope_spans)
    assert 0 < got <= MAX_SPANS + 512  # and the batch that was being sent


def test_a_collector_with_tls_is_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openssl = shutil.which("openssl") or pytest.skip("there is no openssl on this machine")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=collector"
    files = ["-keyout", str(key), "-out", str(certificate), "-days", "1"]
    names = ["-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([openssl, *made.split(), *files, *names], check=True, capture_output=True)
    pair = [(key.read_bytes(), certificate.read_bytes())]
    collector = Collector(credentials=grpc.ssl_server_credentials(pair))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(certificate))
    try:
        tracing = opened(f"https://localhost:{collector.port}")
        tracing.observe(ANSWERED)
        tracing.close()
        assert collector.requests.qsize() == 1
    finally:
        collector.close()


def test_nothing_is_imported_when_it_is_off() -> None:
    code = (
        "import sys; from unface.server.tracing import open_tracing; "
        "assert open_tracing(None, '1') is None; "
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


def test_without_the_extra_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "sys.modules['opentelemetry.sdk.trace'] = None\n"
        "sys.modules['opentelemetry.exporter.otlp.proto.grpc.trace_exporter'] = None\n"
        "from unface.errors import InvalidOption\n"
        "from unface.server.tracing import open_tracing\n"
        "try: open_tracing('http://localhost:4317', '1')\n"
        "except InvalidOption as error: print(error)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'unface[server]'" in result.stdout, result.stderr


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "localhost:4317",
        "grpc://localhost:4317",
        "http://",
        "http://localhost:4317/v1/traces",
        "http://user:secret@localhost:4317",
        "http://[::1",
        "unix:/run/collector",
    ],
)
def test_an_endpoint_of_another_kind_is_refused(endpoint: str) -> None:
    with pytest.raises(InvalidOption, match=re.escape("http://localhost:4317")):
        open_tracing(endpoint, "1")


@pytest.mark.parametrize(
    "endpoint", ["https://localhost:4317", "http://[::1]:4317/", "http://collector"]
)
def test_endpoints_with_and_without_tls_are_taken(endpoint: str) -> None:
    opened(endpoint).close()
