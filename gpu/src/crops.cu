/* R- and O-Net: a block cuts a crop out of the image and runs the convolutions; a second kernel multiplies
 * the dense layers for 16 crops at once, their weights being most of what is read. */
#include "convolution.cuh"
#include "emit.cuh"
#include "resample.cuh"

typedef Layer_<4, 25 * 4, 3, 1, 1, 22, 3, 2, 11, 4> RConv1;
typedef Layer_<32, 11 * 32, 3, 3, 2, 9, 3, 2, 4, 6> RConv2;
typedef Layer_<48, 4 * 48, 2, 2, 3, 3, 1, 1, 3, 8> RConv3;
typedef Layer_<4, 49 * 4, 3, 1, 1, 46, 3, 2, 23, 4> OConv1;
typedef Layer_<32, 23 * 32, 3, 3, 2, 21, 3, 2, 10, 8> OConv2;
typedef Layer_<64, 10 * 64, 3, 3, 4, 8, 2, 2, 4, 8> OConv3;
typedef Layer_<64, 4 * 64, 2, 2, 4, 3, 1, 1, 3, 16> OConv4;
#define R_FEATURES (9 * 64)
#define O_FEATURES (9 * 128)
#define CONV_BYTES_R (RConv1::bytes + RConv2::bytes + RConv3::bytes)
#define CONV_BYTES_O (OConv1::bytes + OConv2::bytes + OConv3::bytes + OConv4::bytes)

/* Rows [first, first + rows) of a crop into a map of `pitch` pixels a row, one more than the crop has. */
FN void load_crop(const Cut &cut, const Taps *taps, int size, int first, int rows, uint16_t *map)
{
    int pitch = size + 1;
    for (int at = threadIdx.x; at < rows * pitch; at += blockDim.x) {
        uint32_t pixel[3] = {0, 0, 0};
        if (at % pitch < size)
            cut_pixel(cut, taps, size, at % pitch, first + at / pitch, pixel);
        store_pixel(map + at * 4, pixel[0], pixel[1], pixel[2]);
    }
}

/* R-Net's convolutions: 1.9 million multiplications used of 4 done a crop, 1.2 KB written. */
KERNEL_BESIDE(128, 4) rnet_features(const Lane *lane)
{
    __shared__ uint2 first[24 * 25];      /* pixels, then what the second layer gives */
    __shared__ uint2 second[11 * 11 * 8]; /* what the first layer gives */
    __shared__ Taps taps[2 * 24];
    uint16_t *pixels = (uint16_t *)first, *pooled = (uint16_t *)second;
    const uint8_t *weights = lane->weights[1], *weights2 = weights + RConv1::bytes;
    int count = smaller(lane->counters->squares[0], lane->capacity);
    for (int n = blockIdx.x; n < count; n += gridDim.x) {
        Cut cut = plan_cut(lane->frame, lane->squares[0] + n, 24, taps);
        __syncthreads();
        load_crop(cut, taps, 24, 0, 24, pixels);
        __syncthreads();
        run_layer<RConv1, 2, 2, 4>(pixels, weights, 11, 22, pooled);
        __syncthreads();
        run_layer<RConv2, 1, 2, 4>(pooled, weights2, 4, 9, pixels);
        __syncthreads();
        run_layer<RConv3, 1, 2, 4>(pixels, weights2 + RConv2::bytes, 3, 3,
                                   lane->features[0] + (size_t)n * R_FEATURES);
        __syncthreads();
    }
}

/* O-Net's convolutions; the first in two bands of rows, so that all fits into 48 KB. */
KERNEL_BESIDE(256, 2) onet_features(const Lane *lane)
{
    __shared__ uint2 first[10 * 10 * 16]; /* 27 rows of pixels, or what the second layer gives */
    __shared__ uint2 second[23 * 23 * 8]; /* what the first layer gives, later the third */
    __shared__ Taps taps[2 * 48];
    uint16_t *pixels = (uint16_t *)first, *pooled = (uint16_t *)second;
    const uint8_t *weights = lane->weights[2], *weights2 = weights + OConv1::bytes;
    const uint8_t *weights3 = weights2 + OConv2::bytes, *weights4 = weights3 + OConv3::bytes;
    int count = smaller(lane->counters->squares[1], lane->capacity);
    for (int n = blockIdx.x; n < count; n += gridDim.x) {
        Cut cut = plan_cut(lane->frame, lane->squares[1] + n, 48, taps);
        __syncthreads();
        load_crop(cut, taps, 48, 0, 27, pixels);
        __syncthreads();
        run_layer<OConv1, 2, 2, 8>(pixels, weights, 12, 25, pooled);
        __syncthreads();
        load_crop(cut, taps, 48, 24, 24, pixels);
        __syncthreads();
        run_layer<OConv1, 2, 2, 8>(pixels, weights, 11, 22, pooled + 12 * 23 * 32);
        __syncthreads();
        run_layer<OConv2, 2, 2, 8>(pooled, weights2, 10, 21, pixels);
        __syncthreads();
        run_layer<OConv3, 1, 1, 8>(pixels, weights3, 4, 8, pooled);
        __syncthreads();
        run_layer<OConv4, 1, 2, 8>(pooled, weights4, 3, 3, lane->features[1] + (size_t)n * O_FEATURES);
        __syncthreads();
    }
}

/* A dense layer with PReLU, then heads in floats, for 16 crops: FEATURES to HIDDEN to OUTPUTS. A warp has
 * HIDDEN / 4 neurons. Weights as of a convolution with one position; heads [HIDDEN][OUTPUTS], bias. */
template <int FEATURES, int HIDDEN, int OUTPUTS>
FN void run_dense(const Lane *lane, int stage, const uint8_t *weights, float *hidden, float *outputs)
{
    typedef Layer_<FEATURES, FEATURES, 1, 1, FEATURES / 16, 1, 1, 1, 1, HIDDEN / 8> Dense;
    const float *heads = (const float *)(weights + Dense::bytes), *bias = heads + HIDDEN * OUTPUTS;
    int count = smaller(lane->counters->squares[stage], lane->capacity);
    int warp = threadIdx.x / WARP, lane_id = threadIdx.x % WARP;
    for (int begin = blockIdx.x * 16; begin < count; begin += gridDim.x * 16) {
#pragma unroll 1
        for (int group = 0; group < HIDDEN / 32; group += 4) {
            int first = warp * (HIDDEN / 32) + group;
            float values[1][4][4];
            compute_plain<Dense, 1, 4>(lane->features[stage], weights, begin, first, count, values);
#pragma unroll
            for (int n = 0; n < 4; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    hidden[(i / 2 * 8 + lane_id / 4) * HIDDEN + (first + n) * 8 + lane_id % 4 * 2 + i % 2] =
                        values[0][n][i];
        }
        __syncthreads();
        for (int at = threadIdx.x; at < 16 * OUTPUTS; at += blockDim.x) {
            int crop = at / OUTPUTS, output = at % OUTPUTS;
            float sum = __ldg(bias + output);
            for (int k = 0; k < HIDDEN; k++)
                sum += hidden[crop * HIDDEN + k] * __ldg(heads + k * OUTPUTS + output);
            outputs[at] = sum;
        }
        __syncthreads();
        if (threadIdx.x < 16 && begin + (int)threadIdx.x < count)
            judge(lane, stage + 1, begin + threadIdx.x, outputs + threadIdx.x * OUTPUTS);
        __syncthreads();
    }
}

/* 150 KB of weights a block, from the cache. */
KERNEL(128) rnet_dense(const Lane *lane)
{
    __shared__ float hidden[16 * 128];
    __shared__ float outputs[16 * 5];
    run_dense<R_FEATURES, 128, 5>(lane, 0, lane->weights[1] + CONV_BYTES_R, hidden, outputs);
}

/* 600 KB of weights a block, from the cache. */
KERNEL(128) onet_dense(const Lane *lane)
{
    __shared__ float hidden[16 * 256];
    __shared__ float outputs[16 * 15];
    run_dense<O_FEATURES, 256, 15>(lane, 1, lane->weights[2] + CONV_BYTES_O, hidden, outputs);
}
