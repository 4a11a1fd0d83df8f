"""Engines for the compiled core, as `unface.engines.native` reads them."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np

from unface.calibration.rewrite import Trained
from unface.calibration.scales import quantize_weight
from unface.engines.native import HEADS

LEVELS = 255  # steps of uint8


def write_native(
    trained: Trained,
    spans: Mapping[str, tuple[float, float]] | None = None,
    logit_offset: float = 0.0,
) -> bytes:
    """Return the engine of a network, float32, or INT8 where `spans` are given.

    `spans` are, by layer, the values that 0 and 255 stand for. `logit_offset` is added to the
    logits. The same arguments give the same bytes.
    """
    arrays: dict[str, np.ndarray] = {}
    heads = {head.name for head in trained.heads}
    for conv in trained.convs:
        integers = spans is not None and (conv.name not in heads or trained.network == "pnet")
        arrays[f"{conv.name}.weight"] = conv.weight.astype(np.float32)
        arrays[f"{conv.name}.bias"] = conv.bias.astype(np.float32)
        if integers:
            values, scales = quantize_weight(conv.weight, axis=0)
            arrays[f"{conv.name}.weight"] = values
            arrays[f"{conv.name}.weight_scale"] = scales
        if spans is not None and conv.name not in heads:
            low, high = spans[conv.name]
            scale = (high - low) / LEVELS
            arrays[f"{conv.name}.scale"] = np.float32(scale)
            arrays[f"{conv.name}.zero_point"] = np.int32(round(-low / scale))
    for layer in trained.layers:
        arrays[f"{layer.conv.name}.slopes"] = layer.slopes.astype(np.float32)
    arrays["logit.bias"] = arrays["logit.bias"] + np.float32(logit_offset)
    if heads != set(HEADS[trained.network]):
        raise ValueError(f"{trained.network} has the heads {sorted(heads)}")
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]  # compressed bytes differ from zlib to zlib
    return file.getvalue()
