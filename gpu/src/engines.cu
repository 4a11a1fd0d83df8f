/* Around engines that compute a network themselves, such as TensorRT's: what they take and what they
 * give, in fixed batches, since the host does not know the counts. */
#include "emit.cuh"
#include "resample.cuh"

#define PAGE 256                                     /* pixels a side; engines take pages of a pyramid */
#define PAGE_CELLS ((PAGE - P_NET) / P_STRIDE + 1)

/* P-Net's answers for pages: outputs[0] logits [page][cells][cells], outputs[1] boxes [...][4]. */
KERNEL(256) collect_cells(const Lane *lane)
{
    for (int n = blockIdx.x; n < lane->frame->patches; n += gridDim.x) {
        const Patch *patch = lane->patches + n;
        const Tile *tile = lane->tiles + patch->tile;
        int page = tile->offset / (PAGE * PAGE), page_y = tile->offset / PAGE % PAGE;
        int page_x = tile->offset % PAGE;
        for (int at = threadIdx.x; at < PATCH_W * PATCH_H; at += blockDim.x) {
            int column = patch->column + at % PATCH_W, row = patch->row + at / PATCH_W;
            if (column >= tile_columns(tile) || row >= tile_rows(tile))
                continue;
            size_t cell = ((size_t)page * PAGE_CELLS + page_y / P_STRIDE + row) * PAGE_CELLS +
                          page_x / P_STRIDE + column;
            const float *box = lane->outputs[1] + cell * 4;
            float outputs[5] = {lane->outputs[0][cell], box[0], box[1], box[2], box[3]};
            keep_cell_of(lane, tile, column, row, outputs);
        }
    }
}

/* The crops of R-Net (stage 0) or O-Net (1), RGB bytes [n][size][size][3]; a block a crop. */
KERNEL(256) cut_crops(const Lane *lane, int stage)
{
    __shared__ Taps taps[2 * 48];
    int size = stage == 0 ? 24 : 48;
    int count = smaller(lane->counters->squares[stage], lane->capacity);
    for (int n = blockIdx.x; n < count; n += gridDim.x) {
        Cut cut = plan_cut(lane->frame, lane->squares[stage] + n, size, taps);
        __syncthreads();
        for (int at = threadIdx.x; at < size * size; at += blockDim.x) {
            uint32_t pixel[3];
            cut_pixel(cut, taps, size, at % size, at / size, pixel);
            for (int c = 0; c < 3; c++)
                lane->crops[((size_t)n * size * size + at) * 3 + c] = (uint8_t)pixel[c];
        }
        __syncthreads();
    }
}

/* The answers of R-Net (stage 0) or O-Net (1): outputs[0] logits [n], outputs[1] boxes [n][4], outputs[2]
 * landmarks [n][10]. */
KERNEL(256) judge_crops(const Lane *lane, int stage)
{
    int count = smaller(lane->counters->squares[stage], lane->capacity);
    for (int n = blockIdx.x * blockDim.x + threadIdx.x; n < count; n += gridDim.x * blockDim.x) {
        float outputs[15];
        outputs[0] = lane->outputs[0][n];
        for (int i = 0; i < 4; i++)
            outputs[1 + i] = lane->outputs[1][n * 4 + i];
        if (stage == 1)
            for (int i = 0; i < 10; i++)
                outputs[5 + i] = lane->outputs[2][n * 10 + i];
        judge(lane, stage + 1, n, outputs);
    }
}
