/* Greedy non-maximum suppression without pairs in memory.
 *
 * Boxes are sorted by octave of their width and, within it, by left edge. A kept box then meets only
 * boxes of an octave that begin within that octave's greatest width left of it. */
#include "kernels.h"

#include <math.h>
#include <stdlib.h>

typedef struct {
    double x1, y1, x2, y2, area;
    int32_t octave, rank;
} box;

static int by_octave_and_left(const void *a, const void *b)
{
    const box *p = a, *q = b;
    if (p->octave != q->octave)
        return p->octave < q->octave ? -1 : 1;
    return p->x1 < q->x1 ? -1 : p->x1 > q->x1;
}

static int octave_of(double width)
{
    return width > 1 ? (int)floor(log2(width)) : 0;
}

/* The first of boxes [begin, end) whose left edge is at least `left`. */
static int64_t lower_bound(const box *boxes, int64_t begin, int64_t end, double left)
{
    while (begin < end) {
        int64_t middle = begin + (end - begin) / 2;
        if (boxes[middle].x1 < left)
            begin = middle + 1;
        else
            end = middle;
    }
    return begin;
}

/* Intersection over union, or over the smaller area; 0 where both are empty. */
static double overlap(const box *a, const box *b, int over_smaller)
{
    double width = fmin(a->x2, b->x2) - fmax(a->x1, b->x1);
    double height = fmin(a->y2, b->y2) - fmax(a->y1, b->y1);
    double common = fmax(width, 0) * fmax(height, 0);
    double whole = over_smaller ? fmin(a->area, b->area) : a->area + b->area - common;
    return whole > 0 ? common / whole : 0;
}

/* Marks in `gone` what `keeper` overlaps by more than `threshold` among boxes of one octave. */
static void remove_rivals(const box *boxes, int64_t begin, int64_t end, const box *keeper,
                          double threshold, int over_smaller, uint8_t *gone)
{
    double widest = ldexp(1, boxes[begin].octave + 1);
    for (int64_t at = lower_bound(boxes, begin, end, keeper->x1 - widest);
         at < end && boxes[at].x1 < keeper->x2; at++) {
        const box *rival = boxes + at;
        if (rival->y1 < keeper->y2 && rival->y2 > keeper->y1 && rival->rank > keeper->rank &&
            overlap(keeper, rival, over_smaller) > threshold)
            gone[rival->rank] = 1;
    }
}

/* Boxes `x1 y1 x2 y2` [count][4], best first: writes which greedy suppression keeps, in order, and
 * returns how many. */
EXPORT int64_t unface_suppress(const double *edges, int64_t count, double threshold,
                        int32_t over_smaller, int64_t *kept)
{
    box *boxes = malloc((count + 1) * sizeof *boxes);
    int64_t *place = malloc((count + 1) * sizeof *place); /* by rank, in `boxes` */
    uint8_t *gone = calloc(count + 1, 1);
    int64_t result = 0, ends[64], octaves = 0;
    if (!boxes || !place || !gone)
        result = NO_MEMORY;
    for (int64_t n = 0; n < count && !result; n++) {
        const double *e = edges + 4 * n;
        double area = (e[2] - e[0]) * (e[3] - e[1]);
        int octave = octave_of(e[2] - e[0]);
        boxes[n] = (box){e[0], e[1], e[2], e[3], area, octave > 31 ? 31 : octave, (int32_t)n};
    }
    if (!result) {
        qsort(boxes, count, sizeof *boxes, by_octave_and_left);
        for (int64_t at = 0; at < count; at++) {
            place[boxes[at].rank] = at;
            if (at + 1 == count || boxes[at + 1].octave != boxes[at].octave)
                ends[octaves++] = at + 1;
        }
        for (int64_t n = 0; n < count; n++) {
            if (gone[n])
                continue;
            kept[result++] = n;
            for (int64_t octave = 0, begin = 0; octave < octaves; begin = ends[octave++])
                remove_rivals(boxes, begin, ends[octave], boxes + place[n], threshold,
                              over_smaller, gone);
        }
    }
    free(boxes);
    free(place);
    free(gone);
    return result;
}
