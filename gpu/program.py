"""The kernels, compiled for a card by NVRTC (NVIDIA's compiler as a library; it needs no GPU)."""

from __future__ import annotations

import io

from cuda.core import ObjectCode, Program, ProgramOptions
from cuda.core.utils import FileStreamProgramCache

from unface.gpu.source import source

KERNELS = (
    *("halve", "halve_rest", "fill_canvas", "pnet", "suppress_cells"),
    *("rnet_features", "rnet_dense", "onet_features", "onet_dense"),
    *("find_rivals", "settle_rivals", "collect_cells", "cut_crops", "judge_crops"),
    *("cover_mosaic", "cover_solid", "shrink_faces", "blur_across", "blur_down", "enlarge_faces"),
)
OLDEST = (7, 5)  # compute capability: tensor cores that take m16n8k8


def compile_kernels(
    arch: str, *, cached: bool = True, log: io.StringIO | None = None
) -> ObjectCode:
    """Return the kernels for an architecture such as "sm_90".

    `cached` keeps what was compiled in the user's cache folder where that can be written; `log`
    takes registers and spills of each kernel. Raises what NVRTC does, with its messages.
    """
    options = ProgramOptions(
        name="unface", arch=arch, std="c++17", ptxas_options=None if log is None else "-v"
    )
    program = Program(source(), "c++", options)
    if cached and log is None:
        try:
            return program.compile("cubin", cache=FileStreamProgramCache())
        except OSError:  # a system that cannot be written to: compile anew each time
            pass
    return program.compile("cubin", logs=log)
