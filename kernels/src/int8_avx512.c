/* INT8 on 512-bit vectors with VNNI: 64 multiply-adds an instruction. Intel since Ice Lake, AMD since
 * Zen 4. */
#include "kernels.h"

#if X86
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")
#endif

#include "avx512.h"

#define SUFFIX int8_avx512
#define COLUMNS 3
#define CHANNELS 8
#define POOLED_CHANNELS 5

#include "int8.h"

typedef __m512i activation;
typedef __m512i weight;

FN total start(int32_t v) { return _mm512_set1_epi32(v); }
FN activation as_activation(stored v) { return v; }
FN weight as_weight(const int32_t *w) { return _mm512_set1_epi32(*w); }
FN total most(total a, total b) { return _mm512_max_epi32(a, b); }
FN total least(total a, total b) { return _mm512_min_epi32(a, b); }
FN stored most_stored(stored a, stored b) { return _mm512_max_epu8(a, b); }
FN floats to_floats(total v) { return _mm512_cvtepi32_ps(v); }

/* As assembly: for the intrinsic GCC 12 takes two registers a sum, and spills them. */
FN total dot(total sum, activation a, weight w)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(w));
    return sum;
}

/* Four channels, moved to their zero point, rounded, saturated to int8, plus 128, as the bytes of one
 * vector. */
FN void keep(void *at, ptrdiff_t vector_step, const floats *y, float zero)
{
    (void)vector_step;
    __m512i q[4];
    for (int n = 0; n < 4; n++)
        q[n] = _mm512_cvtps_epi32(_mm512_add_ps(y[n], set_floats(zero)));
    __m512i bytes =
        _mm512_packs_epi16(_mm512_packs_epi32(q[0], q[2]), _mm512_packs_epi32(q[1], q[3]));
    __m512i order = _mm512_set4_epi32(0x0f070b03, 0x0e060a02, 0x0d050901, 0x0c040800);
    store(at, _mm512_xor_si512(_mm512_shuffle_epi8(bytes, order), _mm512_set1_epi8((char)0x80)));
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
