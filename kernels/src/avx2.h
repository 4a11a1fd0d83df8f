/* What INT8 and float share on 256-bit vectors. */
#include <immintrin.h>

#define LANES 8
#define FN static inline __attribute__((always_inline))

typedef __m256 floats;
typedef __m256i integers;

FN floats load_floats(const float *at) { return _mm256_loadu_ps(at); }
FN integers load_integers(const void *at) { return _mm256_loadu_si256(at); }
FN void store_integers(void *at, integers v) { _mm256_storeu_si256(at, v); }
FN void store_floats(float *at, floats v) { _mm256_storeu_ps(at, v); }
FN floats set_floats(float v) { return _mm256_set1_ps(v); }
FN floats lesser(floats a, floats b) { return _mm256_min_ps(a, b); }
FN floats greater(floats a, floats b) { return _mm256_max_ps(a, b); }

FN floats multiply_add(floats v, float factor, float bias)
{
    return _mm256_fmadd_ps(v, _mm256_set1_ps(factor), _mm256_set1_ps(bias));
}

FN floats add_product(floats sum, floats a, floats b)
{
    return _mm256_fmadd_ps(a, b, sum);
}

FN floats prelu(floats v, float slope)
{
    return _mm256_blendv_ps(v, _mm256_mul_ps(v, _mm256_set1_ps(slope)), v);
}

/* Also of NaN, so that it does not pass for a picture without faces. */
FN uint32_t at_least(floats v, float lowest)
{
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(v, _mm256_set1_ps(lowest), _CMP_NLT_UQ));
}

FN floats word_bytes(integers v, int byte)
{
    integers shifted = _mm256_srl_epi32(v, _mm_cvtsi32_si128(8 * byte));
    return _mm256_cvtepi32_ps(_mm256_and_si256(shifted, _mm256_set1_epi32(255)));
}
