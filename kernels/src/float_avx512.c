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
#define PACKED 1
#define COLUMNS 3
#define CHANNELS 8
#define POOLED_CHANNELS 5

typedef __m512 stored;
typedef __m512 total;
typedef __m512 activation;
typedef __m512 weight;

FN stored load(const void *at) { return _mm512_loadu_ps(at); }
FN void store(void *at, stored v) { _mm512_storeu_ps(at, v); }
FN total start(int32_t v) { return _mm512_set1_ps((float)v); }
FN activation as_activation(stored v) { return v; }
FN weight as_weight(const int32_t *w) { return _mm512_castsi512_ps(_mm512_set1_epi32(*w)); }
FN total most(total a, total b) { return _mm512_max_ps(a, b); }
FN total least(total a, total b) { return _mm512_min_ps(a, b); }
FN stored most_stored(stored a, stored b) { return _mm512_max_ps(a, b); }
FN floats to_floats(total v) { return v; }
FN total dot(total sum, activation a, weight w) { return _mm512_fmadd_ps(a, w, sum); }

FN floats channel_floats(const void *at, int channel)
{
    (void)channel;
    return load(at);
}

FN void keep_pixels(void *at, ptrdiff_t vector_step, const uint32_t *words)
{
    __m512i pixels = _mm512_loadu_si512(words);
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
