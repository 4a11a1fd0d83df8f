"""Metrics that have seen one of each thing that can happen in a server."""

from __future__ import annotations

from records import answered, refused

from unface.server.cards import Card
from unface.server.metrics import Metrics
from unface.server.record import Load


def full_metrics() -> Metrics:
    """Return metrics in which every family has a sample; `see_everything` adds to all of them."""
    metrics = Metrics(
        lambda: Load(3, 4_000_000, 2, 1, 4, 0.25),
        lambda: ("cuda", "fp16", "NVIDIA H200", ""),
        "1.2.3",
        cards=lambda: [Card(0, "NVIDIA H200", 0.25, 1 << 30, 140 << 30)],
        certificate_expires=lambda: 4e9,
    )
    see_everything(metrics)
    return metrics


def see_everything(metrics: Metrics) -> None:
    """Have the metrics count one of each thing that can happen."""
    for arm in ("", "a", "b"):
        for method in ("Detect", "Anonymize", "DetectStream", "AnonymizeStream"):
            metrics.observe(answered(method=method, arm=arm))
    for code, reason in (("RESOURCE_EXHAUSTED", "Overloaded"), ("INTERNAL", "Internal")):
        metrics.observe(refused(code=code, reason=reason))
    metrics.observe(refused(code="UNAUTHENTICATED", reason="Unauthenticated"))
    metrics.observe(answered(steps_ms={"mask": 1.0, "verify": 9.0}))
    metrics.batched(4)
    metrics.worker_lost()
    metrics.reloaded(passed=True)
    metrics.reloaded(passed=False)
    metrics.shadowed(agreed=9, only_a=1, only_b=2)
