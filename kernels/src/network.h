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
 * `weight` (ready to multiply), the functions that `avx512.c` defines.
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

/* ---- P-Net ---------------------------------------------------------------------------------- */

#define CONV1 10 /* channels; Zhang et al. 2016, fig. 2 */
#define HEADS 5

/* Rows in rings: vector plane `v` of slot `slot` begins at word (slot * vectors + v) * stride. */
typedef struct {
    uint32_t *words;  /* one row of pixels: even ones, odd ones */
    uint32_t *pixels; /* 4 rows, even and odd pixels apart: slot 2 * row + odd */
    uint32_t *conv1, *conv2; /* 3 rows */
    uint32_t *conv3;         /* 1 row */
    uint16_t *blended;
    column_pair *columns;
    ptrdiff_t stride; /* words of a plane: a multiple of LANES, and LANES to read beyond */
} rows;

static void close_rows(rows *r)
{
    free(r->words);
    free(r->pixels);
    free(r->conv1);
    free(r->conv2);
    free(r->conv3);
    free(r->blended);
    free(r->columns);
}

static int open_rows(rows *r, const pnet *net, const picture *source, int width)
{
    r->stride = (width / 2 / LANES + 3) * LANES;
    r->words = calloc(2 * r->stride, 4);
    r->pixels = calloc(4 * 2 * PIXEL_VECTORS * r->stride, 4);
    r->conv1 = calloc(3 * VECTORS(net->conv1.out) * r->stride, 4);
    r->conv2 = calloc(3 * VECTORS(net->conv2.out) * r->stride, 4);
    r->conv3 = calloc(VECTORS(net->conv3.out) * r->stride, 4);
    r->blended = calloc(3 * (size_t)source->width + 48, 2);
    r->columns = malloc(PAIRS(width) * sizeof *r->columns);
    return r->words && r->pixels && r->conv1 && r->conv2 && r->conv3 && r->blended && r->columns;
}

INLINE uint8_t *plane(uint32_t *ring, ptrdiff_t stride, int slot, int vectors, int vector)
{
    return (uint8_t *)(ring + (slot * vectors + vector) * stride);
}

static void read_row(rows *r, const picture *source, int width, int height, int row)
{
    taps wanted = area_taps(row, source->height, height);
    ptrdiff_t values = 3 * (ptrdiff_t)source->width;
    blend_rows(r->blended, source->pixels, values, &wanted, source->height, values);
    blend_column_words(r->words, r->words + r->stride, r->blended, r->columns, width);
    for (int odd = 0; odd < 2; odd++) {
        uint8_t *to = plane(r->pixels, r->stride, row % 4 * 2 + odd, PIXEL_VECTORS, 0);
        for (int x = 0; x < (width + 1) / 2; x += LANES)
            keep_pixels(to + x * 4, 4 * r->stride, r->words + odd * r->stride + x);
    }
}

/* One vector of conv1 and pooling: `at` bytes into the planes pixels[row][odd]. */
INLINE void pool_channels(const layer *l, const uint8_t *pixels[4][2], ptrdiff_t vector_step,
                          ptrdiff_t at, floats *y, int channel)
{
    total sums[4][POOLED_CHANNELS];
    UNROLL for (int p = 0; p < 4; p++)
        UNROLL for (int n = 0; n < POOLED_CHANNELS; n++)
            sums[p][n] = start(l->start[channel + n]);
    for (int ky = 0; ky < 3; ky++)
        UNROLL for (int kx = 0; kx < 3; kx++)
            for (int v = 0; v < PIXEL_VECTORS; v++) {
                activation a[4];
                UNROLL for (int p = 0; p < 4; p++) {
                    int x = p % 2 + kx;
                    a[p] = as_activation(
                        load(pixels[p / 2 + ky][x % 2] + v * vector_step + at + x / 2 * 4));
                }
                const int32_t *weights = l->weights + ((ky * 3 + kx) * PIXEL_VECTORS + v) * l->out;
                UNROLL for (int n = 0; n < POOLED_CHANNELS; n++) {
                    weight w = as_weight(weights + channel + n);
                    UNROLL for (int p = 0; p < 4; p++)
                        sums[p][n] = dot(sums[p][n], a[p], w);
                }
            }
    UNROLL for (int n = 0; n < POOLED_CHANNELS; n++) {
        total window[4] = {sums[0][n], sums[1][n], sums[2][n], sums[3][n]};
        y[channel + n] = pooled(l, channel + n, window, 4);
    }
}

static void pool_row(const layer *l, rows *r, int row, int width)
{
    const uint8_t *pixels[4][2];
    for (int y = 0; y < 4; y++)
        for (int odd = 0; odd < 2; odd++)
            pixels[y][odd] =
                plane(r->pixels, r->stride, (2 * row + y) % 4 * 2 + odd, PIXEL_VECTORS, 0);
    for (int x = 0; x < width; x += LANES) {
        floats y[12];
        y[10] = y[11] = set_floats(0);
        UNROLL for (int channel = 0; channel < CONV1; channel += POOLED_CHANNELS)
            pool_channels(l, pixels, 4 * r->stride, x * 4, y, channel);
        for (int channel = 0; channel < l->out; channel += 4)
            keep(plane(r->conv1, r->stride, row % 3, VECTORS(l->out), VECTORS(channel)) + x * 4,
                 4 * r->stride, y + channel, l->zero);
    }
}

/* Row `row` of a 3 x 3 convolution over rows row .. row + 2 of the ring of `before`. */
static void ring_row(const layer *l, const layer *before, uint32_t *ring, uint32_t *to, int slot,
                     ptrdiff_t stride, int row, int width)
{
    int ring_vectors = VECTORS(before->out); /* that may be more than are wanted */
    ptrdiff_t offsets[9 * 16];
    for (int k = 0; k < 9 * l->vectors; k++) {
        int tap = k / l->vectors, ky = tap / 3, kx = tap % 3;
        offsets[k] = 4 * (((row + ky) % 3 * ring_vectors + k % l->vectors) * stride + kx);
    }
    convolve_row(l, (uint8_t *)ring, offsets, BYTES,
                 plane(to, stride, slot, VECTORS(l->out), 0), BYTES, 4 * stride,
                 (width + LANES - 1) / LANES);
}

/* The heads over conv3's row; appends the cells whose logit is at least `least`. */
static hit *find_hits(const layer *l, rows *r, int row, int width, float lowest, hit *hits)
{
    for (int x = 0; x < width; x += LANES) {
        total sums[HEADS];
        const uint8_t *at = (uint8_t *)(r->conv3 + x);
        UNROLL for (int n = 0; n < HEADS; n++) sums[n] = start(l->start[n]);
        for (int v = 0; v < l->vectors; v++) {
            activation a = as_activation(load(at + 4 * v * r->stride));
            UNROLL for (int n = 0; n < HEADS; n++)
                sums[n] = dot(sums[n], a, as_weight(l->weights + v * l->out + n));
        }
        floats logit = multiply_add(to_floats(sums[0]), l->factor[0], l->bias[0]);
        uint32_t above = at_least(logit, lowest);
        if (width - x < LANES)
            above &= (1u << (width - x)) - 1;
        if (!above)
            continue;
        float values[HEADS][LANES];
        store_floats(values[0], logit);
        UNROLL for (int n = 1; n < HEADS; n++)
            store_floats(values[n], multiply_add(to_floats(sums[n]), l->factor[n], l->bias[n]));
        for (; above; above &= above - 1, hits++) {
            int lane = __builtin_ctz(above);
            hits->row = row;
            hits->column = x + lane;
            hits->logit = values[0][lane];
            for (int edge = 0; edge < 4; edge++)
                hits->box[edge] = values[1 + edge][lane];
        }
    }
    return hits;
}

/* P-Net over rows of cells of `source` resized to width x height, all in the cache: each row of each
 * layer is made once and forgotten three rows later. Returns the number of hits, of which there
 * may be one a cell, in order, or NO_MEMORY. */
int64_t NAME(scan)(const pnet *net, const picture *source, int32_t width, int32_t height,
                   int32_t first_row, int32_t row_count, float lowest, hit *hits)
{
    rows r;
    hit *end = hits;
    int pooled_width = (width - 2) / 2, failed = !open_rows(&r, net, source, width);
    if (!failed) {
        area_columns(r.columns, source->width, width);
        for (int row = first_row; row < first_row + row_count + 4; row++) {
            for (int y = row == first_row ? 2 * row : 2 * row + 2; y < 2 * row + 4; y++)
                read_row(&r, source, width, height, y);
            pool_row(&net->conv1, &r, row, pooled_width);
            if (row >= first_row + 2)
                ring_row(&net->conv2, &net->conv1, r.conv1, r.conv2, (row - 2) % 3, r.stride,
                         row - 2, pooled_width - 2);
            if (row >= first_row + 4) {
                ring_row(&net->conv3, &net->conv2, r.conv2, r.conv3, 0, r.stride, row - 4,
                         pooled_width - 4);
                end = find_hits(&net->heads, &r, row - 4, pooled_width - 4, lowest, end);
            }
        }
    }
    close_rows(&r);
    return failed ? NO_MEMORY : end - hits;
}

/* ---- R- and O-Net --------------------------------------------------------------------------- */

/* Maps of a group of crops: vector (y * width + x) * vectors + v. */

static int pooled_side(const layer *l, int side)
{
    int steps = side - l->pool + (l->pool_ceil ? l->pool_stride - 1 : 0);
    return steps / l->pool_stride + 1;
}

static int smaller(int a, int b) { return a < b ? a : b; }

/* Greatest and least sums of a pooling window's first columns, for each channel. */
typedef struct {
    total most, least;
} window;

INLINE void keep_windows(const layer *l, const floats *y, uint8_t *to, int place, int channel,
                         const int channels)
{
    UNROLL for (int n = 0; n < channels; n += 4)
        keep(to + (place * VECTORS(l->out) + VECTORS(channel + n)) * BYTES, BYTES, y + n, l->zero);
}

/* One or two neighbouring sums, the first at an even column x, pooled along x: windows are two
 * columns apart, and those of 3 columns end with the first of the next one's. */
INLINE void pool_tile(const layer *l, const uint8_t *at, const ptrdiff_t *offsets,
                      ptrdiff_t column_step, uint8_t *to, int place, int channel, window *begun,
                      const int columns, const int channels)
{
    int shared = l->pool == 3;
    total sums[2][CHANNELS];
    UNROLL for (int p = 0; p < columns; p++)
        UNROLL for (int n = 0; n < channels; n++)
            sums[p][n] = start(l->start[channel + n]);
    add_products(sums, at, offsets, l->kernel * l->kernel * l->vectors, column_step,
                 l->weights + channel, l->out, columns, channels);
    floats y[CHANNELS];
    UNROLL for (int n = 0; n < channels; n++) {
        total first = sums[0][n], second = sums[columns - 1][n];
        window *w = begun + channel + n;
        total before[3] = {w->most, w->least, first}, both[2] = {first, second};
        y[n] = shared ? pooled(l, channel + n, before, 3) : pooled(l, channel + n, both, 2);
        w->most = most(first, second);
        w->least = least(first, second);
    }
    if (place - shared >= 0)
        keep_windows(l, y, to, place - shared, channel, channels);
}

INLINE void pool_columns(const layer *l, const uint8_t *at, const ptrdiff_t *offsets,
                         ptrdiff_t column_step, uint8_t *to, int place, window *begun,
                         const int columns)
{
    int channel = 0;
    for (; channel + CHANNELS <= l->out; channel += CHANNELS)
        pool_tile(l, at, offsets, column_step, to, place, channel, begun, columns, CHANNELS);
    for (; channel < l->out; channel += 4)
        pool_tile(l, at, offsets, column_step, to, place, channel, begun, columns, 4);
}

/* A row of `width` sums, pooled along x. */
static void convolve_pooled_row(const layer *l, const uint8_t *at, const ptrdiff_t *offsets,
                                ptrdiff_t column_step, uint8_t *to, int width, int pooled_width)
{
    window begun[MOST_CHANNELS];
    for (int n = 0; n < l->out; n++)
        begun[n].most = begun[n].least = start(0); /* no window begins before 0: never kept */
    int place = 0;
    for (; 2 * place + 1 < width; place++, at += 2 * column_step)
        pool_columns(l, at, offsets, column_step, to, place, begun, 2);
    if (width % 2 && place - (l->pool == 3) < pooled_width)
        pool_columns(l, at, offsets, column_step, to, place, begun, 1);
    else if (l->pool == 3 && place == pooled_width) /* the last window reaches over the edge */
        for (int channel = 0; channel < l->out; channel += 4) {
            floats y[4];
            UNROLL for (int n = 0; n < 4; n++) {
                total both[2] = {begun[channel + n].most, begun[channel + n].least};
                y[n] = pooled(l, channel + n, both, 2);
            }
            keep_windows(l, y, to, place - 1, channel, 4);
        }
}

/* Row `row` of pooled output from rows pooled along x, of which a ring holds the last. */
static void pool_rows(const layer *l, const uint8_t *ring, ptrdiff_t row_bytes, int row, int side,
                      uint8_t *to)
{
    int begin = row * l->pool_stride, end = smaller(begin + l->pool, side);
    for (ptrdiff_t at = 0; at < row_bytes; at += BYTES) {
        stored top = load(ring + begin % l->pool * row_bytes + at);
        for (int y = begin + 1; y < end; y++)
            top = most_stored(top, load(ring + y % l->pool * row_bytes + at));
        store(to + at, top);
    }
}

/* One layer over a map of side x side; returns the side of its output. */
static int run_layer(const layer *l, const uint8_t *from, int side, uint8_t *ring, uint8_t *to)
{
    ptrdiff_t offsets[9 * MOST_CHANNELS]; /* kernel 3 */
    int kernel = l->kernel, vectors = l->vectors, out = VECTORS(l->out);
    for (int k = 0; k < kernel * kernel * vectors; k++) {
        int tap = k / vectors;
        offsets[k] = ((tap / kernel * side + tap % kernel) * vectors + k % vectors) * BYTES;
    }
    int width = side - kernel + 1, pooled_width = l->pool ? pooled_side(l, width) : width;
    ptrdiff_t row_bytes = (ptrdiff_t)pooled_width * out * BYTES, row_step = (ptrdiff_t)side * vectors * BYTES;
    for (int y = 0, done = 0; y < width; y++, from += row_step) {
        if (!l->pool) {
            convolve_row(l, from, offsets, vectors * BYTES, to + y * row_bytes, out * BYTES, BYTES,
                         width);
            continue;
        }
        convolve_pooled_row(l, from, offsets, vectors * BYTES, ring + y % l->pool * row_bytes, width,
                            pooled_width);
        int last = smaller(done * l->pool_stride + l->pool, width) - 1; /* row of the next window */
        if (done < pooled_width && y == last) {
            pool_rows(l, ring, row_bytes, done, width, to + done * row_bytes);
            done++;
        }
    }
    return pooled_width;
}

static void run_head(const head *h, const uint8_t *from, float *outputs, int count)
{
    floats sums[16];
    for (int n = 0; n < h->out; n++)
        sums[n] = set_floats(h->bias[n]);
    for (int channel = 0; channel < h->channels; channel++) {
        floats value = channel_floats(from + channel / PACKED * BYTES, channel % PACKED);
        for (int n = 0; n < h->out; n++)
            sums[n] = add_product(sums[n], value, h->weights[channel * h->out + n]);
    }
    for (int n = 0; n < h->out; n++) {
        float values[LANES];
        store_floats(values, sums[n]);
        for (int lane = 0; lane < count; lane++)
            outputs[lane * h->out + n] = values[lane];
    }
}

/* Vectors of the largest map and the largest ring of pooled rows of a network. */
static void largest_maps(const network *net, size_t *map, size_t *ring)
{
    int side = net->size;
    *map = (size_t)side * side * PIXEL_VECTORS;
    *ring = 0;
    for (int n = 0; n < net->layers; n++) {
        const layer *l = net->layer + n;
        side -= l->kernel - 1;
        side = l->pool ? pooled_side(l, side) : side;
        size_t pooled_rows = (size_t)l->pool * side * VECTORS(l->out);
        size_t vectors = (size_t)side * side * VECTORS(l->out);
        *ring = pooled_rows > *ring ? pooled_rows : *ring;
        *map = vectors > *map ? vectors : *map;
    }
}

/* `count` crops of pictures through a network, one a lane: outputs [count][head->out]. Without cuts
 * there are `count` pictures, of the network's size. */
int32_t NAME(classify)(const network *net, const picture *pictures, const cut *cuts, int32_t count,
                       float *outputs)
{
    size_t map, ring, words = (size_t)net->size * net->size;
    largest_maps(net, &map, &ring);
    uint8_t *memory = malloc((2 * map + ring + words) * BYTES); /* idle lanes hold anything */
    cutter *knife = open_cutter(net->size, cuts, count);
    if (!memory || !knife) {
        free(memory);
        close_cutter(knife);
        return NO_MEMORY;
    }
    uint8_t *from = memory, *to = from + map * BYTES, *pool = to + map * BYTES;
    uint32_t *pixels = (uint32_t *)(pool + ring * BYTES);
    for (int begin = 0; begin < count; begin += LANES) {
        int lanes = smaller(count - begin, LANES), side = net->size;
        for (int lane = 0; lane < lanes; lane++) {
            if (cuts)
                cut_words(knife, pictures, cuts + begin + lane, pixels + lane * words);
            else
                copy_words(pictures + begin + lane, pixels + lane * words);
        }
        interleave(pixels, LANES, words, (uint32_t *)to);
        for (size_t at = 0; at < words; at++)
            keep_pixels(from + at * PIXEL_VECTORS * BYTES, BYTES, (uint32_t *)to + at * LANES);
        for (int n = 0; n < net->layers; n++) {
            side = run_layer(net->layer + n, from, side, pool, to);
            uint8_t *swap = from;
            from = to;
            to = swap;
        }
        run_head(net->head, from, outputs + (size_t)begin * net->head->out, lanes);
    }
    free(memory);
    close_cutter(knife);
    return 0;
}
