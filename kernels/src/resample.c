/* Resampling by weights along rows, then along columns: pyramid levels, halvings, crops. */
#include "kernels.h"

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
static int area_weights(double *weight, int at, int from, int to)
{
    double ratio = (double)from / to, begin = at * ratio, end = begin + ratio;
    int first = (int)floor(begin + 1e-6);
    double covered = 0;
    for (int tap = 0; tap < TAPS; tap++) {
        double low = fmax(begin, first + tap), high = fmin(end, first + tap + 1);
        weight[tap] = first + tap < from && high - low > 1e-6 ? high - low : 0;
        covered += weight[tap];
    }
    for (int tap = 0; tap < TAPS; tap++)
        weight[tap] /= covered;
    return first;
}

row_taps area_row(int row, int from, int to)
{
    double weight[TAPS];
    row_taps taps = {.first = area_weights(weight, row, from, to)};
    for (int tap = 0; tap < TAPS; tap++)
        taps.weight[tap] = fixed(weight[tap]);
    return taps;
}

static void set_column(column_taps *column, int first, const double *weight)
{
    memset(column, 0, sizeof *column);
    column->first = first;
    for (int tap = 0; tap < TAPS; tap++)
        for (int channel = 0; channel < 3; channel++)
            column->weight[tap / 2 * 8 + tap % 2 * 3 + channel] = fixed(weight[tap]);
}

void area_columns(column_taps *columns, int from, int to)
{
    for (int x = 0; x < to; x++) {
        double weight[TAPS];
        int first = area_weights(weight, x, from, to);
        set_column(columns + x, first, weight);
    }
}

/* Rows `taps->first` ... of an image of `rows` rows; those outside count as black. */
AVX2 void blend_rows(uint16_t *blended, const uint8_t *pixels, ptrdiff_t stride,
                     const row_taps *taps, int rows, ptrdiff_t values)
{
    const uint8_t *source[TAPS];
    uint16_t weight[TAPS];
    int count = 0;
    for (int tap = 0; tap < TAPS; tap++) {
        int row = taps->first + tap;
        if (taps->weight[tap] && row >= 0 && row < rows) {
            source[count] = pixels + row * stride;
            weight[count++] = taps->weight[tap];
        }
    }
    ptrdiff_t x = 0;
    for (; values >= 16 && x < values; x += 16) {
        x = x + 16 > values ? values - 16 : x; /* the last vector overlaps the one before */
        __m256i sum = _mm256_setzero_si256();
        for (int tap = 0; tap < count; tap++) {
            __m256i value =
                _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(source[tap] + x)));
            __m256i scale = _mm256_set1_epi16((short)weight[tap]);
            sum = _mm256_add_epi16(sum, _mm256_mulhi_epu16(_mm256_slli_epi16(value, 8), scale));
        }
        _mm256_storeu_si256((__m256i *)(blended + x), sum);
    }
    for (; x < values; x++) {
        uint32_t sum = 0;
        for (int tap = 0; tap < count; tap++)
            sum += ((uint32_t)source[tap][x] << 8) * weight[tap] >> 16;
        blended[x] = (uint16_t)sum;
    }
}

/* One pixel: R, G, B in the low three bytes. Reads eight values from taps 0 and 2 on. */
AVX2 static inline uint32_t blend_pixel(const uint16_t *blended, const column_taps *column)
{
    const uint16_t *at = blended + 3 * column->first;
    __m128i near = _mm_mulhi_epu16(_mm_loadu_si128((const __m128i *)at),
                                   _mm_loadu_si128((const __m128i *)column->weight));
    __m128i far = _mm_mulhi_epu16(_mm_loadu_si128((const __m128i *)(at + 6)),
                                  _mm_loadu_si128((const __m128i *)(column->weight + 8)));
    __m128i sum = _mm_add_epi16(near, far);
    sum = _mm_add_epi16(sum, _mm_srli_si128(sum, 6));
    sum = _mm_srli_epi16(_mm_adds_epu16(sum, _mm_set1_epi16(HALF_STEP)), 8);
    return (uint32_t)_mm_cvtsi128_si32(_mm_packus_epi16(sum, sum)) & 0xffffff;
}

/* Pixels 0, 2, 4 ... and 1, 3, 5 ... as words R, G, B, 0. */
AVX2 void blend_column_words(uint32_t *even, uint32_t *odd, const uint16_t *blended,
                             const column_taps *columns, int width)
{
    int x = 0;
    for (; x + 2 <= width; x += 2) {
        even[x / 2] = blend_pixel(blended, columns + x);
        odd[x / 2] = blend_pixel(blended, columns + x + 1);
    }
    if (x < width)
        even[x / 2] = blend_pixel(blended, columns + x);
}

AVX2 static void blend_column_bytes(uint8_t *row, const uint16_t *blended,
                                    const column_taps *columns, int width)
{
    for (int x = 0; x < width; x++) {
        uint32_t word = blend_pixel(blended, columns + x);
        memcpy(row + 3 * x, &word, 3);
    }
}

/* Rows [first_row, first_row + rows) of `source` resized to width x height, into `resized`, which
 * is where row 0 would begin. */
EXPORT int32_t unface_resize(const picture *source, uint8_t *resized, int32_t width, int32_t height,
                      int32_t first_row, int32_t rows)
{
    ptrdiff_t values = 3 * (ptrdiff_t)source->width;
    uint16_t *blended = calloc(values + 3 * PAD, sizeof *blended);
    column_taps *columns = malloc(width * sizeof *columns);
    int failed = !blended || !columns;
    if (!failed) {
        area_columns(columns, source->width, width);
        for (int y = first_row; y < first_row + rows; y++) {
            row_taps taps = area_row(y, source->height, height);
            blend_rows(blended, source->pixels, values, &taps, source->height, values);
            blend_column_bytes(resized + (size_t)y * 3 * width, blended, columns, width);
        }
    }
    free(blended);
    free(columns);
    return failed ? NO_MEMORY : 0;
}

/* Mean of two bilinear samples, at (at + 1/4) and (at + 3/4) of `step` source pixels. */
static int sample_weights(double *weight, int at, double begin, double step)
{
    double near = begin + (at + 0.25) * step - 0.5, far = near + 0.5 * step;
    int first = (int)floor(near), second = (int)floor(far) - first;
    double near_part = near - first, far_part = far - first - second;
    memset(weight, 0, TAPS * sizeof *weight);
    weight[0] = 0.5 - 0.5 * near_part;
    weight[1] = 0.5 * near_part;
    weight[second] += 0.5 - 0.5 * far_part;
    weight[second + 1] += 0.5 * far_part;
    return first;
}

struct cutter {
    int size, room;
    uint16_t *blended; /* a row, 8.8 fixed point */
    column_taps *columns;
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
    knife->blended = malloc(knife->room * sizeof *knife->blended);
    knife->columns = malloc(size * sizeof *knife->columns);
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

void copy_words(const picture *whole, uint32_t *words, ptrdiff_t step)
{
    const uint8_t *pixel = whole->pixels;
    for (int at = 0; at < whole->width * whole->height; at++, pixel += 3, words += step)
        *words = pixel[0] | pixel[1] << 8 | (uint32_t)pixel[2] << 16;
}

/* Each output pixel is the mean of 2 x 2 bilinear samples. */
AVX2 void cut_words(cutter *knife, const picture *pictures, const cut *wanted, uint32_t *words,
                    ptrdiff_t step)
{
    const picture *source = pictures + wanted->picture;
    int size = knife->size, first = 0, last = 0;
    double weight[TAPS], across = wanted->width / size, down = wanted->height / size;
    for (int x = 0; x < size; x++) {
        last = sample_weights(weight, x, wanted->x, across);
        first = x ? first : last;
        set_column(knife->columns + x, last - first, weight);
    }
    int begin = first < 0 ? 0 : first, end = last + TAPS;
    end = end > source->width ? source->width : end;
    /* What lies left and right of the source stays black for all rows. */
    memset(knife->blended, 0, knife->room * sizeof *knife->blended);
    for (int y = 0; y < size; y++) {
        row_taps taps = {.first = sample_weights(weight, y, wanted->y, down)};
        for (int tap = 0; tap < TAPS; tap++)
            taps.weight[tap] = fixed(weight[tap]);
        if (begin < end)
            blend_rows(knife->blended + 3 * (begin - first), source->pixels + 3 * begin,
                       3 * (ptrdiff_t)source->width, &taps, source->height, 3 * (end - begin));
        for (int x = 0; x < size; x++, words += step)
            *words = blend_pixel(knife->blended, knife->columns + x);
    }
}

/* Rectangles of pictures as [count][size][size][3]. */
EXPORT int32_t unface_crops(const picture *pictures, const cut *cuts, int32_t count, int32_t size,
                            uint8_t *crops)
{
    cutter *knife = open_cutter(size, cuts, count);
    uint32_t *words = malloc(size * size * sizeof *words);
    int failed = !knife || !words;
    for (int n = 0; n < count && !failed; n++) {
        cut_words(knife, pictures, cuts + n, words, 1);
        for (int at = 0; at < size * size; at++, crops += 3)
            memcpy(crops, words + at, 3);
    }
    close_cutter(knife);
    free(words);
    return failed ? NO_MEMORY : 0;
}
