/* INT8 on 256-bit vectors, but for the products, which VNNI has an instruction for. */
#include "avx2.h"

#include "int8.h"

FN total start(int32_t v) { return _mm256_set1_epi32(v); }
FN total most(total a, total b) { return _mm256_max_epi32(a, b); }
FN total least(total a, total b) { return _mm256_min_epi32(a, b); }
FN stored most_stored(stored a, stored b) { return _mm256_max_epu8(a, b); }
FN floats to_floats(total v) { return _mm256_cvtepi32_ps(v); }

/* Four channels, moved to their zero point, rounded, saturated to int8, plus 128, as the bytes of one
 * vector. */
FN void keep(void *at, ptrdiff_t vector_step, const floats *y, float zero)
{
    (void)vector_step;
    __m256i q[4];
    for (int n = 0; n < 4; n++)
        q[n] = _mm256_cvtps_epi32(_mm256_add_ps(y[n], set_floats(zero)));
    __m256i bytes =
        _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[2]), _mm256_packs_epi32(q[1], q[3]));
    __m256i order = _mm256_broadcastsi128_si256(
        _mm_set_epi32(0x0f070b03, 0x0e060a02, 0x0d050901, 0x0c040800));
    store(at, _mm256_xor_si256(_mm256_shuffle_epi8(bytes, order), _mm256_set1_epi8((char)0x80)));
}
