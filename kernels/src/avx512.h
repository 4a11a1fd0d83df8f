/* What INT8 and float share on 512-bit vectors. */
#include <immintrin.h>

#define LANES 16
#define FN static inline __attribute__((always_inline))

typedef __m512 floats;
typedef __m512i integers;

FN floats load_floats(const float *at) { return _mm512_loadu_ps(at); }
FN integers load_integers(const void *at) { return _mm512_loadu_si512(at); }
FN void store_integers(void *at, integers v) { _mm512_storeu_si512(at, v); }
FN void store_floats(float *at, floats v) { _mm512_storeu_ps(at, v); }
FN floats set_floats(float v) { return _mm512_set1_ps(v); }
FN floats lesser(floats a, floats b) { return _mm512_min_ps(a, b); }
FN floats greater(floats a, floats b) { return _mm512_max_ps(a, b); }

FN floats multiply_add(floats v, float factor, float bias)
{
    return _mm512_fmadd_ps(v, _mm512_set1_ps(factor), _mm512_set1_ps(bias));
}

FN floats add_product(floats sum, floats a, floats b)
{
    return _mm512_fmadd_ps(a, b, sum);
}

FN floats prelu(floats v, float slope)
{
    __mmask16 negative = _mm512_movepi32_mask(_mm512_castps_si512(v));
    return _mm512_mask_mul_ps(v, negative, v, _mm512_set1_ps(slope));
}

/* Also of NaN, so that it does not pass for a picture without faces. */
FN uint32_t at_least(floats v, float lowest)
{
    return _mm512_cmp_ps_mask(v, _mm512_set1_ps(lowest), _CMP_NLT_UQ);
}

FN floats word_bytes(integers v, int byte)
{
    integers shifted = _mm512_srl_epi32(v, _mm_cvtsi32_si128(8 * byte));
    return _mm512_cvtepi32_ps(_mm512_and_si512(shifted, _mm512_set1_epi32(255)));
}
