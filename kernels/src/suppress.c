/* Greedy non-maximum suppression without pairs in memory.
 *
 * Boxes are sorted by octave of their longer side, then by bands of y as high as the octave's
 * longest side, then by left edge: a kept box meets only the few bands and the run of left edges in
 * which a box can lie that overlaps it. */
#include "kernels.h"

#include <math.h>
#include <stdlib.h>

#define OCTAVES 32
#define FAR 1e18 /* bands */

typedef struct {
    double x1, y1, x2, y2, area;
    int64_t band;
    int32_t octave, rank;
} box;

static int by_place(const void *a, const void *b)
{
    const box *p = a, *q = b;
    if (p->octave != q->octave)
        return p->octave < q->octave ? -1 : 1;
    if (p->band != q->band)
        return p->band < q->band ? -1 : 1;
    return p->x1 < q->x1 ? -1 : p->x1 > q->x1;
}

static int octave_of(double side)
{
    int octave = side > 1 ? ilogb(side) : 0; /* of infinity INT_MAX, of NaN 0 */
    return octave < OCTAVES ? octave : OCTAVES - 1;
}

/* All boxes of an octave are at most so long; the last one holds all that are longer. */
static double longest(int octave)
{
    return octave < OCTAVES - 1 ? ldexp(1, octave + 1) : INFINITY;
}

static int64_t band_of(double y, int octave)
{
    double band = octave < OCTAVES - 1 ? floor(ldexp(y, -octave - 1)) : 0;
    return (int64_t)fmax(-FAR, fmin(band, FAR)); /* and not more than an integer holds */
}

/* The first of boxes [begin, end), of one octave, not before a band and a left edge. */
static int64_t lower_bound(const box *boxes, int64_t begin, int64_t end, int64_t band, double left)
{
    while (begin < end) {
        int64_t middle = begin + (end - begin) / 2;
        const box *b = boxes + middle;
        if (b->band < band || (b->band == band && b->x1 < left))
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
    int octave = boxes[begin].octave;
    double side = longest(octave), left = keeper->x1 - side;
    int64_t last = band_of(keeper->y2, octave);
    for (int64_t band = band_of(keeper->y1 - side, octave); band <= last; band++) {
        int64_t at = lower_bound(boxes, begin, end, band, left);
        if (at == end)
            return;
        if (boxes[at].band > band) { /* nothing there: on to the next band that has boxes */
            band = boxes[at].band - 1;
            continue;
        }
        for (; at < end && boxes[at].band == band && boxes[at].x1 < keeper->x2; at++) {
            const box *rival = boxes + at;
            if (rival->rank > keeper->rank && rival->y1 < keeper->y2 &&
                overlap(keeper, rival, over_smaller) > threshold)
                gone[rival->rank] = 1;
        }
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
    int64_t result = 0, ends[OCTAVES];
    int octaves = 0;
    if (!boxes || !place || !gone)
        result = NO_MEMORY;
    for (int64_t n = 0; n < count && !result; n++) {
        const double *e = edges + 4 * n;
        int octave = octave_of(fmax(e[2] - e[0], e[3] - e[1]));
        boxes[n] = (box){e[0],   e[1], e[2], e[3], (e[2] - e[0]) * (e[3] - e[1]), band_of(e[1], octave),
                         octave, (int32_t)n};
    }
    if (!result) {
        qsort(boxes, count, sizeof *boxes, by_place);
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
