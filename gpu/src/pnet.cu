/* P-Net, pyramid pixel in, probability and box out, nothing in between leaves the multiprocessor. */
#include "convolution.cuh"
#include "emit.cuh"

/* A patch of 32 x 16 cells looks at 74 x 42 pixels; pooled 36 x 20; after the second layer 34 x 18. */
#define P_PIXELS_W 75 /* the last chunk of a row reaches a pixel further, with weight 0 */
#define P_PIXELS_H 42
typedef Layer_<4, P_PIXELS_W * 4, 3, 1, 1, 72, 2, 2, 36, 2> PConv1;
typedef Layer_<16, 36 * 16, 3, 3, 1, 34, 1, 1, 34, 2> PConv2;
typedef Layer_<16, 34 * 16, 3, 3, 1, 32, 1, 1, 32, 4> PConv3;
#define P_HEADS 5 /* logit, dx1, dy1, dx2, dy2 */

/* Heads of 16 cells, from the third layer's values as they lie in the registers: what a lane holds of two
 * groups of 8 channels is just what it must give of a chunk of 16. Weights [2 chunks][8][16] halves, in
 * that order of channels, then 8 biases. */
FN void run_heads(const float (&values)[4][4], const uint8_t *weights, float (&outputs)[4])
{
    int lane = threadIdx.x % WARP;
    const float *bias = (const float *)(weights + 2 * 8 * 16 * 2) + lane % 4 * 2;
    outputs[0] = outputs[2] = __ldg(bias);
    outputs[1] = outputs[3] = __ldg(bias + 1);
#pragma unroll
    for (int chunk = 0; chunk < 2; chunk++) {
        const float(&a)[4] = values[2 * chunk], (&b)[4] = values[2 * chunk + 1];
        multiply_add(outputs, pack_halves(a[0], a[1]), pack_halves(a[2], a[3]), pack_halves(b[0], b[1]),
                     pack_halves(b[2], b[3]), __ldg((const uint2 *)weights + chunk * 32 + lane));
    }
}

FN void load_patch(const uint8_t *canvas, const Tile *tile, const Patch *patch, uint16_t *pixels)
{
    int left = patch->column * P_STRIDE, top = patch->row * P_STRIDE;
    for (int at = threadIdx.x; at < P_PIXELS_W * P_PIXELS_H; at += blockDim.x) {
        int x = left + at % P_PIXELS_W, y = top + at / P_PIXELS_W;
        if (x < tile->width && y < tile->height) {
            const uint8_t *pixel = canvas + (size_t)tile->offset * 3 + (size_t)y * tile->pitch + x * 3;
            store_pixel(pixels + at * 4, pixel[0], pixel[1], pixel[2]);
        } else {
            store_pixel(pixels + at * 4, 0, 0, 0); /* only cells that nobody wants see it */
        }
    }
}

/* The cells of a patch; `outputs` [PATCH_H * PATCH_W][P_HEADS]. */
FN void keep_cells(const Lane *lane, const Tile *tile, const Patch *patch, const float *outputs)
{
    for (int at = threadIdx.x; at < PATCH_W * PATCH_H; at += blockDim.x) {
        int column = patch->column + at % PATCH_W, row = patch->row + at / PATCH_W;
        if (column < tile_columns(tile) && row < tile_rows(tile))
            keep_cell_of(lane, tile, column, row, outputs + at * P_HEADS);
    }
}

/* 9.3 KB of pixels read and 2 KB of logits written a patch; 5.7 million multiplications, a quarter of them
 * for margins that neighbours compute too. 48 KB of shared memory. */
KERNEL_BESIDE(256, 2) pnet(const Lane *lane)
{
    __shared__ uint2 first[P_PIXELS_W * P_PIXELS_H]; /* pixels, then what the second layer gives */
    __shared__ uint2 second[36 * 20 * 4];            /* what the first layer gives, then outputs */
    uint16_t *pixels = (uint16_t *)first, *pooled = (uint16_t *)second;
    float *outputs = (float *)second;
    const uint8_t *weights = lane->weights[0], *weights2 = weights + PConv1::bytes;
    const uint8_t *weights3 = weights2 + PConv2::bytes, *heads = weights3 + PConv3::bytes;
    for (int n = blockIdx.x; n < lane->frame->patches; n += gridDim.x) {
        const Patch *patch = lane->patches + n;
        const Tile *tile = lane->tiles + patch->tile;
        load_patch(lane->canvas, tile, patch, pixels);
        __syncthreads();
        run_layer<PConv1, 3, 2, 8>(pixels, weights, 20, 40, pooled);
        __syncthreads();
        run_layer<PConv2, 3, 2, 8>(pooled, weights2, 18, 18, pixels);
        __syncthreads();
        int begin = threadIdx.x / WARP * 64, lane_id = threadIdx.x % WARP;
        float values[4][4][4];
        compute_plain<PConv3, 4, 4>(pixels, weights3, begin, 0, PATCH_H, values);
#pragma unroll
        for (int m = 0; m < 4; m++) {
            float heads_of[4];
            run_heads(values[m], heads, heads_of);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int cell = begin + m * 16 + i / 2 * 8 + lane_id / 4, output = lane_id % 4 * 2 + i % 2;
                if (output < P_HEADS)
                    outputs[cell * P_HEADS + output] = heads_of[i];
            }
        }
        __syncthreads();
        keep_cells(lane, tile, patch, outputs);
        __syncthreads();
    }
}
