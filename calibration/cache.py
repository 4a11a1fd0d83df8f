"""The calibration cache: one readable JSON file a network, the only source of INT8 scales."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from unface.calibration.rewrite import Trained
from unface.calibration.scales import LARGEST
from unface.calibration.weights import hashes_of
from unface.engines.tflite import BOX_GAIN, MERGED_HEADS
from unface.errors import EngineError

VERSION = 3
Method = Literal["min-max", "percentile", "mse", "entropy"]  # see unface.calibration.ranges
METHODS: tuple[Method, ...] = ("min-max", "percentile", "mse", "entropy")


@dataclass(frozen=True)
class LayerRange:
    """What a layer gives over the samples: `limit` is the magnitude that int8 127 stands for.

    `largest` is the largest magnitude seen and `method` how `limit` follows (`ranges.threshold`).
    `low` to `high`, zero in it, is what the compiled core stores (`ranges.spans`).
    """

    limit: float
    largest: float
    method: str
    low: float = 0.0
    high: float = 0.0


@dataclass(frozen=True)
class Calibration:
    """Everything INT8 about one network; see `LayerRange` for its layers."""

    network: str
    samples: int
    samples_sha256: str  # of their bytes, in order
    weights: Mapping[str, str]  # SHA-256 of each tensor the layers were measured with
    layers: Mapping[str, LayerRange]
    float_layers: tuple[str, ...] = ()  # what the mixed engine keeps in float
    logit_offset: float = 0.0  # what INT8 logits lack to pass as often as float: `calibrate.offset`

    def scales(self) -> dict[str, float]:
        """Return the scale of each layer, as float32 holds it."""
        return {n: float(np.float32(layer.limit / LARGEST)) for n, layer in self.layers.items()}

    def spans(self) -> dict[str, tuple[float, float]]:
        """Return what the compiled core stores of each layer; see `LayerRange`."""
        return {name: (layer.low, layer.high) for name, layer in self.layers.items()}

    def engine_scales(self) -> dict[str, float]:
        """Return `scales`, and that of P-Net's two heads when they are one (`merge_heads`)."""
        scales = self.scales()
        return {**scales, MERGED_HEADS: max(scales["logit"], scales["box"] * BOX_GAIN)}

    def check(self, weights: Trained) -> None:
        """Raise `EngineError` unless this was measured with exactly these weights."""
        if self.network != weights.network:
            raise EngineError(f"this calibration is of {self.network}, not of {weights.network}")
        present = hashes_of(weights)
        changed = sorted(
            n for n in {*present, *self.weights} if present.get(n) != self.weights.get(n)
        )
        if changed:
            raise EngineError(
                f"the calibration of {self.network} is stale: {', '.join(changed)} changed since; "
                "calibrate again (unface calibrate)"
            )
        missing = {conv.name for conv in weights.convs} - self.layers.keys()
        if missing:
            raise EngineError(
                f"the calibration of {self.network} lacks {', '.join(sorted(missing))}; "
                "calibrate again (unface calibrate)"
            )


def write_calibration(calibration: Calibration, folder: Path, name: str | None = None) -> Path:
    """Write `<name>.json` (the network's if None) into a folder; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name or calibration.network}.json"
    fields = {
        "version": VERSION,
        **vars(calibration),
        "layers": {name: vars(layer) for name, layer in calibration.layers.items()},
    }
    path.write_text(json.dumps(fields, indent=1) + "\n")
    return path


def read_calibration(path: Path) -> Calibration:
    """Read a calibration; raises `EngineError` when it is missing, damaged or outdated."""
    try:
        fields = json.loads(path.read_text())
        version = fields.pop("version")
        if version != VERSION:
            raise EngineError(
                f"{path.name} has version {version}, {VERSION} is needed: calibrate again"
            )
        layers = {name: _layer(layer) for name, layer in fields.pop("layers").items()}
        float_layers = tuple(fields.pop("float_layers"))
        _check_number(fields["logit_offset"])
        calibration = Calibration(**fields, layers=layers, float_layers=float_layers)
        if not isinstance(calibration.weights, dict) or not set(float_layers) <= set(layers):
            raise ValueError("weights or float_layers do not fit")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EngineError(
            f"no calibration can be read from {path} ({error}); make one with unface calibrate"
        ) from error
    return calibration


def _layer(fields: dict[str, Any]) -> LayerRange:
    layer = LayerRange(**fields)
    for number in (layer.limit, layer.largest, layer.low, layer.high):
        _check_number(number)
    if not layer.low <= 0 <= layer.high or layer.low == layer.high:
        raise ValueError(f"the core stores {layer.low} to {layer.high}")
    if not 0 < layer.limit <= layer.largest * (1 + 1e-6) or layer.method not in METHODS:
        raise ValueError(f"limit {layer.limit} of {layer.largest}, method {layer.method}")
    return layer


def _check_number(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
