"""Requests that are over, as the server's observers see them."""

from __future__ import annotations

from dataclasses import replace

from unface.server.record import Record

ANSWERED = Record(
    request_id="6f1d2c3b4a596877",
    method="Detect",
    client="alice@example.com",
    code="OK",
    began=1_700_000_000.25,
    seconds=0.040,
    steps_ms={
        "queue": 2.0,
        "decode": 8.0,
        "detect": 25.0,
        "pnet": 15.0,
        "rnet": 6.0,
        "onet": 4.0,
        "encode": 1.0,
    },
    pixels=1920 * 1080,
    scores=(0.999, 0.97),
    backend="native",
    precision="fp32",
    profile="accurate",
)
REFUSED = Record(
    request_id="0a1b2c3d4e5f6071",
    method="Anonymize",
    client="bob@example.com",
    code="RESOURCE_EXHAUSTED",
    reason="Overloaded",
    began=1_700_000_001.0,
    seconds=0.0005,
)

FAILED = replace(REFUSED, code="UNAVAILABLE", reason="WorkerLost")


def answered(**changes: object) -> Record:
    """Return a request that went well, apart from the changes."""
    return replace(ANSWERED, **changes)  # type: ignore[arg-type]


def refused(**changes: object) -> Record:
    """Return a request that found the queue full, apart from the changes."""
    return replace(REFUSED, **changes)  # type: ignore[arg-type]
