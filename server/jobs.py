"""One picture to be worked on, as the server sees it, and what came of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

INTERACTIVE, BULK = "interactive", "bulk"
OVERHEAD_PIXELS = 50_000  # a request costs as much as so many pixels besides its own


class Answer(NamedTuple):
    """What a worker answered: a DetectResponse or AnonymizeResponse, not yet parsed."""

    body: bytes


@dataclass(eq=False)
class Job:
    """A request for one picture.

    `image` is a file, or raw pixels of `raw_size`; `pixels` is width x height as declared, 0 when
    it could not be told. Jobs with the same `bucket` may be worked on together.
    """

    request_id: str
    method: str  # "Detect" or "Anonymize"
    request: bytes  # the message without its picture
    image: bytes | memoryview
    raw_size: tuple[int, int] | None
    pixels: int
    client: str
    priority: str = INTERACTIVE
    expires_at: float = float("inf")  # of time.monotonic()
    bucket: Hashable = None
    entered: float = field(default_factory=time.monotonic)
    is_waiting: bool = False  # in the queue
    started: float = 0.0  # when a worker was given it
    cancel: Callable[[], None] | None = None  # set by the worker that has it
    future: asyncio.Future[Answer] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    @property
    def cost(self) -> int:
        """What it counts in the queue, in pixels."""
        return self.pixels + OVERHEAD_PIXELS

    @property
    def size(self) -> int:
        """What it holds of the server's memory."""
        return len(self.request) + len(self.image)


class WorkFailed(Exception):
    """A worker's error: the name of its type, its message, and how long the steps took."""

    def __init__(self, kind: str, message: str, steps_ms: Mapping[str, float]) -> None:
        super().__init__(message)
        self.kind = kind
        self.steps_ms = steps_ms
