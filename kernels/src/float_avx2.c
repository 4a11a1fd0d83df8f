/* FP32 on 256-bit vectors: 8 multiply-adds an instruction. */
#include "kernels.h"

#if X86
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

#include "avx2.h"

#define SUFFIX float_avx2
#define COLUMNS 3
#define CHANNELS 4
#define POOLED_CHANNELS 2

#include "float.h"

#include "convolve.h"

#include "classify.h"
#include "scan.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
