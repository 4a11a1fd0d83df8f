/* Resampling by weights along rows, then along columns: pyramid levels, halvings, crops. */
#include "kernels.h"

#if X86
#include <immintrin.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define AVX2 __attribute__((target("avx2,fma")))
#define ONE 65536.0
#define HALF_STEP 131 /* half of 256, and what the truncations of up to six taps lose */
#define PAD 16        /* pixels beyond a row that vector loads may touch */

static uint16_t fixed(double weight)
{
    double value = weight * ONE + 0.5;
    return value >= ONE ? 65535 : (uint16_t)value;
}

/* Area averaging as cv2.INTER_AREA: pixel `at` covers [at, at + 1) * from / to of the source. */
taps area_taps(int at, int from, int to)
{
    double ratio = (double)from / to, begin = at * ratio, end = begin + ratio;
    double weight[TAPS], covered = 0;
    taps result = {.first = (int)floor(begin + 1e-6)};
    for (int tap = 0; tap < TAPS; tap++) {
        int pixel = result.first + tap;
        double part = fmin(end, pixel + 1) - fmax(begin, pixel);
        weight[tap] = pixel < from && part > 1e-6 ? part : 0;
        covered += weight[tap];
    }
    for (int tap = 0; tap < TAPS; tap++)
        result.weight[tap] = fixed(weight[tap] / covered);
    return result;
}

/* Sets one of a pair (`odd` 0 or 1), its first tap counted from `origin`. */
AVX2 static inline void set_column(column_pair *pair, int odd, const taps *wanted, int origin)
{
    __m128i weights = _mm_loadl_epi64((const __m128i *)wanted->weight);
    const __m128i near = _mm_setr_epi8(0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3, -1, -1, -1, -1);
    const __m128i far = _mm_setr_epi8(4, 5, 4, 5, 4, 5, 6, 7, 6, 7, 6, 7, -1, -1, -1, -1);
    pair->first[odd] = wanted->first - origin;
    _mm_storeu_si128((__m128i *)(pair->near + 8 * odd), _mm_shuffle_epi8(weights, near));
    _mm_storeu_si128((__m128i *)(pair->far + 8 * odd), _mm_shuffle_epi8(weights, far));
}

AVX2 void area_columns(column_pair *pairs, int from, int to)
{
    for (int x = 0; x < 2 * PAIRS(to); x++) {
        taps wanted = area_taps(x < to ? x : to - 1, from, to);
        set_column(pairs + x / 2, x % 2, &wanted, 0);
    }
}

/* Sixteen values weighted over `count` rows. */
AVX2 static inline __attribute__((always_inline)) void
blend_sixteen(uint16_t *blended, const uint8_t *const *source, const __m256i *weight, ptrdiff_t x,
              const int count)
{
    __m256i sum = _mm256_setzero_si256();
    for (int n = 0; n < count; n++) {
        __m256i value = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(source[n] + x)));
        sum = _mm256_add_epi16(sum, _mm256_mulhi_epu16(_mm256_slli_epi16(value, 8), weight[n]));
    }
    _mm256_storeu_si256((__m256i *)(blended + x), sum);
}

AVX2 static inline __attribute__((always_inline)) void
blend_count(uint16_t *blended, const uint8_t *const *source, const uint16_t *weight,
            ptrdiff_t values, const int count)
{
    __m256i wide[TAPS];
    for (int n = 0; n < count; n++)
        wide[n] = _mm256_set1_epi16((short)weight[n]);
    if (values >= 16) {
        for (ptrdiff_t x = 0; x + 16 <= values; x += 16)
            blend_sixteen(blended, source, wide, x, count);
        blend_sixteen(blended, source, wide, values - 16, count); /* overlaps the one before */
        return;
    }
    for (ptrdiff_t x = 0; x < values; x++) {
        uint32_t sum = 0;
        for (int n = 0; n < count; n++)
            sum += ((uint32_t)source[n][x] << 8) * weight[n] >> 16;
        blended[x] = (uint16_t)sum;
    }
}

/* Rows `wanted->first` ... of an image of `rows` rows; those outside count as black. */
AVX2 void blend_rows(uint16_t *blended, const uint8_t *pixels, ptrdiff_t stride, const taps *wanted,
                     int rows, ptrdiff_t values)
{
    const uint8_t *source[TAPS];
    uint16_t weight[TAPS];
    int count = 0;
    for (int tap = 0; tap < TAPS; tap++) {
        int row = wanted->first + tap;
        if (wanted->weight[tap] && row >= 0 && row < rows) {
            source[count] = pixels + row * stride;
            weight[count++] = wanted->weight[tap];
        }
    }
    switch (count) {
    case 0:
        memset(blended, 0, values * sizeof *blended);
        break;
    case 1:
        blend_count(blended, source, weight, values, 1);
        break;
    case 2:
        blend_count(blended, source, weight, values, 2);
        break;
    case 3:
        blend_count(blended, source, weight, values, 3);
        break;
    default:
        blend_count(blended, source, weight, values, 4);
    }
}

AVX2 static inline __m256i load_two(const uint16_t *a, const uint16_t *b)
{
    __m256i first = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)a));
    return _mm256_inserti128_si256(first, _mm_loadu_si128((const __m128i *)b), 1);
}

/* Two pixels: R, G, B in the low three bytes. Reads eight values from taps 0 and 2 on. */
AVX2 static inline void blend_pair(uint32_t *even, uint32_t *odd, const uint16_t *blended,
                                   const column_pair *pair)
{
    const uint16_t *a = blended + 3 * (ptrdiff_t)pair->first[0];
    const uint16_t *b = blended + 3 * (ptrdiff_t)pair->first[1];
    __m256i near = _mm256_mulhi_epu16(load_two(a, b),
                                      _mm256_loadu_si256((const __m256i *)pair->near));
    __m256i far = _mm256_mulhi_epu16(load_two(a + 6, b + 6),
                                     _mm256_loadu_si256((const __m256i *)pair->far));
    __m256i sum = _mm256_add_epi16(near, far);
    sum = _mm256_add_epi16(sum, _mm256_srli_si256(sum, 6));
    sum = _mm256_srli_epi16(_mm256_adds_epu16(sum, _mm256_set1_epi16(HALF_STEP)), 8);
    __m256i bytes = _mm256_packus_epi16(sum, sum);
    *even = (uint32_t)_mm_cvtsi128_si32(_mm256_castsi256_si128(bytes)) & 0xffffff;
    *odd = (uint32_t)_mm_cvtsi128_si32(_mm256_extracti128_si256(bytes, 1)) & 0xffffff;
}

/* Pixels 0, 2, 4 ... and 1, 3, 5 ... as words R, G, B, 0; one more odd one than there is may be
 * written. */
AVX2 void blend_column_words(uint32_t *even, uint32_t *odd, const uint16_t *blended,
                             const column_pair *pairs, int width)
{
    for (int n = 0; n < PAIRS(width); n++)
        blend_pair(even + n, odd + n, blended, pairs + n);
}

AVX2 static void blend_column_bytes(uint8_t *row, const uint16_t *blended,
                                    const column_pair *pairs, int width)
{
    for (int x = 0; x < width; x++) {
        uint32_t word[2];
        blend_pair(word, word + 1, blended, pairs + x / 2);
        memcpy(row + 3 * (size_t)x, word, 3);
        if (++x < width)
            memcpy(row + 3 * (size_t)x, word + 1, 3);
    }
}

/* Rows [first_row, first_row + rows) of `source` resized to width x height, into `resized`, which
 * is where row 0 would begin. */
EXPORT int32_t unface_resize(const picture *source, uint8_t *resized, int32_t width, int32_t height,
                      int32_t first_row, int32_t rows)
{
    ptrdiff_t values = 3 * (ptrdiff_t)source->width;
    uint16_t *blended = calloc(values + 3 * PAD, sizeof *blended);
    column_pair *columns = malloc(PAIRS(width) * sizeof *columns);
    int failed = !blended || !columns;
    if (!failed) {
        area_columns(columns, source->width, width);
        for (int y = first_row; y < first_row + rows; y++) {
            taps wanted = area_taps(y, source->height, height);
            blend_rows(blended, source->pixels, values, &wanted, source->height, values);
            blend_column_bytes(resized + (size_t)y * 3 * width, blended, columns, width);
        }
    }
    free(blended);
    free(columns);
    return failed ? NO_MEMORY : 0;
}

/* Mean of two bilinear samples, at (at + 1/4) and (at + 3/4) of `step` source pixels; in 16 bits
 * after the point. */
static inline taps sample_taps(int at, double begin, double step)
{
    double near = begin + (at + 0.25) * step - 0.5;
    int64_t sample[2] = {(int64_t)floor(near * ONE), (int64_t)floor((near + 0.5 * step) * ONE)};
    int64_t first = sample[0] >> 16;
    uint32_t weight[TAPS + 1] = {0};
    for (int n = 0; n < 2; n++) {
        uint32_t second_part = sample[n] & 0xffff, tap = (uint32_t)((sample[n] >> 16) - first);
        weight[tap] += (65536 - second_part) / 2;
        weight[tap + 1] += (second_part + 1) / 2;
    }
    taps result = {.first = (int32_t)first};
    for (int tap = 0; tap < TAPS; tap++)
        result.weight[tap] = weight[tap] > 65535 ? 65535 : (uint16_t)weight[tap];
    return result;
}

struct cutter {
    int size, room;
    uint16_t *blended; /* two rows of `room` values, 8.8 fixed point */
    column_pair *columns;
};

cutter *open_cutter(int size, const cut *cuts, int count)
{
    double widest = size;
    for (int n = 0; n < count && cuts; n++)
        widest = fmax(widest, cuts[n].width);
    cutter *knife = calloc(1, sizeof *knife);
    if (!knife)
        return NULL;
    knife->size = size;
    knife->room = 3 * ((int)widest + 2 * TAPS + PAD);
    knife->blended = malloc(2 * knife->room * sizeof *knife->blended);
    knife->columns = malloc(PAIRS(size) * sizeof *knife->columns);
    if (knife->blended && knife->columns)
        return knife;
    close_cutter(knife);
    return NULL;
}

void close_cutter(cutter *knife)
{
    if (knife) {
        free(knife->blended);
        free(knife->columns);
    }
    free(knife);
}

void copy_words(const picture *whole, uint32_t *words)
{
    const uint8_t *pixel = whole->pixels;
    for (int at = 0; at < whole->width * whole->height; at++, pixel += 3)
        words[at] = pixel[0] | pixel[1] << 8 | (uint32_t)pixel[2] << 16;
}

/* Columns `last - first + TAPS` of the source from `first` on, of one row of crop pixels. */
AVX2 static void blend_crop_row(const cutter *knife, uint16_t *blended, const picture *source,
                                const cut *wanted, int y, int first, int last)
{
    taps row = sample_taps(y, wanted->y, wanted->height / knife->size);
    int begin = first < 0 ? 0 : first, end = last + TAPS;
    end = end > source->width ? source->width : end;
    if (begin < end)
        blend_rows(blended + 3 * (begin - first), source->pixels + 3 * (ptrdiff_t)begin,
                   3 * (ptrdiff_t)source->width, &row, source->height, 3 * (end - begin));
}

/* Each output pixel is the mean of 2 x 2 bilinear samples. Rows are blended one ahead, into two
 * buffers in turn: what was just written piecemeal is slow to read. */
AVX2 void cut_words(cutter *knife, const picture *pictures, const cut *wanted, uint32_t *words)
{
    const picture *source = pictures + wanted->picture;
    int size = knife->size, first = 0, last = 0;
    for (int x = 0; x < 2 * PAIRS(size); x++) {
        taps column = sample_taps(x < size ? x : size - 1, wanted->x, wanted->width / size);
        first = x ? first : column.first;
        last = column.first;
        set_column(knife->columns + x / 2, x % 2, &column, first);
    }
    /* What lies left and right of the source stays black for all rows. */
    uint16_t *blended[2] = {knife->blended, knife->blended + knife->room};
    memset(knife->blended, 0, 2 * knife->room * sizeof *knife->blended);
    blend_crop_row(knife, blended[0], source, wanted, 0, first, last);
    for (int y = 0; y < size; y++, words += size) {
        if (y + 1 < size)
            blend_crop_row(knife, blended[(y + 1) % 2], source, wanted, y + 1, first, last);
        for (int n = 0; n < size / 2; n++)
            blend_pair(words + 2 * n, words + 2 * n + 1, blended[y % 2], knife->columns + n);
        if (size % 2) {
            uint32_t none;
            blend_pair(words + size - 1, &none, blended[y % 2], knife->columns + size / 2);
        }
    }
}

/* Crops one after the other to one a lane: `to[at][lane]` = `words[lane][at]`, four by four. */
AVX2 void interleave(const uint32_t *words, int lanes, int count, uint32_t *to)
{
    int at = 0;
    for (; at + 4 <= count; at += 4)
        for (int lane = 0; lane < lanes; lane += 4) {
            const uint32_t *from = words + (size_t)lane * count + at;
            __m128i a = _mm_loadu_si128((const __m128i *)from);
            __m128i b = _mm_loadu_si128((const __m128i *)(from + count));
            __m128i c = _mm_loadu_si128((const __m128i *)(from + 2 * count));
            __m128i d = _mm_loadu_si128((const __m128i *)(from + 3 * count));
            __m128i low = _mm_unpacklo_epi32(a, b), high = _mm_unpackhi_epi32(a, b);
            __m128i low2 = _mm_unpacklo_epi32(c, d), high2 = _mm_unpackhi_epi32(c, d);
            uint32_t *row = to + (size_t)at * lanes + lane;
            _mm_storeu_si128((__m128i *)row, _mm_unpacklo_epi64(low, low2));
            _mm_storeu_si128((__m128i *)(row + lanes), _mm_unpackhi_epi64(low, low2));
            _mm_storeu_si128((__m128i *)(row + 2 * lanes), _mm_unpacklo_epi64(high, high2));
            _mm_storeu_si128((__m128i *)(row + 3 * lanes), _mm_unpackhi_epi64(high, high2));
        }
    for (; at < count; at++)
        for (int lane = 0; lane < lanes; lane++)
            to[(size_t)at * lanes + lane] = words[(size_t)lane * count + at];
}

/* Rectangles of pictures as [count][size][size][3]. */
EXPORT int32_t unface_crops(const picture *pictures, const cut *cuts, int32_t count, int32_t size,
                            uint8_t *crops)
{
    cutter *knife = open_cutter(size, cuts, count);
    uint32_t *words = malloc((size_t)size * size * sizeof *words);
    int failed = !knife || !words;
    for (int n = 0; n < count && !failed; n++) {
        cut_words(knife, pictures, cuts + n, words);
        for (int at = 0; at < size * size; at++, crops += 3)
            memcpy(crops, words + at, 3);
    }
    close_cutter(knife);
    free(words);
    return failed ? NO_MEMORY : 0;
}
#endif
