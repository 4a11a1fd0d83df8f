/* INT8 on 256-bit vectors with AVX-VNNI: Intel's processors without AVX-512 since Alder Lake. */
#include "kernels.h"

#if HAS_AVXVNNI
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,avxvnni"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,avxvnni")
#endif

#include "int8_avx2.h"

#define SUFFIX int8_avxvnni
#define COLUMNS 3
#define CHANNELS 4
#define POOLED_CHANNELS 2

typedef __m256i activation;
typedef __m256i weight;

FN activation as_activation(stored v) { return v; }
FN weight as_weight(const int32_t *w) { return _mm256_set1_epi32(*w); }

/* As assembly: for the intrinsic GCC 12 takes two registers a sum, and spills them. */
FN total dot(total sum, activation a, weight w)
{
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(a), "x"(w));
    return sum;
}

#include "convolve.h"

#include "classify.h"
#include "scan.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
