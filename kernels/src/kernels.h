/* The compiled core of the cascade: resampling, INT8 networks, suppression.
 *
 * Plain C without Python: every function works on memory of the caller, keeps no state, takes no
 * lock and may run in many threads at once. Pictures are RGB, uint8, rows of 3 * width bytes.
 */
#ifndef UNFACE_KERNELS_H
#define UNFACE_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default"))) /* what Python calls */

#define NO_MEMORY (-1)
#define NO_ISA (-2)

#if defined(__x86_64__)
#define X86 1
#else
#define X86 0 /* there is suppression, and nothing else */
#endif

/* The first compilers that know it; the assemblers of older ones do not. */
#if X86 && (defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11)
#define HAS_AVXVNNI 1
#else
#define HAS_AVXVNNI 0
#endif

typedef struct {
    const uint8_t *pixels; /* height rows of 3 * width bytes, one after the other */
    int32_t width, height;
} picture;

/* A convolution, stride 1, no padding, PReLU, then max-pooling where pool > 0.
 *
 * Activations are words of 32 bits: four channels as uint8, q = round(real / scale) + zero point,
 * or one channel as float. `vectors` is how many words the input channels fill.
 * weights[(ky * kernel + kx) * vectors + v][out] are words of the same kind, int8 or float.
 * y = (start + sum of products) * factor + bias, in units of the output's scale; then PReLU with
 * slope; INT8 adds `zero`, rounds to int8 and stores that plus 128. `out` is a multiple of 4.
 */
typedef struct {
    int32_t vectors, out, kernel;
    int32_t pool, pool_stride; /* 0: none; a last window may reach over the edge */
    int32_t pool_ceil;
    const int32_t *weights;
    const int32_t *start;
    const float *factor, *bias, *slope;
    float zero; /* zero point of the output, less 128 */
} layer;

/* The last layer of R- and O-Net, always in float: y[n] = bias[n] + sum of weights[channel][n] * q. */
typedef struct {
    int32_t channels, out;
    const float *weights, *bias;
} head;

typedef struct {
    int32_t size;   /* pixels a side of its input */
    int32_t layers; /* hidden layers */
    const layer *layer;
    const head *head;
} network;

/* P-Net: conv1 with 2 x 2 pooling, conv2, conv3, and the heads as a layer of 5 (+ 3) outputs:
 * logit, dx1, dy1, dx2, dy2, whose factor and bias give real values. */
typedef struct {
    layer conv1, conv2, conv3, heads;
} pnet;

/* One cell above the threshold. */
typedef struct {
    int32_t row, column;
    float logit, box[4];
} hit;

/* A row of 16-bit values, 8.8 fixed point, weighted over at most four source rows. */
#define TAPS 4

/* Where a pixel comes from along one axis: weights sum to 65536 (65535 where one is all). */
typedef struct {
    int32_t first; /* source pixel of the first tap */
    uint16_t weight[TAPS];
} taps;

/* The same of two neighbouring pixels of a row, as vectors want it: taps 0 and 1, then 2 and 3, each
 * three times, then two zeros. */
typedef struct {
    int32_t first[2];
    uint16_t near[2 * 8], far[2 * 8];
} column_pair;

#define PAIRS(width) (((width) + 1) / 2)

taps area_taps(int at, int from, int to);
void area_columns(column_pair *pairs, int from, int to);
void blend_rows(uint16_t *blended, const uint8_t *pixels, ptrdiff_t stride, const taps *wanted,
                int rows, ptrdiff_t values);
void blend_column_words(uint32_t *even, uint32_t *odd, const uint16_t *blended,
                        const column_pair *pairs, int width);

/* A rectangle of a picture that a network looks at. */
typedef struct {
    double x, y, width, height; /* pixels of that picture; may lie beyond its edges, which are black */
    int32_t picture;            /* which of several */
} cut;

typedef struct cutter cutter; /* memory to cut with */

cutter *open_cutter(int size, const cut *cuts, int count);
void close_cutter(cutter *knife);
/* Writes size * size words R, G, B, 0. */
void cut_words(cutter *knife, const picture *pictures, const cut *wanted, uint32_t *words);
void copy_words(const picture *whole, uint32_t *words);
void interleave(const uint32_t *words, int lanes, int count, uint32_t *to);

#define FUNCTIONS(suffix)                                                                          \
    int64_t scan_##suffix(const pnet *net, const picture *source, int32_t width, int32_t height,  \
                          int32_t first_row, int32_t row_count, float lowest, hit *hits);         \
    int32_t classify_##suffix(const network *net, const picture *pictures, const cut *cuts,       \
                              int32_t count, float *outputs);

FUNCTIONS(int8_avx512)
FUNCTIONS(int8_avxvnni)
FUNCTIONS(int8_avx2)
FUNCTIONS(float_avx512)
FUNCTIONS(float_avx2)

#endif
