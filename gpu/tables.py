"""The structures that kernels share with the host, as `src/tables.cuh` has them."""

from __future__ import annotations

import numpy as np

HALVINGS = 20  # of an image, itself counted
PATCH_COLUMNS, PATCH_ROWS = 32, 16  # cells of a patch
MOST_CANDIDATES = 65536

_POINTER = "<u8"

LEVEL = np.dtype(
    [
        *((name, "<i4") for name in ("width", "height", "columns", "rows", "source", "first_cell")),
        ("step_x", "<f4"),
        ("step_y", "<f4"),
    ]
)
TILE = np.dtype(
    [(name, "<i4") for name in ("level", "x", "y", "width", "height", "pitch", "offset", "padding")]
)
PATCH = np.dtype([(name, "<i4") for name in ("tile", "column", "row")])
FRAME = np.dtype(
    [
        ("pixels", _POINTER, HALVINGS),
        ("widths", "<i4", HALVINGS),
        ("heights", "<i4", HALVINGS),
        *((name, "<i4") for name in ("halvings", "levels", "tiles", "patches")),
        ("least", "<f4", 3),
        ("crop_offset", "<f4"),
    ]
)
HIT = np.dtype(
    [*((n, "<i4") for n in ("level", "row", "column")), ("logit", "<f4"), ("box", "<f4", 4)]
)
SQUARE = np.dtype([("x", "<f4"), ("y", "<f4"), ("side", "<f4"), ("key", "<i4")])
CANDIDATE = np.dtype([("box", "<f4", 4), ("offsets", "<f4", 4), ("logit", "<f4"), ("key", "<i4")])
FACE = np.dtype([("box", "<f4", 4), ("logit", "<f4"), ("landmarks", "<f4", 10), ("key", "<i4")])
COUNTERS = np.dtype(
    [
        ("hits", "<i4"),
        ("squares", "<i4", 2),
        ("candidates", "<i4", 3),
        ("faces", "<i4"),
        ("invalid", "<i4"),
    ]
)
LANE = np.dtype(
    [
        *((name, _POINTER) for name in ("frame", "levels", "tiles", "patches", "canvas", "logits")),
        ("hits", _POINTER),
        ("squares", _POINTER, 2),
        ("features", _POINTER, 2),
        ("crops", _POINTER),
        ("candidates", _POINTER, 3),
        *((name, _POINTER) for name in ("landmarks", "rivals", "faces", "counters")),
        ("weights", _POINTER, 3),
        ("outputs", _POINTER, 3),
        ("hit_capacity", "<i4"),
        ("capacity", "<i4"),
    ]
)
FEATURES = {"rnet": 9 * 64, "onet": 9 * 128}  # what the dense layers take, a crop

MAX_TAPS = 16
MASK = np.dtype(
    [
        ("center", "<f8", 2),
        ("half", "<f8", 2),
        ("scratch", "<i8"),
        *((n, "<i4") for n in ("left", "top", "width", "height", "method", "ellipse")),
        ("parts", "<i4", 2),
        ("small", "<i4", 2),
        ("radius", "<i4"),
        ("color", "<i4"),
        ("taps", "<f4", MAX_TAPS),
    ]
)
COVERING = np.dtype(
    [
        *((name, _POINTER) for name in ("pixels", "masks", "scratch")),
        *((name, "<i4") for name in ("width", "first", "count", "unused")),
    ]
)
