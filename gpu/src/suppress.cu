/* Greedy non-maximum suppression without sorting.
 *
 * What greedy suppression keeps is fixed by the scores alone: a candidate is kept when every better one
 * that overlaps it too much is suppressed, and suppressed when one of those is kept. So each round settles
 * whatever it can and rounds go on until all is settled; the best of what is left always can be. Of equal
 * logits the one with the lower key, the cell it comes from, is better. */
#include "emit.cuh"

FN bool is_better(float logit, int key, float other_logit, int other_key)
{
    return logit > other_logit || (logit == other_logit && key < other_key);
}

/* -1: suppressed, 1: kept, 0: it waits for better ones, of the eight cells around. Boxes of a level are
 * equal squares 12 pixels wide and 2 apart: only those around overlap by more than half. */
FN int settle_cell(const Lane *lane, const Level *level, const Hit *hit, int key)
{
    int waits = 0;
    for (int n = 0; n < 9; n++) {
        int row = hit->row + n / 3 - 1, column = hit->column + n % 3 - 1;
        if (n == 4 || row < 0 || column < 0 || row >= level->rows || column >= level->columns)
            continue;
        int other = level->first_cell + row * level->columns + column;
        float logit = *(volatile float *)(lane->logits + other);
        if (logit == INFINITE)
            return -1;
        waits |= logit >= lane->frame->least[0] && is_better(logit, other, hit->logit, key);
    }
    return waits ? 0 : 1;
}

/* A kept cell: its 12 x 12 pixels in the image, moved, for R-Net; or for suppression across levels. */
FN void keep_cell(const Lane *lane, const Level *level, const Hit *hit, int key, bool across_levels)
{
    float x = hit->column * P_STRIDE, y = hit->row * P_STRIDE;
    Candidate cell = {{x * level->step_x, y * level->step_y, (x + P_NET) * level->step_x,
                       (y + P_NET) * level->step_y},
                      {hit->box[0], hit->box[1], hit->box[2], hit->box[3]}, hit->logit, key};
    if (across_levels) {
        append_candidate(lane, 0, cell);
        return;
    }
    float moved[4];
    regress(cell.box, cell.offsets, moved);
    append_square(lane, 0, moved[0], moved[1], moved[2], moved[3], key);
}

/* Suppression within levels, overlap above 0.5. A block a level; reads 36 bytes a neighbour and round. */
KERNEL(512) suppress_cells(const Lane *lane, int across_levels)
{
    int count = lane->counters->hits;
    if (count > lane->hit_capacity) /* cells without a place never settle; others would wait for them */
        return;
    for (int index = blockIdx.x; index < lane->frame->levels; index += gridDim.x) {
        const Level *level = lane->levels + index;
        int unsettled = 1;
        while (unsettled) {
            unsettled = 0;
            for (int n = threadIdx.x; n < count; n += blockDim.x) {
                const Hit *hit = lane->hits + n;
                if (hit->level != index)
                    continue;
                int key = level->first_cell + hit->row * level->columns + hit->column;
                volatile float *state = lane->logits + key;
                if (*state == INFINITE || *state == -INFINITE)
                    continue;
                int settled = settle_cell(lane, level, hit, key);
                if (settled)
                    *state = settled * INFINITE;
                else
                    unsettled = 1;
                if (settled > 0)
                    keep_cell(lane, level, hit, key, across_levels);
            }
            unsettled = __syncthreads_or(unsettled);
        }
    }
}

/* Intersection over union, or over the smaller area; 0 where both are empty. */
FN float overlap(const float *a, const float *b, bool over_smaller)
{
    float width = fminf(a[2], b[2]) - fmaxf(a[0], b[0]), height = fminf(a[3], b[3]) - fmaxf(a[1], b[1]);
    float common = fmaxf(width, 0) * fmaxf(height, 0);
    float area_a = (a[2] - a[0]) * (a[3] - a[1]), area_b = (b[2] - b[0]) * (b[3] - b[1]);
    float whole = over_smaller ? fminf(area_a, area_b) : area_a + area_b - common;
    return whole > 0 ? common / whole : 0;
}

/* For every candidate the bits of those that may suppress it: better, and overlapping by more than 0.7.
 * A thread makes a word of 32. */
KERNEL(256) find_rivals(const Lane *lane, int stage)
{
    const Candidate *candidates = lane->candidates[stage];
    int count = smaller(lane->counters->candidates[stage], lane->capacity), words = (count + 31) / 32;
    for (long long n = blockIdx.x * blockDim.x + threadIdx.x; n < (long long)words * count;
         n += gridDim.x * blockDim.x) {
        int index = n % count, word = n / count;
        const Candidate *mine = candidates + index;
        uint32_t bits = 0;
        for (int other = word * 32; other < smaller(word * 32 + 32, count); other++) {
            const Candidate *rival = candidates + other;
            if (is_better(rival->logit, rival->key, mine->logit, mine->key) &&
                overlap(mine->box, rival->box, stage == 2) > 0.7f)
                bits |= 1u << other % 32;
        }
        lane->rivals[(size_t)word * lane->capacity + index] = bits;
    }
}

/* A kept candidate: the next network's square, or a face. */
FN void keep_candidate(const Lane *lane, int stage, int index)
{
    const Candidate *kept = lane->candidates[stage] + index;
    if (stage < 2) {
        float moved[4];
        regress(kept->box, kept->offsets, moved);
        append_square(lane, stage, moved[0], moved[1], moved[2], moved[3], kept->key);
        return;
    }
    Face *face = lane->faces + atomicAdd(&lane->counters->faces, 1); /* no more than candidates fit */
    for (int n = 0; n < 4; n++)
        face->box[n] = kept->box[n];
    for (int n = 0; n < 10; n++)
        face->landmarks[n] = lane->landmarks[index * 10 + n];
    face->logit = kept->logit;
    face->key = kept->key;
}

/* Which candidates survive, by one block. Each round first reads, then writes. */
KERNEL(1024) settle_rivals(const Lane *lane, int stage)
{
    __shared__ uint32_t kept[MOST_CANDIDATES / 32];
    __shared__ uint32_t gone[MOST_CANDIDATES / 32];
    int count = smaller(lane->counters->candidates[stage], lane->capacity), words = (count + 31) / 32;
    for (int n = threadIdx.x; n < words; n += blockDim.x)
        kept[n] = gone[n] = 0;
    __syncthreads();
    int unsettled = 1;
    while (unsettled) {
        uint64_t wins = 0, losses = 0, bit = 1; /* of this thread's candidates, 64 at most */
        unsettled = 0;
        for (int n = threadIdx.x; n < count; n += blockDim.x, bit <<= 1) {
            if ((kept[n / 32] | gone[n / 32]) >> n % 32 & 1)
                continue;
            bool waits = false, loses = false;
            for (int word = 0; word < words && !loses; word++) {
                uint32_t rivals = lane->rivals[(size_t)word * lane->capacity + n];
                loses = (rivals & kept[word]) != 0;
                waits |= (rivals & ~gone[word]) != 0;
            }
            if (loses)
                losses |= bit;
            else if (!waits)
                wins |= bit;
            else
                unsettled = 1;
        }
        __syncthreads();
        for (int n = threadIdx.x; wins | losses; n += blockDim.x, wins >>= 1, losses >>= 1) {
            if (wins & 1)
                atomicOr(kept + n / 32, 1u << n % 32);
            if (losses & 1)
                atomicOr(gone + n / 32, 1u << n % 32);
        }
        unsettled = __syncthreads_or(unsettled);
    }
    for (int n = threadIdx.x; n < count; n += blockDim.x)
        if (kept[n / 32] >> n % 32 & 1)
            keep_candidate(lane, stage, n);
}
