"""The calibration cache: the range of every tensor of a float engine, in one readable JSON file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from unface.errors import EngineError


@dataclass(frozen=True)
class Ranges:
    """Minimum and maximum of every tensor of one engine over calibration samples."""

    engine_sha256: str  # of the float engine's file
    samples: int
    samples_sha256: str  # of the samples' bytes, in order
    method: str  # "min-max"
    tensors: dict[str, tuple[float, float]]

    def check(self, engine: Path) -> None:
        """Raise `EngineError` when these are the ranges of another engine."""
        if file_hash(engine) != self.engine_sha256:
            raise EngineError(
                f"calibration is stale: {engine.name} has changed since its ranges were measured; "
                "calibrate again with --images FOLDER"
            )


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_ranges(ranges: Ranges, path: Path) -> None:
    """Write ranges as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(vars(ranges), indent=1, sort_keys=True) + "\n")


def read_ranges(path: Path) -> Ranges:
    """Read ranges from JSON; raises `EngineError` when there are none or they are damaged."""
    try:
        fields = json.loads(path.read_text())
        fields["tensors"] = {name: (low, high) for name, (low, high) in fields["tensors"].items()}
        return Ranges(**fields)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineError(
            f"no calibration can be read from {path.name} ({error}); calibrate with --images FOLDER"
        ) from error
