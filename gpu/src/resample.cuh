/* Pixels between pixels, in the whole numbers of the CPU's core (`kernels/src/resample.c`), so that both
 * give the same bytes: weights of 16 bits along rows, then along columns. (At some odd sizes one byte in
 * 100,000 is off by one: a weight comes from floats here, from doubles there.) */
#pragma once
#include "tables.cuh"

#define TAPS 4
#define HALF_STEP 131 /* half of 256, and what is lost below the point */

/* Source pixels `first` ... and their weights, 65536 in all or nearly. */
struct Taps {
    int32_t first;
    uint16_t weight[TAPS];
};

/* Area averaging as cv2.INTER_AREA, for shrinking by at most 3: pixel `at` of `to` covers
 * [at, at + 1) * from / to of the source. In whole numbers of 1 / to source pixels. */
FN Taps area_taps(int at, int from, int to)
{
    uint32_t begin = (uint32_t)at * from, end = begin + from;
    Taps taps = {(int32_t)(begin / to), {0, 0, 0, 0}};
    uint32_t edge = (uint32_t)taps.first * to;
    for (int tap = 0; tap < TAPS; tap++, edge += to) {
        if (edge >= end)
            break;
        float part = (float)(min(end, edge + to) - max(begin, edge));
        taps.weight[tap] = (uint16_t)fminf(part * 65536.0f / from + 0.5f, 65535);
    }
    return taps;
}

/* The mean of two bilinear samples, at (at + 1/4) and (at + 3/4) of `step` source pixels. */
FN Taps sample_taps(int at, double begin, double step)
{
    double near = begin + (at + 0.25) * step - 0.5;
    long long samples[2] = {(long long)floor(near * 65536), (long long)floor((near + 0.5 * step) * 65536)};
    int first = (int)(samples[0] >> 16);
    uint32_t weight[TAPS] = {0, 0, 0, 0};
    for (int n = 0; n < 2; n++) {
        uint32_t part = samples[n] & 0xffff;
        int tap = smaller((int)(samples[n] >> 16) - first, TAPS - 2);
        for (int i = 0; i < TAPS - 1; i++) /* an index known to the compiler keeps them in registers */
            if (i == tap) {
                weight[i] += (65536 - part) / 2;
                weight[i + 1] += (part + 1) / 2;
            }
    }
    Taps taps = {first, {0, 0, 0, 0}};
    for (int tap = 0; tap < TAPS; tap++)
        taps.weight[tap] = (uint16_t)min(weight[tap], 65535u);
    return taps;
}

/* One pixel, 0-255 a colour; black beyond the image. */
FN void blend(const uint8_t *pixels, int width, int height, const Taps &row, const Taps &column,
              uint32_t (&pixel)[3])
{
    pixel[0] = pixel[1] = pixel[2] = HALF_STEP;
    for (int n = 0; n < TAPS; n++) {
        int x = column.first + n;
        if (!column.weight[n] || x < 0 || x >= width)
            continue;
        uint32_t sum[3] = {0, 0, 0};
        for (int m = 0; m < TAPS; m++) {
            int y = row.first + m;
            if (!row.weight[m] || y < 0 || y >= height)
                continue;
            const uint8_t *at = pixels + ((size_t)y * width + x) * 3;
            for (int c = 0; c < 3; c++)
                sum[c] += ((uint32_t)at[c] << 8) * row.weight[m] >> 16;
        }
        for (int c = 0; c < 3; c++)
            pixel[c] += sum[c] * column.weight[n] >> 16;
    }
    for (int c = 0; c < 3; c++)
        pixel[c] = min(pixel[c] >> 8, 255u);
}

/* Pixel (x, y) of an image shrunk to `to_w` x `to_h`. */
FN void area_average(const uint8_t *source, int from_w, int from_h, int to_w, int to_h, int x, int y,
                     uint8_t *result)
{
    uint32_t pixel[3];
    blend(source, from_w, from_h, area_taps(y, from_h, to_h), area_taps(x, from_w, to_w), pixel);
    for (int c = 0; c < 3; c++)
        result[c] = (uint8_t)pixel[c];
}

/* A square of the image as a network of input `size` sees it, in the smallest halving in which it
 * still has `size` pixels a side: its rows and columns of taps, and where they begin. */
struct Cut {
    const uint8_t *pixels;
    int width, height;
};

FN int halvings_of(const Frame *frame, float side, int size)
{
    int times = 0;
    for (float ratio = side / size; ratio >= 2 && times + 1 < frame->halvings; ratio *= 0.5f)
        times++;
    return times;
}

/* By all threads of a block: taps[0] of the rows, taps[1] of the columns; [2][size]. A barrier is due. */
FN Cut plan_cut(const Frame *frame, const Square *square, int size, Taps *taps)
{
    int times = halvings_of(frame, square->side, size);
    Cut cut = {(const uint8_t *)frame->pixels[times], frame->widths[times], frame->heights[times]};
    for (int n = threadIdx.x; n < 2 * size; n += blockDim.x) {
        bool across = n >= size;
        double scale = across ? (double)cut.width / frame->widths[0] : (double)cut.height / frame->heights[0];
        double side = square->side, shift = side * ((double)frame->crop_offset / size);
        double begin = ((across ? square->x : square->y) - shift) * scale;
        taps[n] = sample_taps(n % size, begin, side * scale / size);
    }
    return cut;
}

/* Pixel (x, y) of the crop. */
FN void cut_pixel(const Cut &cut, const Taps *taps, int size, int x, int y, uint32_t (&pixel)[3])
{
    blend(cut.pixels, cut.width, cut.height, taps[y], taps[size + x], pixel);
}
