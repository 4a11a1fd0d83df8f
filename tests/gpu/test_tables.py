"""The host and the kernels mean the same bytes."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import numpy as np
import pytest
from simulated import HERE, SOURCES
from workbench import needs_simulator

from unface.gpu import tables, weights
from unface.gpu.engines import PAGE_SIDE
from unface.gpu.tables import FEATURES, HALVINGS, MAX_TAPS, MOST_CANDIDATES
from unface.mtcnn.canvas import P_NET_STRIDE
from unface.mtcnn.pyramid import P_NET_SIZE

pytestmark = needs_simulator

STRUCTURES = {
    name.capitalize(): dtype
    for name, dtype in vars(tables).items()
    if isinstance(dtype, np.dtype) and dtype.names
}
CONSTANTS = {
    "HALVINGS": HALVINGS,
    "PATCH_W": tables.PATCH_COLUMNS,
    "PATCH_H": tables.PATCH_ROWS,
    "MOST_CANDIDATES": MOST_CANDIDATES,
    "MAX_TAPS": MAX_TAPS,
    "P_NET": P_NET_SIZE,
    "P_STRIDE": P_NET_STRIDE,
    "PAGE": PAGE_SIDE,
    "R_FEATURES": FEATURES["rnet"],
    "O_FEATURES": FEATURES["onet"],
    "PIXEL_MEAN": weights.PIXEL_MEAN,
    "1 / PIXEL_SCALE": weights.PIXEL_SCALE,
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """What C++ says of each structure and its fields, and of the constants."""
    folder = tmp_path_factory.mktemp("layouts")
    lines = [f'#include "{name}"' for name in ("cuda_on_cpu.h", "crops.cu", "engines.cu")]
    lines.append("#include <stddef.h>")
    for name, dtype in STRUCTURES.items():
        fields = [f"offsetof({name}, {f}), sizeof({name}::{f})" for f in dtype.names or ()]
        lines.append(f"int layout_{name}[] = {{(int)sizeof({name}), {', '.join(fields)}}};")
    lines.append(f"double constants[] = {{{', '.join(CONSTANTS)}}};")
    (folder / "layouts.cpp").write_text("\n".join(lines))
    library = folder / "layouts.so"
    options = ["-std=c++17", "-march=native", "-fPIC", "-shared", f"-I{HERE}", f"-I{SOURCES}"]
    subprocess.run(["g++", *options, folder / "layouts.cpp", "-o", library], check=True)
    return ctypes.CDLL(str(library))


def test_there_is_a_numpy_type_for_every_structure() -> None:
    text = (Path(SOURCES) / "tables.cuh").read_text()
    declared = {line.split()[1] for line in text.splitlines() if line.startswith("struct ")}
    assert declared == set(STRUCTURES)


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_structure_has_its_fields_at_the_same_bytes_in_c_and_numpy(
    name: str, compiled: ctypes.CDLL
) -> None:
    dtype = STRUCTURES[name]
    fields = [dtype.fields[field] for field in dtype.names or ()]  # type: ignore[index]
    expected = [dtype.itemsize, *(n for kind, at, *_ in fields for n in (at, kind.itemsize))]
    assert list((ctypes.c_int * len(expected)).in_dll(compiled, f"layout_{name}")) == expected


def test_constants_are_the_same_in_c_and_python(compiled: ctypes.CDLL) -> None:
    values = (ctypes.c_double * len(CONSTANTS)).in_dll(compiled, "constants")
    assert dict(zip(CONSTANTS, values, strict=True)) == CONSTANTS
