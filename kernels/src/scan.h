/* P-Net over a picture; included after convolve.h. */

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
