/* FP32 on 512-bit vectors: 16 multiply-adds an instruction. */
#include "kernels.h"

#if X86
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")
#endif

#include "avx512.h"

#define SUFFIX float_avx512
#define COLUMNS 3
#define CHANNELS 8
#define POOLED_CHANNELS 5

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
