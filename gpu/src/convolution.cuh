/* Convolution, PReLU and pooling as one matrix product on tensor cores, halves in, floats summed.
 *
 * Rows of the product are output pixels (after pooling), columns output channels, and the sum runs over
 * the taps in chunks of 16 halves that lie side by side in memory. A map is [row][pixel][channel] halves
 * in shared memory, channels padded to 16; pixels of the image are four halves (R, G, B, 0), so that a
 * chunk of the first convolution is four pixels of a row, the last with weight 0.
 *
 * Which half of a chunk meets which k of the instruction is free as long as both factors agree: a lane
 * takes halves 4t .. 4t + 3, one load of 8 bytes, for its k = 2t, 2t + 1, 2t + 8, 2t + 9.
 *
 * Weights of a layer: [chunk][output channel][16] halves, then bias and slopes as floats
 * (`unface.gpu.weights`); read through the cache, they are the same for all. */
#pragma once
#include "device.cuh"

#define WARP 32

/* A layer whose map has PITCH halves a row and PIXEL a pixel; KY x KX taps of CHUNKS chunks; CONV_W
 * columns come out of the convolution, and OUT_W of max-pooling WINDOW x WINDOW by STRIDE (1, 1: none).
 * TILES x 8 output channels. */
template <int PIXEL, int PITCH, int KY, int KX, int CHUNKS, int CONV_W, int WINDOW, int STRIDE, int OUT_W,
          int TILES>
struct Layer_ {
    static const int rows = KY, taps = KX * CHUNKS; /* chunks of a row of taps */
    static const int tiles = TILES, channels = TILES * 8;
    static const int window = WINDOW, stride = STRIDE, conv_w = CONV_W, out_w = OUT_W;
    static const int pixel = PIXEL, pitch = PITCH;
    static const int weight_bytes = rows * taps * channels * 16 * 2, bytes = weight_bytes + channels * 8;
    static FN int offset(int tap) { return tap / CHUNKS * PIXEL + tap % CHUNKS * 16; }
};

FN uint2 load_chunk(const uint16_t *at) { return *(const uint2 *)at; }

/* sums[m][n] of M groups of 16 pixels and N groups of 8 channels from group `first` on; a lane gives
 * its two pixels of each group by where their first halves lie in the map. */
template <class L, int M, int N>
FN void convolve(const uint16_t *map, const int (&place)[M][2], const uint8_t *weights, int first,
                 float (&sums)[M][N][4])
{
    int lane = threadIdx.x % WARP;
    const uint2 *fragments = (const uint2 *)weights + first * 32 + lane;
    const uint16_t *mine = map + lane % 4 * 4;
#pragma unroll 1 /* unrolled, it would hoist more loads than there are registers */
    for (int row = 0; row < L::rows; row++, mine += L::pitch, fragments += L::taps * L::tiles * 32) {
#pragma unroll
        for (int tap = 0; tap < L::taps; tap++) {
            uint2 b[N];
#pragma unroll
            for (int n = 0; n < N; n++)
                b[n] = __ldg(fragments + (tap * L::tiles + n) * 32);
#pragma unroll
            for (int m = 0; m < M; m++) {
                uint2 upper = load_chunk(mine + place[m][0] + L::offset(tap));
                uint2 lower = load_chunk(mine + place[m][1] + L::offset(tap));
#pragma unroll
                for (int n = 0; n < N; n++)
                    multiply_add(sums[m][n], upper.x, lower.x, upper.y, lower.y, b[n]);
            }
        }
    }
}

/* The biases or slopes of a lane's two channels of a group of 8. */
template <class L> FN float2 channel_pair(const uint8_t *weights, int group, bool slopes)
{
    const float *values = (const float *)(weights + L::weight_bytes) + (slopes ? L::channels : 0);
    return __ldg((const float2 *)(values + group * 8 + threadIdx.x % 4 * 2));
}

FN float prelu(float x, float slope) { return x > 0 ? x : x * slope; }

/* Biases for M x N groups. */
template <class L, int M, int N> FN void begin_sums(const uint8_t *weights, int first, float (&sums)[M][N][4])
{
#pragma unroll
    for (int n = 0; n < N; n++) {
        float2 bias = channel_pair<L>(weights, first + n, false);
#pragma unroll
        for (int m = 0; m < M; m++) {
            sums[m][n][0] = sums[m][n][2] = bias.x;
            sums[m][n][1] = sums[m][n][3] = bias.y;
        }
    }
}

/* The layer's values for M x N groups of pixels `begin` ..., of out_h x out_w; nothing is pooled. */
template <class L, int M, int N>
FN void compute_plain(const uint16_t *map, const uint8_t *weights, int begin, int first, int out_h,
                      float (&values)[M][N][4])
{
    int place[M][2], row = threadIdx.x % WARP / 4;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int pixel = smaller(begin + m * 16 + half * 8 + row, out_h * L::out_w - 1);
            place[m][half] = pixel / L::out_w * L::pitch + pixel % L::out_w * L::pixel;
        }
    begin_sums<L, M, N>(weights, first, values);
    convolve<L, M, N>(map, place, weights, first, values);
#pragma unroll
    for (int n = 0; n < N; n++) {
        float2 slope = channel_pair<L>(weights, first + n, true);
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                values[m][n][i] = prelu(values[m][n][i], i & 1 ? slope.y : slope.x);
    }
}

/* The same, pooled. Beyond conv_h rows and conv_w columns a window looks at nothing. */
template <class L, int M, int N>
FN void compute_pooled(const uint16_t *map, const uint8_t *weights, int begin, int first, int out_h,
                       int conv_h, float (&best)[M][N][4])
{
    int y[M][2], x[M][2], row = threadIdx.x % WARP / 4;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int pixel = smaller(begin + m * 16 + half * 8 + row, out_h * L::out_w - 1);
            y[m][half] = pixel / L::out_w * L::stride;
            x[m][half] = pixel % L::out_w * L::stride;
        }
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                best[m][n][i] = -INFINITE;
#pragma unroll 1
    for (int window = 0; window < L::window * L::window; window++) {
        int down = window / L::window, right = window % L::window;
        int place[M][2];
        bool inside[M][2];
        float sums[M][N][4];
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                int at_y = y[m][half] + down, at_x = x[m][half] + right;
                inside[m][half] = at_y < conv_h && at_x < L::conv_w;
                place[m][half] = inside[m][half] ? at_y * L::pitch + at_x * L::pixel : 0;
            }
        begin_sums<L, M, N>(weights, first, sums);
        convolve<L, M, N>(map, place, weights, first, sums);
#pragma unroll
        for (int n = 0; n < N; n++) {
            float2 slope = channel_pair<L>(weights, first + n, true);
#pragma unroll
            for (int m = 0; m < M; m++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    float value = prelu(sums[m][n][i], i & 1 ? slope.y : slope.x);
                    if (inside[m][i >> 1])
                        best[m][n][i] = fmaxf(best[m][n][i], value);
                }
        }
    }
}

/* A whole layer into `out`, [out_h * out_w][channels] halves, by all WARPS warps of the block. */
template <class L, int M, int N, int WARPS>
FN void run_layer(const uint16_t *map, const uint8_t *weights, int out_h, int conv_h, uint16_t *out)
{
    const int groups = L::tiles / N;
    int pixels = out_h * L::out_w, jobs = (pixels + M * 16 - 1) / (M * 16) * groups;
    for (int job = threadIdx.x / WARP; job < jobs; job += WARPS) {
        int begin = job / groups * M * 16, first = job % groups * N, lane = threadIdx.x % WARP;
        float values[M][N][4];
        if constexpr (L::window == 1)
            compute_plain<L, M, N>(map, weights, begin, first, out_h, values);
        else
            compute_pooled<L, M, N>(map, weights, begin, first, out_h, conv_h, values);
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                int pixel = begin + m * 16 + half * 8 + lane / 4;
                if (pixel < pixels)
#pragma unroll
                    for (int n = 0; n < N; n++)
                        *(uint32_t *)(out + pixel * L::channels + (first + n) * 8 + lane % 4 * 2) =
                            pack_halves(values[m][n][2 * half], values[m][n][2 * half + 1]);
            }
    }
}

#define PIXEL_MEAN 127.5f
#define PIXEL_SCALE 0.0078125f /* 1 / 128: all 256 values are exact halves */

/* A pixel of the image in a map: R, G, B, 0. */
FN void store_pixel(uint16_t *at, float red, float green, float blue)
{
    uint2 words = {pack_halves((red - PIXEL_MEAN) * PIXEL_SCALE, (green - PIXEL_MEAN) * PIXEL_SCALE),
                   pack_halves((blue - PIXEL_MEAN) * PIXEL_SCALE, 0)};
    *(uint2 *)at = words;
}
