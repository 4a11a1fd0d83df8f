"""OpenTelemetry spans of requests, made once they are over and sent to a collector by OTLP."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import grpc

from unface.errors import InvalidOption
from unface.server.record import WORK, Record
from unface.v1 import unface_pb2 as pb

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

MAX_SPANS = 4096  # that wait to be sent; more are dropped
SEND_SECONDS = 5.0  # for one batch of them
LAST_WORDS_SECONDS = 2.0  # for all that wait, when the server ends
SERVICES = {
    method.name: service.full_name
    for service in pb.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
CODES = {code.name: int(code.value[0]) for code in grpc.StatusCode}
# Of a server's span; the other codes blame the client. OpenTelemetry semantic conventions, "gRPC".
FAULTS = {
    *("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
}
IN_TURN = ("queue", *WORK)
OF_DETECT = ("pnet", "rnet", "onet")
_ENDPOINT = re.compile(r"https?://([\w.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?/?")  # no passwords

_log = logging.getLogger("unface.server")


class Tracing:
    """Makes a span of each request, with one for each step, and sends them in the background.

    A request's parent is the span that its `traceparent` names (W3C Trace Context), where that is
    well formed. Steps lie one after the other from the request's beginning: how long they took is
    known, the pauses between them are not. A collector that is down costs spans, never time.
    """

    def __init__(self, provider: TracerProvider, exporter: SpanExporter, version: str) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._trace: Any = trace
        self._provider = provider
        self._exporter = exporter
        self._tracer = provider.get_tracer("unface.server", version)
        self._parents = TraceContextTextMapPropagator()

    def observe(self, record: Record) -> None:
        """Make the spans of a request that is over."""
        service = SERVICES.get(record.method, "other")
        method = record.method if record.method in SERVICES else "other"
        ends = record.began + record.seconds
        span = self._tracer.start_span(
            f"{service}/{method}",
            context=self._parent(record.trace_parent),
            kind=self._trace.SpanKind.SERVER,
            attributes={
                "rpc.system": "grpc",
                "rpc.service": service,
                "rpc.method": method,
                "rpc.grpc.status_code": CODES.get(record.code, CODES["UNKNOWN"]),
                **{name: value for name, value in _told(record).items() if value != ""},
            },
            start_time=_ns(record.began),
        )
        if record.code in FAULTS:
            span.set_status(self._trace.StatusCode.ERROR, record.reason)
        if span.is_recording():
            within = self._trace.set_span_in_context(span)
            self._lay(IN_TURN, record, record.began, ends, within)
        span.end(_ns(ends))

    def close(self) -> None:
        """Send what waits, if that can be done in `LAST_WORDS_SECONDS`."""
        flushing = threading.Thread(target=self._provider.shutdown, daemon=True)
        flushing.start()
        flushing.join(LAST_WORDS_SECONDS)
        if flushing.is_alive():
            self._exporter.shutdown()  # ends the call under way
            flushing.join(LAST_WORDS_SECONDS)

    def _parent(self, trace_parent: str) -> Context:
        return self._parents.extract({"traceparent": trace_parent})

    def _lay(
        self, steps: Sequence[str], record: Record, begins: float, ends: float, within: Context
    ) -> None:
        """Make the spans of the steps that happened, one after the other, none beyond `ends`."""
        for step in steps:
            ms = record.steps_ms.get(step, 0.0)
            if ms <= 0:
                continue
            over = min(begins + ms / 1000, ends)
            span = self._tracer.start_span(step, context=within, start_time=_ns(begins))
            if step == "detect":
                parts = self._trace.set_span_in_context(span)
                self._lay(OF_DETECT, record, begins, over, parts)
            span.end(_ns(over))
            begins = over


def open_tracing(endpoint: str | None, version: str) -> Tracing | None:
    """Return what sends traces to an OTLP/gRPC collector; None, and nothing imported, for None.

    `endpoint` is `http://host:port`, or `https://host:port` for TLS. Which requests are traced, and
    certificates and headers for the collector, come from OpenTelemetry's own variables, such as
    `OTEL_TRACES_SAMPLER` and `OTEL_EXPORTER_OTLP_CERTIFICATE`. Raises `InvalidOption` for another
    kind of endpoint and where OpenTelemetry is not installed.
    """
    if endpoint is None:
        return None
    if not _ENDPOINT.fullmatch(endpoint):
        raise InvalidOption(
            f"trace_endpoint is {endpoint!r}; it should be like http://localhost:4317, "
            "or https:// for a collector with TLS"
        )
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise InvalidOption(
            "trace_endpoint needs unface[server]: pip install 'unface[server]'"
        ) from error
    if not _log.isEnabledFor(logging.DEBUG):  # _Told says the same once, not for each batch
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    exporter = OTLPSpanExporter(
        endpoint=endpoint, insecure=endpoint.startswith("http:"), timeout=SEND_SECONDS
    )
    provider = TracerProvider(
        resource=Resource.create({"service.name": "unface", "service.version": version}),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(
        BatchSpanProcessor(_telling(exporter, endpoint), max_queue_size=MAX_SPANS)
    )
    return Tracing(provider, exporter, version)


def _telling(exporter: SpanExporter, endpoint: str) -> SpanExporter:
    """Return the exporter, made to warn once when the collector is lost and say when it is back."""
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class Telling(SpanExporter):
        lost = False

        def export(self, spans: Sequence[Any]) -> SpanExportResult:
            result = exporter.export(spans)
            failed = result is not SpanExportResult.SUCCESS
            if failed and not self.lost:
                _log.warning("traces do not reach %s; requests go on without them", endpoint)
            elif self.lost and not failed:
                _log.warning("traces reach %s again", endpoint)
            self.lost = failed
            return result

        def shutdown(self) -> None:
            exporter.shutdown()

    return Telling()


def _told(record: Record) -> dict[str, str | int]:
    """Return what a span says of its request: nothing of the client, nothing of the picture."""
    return {
        "unface.request_id": record.request_id,
        "unface.reason": record.reason,
        "unface.pixels": record.pixels,
        "unface.faces": len(record.scores),
        "unface.backend": record.backend,
        "unface.precision": record.precision,
        "unface.profile": record.profile,
        "unface.arm": record.arm,
    }


def _ns(seconds: float) -> int:
    """Return a time of `time.time()` in nanoseconds, to the microsecond it holds."""
    return round(seconds * 1e6) * 1000
