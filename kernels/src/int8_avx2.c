/* INT8 on 256-bit vectors without VNNI: even and odd bytes apart, multiplied as 16 bits, so that
 * no sum saturates. All x86 processors since about 2013 (Intel) and 2015 (AMD). */
#include "kernels.h"

#if X86
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

#include "int8_avx2.h"

#define SUFFIX int8_avx2
#define COLUMNS 2
#define CHANNELS 4
#define POOLED_CHANNELS 1

typedef struct {
    __m256i even, odd; /* 16-bit values: bytes 0 and 2, 1 and 3 of each word */
} activation;
typedef activation weight;

FN activation as_activation(stored v)
{
    return (activation){_mm256_and_si256(v, _mm256_set1_epi16(255)), _mm256_srli_epi16(v, 8)};
}

FN weight as_weight(const int32_t *w)
{
    __m256i bytes = _mm256_set1_epi32(*w);
    return (weight){_mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8),
                    _mm256_srai_epi16(bytes, 8)};
}

FN total dot(total sum, activation a, weight w)
{
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(a.even, w.even));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(a.odd, w.odd));
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
