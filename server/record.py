"""What is known of a request once it is over, for metrics, logs, traces and trials. No pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

# In the order in which they happen; pnet, rnet and onet are parts of detect.
STEPS = ("queue", "decode", "detect", "pnet", "rnet", "onet", "mask", "encode", "verify")
WORK = ("decode", "detect", "mask", "encode", "verify")  # what is no waiting, nothing twice


@dataclass(frozen=True)
class Record:
    """One request, or one frame of a stream, that has been answered or refused."""

    request_id: str
    method: str  # "Detect", "Anonymize", "DetectStream", "AnonymizeStream", "Report", ...
    client: str  # who called, see `unface.server.access.Caller`; never shown as it is
    code: str  # name of the gRPC status: "OK", "RESOURCE_EXHAUSTED", ...
    reason: str = ""  # the word of `unface-reason`; empty when OK
    began: float = 0.0  # of time.time()
    seconds: float = 0.0  # from its arrival to its answer
    steps_ms: Mapping[str, float] = field(default_factory=dict)  # of STEPS, those that happened
    pixels: int = 0  # width x height; 0 when it was refused before that was known
    scores: tuple[float, ...] = ()  # of the faces found
    backend: str = ""
    precision: str = ""
    profile: str = ""
    arm: str = ""  # "a" or "b" while a trial runs
    trace_parent: str = ""  # W3C traceparent that the client sent


class Load(NamedTuple):
    """How much the server has to do at this moment."""

    waiting: int = 0  # requests in the queue
    waiting_pixels: int = 0
    in_flight: int = 0  # requests in the workers
    streams: int = 0  # open now
    workers: int = 0  # ready to work
    expected_wait_seconds: float = 0.0  # of a request that came now


Observer = Callable[[Record], None]
