/* CUDA C++ as far as the kernels use it, on a CPU: the threads of a block are fibers that take turns.
 *
 * A thread gives way at barriers and at warp instructions only, so that what threads do between two of
 * them without agreeing on it depends on their order. `seed` shuffles the order of threads and blocks:
 * a kernel that has no race gives the same for every seed. Shared memory begins each block as 0xff,
 * which is NaN as half and float. A barrier that not all threads of a block reach, a warp instruction
 * that not all of a warp reach, and a block without end end the process with a message. */
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <random>
#include <vector>

#define KERNEL(threads) extern "C" void __attribute__((visibility("default")))
#define KERNEL_BESIDE(threads, blocks) KERNEL(threads)
#define FN inline
#define __shared__ static __attribute__((section("shared_memory")))
using std::max;
using std::min;

struct alignas(8) uint2 {
    uint32_t x, y;
};
struct alignas(8) float2 {
    float x, y;
};
struct coordinate {
    int x;
};
static coordinate threadIdx, blockIdx, blockDim, gridDim;

namespace simulator {

const int MOST = 1024, WARPS = MOST / 32;
const size_t STACK = 128 << 10;

struct Fiber {
    void *stack, *memory;
    bool done;
};
struct Warp {
    int arrived, round;
    uint32_t a[32][4], b[32][2];
    float sums[32][4];
};

static Fiber fibers[MOST];
static Warp warps[WARPS];
static int order[MOST], place[MOST], count, live, turn;
static int arrived, round_, any, any_before;
static long idle; /* turns in which nobody got on */
static long barriers; /* of the block so far */
const long MOST_BARRIERS = 1 << 20;
static void *scheduler;
static void (*body)(const void *, int, int);
static const void *lane;
static int arguments[2];

/* Saves the callee-saved registers and the stack of one fiber and takes up another's. */
#if !defined(__x86_64__)
#error "the simulator switches fibers on x86-64 only"
#endif
extern "C" void simulator_switch(void **from, void *to);
asm(".text\n.globl simulator_switch\n.type simulator_switch, @function\nsimulator_switch:\n"
    "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
    "mov %rsp, (%rdi)\nmov %rsi, %rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n"
    ".size simulator_switch, .-simulator_switch\n");

static void fail(const char *what)
{
    fprintf(stderr, "%s\n", what);
    abort();
}

static void give_way()
{
    int mine = threadIdx.x;
    if (++idle > 64L * count + 64)
        fail("not all threads reach a barrier or a warp instruction");
    do
        turn = turn + 1 == count ? 0 : turn + 1;
    while (fibers[order[turn]].done);
    if (order[turn] == mine)
        return;
    threadIdx.x = order[turn];
    simulator_switch(&fibers[mine].stack, fibers[order[turn]].stack);
}

static void begin_thread()
{
    body(lane, arguments[0], arguments[1]);
    int mine = threadIdx.x;
    fibers[mine].done = true;
    idle = 0;
    if (--live == 0)
        simulator_switch(&fibers[mine].stack, scheduler);
    if (arrived)
        fail("a thread ended while others wait at a barrier");
    give_way();
}

static int barrier(int value)
{
    int mine = round_;
    any |= value;
    if (live < count)
        fail("a thread waits at a barrier that others ended without");
    if (++arrived == count) {
        if (++barriers > MOST_BARRIERS)
            fail("a block does not come to an end");
        any_before = any;
        any = arrived = 0;
        round_++;
        idle = 0;
    } else {
        while (round_ == mine)
            give_way();
    }
    return any_before;
}

/* Sanitizers guard what lies between the arrays, so that it takes a function without them. */
#ifdef __SANITIZE_ADDRESS__
#define BYTE volatile char
#else
#define BYTE char
#endif
__attribute__((no_sanitize("address"))) static void spoil_shared()
{
    extern BYTE start_of_shared[] __asm__("__start_shared_memory") __attribute__((weak));
    extern BYTE end_of_shared[] __asm__("__stop_shared_memory") __attribute__((weak));
    for (BYTE *at = start_of_shared; at < end_of_shared; at++)
        *at = (char)0xff;
}

static void run_block(int block, int threads)
{
    spoil_shared();
    memset(warps, 0, sizeof warps);
    count = live = threads;
    arrived = round_ = any = 0;
    idle = barriers = 0;
    blockIdx.x = block;
    for (int n = 0; n < threads; n++) {
        Fiber *fiber = fibers + n;
        if (!fiber->memory)
            fiber->memory = aligned_alloc(64, STACK);
        void **top = (void **)((char *)fiber->memory + STACK) - 2;
        *top = (void *)begin_thread; /* aligned as after a call */
        fiber->stack = top - 6;
        fiber->done = false;
    }
    turn = 0;
    threadIdx.x = order[0];
    simulator_switch(&scheduler, fibers[order[0]].stack);
}

} // namespace simulator

static void __syncthreads() { simulator::barrier(0); }
static int __syncthreads_or(int value) { return simulator::barrier(value != 0); }
template <class T> static T __ldg(const T *at) { return *at; }
static double __dmul_rn(double a, double b)
{
    volatile double product = a * b; /* the compiler may not add to it before it is rounded */
    return product;
}
static float __int_as_float(int bits)
{
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
static int atomicAdd(int *at, int value)
{
    int before = *at;
    *at += value;
    return before;
}
static uint32_t atomicOr(uint32_t *at, uint32_t value)
{
    uint32_t before = *at;
    *at |= value;
    return before;
}

static uint16_t to_half(float value)
{
    _Float16 half = (_Float16)value;
    uint16_t bits;
    memcpy(&bits, &half, 2);
    return bits;
}
static float from_half(uint16_t bits)
{
    _Float16 half;
    memcpy(&half, &bits, 2);
    return (float)half;
}
static uint32_t pack_halves(float low, float high)
{
    return (uint32_t)to_half(high) << 16 | to_half(low);
}

static float half_of(const uint32_t *words, int index)
{
    return from_half((uint16_t)(words[index / 2] >> 16 * (index % 2)));
}

/* PTX ISA, "Matrix Fragments for mma.m16n8k16", from where each lane's values lie. */
static void multiply_warp(simulator::Warp *warp)
{
    float a[16][16], b[16][8], sums[16][8];
    for (int n = 0; n < 32; n++) {
        int g = n / 4, t = n % 4;
        for (int i = 0; i < 8; i++)
            a[g + i / 2 % 2 * 8][2 * t + i % 2 + i / 4 * 8] = half_of(warp->a[n], i);
        for (int i = 0; i < 4; i++) {
            b[2 * t + i % 2 + i / 2 * 8][g] = half_of(warp->b[n], i);
            sums[g + i / 2 * 8][2 * t + i % 2] = warp->sums[n][i];
        }
    }
    for (int row = 0; row < 16; row++)
        for (int k = 0; k < 16; k++)
            for (int column = 0; column < 8; column++)
                sums[row][column] += a[row][k] * b[k][column];
    for (int n = 0; n < 32; n++)
        for (int i = 0; i < 4; i++)
            warp->sums[n][i] = sums[n / 4 + i / 2 * 8][n % 4 * 2 + i % 2];
}

static void multiply_add(float (&sums)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint2 b)
{
    using namespace simulator;
    Warp *warp = warps + threadIdx.x / 32;
    int n = threadIdx.x % 32, mine = warp->round;
    uint32_t a[4] = {a0, a1, a2, a3}, words[2] = {b.x, b.y};
    memcpy(warp->a[n], a, sizeof a);
    memcpy(warp->b[n], words, sizeof words);
    memcpy(warp->sums[n], sums, sizeof sums);
    if (++warp->arrived == 32) {
        multiply_warp(warp);
        warp->arrived = 0;
        warp->round++;
        idle = 0;
    } else {
        while (warp->round == mine)
            give_way();
    }
    memcpy(sums, warp->sums[n], sizeof sums);
}

typedef void (*kernel)(const void *, int, int);

/* A launch: `blocks` blocks of `threads` threads, in an order that `seed` makes; 0: as they come. */
extern "C" void simulate(kernel body, int blocks, int threads, const void *lane, int a, int b,
                         unsigned seed)
{
    using namespace simulator;
    std::vector<int> turns(blocks);
    for (int n = 0; n < blocks; n++)
        turns[n] = n;
    for (int n = 0; n < threads; n++)
        order[n] = n;
    if (seed) {
        std::mt19937 random(seed);
        std::shuffle(turns.begin(), turns.end(), random);
        std::shuffle(order, order + threads, random);
    }
    simulator::body = body;
    simulator::lane = lane;
    arguments[0] = a;
    arguments[1] = b;
    blockDim.x = threads;
    gridDim.x = blocks;
    for (int block : turns)
        run_block(block, threads);
}
