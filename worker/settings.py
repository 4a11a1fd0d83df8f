"""What a worker is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """The part of the server's configuration that its workers need; see `ServerConfig`."""

    precision: str = "fp32"
    workers: int = 1  # that share the cores
    threads: int | None = None
    engines: str | None = None
    engine_key_file: str | None = None
    allow_uncertified: bool = False
    device: str = "auto"
    plans: str | None = None
    max_message_bytes: int = 64 << 20
    max_pixels: int = 100_000_000
    min_threshold: float = 0.05
    audit_key_file: str | None = None
    formats: tuple[str, ...] = ("jpeg", "png", "webp")
