"""What Prometheus reads of the server: counters, gauges and histograms, in base units."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import grpc
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from unface.server.cards import Card
from unface.server.record import STEPS, Load, Record
from unface.server.status import CODES, INTERNAL_REASON
from unface.v1 import unface_pb2 as pb

# Labels have these values and "other", so that no caller can make series. Callers are no label.
METHODS = frozenset(
    method.name for service in pb.DESCRIPTOR.services_by_name.values() for method in service.methods
)
PICTURE_METHODS = frozenset({"Detect", "Anonymize", "DetectStream", "AnonymizeStream"})
STATUSES = frozenset(code.name for code in grpc.StatusCode)
REASONS = frozenset({"", INTERNAL_REASON, *(kind.__name__ for kind, *_ in CODES)})
# Codes of requests that were let in. A refusal takes no time and would hide a slow server.
TIMED = frozenset({"OK", "DEADLINE_EXCEEDED", "INTERNAL"})

# Each bound is about 1.5 times the one before: so far may a quantile that is read of them be off.
SECONDS = (
    *(0.0005, 0.00075),
    *(0.001, 0.0015, 0.002, 0.003, 0.0045, 0.007),
    *(0.01, 0.015, 0.02, 0.03, 0.045, 0.07),
    *(0.1, 0.15, 0.2, 0.3, 0.45, 0.7),
    *(1, 1.5, 2, 3, 4.5, 7),
    *(10, 15, 20, 30, 45, 60),
)
PICTURES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # of a batch; `batch_size` ends at 64
FACES = (0, 1, 2, 3, 5, 8, 12, 20, 30, 50, 100)
# Most true faces score above 0.99: drift shows there first.
SCORES = (
    *(0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95),
    *(0.97, 0.98, 0.99, 0.995, 0.999, 1),
)

Serving = tuple[str, str, str, str]  # backend, precision, device, device_reason


class Metrics:
    """Counts what happens, and tells it with what is so at the moment it is asked.

    `load`, `serving` and `cards` are called for each scrape, on another thread than `observe`:
    they must not raise nor wait. `certificate_expires` gives the time, of `time.time()`, at which
    the TLS certificate in use ends.
    """

    def __init__(
        self,
        load: Callable[[], Load],
        serving: Callable[[], Serving],
        version: str,
        *,
        cards: Callable[[], Sequence[Card]] = tuple,
        certificate_expires: Callable[[], float] | None = None,
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each
        self._registry = registry = CollectorRegistry()
        registry.register(_Now(load, serving, version, cards, certificate_expires))

        def counter(name: str, help: str, *labels: str) -> Counter:
            return Counter(f"unface_{name}", help, labels, registry=registry)

        def histogram(name: str, help: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(f"unface_{name}", help, labels, buckets=buckets, registry=registry)

        self._requests = counter(
            "requests_total",
            "Requests, and frames of streams, that were answered or refused.",
            *("method", "code", "reason"),
        )
        self._request_seconds = histogram(
            "request_seconds",
            "From arrival to answer, of requests that were let in.",
            SECONDS,
            "method",
        )
        steps = histogram(
            "step_seconds",
            "Time in one step; pnet, rnet, onet are parts of detect; verify searches anew.",
            SECONDS,
            "step",
        )
        self._steps = {step: steps.labels(step) for step in STEPS}
        self._batch = histogram("batch_pictures", "Pictures of a batch.", PICTURES)
        self._faces = histogram("picture_faces", "Faces found in a picture.", FACES)
        self._scores = histogram("face_score", "Scores of the faces found.", SCORES)
        self._pixels = counter("pixels_total", "Pixels of the pictures that were answered.")
        self._losses = counter("worker_losses_total", "Workers that ended and were replaced.")
        self._reloads = counter("reloads_total", "Reloads of engines by result.", "result")
        self._arm_seconds = histogram(
            "trial_request_seconds", "As request_seconds, by arm of the trial.", SECONDS, "arm"
        )
        self._arm_faces = counter("trial_faces_total", "Faces found, by arm of the trial.", "arm")
        self._shadowed = counter(
            "trial_shadow_faces_total",
            "Faces that a shadow trial compared, by the arms that found them.",
            "found",
        )
        for method in PICTURE_METHODS:  # from 0 on, or the first ones would not show as a rate
            self._requests.labels(method, "OK", "")
            self._request_seconds.labels(method)
        for result in ("passed", "failed"):
            self._reloads.labels(result)

    def observe(self, record: Record) -> None:
        """Count a request that is over."""
        method = record.method if record.method in METHODS else "other"
        code = record.code if record.code in STATUSES else "other"
        reason = record.reason if record.reason in REASONS else "other"
        self._requests.labels(method, code, reason).inc()
        for step, ms in record.steps_ms.items():
            if step in self._steps:
                self._steps[step].observe(ms / 1000)
        arm = record.arm if record.arm in ("a", "b") else None
        if code in TIMED:
            self._request_seconds.labels(method).observe(record.seconds)
            if arm:
                self._arm_seconds.labels(arm).observe(record.seconds)
        if code == "OK" and method in PICTURE_METHODS:
            self._pixels.inc(record.pixels)
            self._faces.observe(len(record.scores))
            for score in record.scores:
                self._scores.observe(score)
            if arm:
                self._arm_faces.labels(arm).inc(len(record.scores))

    def batched(self, pictures: int) -> None:
        """Count a batch of so many pictures."""
        self._batch.observe(pictures)

    def worker_lost(self) -> None:
        """Count a worker that ended without being told to."""
        self._losses.inc()

    def reloaded(self, passed: bool) -> None:
        """Count a reload of the engines; `passed`: the new ones serve."""
        self._reloads.labels("passed" if passed else "failed").inc()

    def shadowed(self, agreed: int, only_a: int, only_b: int) -> None:
        """Count the faces that both profiles of a trial found in one picture, and one alone."""
        for found, faces in (("both", agreed), ("only_a", only_a), ("only_b", only_b)):
            self._shadowed.labels(found).inc(faces)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format, of `prometheus_client`'s latest version."""
        return generate_latest(self._registry)


class _Now(Collector):
    """What is so at the moment of the scrape."""

    def __init__(
        self,
        load: Callable[[], Load],
        serving: Callable[[], Serving],
        version: str,
        cards: Callable[[], Sequence[Card]],
        certificate_expires: Callable[[], float] | None,
    ) -> None:
        self._load = load
        self._serving = serving
        self._version = version
        self._cards = cards
        self._certificate_expires = certificate_expires

    def collect(self) -> Iterable[Metric]:
        load = self._load()
        backend, precision, device, _ = self._serving()
        yield InfoMetricFamily(
            "unface_server",
            "What serves; device is empty where the CPU does.",
            {
                "version": self._version,
                "backend": backend,
                "precision": precision,
                "device": device,
            },
        )
        for name, help, value in (
            ("queue_requests", "Requests that wait.", load.waiting),
            ("queue_pixels", "Pixels of the requests that wait.", load.waiting_pixels),
            (
                "queue_expected_wait_seconds",
                "How long a request that came now would wait.",
                load.expected_wait_seconds,
            ),
            ("in_flight_requests", "Requests in the workers.", load.in_flight),
            ("streams", "Streams that are open.", load.streams),
            ("workers", "Workers that are ready.", load.workers),
            ("gpu_serving", "Whether a GPU serves, 1 or 0.", bool(device)),
        ):
            yield GaugeMetricFamily(f"unface_{name}", help, value)
        if self._certificate_expires is not None:
            yield GaugeMetricFamily(
                "unface_tls_certificate_expiry_timestamp_seconds",
                "When the TLS certificate ends, as Unix time.",
                self._certificate_expires(),
            )
        yield from _gpus(self._cards())


def _gpus(cards: Sequence[Card]) -> Iterator[Metric]:
    figures = (
        ("gpu_utilization_ratio", "Share of time in which the GPU ran a kernel, 0 to 1.", 2),
        ("gpu_memory_used_bytes", "Memory of the GPU that any process uses.", 3),
        ("gpu_memory_bytes", "Memory of the GPU.", 4),
    )
    for name, help, field in figures if cards else ():
        family = GaugeMetricFamily(f"unface_{name}", help, labels=("gpu", "name"))
        for card in cards:
            if (value := card[field]) is not None:
                family.add_metric((str(card.number), card.name), float(value))
        yield family
