"""The cascade on a simulator that g++'s sanitizers watch; the process loads their library first.

Memory has just the size that is asked for: a read or write beside it ends the process.

`python on_sanitizers.py` does it; `python on_sanitizers.py KERNEL` runs one that is wrong.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent))
import numpy as np
import planted
from scenes import astronaut, crowd
from simulated import SimulatedDevice, build
from workbench import Image, cpu_engines, noise, weights

from unface.anonymize import MaskOptions, plan_masks
from unface.engines.shelf import open_named
from unface.gpu import lane, masks
from unface.gpu.cascade import GpuCascade
from unface.gpu.lane import Sizes
from unface.gpu.networks import KernelNetworks
from unface.gpu.plan import CHANNELS, Plan
from unface.mtcnn import DetectOptions, Faces

FLAGS = (
    *("-O1", "-g", "-fsanitize=address,undefined,float-cast-overflow"),
    *("-fsanitize-sections=shared_memory", "-fno-sanitize-recover=all"),
)
WRONG = """
#include "tables.cuh"
#define OUT ((int *)lane->logits) /* 256 of them */

KERNEL(64) sound(const Lane *lane)
{
    __shared__ int values[64];
    values[threadIdx.x] = blockIdx.x;
    __syncthreads();
    OUT[blockIdx.x * 64 + threadIdx.x] = values[63 - threadIdx.x];
}

KERNEL(64) writes_beyond(const Lane *lane) { OUT[blockIdx.x * 64 + threadIdx.x + 1] = 1; }

KERNEL(64) reads_before(const Lane *lane) { OUT[threadIdx.x] = OUT[(int)threadIdx.x - 1]; }

KERNEL(64) writes_beyond_shared_memory(const Lane *lane)
{
    __shared__ int values[64];
    int *volatile at = values;
    at[threadIdx.x + 1] = 1;
    __syncthreads();
    OUT[threadIdx.x] = values[threadIdx.x];
}

KERNEL(64) reads_a_word_across_a_boundary(const Lane *lane)
{
    OUT[threadIdx.x] = ((uint2 *)(OUT + 1))->x;
}

KERNEL(64) overflows(const Lane *lane) { OUT[threadIdx.x] = 0x7fffffff - 60 + (int)threadIdx.x; }
"""


def exact(sizes: Sizes, plan: Plan) -> Sizes:
    """Room for a plan and not a byte more."""
    return replace(
        sizes,
        image=plan.width * plan.height * CHANNELS,
        halvings=plan.halving_bytes,
        canvas=plan.canvas_pixels,
        cells=plan.cells,
        levels=len(plan.levels),
        tiles=len(plan.tiles),
        patches=len(plan.patches),
    )


def face() -> Image:
    return np.ascontiguousarray(astronaut()[20:220:4, 120:320:4])


def masks_of(options: MaskOptions, faces: Faces) -> masks.Masks:
    return plan_masks(faces.width, faces.height, faces.boxes, options)


def main() -> None:
    Sizes.grown = exact  # type: ignore[method-assign]
    lane.FIRST_HITS, lane.FIRST_CANDIDATES = 8, 32
    device = SimulatedDevice(seed=3, flags=FLAGS)
    cascade = GpuCascade(device, KernelNetworks(device, weights()), lanes=2)
    small = DetectOptions(min_face=24)
    assert len(cascade.detect(face(), small)) == 1
    for width, height in ((1, 1), (1, 70), (70, 1), (12, 12), (13, 47), (75, 29), (11, 40)):
        image = noise(width, height)
        cascade.detect(image, DetectOptions(min_face=12, thresholds=(0.3, 0.3, 0.3)))
    close = DetectOptions(min_face=24, scale_factor=0.9)
    assert len(cascade.detect(crowd(2, 1, 26).image, close)) == 2
    everything = DetectOptions(min_face=20, thresholds=(1e-4, 1e-4, 1e-4))
    cascade.detect(noise(31, 33), everything)
    assert [len(f) for f in cascade.detect_all([face(), noise(9, 9), face()], small)] == [1, 0, 1]
    masks._power_of_two = lambda size: size
    for method in ("mosaic", "solid", "blur"):
        plan = partial(masks_of, MaskOptions(method=method))
        assert len(cascade.anonymize(face(), small, plan)[1]) == 1
    cascade.close()
    on_engines = GpuCascade(device, cpu_engines(device, open_named("fp32", threads=1)))
    assert len(on_engines.detect(face(), small)) == 1
    on_engines.detect(noise(31, 33), everything)
    on_engines.close()
    print("done")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(planted.outcome(str(build("wrong.so", WRONG, FLAGS)), sys.argv[1], 1))
    else:
        main()
