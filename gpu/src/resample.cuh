/* Pixels between pixels: area averaging and 2 x 2 bilinear samples, as `unface.mtcnn` does them. */
#pragma once
#include "tables.cuh"

/* Area averaging as cv2.INTER_AREA for shrinking by at most 3: pixel (x, y) of `to` covers
 * [x, x + 1) * from / to of the source. In whole numbers of 1 / to source pixels, so exact. */
FN void area_average(const uint8_t *source, int from_w, int from_h, int to_w, int to_h, int x, int y,
                     uint8_t *result)
{
    uint32_t left = (uint32_t)x * from_w, right = left + from_w;
    uint32_t top = (uint32_t)y * from_h, bottom = top + from_h;
    int first_x = left / to_w, last_x = (right - 1) / to_w;
    int first_y = top / to_h, last_y = (bottom - 1) / to_h;
    float sum[3] = {0, 0, 0};
    for (int row = first_y; row <= last_y; row++) {
        uint32_t above = (uint32_t)row * to_h;
        uint32_t down = min(bottom, above + to_h) - max(top, above);
        float line[3] = {0, 0, 0};
        const uint8_t *at = source + ((size_t)row * from_w + first_x) * 3;
        for (int column = first_x; column <= last_x; column++, at += 3) {
            uint32_t before = (uint32_t)column * to_w;
            float across = min(right, before + to_w) - max(left, before);
            for (int c = 0; c < 3; c++)
                line[c] += across * at[c];
        }
        for (int c = 0; c < 3; c++)
            sum[c] += down * line[c];
    }
    float all = (float)from_w * from_h;
    for (int c = 0; c < 3; c++)
        result[c] = (uint8_t)(sum[c] / all + 0.5f); /* halves go up, as the CPU has them */
}

/* A square of the image as a network of input `size` sees it, in the smallest halving in which it
 * still has `size` pixels a side. */
struct Cut {
    const uint8_t *pixels;
    int width, height;
    float x, y, step_x, step_y; /* pixels of the halving; a step is a pixel of the crop */
};

FN Cut plan_cut(const Frame *frame, const Square *square, int size)
{
    float shift = square->side * (frame->crop_offset / size);
    float ratio = square->side / size;
    int times = 0;
    while (ratio >= 2 && times + 1 < frame->halvings) {
        ratio *= 0.5f;
        times++;
    }
    float scale_x = (float)frame->widths[times] / frame->widths[0];
    float scale_y = (float)frame->heights[times] / frame->heights[0];
    Cut cut = {(const uint8_t *)frame->pixels[times], frame->widths[times], frame->heights[times],
               (square->x - shift) * scale_x, (square->y - shift) * scale_y,
               square->side * scale_x / size, square->side * scale_y / size};
    return cut;
}

/* The bilinear sample at (x, y), weighted by a quarter; black beyond the image. */
FN void add_sample(const Cut &cut, float x, float y, float (&sum)[3])
{
    float left = floorf(x), top = floorf(y), right_part = x - left, lower_part = y - top;
    int column = (int)left, row = (int)top;
    for (int n = 0; n < 4; n++) {
        int at_x = column + (n & 1), at_y = row + (n >> 1);
        if (at_x < 0 || at_y < 0 || at_x >= cut.width || at_y >= cut.height)
            continue;
        float weight = 0.25f * (n & 1 ? right_part : 1 - right_part) *
                       (n >> 1 ? lower_part : 1 - lower_part);
        const uint8_t *pixel = cut.pixels + ((size_t)at_y * cut.width + at_x) * 3;
        for (int c = 0; c < 3; c++)
            sum[c] += weight * pixel[c];
    }
}

/* Pixel (x, y) of the crop, 0-255 in whole steps: the mean of four samples. */
FN void cut_pixel(const Cut &cut, int x, int y, float (&pixel)[3])
{
    pixel[0] = pixel[1] = pixel[2] = 0;
    for (int n = 0; n < 4; n++)
        add_sample(cut, cut.x + (x + 0.25f + 0.5f * (n & 1)) * cut.step_x - 0.5f,
                   cut.y + (y + 0.25f + 0.5f * (n >> 1)) * cut.step_y - 0.5f, pixel);
    for (int c = 0; c < 3; c++)
        pixel[c] = floorf(pixel[c] + 0.5f);
}
