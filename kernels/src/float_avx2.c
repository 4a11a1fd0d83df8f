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
#define PACKED 1
#define COLUMNS 3
#define CHANNELS 4
#define POOLED_CHANNELS 2

typedef __m256 stored;
typedef __m256 total;
typedef __m256 activation;
typedef __m256 weight;

FN stored load(const void *at) { return _mm256_loadu_ps(at); }
FN void store(void *at, stored v) { _mm256_storeu_ps(at, v); }
FN total start(int32_t v) { return _mm256_set1_ps((float)v); }
FN activation as_activation(stored v) { return v; }
FN weight as_weight(const int32_t *w) { return _mm256_castsi256_ps(_mm256_set1_epi32(*w)); }
FN total most(total a, total b) { return _mm256_max_ps(a, b); }
FN total least(total a, total b) { return _mm256_min_ps(a, b); }
FN stored most_stored(stored a, stored b) { return _mm256_max_ps(a, b); }
FN floats to_floats(total v) { return v; }
FN total dot(total sum, activation a, weight w) { return _mm256_fmadd_ps(a, w, sum); }

FN floats channel_floats(const void *at, int channel)
{
    (void)channel;
    return load(at);
}

FN void keep_pixels(void *at, ptrdiff_t vector_step, const uint32_t *words)
{
    __m256i pixels = _mm256_loadu_si256((const __m256i *)words);
    for (int channel = 0; channel < 3; channel++)
        store((char *)at + channel * vector_step, word_bytes(pixels, channel));
}

FN void keep(void *at, ptrdiff_t vector_step, const floats *y, float zero)
{
    (void)zero;
    for (int n = 0; n < 4; n++)
        store((char *)at + n * vector_step, y[n]);
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
