/* The image's halvings and, from them, the levels of the pyramid. */
#include "emit.cuh"
#include "resample.cuh"

/* Halving `times` from the one before it. 3 to 12 bytes read and 3 written a pixel; any grid of
 * blocks, a thread a pixel. */
FN void halve_pixels(const Frame *frame, int times, int first, int step)
{
    int width = frame->widths[times], height = frame->heights[times];
    const uint8_t *source = (const uint8_t *)frame->pixels[times - 1];
    uint8_t *halved = (uint8_t *)frame->pixels[times];
    for (int n = first; n < width * height; n += step)
        area_average(source, frame->widths[times - 1], frame->heights[times - 1], width, height,
                     n % width, n / width, halved + (size_t)n * 3);
}

KERNEL(256) halve(const Lane *lane, int times)
{
    if (times < lane->frame->halvings)
        halve_pixels(lane->frame, times, blockIdx.x * blockDim.x + threadIdx.x, gridDim.x * blockDim.x);
}

/* Halvings from `first` on by one block: each is too small to be worth a launch. */
KERNEL(1024) halve_rest(const Lane *lane, int first)
{
    const Frame *frame = lane->frame;
    for (int times = first; times < frame->halvings; times++) {
        halve_pixels(frame, times, threadIdx.x, blockDim.x);
        __syncthreads();
    }
}

/* All levels into the canvas. A block a patch of 64 x 32 pixels; the last ones of a tile also take what
 * lies beyond its last whole cell. */
KERNEL(256) fill_canvas(const Lane *lane)
{
    const Frame *frame = lane->frame;
    for (int n = blockIdx.x; n < frame->patches; n += gridDim.x) {
        const Patch *patch = lane->patches + n;
        const Tile *tile = lane->tiles + patch->tile;
        const Level *level = lane->levels + tile->level;
        int columns = tile_columns(tile), rows = tile_rows(tile);
        int left = patch->column * P_STRIDE, top = patch->row * P_STRIDE;
        int right = patch->column + PATCH_W < columns ? left + PATCH_W * P_STRIDE : tile->width;
        int bottom = patch->row + PATCH_H < rows ? top + PATCH_H * P_STRIDE : tile->height;
        const uint8_t *source = (const uint8_t *)frame->pixels[level->source];
        int from_w = frame->widths[level->source], from_h = frame->heights[level->source];
        for (int at = threadIdx.x; at < (right - left) * (bottom - top); at += blockDim.x) {
            int x = left + at % (right - left), y = top + at / (right - left);
            uint8_t *pixel = lane->canvas + (size_t)tile->offset * 3 + (size_t)y * tile->pitch + x * 3;
            area_average(source, from_w, from_h, level->width, level->height, tile->x + x, tile->y + y,
                         pixel);
        }
    }
}
