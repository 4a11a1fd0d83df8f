/* Faces covered on the picture where it lies: what `unface.anonymize.masks` does.
 *
 * A launch covers masks of which no two share a pixel; faces that overlap come in launches one after
 * the other. Reads and writes 3 bytes a covered pixel, mosaic and blur also read those beside an ellipse.
 * Any grid of blocks. */
#include "tables.cuh"

#define COVER_THREADS 256

/* A block's part of a launch: share `index` of `shares` of one mask. */
struct Share {
    const Mask *mask;
    int index, shares;
};

FN int shares_each(const Covering *covering) { return larger(gridDim.x / covering->count, 1); }

FN Share take_share(const Covering *covering, int n)
{
    Share share = {covering->masks + covering->first + n % covering->count, n / covering->count,
                   shares_each(covering)};
    return share;
}

FN uint8_t *pixel_of(const Covering *covering, const Mask *mask, int x, int y)
{
    return covering->pixels + ((size_t)(mask->top + y) * covering->width + mask->left + x) * 3;
}

/* Whether pixel (x, y) of the mask's rectangle is covered. In doubles, each step rounded, as numpy does
 * it: the same pixels, not nearly the same. */
FN bool covers(const Mask *mask, int x, int y)
{
    if (!mask->ellipse)
        return true;
    double across = (mask->left + x + 0.5 - mask->center[0]) / mask->half[0];
    double down = (mask->top + y + 0.5 - mask->center[1]) / mask->half[1];
    return __dmul_rn(across, across) <= 1 - __dmul_rn(down, down);
}

/* a / b, a half to the even one. */
template <class T> FN T divide_rounded(T a, T b)
{
    T whole = a / b, rest = a % b;
    return whole + (2 * rest + (whole & 1) > b);
}

KERNEL(COVER_THREADS) cover_solid(const Covering *covering)
{
    for (int n = blockIdx.x; n < covering->count * shares_each(covering); n += gridDim.x) {
        Share share = take_share(covering, n);
        const Mask *mask = share.mask;
        uint32_t pixels = (uint32_t)mask->width * mask->height, step = share.shares * blockDim.x;
        for (uint32_t at = share.index * blockDim.x + threadIdx.x; at < pixels; at += step) {
            int x = at % mask->width, y = at / mask->width;
            if (covers(mask, x, y))
                for (int c = 0; c < 3; c++)
                    pixel_of(covering, mask, x, y)[c] = (uint8_t)(mask->color >> 8 * c);
        }
    }
}

/* The sums of all threads of the block, in sums[c][0]. */
FN void add_up(uint64_t (&sums)[3][COVER_THREADS])
{
    __syncthreads();
    for (int half = COVER_THREADS / 2; half; half /= 2) {
        if ((int)threadIdx.x < half)
            for (int c = 0; c < 3; c++)
                sums[c][threadIdx.x] += sums[c][threadIdx.x + half];
        __syncthreads();
    }
}

/* Each cell in the mean colour of its pixels; a block a cell. */
KERNEL(COVER_THREADS) cover_mosaic(const Covering *covering)
{
    __shared__ uint64_t sums[3][COVER_THREADS];
    for (int n = blockIdx.x; n < covering->count * shares_each(covering); n += gridDim.x) {
        Share share = take_share(covering, n);
        const Mask *mask = share.mask;
        int across = mask->parts[0], down = mask->parts[1];
        for (int cell = share.index; cell < across * down; cell += share.shares) {
            int column = cell % across, row = cell / across;
            int left = divide_rounded(column * mask->width, across);
            int top = divide_rounded(row * mask->height, down);
            uint32_t width = divide_rounded((column + 1) * mask->width, across) - left;
            uint32_t pixels = (divide_rounded((row + 1) * mask->height, down) - top) * width;
            uint64_t sum[3] = {0, 0, 0};
            for (uint32_t at = threadIdx.x; at < pixels; at += COVER_THREADS) {
                const uint8_t *pixel = pixel_of(covering, mask, left + at % width, top + at / width);
                for (int c = 0; c < 3; c++)
                    sum[c] += pixel[c];
            }
            for (int c = 0; c < 3; c++)
                sums[c][threadIdx.x] = sum[c];
            add_up(sums);
            uint8_t color[3];
            for (int c = 0; c < 3; c++)
                color[c] = (uint8_t)divide_rounded(sums[c][0], (uint64_t)pixels);
            for (uint32_t at = threadIdx.x; at < pixels; at += COVER_THREADS) {
                int x = left + at % width, y = top + at / width;
                if (covers(mask, x, y))
                    for (int c = 0; c < 3; c++)
                        pixel_of(covering, mask, x, y)[c] = color[c];
            }
            __syncthreads(); /* until all have read the sums */
        }
    }
}

/* The shrunk region of a mask in the scratch: what is blurred across, as floats; then its bytes. */
FN float *floats_of(const Covering *covering, const Mask *mask)
{
    return (float *)(covering->scratch + mask->scratch);
}

FN uint8_t *bytes_of(const Covering *covering, const Mask *mask)
{
    return (uint8_t *)(floats_of(covering, mask) + mask->small[0] * mask->small[1] * 3);
}

/* Pixel (x, y) of the shrunk region, the mean of what it covers, in whole numbers and so exact. */
FN void shrink_pixel(const Covering *covering, const Mask *mask, int x, int y, uint8_t *result)
{
    uint32_t to_w = mask->small[0], to_h = mask->small[1];
    uint32_t left = x * mask->width, right = left + mask->width; /* in source pixels / to_w */
    uint32_t top = y * mask->height, bottom = top + mask->height;
    uint64_t sum[3] = {0, 0, 0};
    for (uint32_t row = top / to_h; row * to_h < bottom; row++) {
        uint32_t down = min(bottom, (row + 1) * to_h) - max(top, row * to_h), line[3] = {0, 0, 0};
        const uint8_t *pixel = pixel_of(covering, mask, left / to_w, row);
        for (uint32_t column = left / to_w; column * to_w < right; column++, pixel += 3) {
            uint32_t across = min(right, (column + 1) * to_w) - max(left, column * to_w);
            for (int c = 0; c < 3; c++)
                line[c] += across * pixel[c];
        }
        for (int c = 0; c < 3; c++)
            sum[c] += (uint64_t)down * line[c];
    }
    for (int c = 0; c < 3; c++)
        result[c] = (uint8_t)divide_rounded(sum[c], (uint64_t)mask->width * mask->height);
}

KERNEL(COVER_THREADS) shrink_faces(const Covering *covering)
{
    for (int n = blockIdx.x; n < covering->count * shares_each(covering); n += gridDim.x) {
        Share share = take_share(covering, n);
        const Mask *mask = share.mask;
        int pixels = mask->small[0] * mask->small[1], step = share.shares * blockDim.x;
        uint8_t *shrunk = bytes_of(covering, mask);
        for (int at = share.index * blockDim.x + threadIdx.x; at < pixels; at += step)
            shrink_pixel(covering, mask, at % mask->small[0], at / mask->small[0], shrunk + at * 3);
    }
}

/* Mirrored at the first and at the last of `length`, which are not repeated. */
FN int mirrored(int place, int length)
{
    if (length == 1)
        return 0;
    int period = 2 * (length - 1);
    place = (place % period + period) % period;
    return place < length ? place : period - place;
}

/* The Gaussian mean around `place` of `length` values `step` apart. */
template <class T> FN float gaussian(const Mask *mask, const T *values, int place, int length, int step)
{
    float sum = mask->taps[0] * values[place * step];
    for (int n = 1; n <= mask->radius; n++)
        sum += mask->taps[n] * ((float)values[mirrored(place - n, length) * step] +
                                (float)values[mirrored(place + n, length) * step]);
    return sum;
}

/* Blurred across, from the bytes into the floats; then `down`, and back. */
FN void blur_faces(const Covering *covering, bool down)
{
    for (int n = blockIdx.x; n < covering->count * shares_each(covering); n += gridDim.x) {
        Share share = take_share(covering, n);
        const Mask *mask = share.mask;
        int width = mask->small[0], height = mask->small[1], step = share.shares * blockDim.x;
        float *floats = floats_of(covering, mask);
        uint8_t *bytes = bytes_of(covering, mask);
        for (int at = share.index * blockDim.x + threadIdx.x; at < width * height * 3; at += step) {
            int c = at % 3, x = at / 3 % width, y = at / 3 / width;
            if (down)
                bytes[at] = (uint8_t)rintf(gaussian(mask, floats + x * 3 + c, y, height, width * 3));
            else
                floats[at] = gaussian(mask, bytes + y * width * 3 + c, x, width, 3);
        }
    }
}

KERNEL(COVER_THREADS) blur_across(const Covering *covering) { blur_faces(covering, false); }

KERNEL(COVER_THREADS) blur_down(const Covering *covering) { blur_faces(covering, true); }

/* Where the middle of pixel `at` of `to` lies among `from` pixels, not beyond the middles of the outer
 * ones. */
FN float place_between(int at, int from, int to)
{
    return fminf(fmaxf((at + 0.5f) * from / to - 0.5f, 0), from - 1);
}

/* The blurred region, enlarged again, where the mask covers; bilinear. */
KERNEL(COVER_THREADS) enlarge_faces(const Covering *covering)
{
    for (int n = blockIdx.x; n < covering->count * shares_each(covering); n += gridDim.x) {
        Share share = take_share(covering, n);
        const Mask *mask = share.mask;
        int from_w = mask->small[0], from_h = mask->small[1];
        const uint8_t *bytes = bytes_of(covering, mask);
        uint32_t pixels = (uint32_t)mask->width * mask->height, step = share.shares * blockDim.x;
        for (uint32_t at = share.index * blockDim.x + threadIdx.x; at < pixels; at += step) {
            int x = at % mask->width, y = at / mask->width;
            if (!covers(mask, x, y))
                continue;
            float across = place_between(x, from_w, mask->width);
            float down = place_between(y, from_h, mask->height);
            int left = (int)across, top = (int)down;
            int right = smaller(left + 1, from_w - 1), bottom = smaller(top + 1, from_h - 1);
            across -= left, down -= top;
            for (int c = 0; c < 3; c++) {
                float upper = (1 - across) * bytes[(top * from_w + left) * 3 + c] +
                              across * bytes[(top * from_w + right) * 3 + c];
                float lower = (1 - across) * bytes[(bottom * from_w + left) * 3 + c] +
                              across * bytes[(bottom * from_w + right) * 3 + c];
                pixel_of(covering, mask, x, y)[c] =
                    (uint8_t)rintf((1 - down) * upper + down * lower);
            }
        }
    }
}
