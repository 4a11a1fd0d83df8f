"""The simulator shows what it is there to show: races, barriers, memory that nobody wrote."""

from __future__ import annotations

import subprocess
import sys
from functools import cache

import planted
import pytest
from planted import BLOCKS, THREADS, outcome
from simulated import build
from workbench import needs_simulator

pytestmark = needs_simulator

KERNELS = """
#include "tables.cuh"
#define OUT ((int *)lane->logits)

/* All threads agree before anyone reads. */
KERNEL(64) sound(const Lane *lane)
{
    __shared__ int values[64];
    values[threadIdx.x] = threadIdx.x;
    __syncthreads();
    OUT[blockIdx.x * 64 + threadIdx.x] = values[63 - threadIdx.x];
}

/* Some read before others wrote. */
KERNEL(64) reads_early(const Lane *lane)
{
    __shared__ int values[64];
    values[threadIdx.x] = threadIdx.x;
    OUT[blockIdx.x * 64 + threadIdx.x] = values[63 - threadIdx.x];
}

/* The last to write wins. */
KERNEL(64) writes_twice(const Lane *lane)
{
    __shared__ int last;
    last = threadIdx.x;
    __syncthreads();
    OUT[blockIdx.x * 64 + threadIdx.x] = last;
}

/* Some write what others of the same round still read. */
KERNEL(64) overwrites(const Lane *lane)
{
    __shared__ int values[64];
    values[threadIdx.x] = threadIdx.x;
    __syncthreads();
    values[threadIdx.x] = values[(threadIdx.x + 1) % 64];
    __syncthreads();
    OUT[blockIdx.x * 64 + threadIdx.x] = values[threadIdx.x];
}

/* Blocks rely on those before them. */
KERNEL(64) counts_on_other_blocks(const Lane *lane)
{
    if (threadIdx.x == 0)
        OUT[blockIdx.x * 64] = blockIdx.x ? OUT[blockIdx.x * 64 - 64] + 1 : 0;
}

KERNEL(64) shared_memory_as_found(const Lane *lane)
{
    __shared__ float values[64];
    __shared__ uint16_t halves[64];
    OUT[threadIdx.x] = values[threadIdx.x] != values[threadIdx.x];
    OUT[threadIdx.x] += is_number(from_half(halves[threadIdx.x])) ? 0 : 2;
    values[threadIdx.x] = 0;
}

KERNEL(64) some_miss_a_barrier(const Lane *lane)
{
    if (threadIdx.x < 40)
        __syncthreads();
}

KERNEL(64) some_come_once_more(const Lane *lane)
{
    for (int n = 0; n < 1 + (threadIdx.x == 5); n++)
        __syncthreads();
}

KERNEL(64) half_a_warp_multiplies(const Lane *lane)
{
    float sums[4] = {0, 0, 0, 0};
    uint2 b = {0, 0};
    if (threadIdx.x % 32 < 16)
        multiply_add(sums, 0, 0, 0, 0, b);
    else
        __syncthreads();
    OUT[threadIdx.x] = (int)sums[0];
}

KERNEL(64) never_ends(const Lane *lane)
{
    while (__syncthreads_or(1))
        ;
}
"""
RACES = ("reads_early", "writes_twice", "overwrites", "counts_on_other_blocks")


@cache
def library() -> str:
    return str(build("planted.so", KERNELS))


@pytest.mark.parametrize("kernel", RACES)
def test_a_race_gives_other_results_in_another_order(kernel: str) -> None:
    assert len({tuple(outcome(library(), kernel, seed)) for seed in range(1, 9)}) > 1


def test_what_is_no_race_gives_the_same_in_every_order() -> None:
    for seed in range(9):
        assert outcome(library(), "sound", seed) == list(range(THREADS))[::-1] * BLOCKS


@pytest.mark.parametrize("seed", [0, 3])
def test_shared_memory_begins_as_no_number_in_every_block(seed: int) -> None:
    assert outcome(library(), "shared_memory_as_found", seed)[:THREADS] == [3] * THREADS


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("some_miss_a_barrier", "barrier"),
        ("some_come_once_more", "barrier"),
        ("half_a_warp_multiplies", "a barrier or a warp instruction"),
        ("never_ends", "a block does not come to an end"),
    ],
)
def test_a_step_that_not_all_take_ends_the_process_with_a_message(
    kernel: str, message: str
) -> None:
    for seed in ("0", "1"):
        command = [sys.executable, planted.__file__, library(), kernel, seed]
        run = subprocess.run(command, capture_output=True, text=True)
        assert run.returncode < 0, "it is not aborted"
        assert message in run.stderr
