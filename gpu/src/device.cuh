/* What the kernels need of a GPU beside CUDA C++ itself. `tests/gpu` has the same words for a CPU, so
 * that every kernel also runs, slowly, where there is no GPU. */
#pragma once

#ifdef __CUDACC__
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef int int32_t;
typedef unsigned long long uint64_t;

#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)
/* So few registers that `blocks` fit on a multiprocessor. */
#define KERNEL_BESIDE(threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks)
#define FN __device__ __forceinline__

/* Two floats, rounded, as the halves of a word: `low` in the low one. */
FN uint32_t pack_halves(float low, float high)
{
    uint16_t l, h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(l) : "f"(low));
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(high));
    return (uint32_t)h << 16 | l;
}

FN float from_half(uint16_t half)
{
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
    return value;
}

/* sums[16 x 8] += a[16 x 16] b[16 x 8] by the 32 threads of a warp, halves to floats.
 *
 * PTX ISA, "Matrix Fragments for mma.m16n8k16": with g = lane / 4 and t = lane % 4, a lane holds
 * sums[g][2t], [g][2t + 1], [g + 8][2t], [g + 8][2t + 1]; of a words (g, 2t), (g + 8, 2t), (g, 2t + 8),
 * (g + 8, 2t + 8); of b words (2t, g), (2t + 8, g). A word is two neighbouring k. Turing has only
 * the half as long m16n8k8, whose fragments are the first and the second words of this one. */
FN void multiply_add(float (&sums)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint2 b)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
                 "{%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b.x), "r"(b.y));
#else
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
                 : "r"(a0), "r"(a1), "r"(b.x));
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
                 : "r"(a2), "r"(a3), "r"(b.y));
#endif
}
#endif

#define INFINITE __int_as_float(0x7f800000)

FN bool is_number(float value) { return value - value == 0; } /* neither NaN nor infinite */
FN int smaller(int a, int b) { return a < b ? a : b; }
FN int larger(int a, int b) { return a > b ? a : b; }
