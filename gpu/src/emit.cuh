/* Appending to lists whose length only the device knows. Counts go on beyond what fits, so that the host
 * learns how much room was needed; nothing is dropped unsaid. */
#pragma once
#include "tables.cuh"

FN void append_hit(const Lane *lane, const Hit &hit)
{
    int place = atomicAdd(&lane->counters->hits, 1);
    if (place < lane->hit_capacity)
        lane->hits[place] = hit;
}

FN int tile_columns(const Tile *tile) { return (tile->width - P_NET) / P_STRIDE + 1; }
FN int tile_rows(const Tile *tile) { return (tile->height - P_NET) / P_STRIDE + 1; }

/* What P-Net says of a cell of a tile, logit and four offsets: the logit into the map, and a hit where it
 * is above the threshold. */
FN void keep_cell_of(const Lane *lane, const Tile *tile, int x, int y, const float *outputs)
{
    const Level *level = lane->levels + tile->level;
    int row = tile->y / P_STRIDE + y, column = tile->x / P_STRIDE + x;
    lane->logits[level->first_cell + row * level->columns + column] = outputs[0];
    bool invalid = false;
    for (int n = 0; n < 5; n++)
        invalid |= !is_number(outputs[n]);
    if (invalid)
        atomicAdd(&lane->counters->invalid, 1);
    if (outputs[0] >= lane->frame->least[0]) {
        Hit hit = {tile->level, row, column, outputs[0],
                   {outputs[1], outputs[2], outputs[3], outputs[4]}};
        append_hit(lane, hit);
    }
}

/* A square for R-Net (stage 0) or O-Net (1); one of less than a pixel is nothing to look at. */
FN void append_square(const Lane *lane, int stage, float x1, float y1, float x2, float y2, int key)
{
    float width = x2 - x1, height = y2 - y1, side = fmaxf(width, height);
    if (!(side >= 1))
        return;
    int place = atomicAdd(&lane->counters->squares[stage], 1);
    if (place < lane->capacity) {
        Square square = {x1 + (width - side) / 2, y1 + (height - side) / 2, side, key};
        lane->squares[stage][place] = square;
    }
}

FN int append_candidate(const Lane *lane, int stage, const Candidate &candidate)
{
    int place = atomicAdd(&lane->counters->candidates[stage], 1);
    if (place < lane->capacity)
        lane->candidates[stage][place] = candidate;
    return place;
}

FN void regress(const float *box, const float *offsets, float (&moved)[4])
{
    float width = box[2] - box[0], height = box[3] - box[1];
    for (int n = 0; n < 4; n++)
        moved[n] = box[n] + offsets[n] * (n & 1 ? height : width);
}

/* What R-Net (network 1) or O-Net (2) says of square `index`: logit, four offsets, ten landmarks. */
FN void judge(const Lane *lane, int network, int index, const float *outputs)
{
    int count = network == 1 ? 5 : 15;
    bool invalid = false;
    for (int n = 0; n < count; n++)
        invalid |= !is_number(outputs[n]);
    if (invalid)
        atomicAdd(&lane->counters->invalid, 1);
    if (!(outputs[0] > lane->frame->least[network]))
        return;
    const Square *square = lane->squares[network - 1] + index;
    float side = square->side, shift = side * (lane->frame->crop_offset / (network == 1 ? 24 : 48));
    float x = square->x - shift, y = square->y - shift;
    Candidate found = {{x, y, x + side, y + side},
                       {outputs[1], outputs[2], outputs[3], outputs[4]}, outputs[0], square->key};
    if (network == 2) {
        float moved[4];
        regress(found.box, found.offsets, moved);
        for (int n = 0; n < 4; n++)
            found.box[n] = moved[n];
    }
    int place = append_candidate(lane, network, found);
    if (network == 2 && place < lane->capacity)
        for (int n = 0; n < 10; n++)
            lane->landmarks[place * 10 + n] = (n < 5 ? x : y) + outputs[5 + n] * side;
}
