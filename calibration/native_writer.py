"""Engines for the compiled core, as `unface.engines.native` reads them."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np

from unface.calibration.rewrite import Trained
from unface.calibration.scales import quantize_weight
from unface.engines.native import HEADS


def write_native(trained: Trained, scales: Mapping[str, float] | None = None) -> bytes:
    """Return the engine of a network, INT8 where `scales` (by layer) are given, else float32.

    The same network and scales give the same bytes.
    """
    arrays: dict[str, np.ndarray] = {}
    heads = {head.name for head in trained.heads}
    for conv in trained.convs:
        integers = scales is not None and (conv.name not in heads or trained.network == "pnet")
        arrays[f"{conv.name}.weight"] = conv.weight.astype(np.float32)
        arrays[f"{conv.name}.bias"] = conv.bias.astype(np.float32)
        if integers:
            values, scale = quantize_weight(conv.weight, axis=0)
            arrays[f"{conv.name}.weight"] = values
            arrays[f"{conv.name}.weight_scale"] = scale
        if scales is not None and conv.name not in heads:
            arrays[f"{conv.name}.scale"] = np.float32(scales[conv.name])
    for layer in trained.layers:
        arrays[f"{layer.conv.name}.slopes"] = layer.slopes.astype(np.float32)
    if heads != set(HEADS[trained.network]):
        raise ValueError(f"{trained.network} has the heads {sorted(heads)}")
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]  # compressed bytes differ from zlib to zlib
    return file.getvalue()
