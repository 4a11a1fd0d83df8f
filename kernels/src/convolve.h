/* The networks, written once for any width of vector, INT8 and float; included by one file for each.
 *
 * A vector holds LANES 32-bit words. P-Net's lanes are neighbouring cells of a row; those of R- and
 * O-Net are crops, so that no lane is ever idle in a small map. A word is four int8 channels or one
 * float channel (PACKED). The includer defines
 *
 *     SUFFIX                names the functions: scan_SUFFIX, classify_SUFFIX
 *     LANES, PACKED
 *     COLUMNS, CHANNELS     vectors and channels that one step of a convolution keeps in registers
 *     POOLED_CHANNELS       the same for P-Net's first layer, four vectors wide: 1, 2 or 5
 *
 * and, over the types `stored` (activations in memory), `total` (sums), `floats`, `activation` and
 * `weight` (ready to multiply), the functions that `avx512.h`, `float.h`, `int8.h` and `int8_avx512.c` define.
 */
#include <stdlib.h>
#include <string.h>

#include "kernels.h"

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(function) JOIN(function, SUFFIX)
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")
#define BYTES (LANES * 4)
#define VECTORS(channels) (((channels) + PACKED - 1) / PACKED)
#define PIXEL_VECTORS VECTORS(3)
#define MOST_CHANNELS 128 /* of what is convolved with more than one pixel, or pooled */

/* sums[column][channel] += products over `steps` words a lane; `offsets` in bytes. */
INLINE void add_products(total sums[][CHANNELS], const uint8_t *at, const ptrdiff_t *offsets,
                         int steps, ptrdiff_t column_step, const int32_t *weights, ptrdiff_t out,
                         const int columns, const int channels)
{
    for (int k = 0; k < steps; k++, weights += out) {
        activation a[COLUMNS];
        UNROLL for (int p = 0; p < columns; p++)
            a[p] = as_activation(load(at + offsets[k] + p * column_step));
        UNROLL for (int n = 0; n < channels; n++) {
            weight w = as_weight(weights + n);
            UNROLL for (int p = 0; p < columns; p++)
                sums[p][n] = dot(sums[p][n], a[p], w);
        }
    }
}

/* `columns` neighbouring vectors of output, `channels` channels from `channel` on. */
INLINE void convolve_tile(const layer *l, const uint8_t *at, const ptrdiff_t *offsets,
                          ptrdiff_t column_step, uint8_t *to, ptrdiff_t to_column,
                          ptrdiff_t to_vector, int channel, const int columns, const int channels)
{
    total sums[COLUMNS][CHANNELS];
    UNROLL for (int p = 0; p < columns; p++)
        UNROLL for (int n = 0; n < channels; n++)
            sums[p][n] = start(l->start[channel + n]);
    add_products(sums, at, offsets, l->kernel * l->kernel * l->vectors, column_step,
                 l->weights + channel, l->out, columns, channels);
    UNROLL for (int p = 0; p < columns; p++)
        UNROLL for (int n = 0; n < channels; n += 4) {
            floats y[4];
            UNROLL for (int i = 0; i < 4; i++) {
                int c = channel + n + i;
                y[i] = prelu(multiply_add(to_floats(sums[p][n + i]), l->factor[c], l->bias[c]),
                             l->slope[c]);
            }
            keep(to + p * to_column + VECTORS(channel + n) * to_vector, to_vector, y, l->zero);
        }
}

INLINE void convolve_columns(const layer *l, const uint8_t *at, const ptrdiff_t *offsets,
                             ptrdiff_t column_step, uint8_t *to, ptrdiff_t to_column,
                             ptrdiff_t to_vector, const int columns)
{
    int channel = 0;
    for (; channel + CHANNELS <= l->out; channel += CHANNELS)
        convolve_tile(l, at, offsets, column_step, to, to_column, to_vector, channel, columns,
                      CHANNELS);
    for (; channel < l->out; channel += 4)
        convolve_tile(l, at, offsets, column_step, to, to_column, to_vector, channel, columns, 4);
}

/* A row of `width` output vectors. */
static void convolve_row(const layer *l, const uint8_t *at, const ptrdiff_t *offsets,
                         ptrdiff_t column_step, uint8_t *to, ptrdiff_t to_column,
                         ptrdiff_t to_vector, int width)
{
    int x = 0;
    for (; x + COLUMNS <= width; x += COLUMNS)
        convolve_columns(l, at + x * column_step, offsets, column_step, to + x * to_column,
                         to_column, to_vector, COLUMNS);
    for (; x < width; x++)
        convolve_columns(l, at + x * column_step, offsets, column_step, to + x * to_column,
                         to_column, to_vector, 1);
}

/* The greatest activation among `count` sums. PReLU falls and then rises, or only rises, so that it
 * is that of the greatest or of the least sum: one activation for the whole pooling window. */
INLINE floats pooled(const layer *l, int channel, const total *sums, const int count)
{
    float slope = l->slope[channel], factor = l->factor[channel], bias = l->bias[channel];
    total top = sums[0], low = sums[0];
    UNROLL for (int n = 1; n < count; n++)
        top = most(top, sums[n]);
    floats y = prelu(multiply_add(to_floats(top), factor, bias), slope);
    if (slope < 0) {
        UNROLL for (int n = 1; n < count; n++)
            low = least(low, sums[n]);
        y = greater(y, prelu(multiply_add(to_floats(low), factor, bias), slope));
    }
    return y;
}
