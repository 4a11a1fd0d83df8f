/* R- and O-Net over crops; included after convolve.h. */

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
    ptrdiff_t row_bytes = (ptrdiff_t)pooled_width * out * BYTES;
    ptrdiff_t row_step = (ptrdiff_t)side * vectors * BYTES;
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
            sums[n] = add_product(sums[n], value, set_floats(h->weights[channel * h->out + n]));
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
