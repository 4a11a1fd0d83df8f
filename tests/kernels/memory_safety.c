/* Runs the compiled core on memory that is exactly as large as it may touch; built with sanitizers by
 * test_memory_safety.py. Arguments: the instruction sets to run, by name. Says "done" at the end. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"

int32_t unface_resize(const picture *source, uint8_t *resized, int32_t width, int32_t height,
                      int32_t first_row, int32_t rows);
int32_t unface_crops(const picture *pictures, const cut *cuts, int32_t count, int32_t size,
                     uint8_t *crops);
int64_t unface_suppress(const double *edges, int64_t count, double threshold, int32_t over_smaller,
                        int64_t *kept);

#define CORES (int)(sizeof ALL_CORES / sizeof *ALL_CORES)

#define CHECK(truth)                                                                               \
    do {                                                                                           \
        if (!(truth)) {                                                                            \
            fprintf(stderr, "line %d: not %s\n", __LINE__, #truth);                                \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* ---- memory that runs out (the linker sends every malloc and calloc here) ---------------------- */

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);

static int64_t allowed = -1; /* allocations until one fails; -1: none fails */

static int fails(void)
{
    if (allowed > 0)
        allowed--;
    return allowed == 0;
}

void *__wrap_malloc(size_t size) { return fails() ? NULL : __real_malloc(size); }
void *__wrap_calloc(size_t count, size_t size) { return fails() ? NULL : __real_calloc(count, size); }

static void *room(size_t size)
{
    void *memory = __real_malloc(size ? size : 1);
    CHECK(memory);
    return memory;
}

/* ---- chance ---------------------------------------------------------------------------------- */

static uint64_t state = 88172645463325252u;

static uint32_t chance(uint32_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 33) % below;
}

static double between(double low, double high) { return low + (high - low) * chance(1 << 30) / (1 << 30); }

static picture new_picture(int width, int height)
{
    size_t size = (size_t)3 * width * height;
    uint8_t *pixels = room(size);
    for (size_t n = 0; n < size; n++)
        pixels[n] = (uint8_t)chance(256);
    return (picture){pixels, width, height};
}

static void drop(picture p) { free((void *)p.pixels); }

/* ---- networks -------------------------------------------------------------------------------- */

static float *new_floats(int count, double low, double high)
{
    float *values = room(count * sizeof *values);
    for (int n = 0; n < count; n++)
        values[n] = (float)between(low, high);
    return values;
}

static layer new_layer(int is_float, int channels, int out, int kernel, int pool, int stride, int ceil)
{
    int vectors = is_float ? channels : (channels + 3) / 4, padded = (out + 3) / 4 * 4;
    int count = kernel * kernel * vectors * padded;
    int32_t *weights = room(count * sizeof *weights), *start = room(padded * sizeof *start);
    for (int n = 0; n < count; n++) {
        float value = (float)between(-0.1, 0.1);
        weights[n] = (int32_t)chance(1u << 31);
        if (is_float)
            memcpy(weights + n, &value, sizeof value);
    }
    for (int n = 0; n < padded; n++)
        start[n] = is_float ? 0 : (int32_t)chance(20000) - 10000;
    double factor = is_float ? 1 : 1e-3;
    return (layer){vectors, padded, kernel, pool, stride, ceil, weights, start,
                   new_floats(padded, factor, factor), new_floats(padded, -1, 1),
                   new_floats(padded, -2, 2), (float)chance(256) - 128};
}

static void drop_layer(layer l)
{
    free((void *)l.weights);
    free((void *)l.start);
    free((void *)l.factor);
    free((void *)l.bias);
    free((void *)l.slope);
}

static pnet new_pnet(int is_float)
{
    return (pnet){new_layer(is_float, 3, 10, 3, 2, 2, 0), new_layer(is_float, 10, 16, 3, 0, 0, 0),
                  new_layer(is_float, 16, 32, 3, 0, 0, 0), new_layer(is_float, 32, 5, 1, 0, 0, 0)};
}

static void drop_pnet(pnet p)
{
    drop_layer(p.conv1);
    drop_layer(p.conv2);
    drop_layer(p.conv3);
    drop_layer(p.heads);
}

/* R-Net, or O-Net: Zhang et al. 2016, fig. 2. */
static network new_network(int is_float, int is_onet)
{
    layer *l = room(5 * sizeof *l);
    head *h = room(sizeof *h);
    int channels = is_onet ? 256 : 128, out = is_onet ? 15 : 5;
    if (is_onet) {
        l[0] = new_layer(is_float, 3, 32, 3, 3, 2, 1);
        l[1] = new_layer(is_float, 32, 64, 3, 3, 2, 0);
        l[2] = new_layer(is_float, 64, 64, 3, 2, 2, 0);
        l[3] = new_layer(is_float, 64, 128, 2, 0, 0, 0);
        l[4] = new_layer(is_float, 128, 256, 3, 0, 0, 0);
    } else {
        l[0] = new_layer(is_float, 3, 28, 3, 3, 2, 1);
        l[1] = new_layer(is_float, 28, 48, 3, 3, 2, 0);
        l[2] = new_layer(is_float, 48, 64, 2, 0, 0, 0);
        l[3] = new_layer(is_float, 64, 128, 3, 0, 0, 0);
    }
    *h = (head){channels, out, new_floats(channels * out, -1, 1), new_floats(out, -1, 1)};
    return (network){is_onet ? 48 : 24, is_onet ? 5 : 4, l, h};
}

static void drop_network(network net)
{
    for (int n = 0; n < net.layers; n++)
        drop_layer(net.layer[n]);
    free((void *)net.head->weights);
    free((void *)net.head->bias);
    free((void *)net.head);
    free((void *)net.layer);
}

typedef struct {
    const char *name;
    int is_float;
    int64_t (*scan)(const pnet *, const picture *, int32_t, int32_t, int32_t, int32_t, float, hit *);
    int32_t (*classify)(const network *, const picture *, const cut *, int32_t, float *);
} core;

static const core ALL_CORES[] = {
    {"avx2", 0, scan_int8_avx2, classify_int8_avx2},
    {"avx2", 1, scan_float_avx2, classify_float_avx2},
#if HAS_AVXVNNI
    {"avxvnni", 0, scan_int8_avxvnni, classify_int8_avxvnni},
#endif
    {"avx512", 0, scan_int8_avx512, classify_int8_avx512},
    {"avx512", 1, scan_float_avx512, classify_float_avx512},
};

/* ---- what is run ----------------------------------------------------------------------------- */

static void scan_once(const core *c, const pnet *net, picture source, int width, int height,
                      int first, int rows)
{
    int64_t most = (int64_t)rows * ((width - 12) / 2 + 1);
    hit *hits = room(most * sizeof *hits);
    CHECK(c->scan(net, &source, width, height, first, rows, -INFINITY, hits) == most);
    CHECK(c->scan(net, &source, width, height, first, rows, INFINITY, hits) == 0);
    free(hits);
}

static void scan_all(const core *c)
{
    pnet net = new_pnet(c->is_float);
    for (int width = 12; width < 90; width++) {
        int height = 12 + (int)chance(12), rows = (height - 12) / 2 + 1;
        int source_width = width + (int)chance(2 * width + 1);
        picture source = new_picture(chance(3) ? source_width : width, height + (int)chance(2 * height + 1));
        int first = (int)chance(rows);
        scan_once(c, &net, source, width, height, first, 1 + (int)chance(rows - first));
        scan_once(c, &net, source, width, height, rows, 0);
        drop(source);
    }
    picture wide = new_picture(60001, 13);
    scan_once(c, &net, wide, 60001, 13, 0, 1);
    scan_once(c, &net, wide, 20001, 13, 0, 1);
    drop(wide);
    drop_pnet(net);
}

static cut any_cut(int size, const picture *pictures, int count)
{
    int at = (int)chance(count), kind = (int)chance(4);
    double most = 3.9 * size, width = between(0.01, most), height = chance(2) ? width : between(0.01, most);
    double x = between(-width - 3, pictures[at].width + 3), y = between(-height - 3, pictures[at].height + 3);
    if (kind == 0) { /* whole pixels, the largest size */
        x = floor(x), y = floor(y), width = height = most;
    } else if (kind == 1 && chance(4) == 0) { /* far away */
        x = (chance(2) ? 1 : -1) * between(1e5, 1e9 - 1), y = (chance(2) ? 1 : -1) * between(0, 1e9 - 1);
    } else if (kind == 2) { /* at the very edge */
        x = pictures[at].width - width, y = pictures[at].height - height;
    }
    return (cut){x, y, width, height, at};
}

static cut *any_cuts(int size, const picture *pictures, int pictures_count, int count)
{
    cut *cuts = room(count * sizeof *cuts);
    for (int n = 0; n < count; n++)
        cuts[n] = any_cut(size, pictures, pictures_count);
    return cuts;
}

static void some_pictures(picture *pictures)
{
    pictures[0] = new_picture(1, 1);
    pictures[1] = new_picture(5, 200);
    pictures[2] = new_picture(300, 4);
    pictures[3] = new_picture(60 + (int)chance(40), 60 + (int)chance(40));
}

static void classify_all(const core *c)
{
    for (int is_onet = 0; is_onet < 2; is_onet++) {
        network net = new_network(c->is_float, is_onet);
        picture pictures[4], crops[33];
        some_pictures(pictures);
        for (int n = 0; n < 33; n++)
            crops[n] = new_picture(net.size, net.size);
        for (int count = 0; count < 34; count += is_onet ? 11 : 3) {
            float *outputs = room((size_t)count * net.head->out * sizeof *outputs);
            cut *cuts = any_cuts(net.size, pictures, 4, count);
            CHECK(c->classify(&net, pictures, cuts, count, outputs) == 0);
            CHECK(c->classify(&net, crops, NULL, count, outputs) == 0);
            for (int n = 0; n < count * net.head->out; n++)
                CHECK(isfinite(outputs[n]));
            free(cuts);
            free(outputs);
        }
        for (int n = 0; n < 4; n++)
            drop(pictures[n]);
        for (int n = 0; n < 33; n++)
            drop(crops[n]);
        drop_network(net);
    }
}

static void resize_rows(picture source, int width, int height, int first, int rows)
{
    size_t row = (size_t)3 * width;
    uint8_t *resized = room(rows * row);
    /* Where row 0 would begin: never touched, and so it need not be there. */
    uint8_t *origin = (uint8_t *)((uintptr_t)resized - first * row);
    CHECK(unface_resize(&source, origin, width, height, first, rows) == 0);
    free(resized);
}

static void resize_all(void)
{
    for (int round = 0; round < 3000; round++) {
        int width = 1 + (int)chance(40), height = 1 + (int)chance(20);
        picture source = new_picture(width + (int)chance(2 * width + 1), height + (int)chance(2 * height + 1));
        int first = (int)chance(height);
        resize_rows(source, width, height, 0, height);
        resize_rows(source, source.width, source.height, 0, source.height);
        resize_rows(source, width, height, first, (int)chance(height - first + 1));
        drop(source);
    }
    picture wide = new_picture(65535, 3);
    resize_rows(wide, 65535, 2, 0, 2);
    resize_rows(wide, 65534, 1, 0, 1);
    resize_rows(wide, 32768, 2, 0, 2);
    drop(wide);
}

static void crop_all(void)
{
    picture pictures[4];
    for (int round = 0; round < 300; round++) {
        int size = round % 50 + 1, count = (int)chance(6);
        some_pictures(pictures);
        cut *cuts = any_cuts(size, pictures, 4, count);
        uint8_t *crops = room((size_t)3 * size * size * count);
        CHECK(unface_crops(pictures, cuts, count, size, crops) == 0);
        free(crops);
        free(cuts);
        for (int n = 0; n < 4; n++)
            drop(pictures[n]);
    }
}

/* The last rows of pictures beyond 2 ^ 31 bytes; the others are never touched, and take no memory. */
static void huge(const core *cores, int count)
{
    int width = 30000, height = 30000;
    size_t size = (size_t)3 * width * height;
    uint8_t *pixels = room(size);
    memset(pixels + size - (size_t)width * 3 * 400, 100, (size_t)width * 3 * 400);
    picture source = {pixels, width, height};
    resize_rows(source, width / 2, height / 2, height / 2 - 3, 3);
    resize_rows(source, width, height, height - 3, 3);
    for (int n = 0; n < count; n++) {
        pnet net = new_pnet(cores[n].is_float);
        scan_once(cores + n, &net, source, 15000, 15000, 7494, 1);
        drop_pnet(net);
    }
    cut last = {width - 90.5, height - 90.25, 93, 93, 0};
    uint8_t *crop = room(3 * 24 * 24);
    CHECK(unface_crops(&source, &last, 1, 24, crop) == 0);
    CHECK(crop[0] == 100);
    free(crop);
    free(pixels);
}

static double any_edge(int kind)
{
    static const double ODD[] = {0, 1, 1e9, 2147483648.0, 9.3e18, 1e300, 1.7e308, INFINITY, NAN, 5e-324};
    double sign = chance(2) ? 1 : -1;
    return kind == 0 ? between(-50, 50) : kind == 1 ? chance(20) : sign * ODD[chance(10)];
}

static void suppress_all(void)
{
    for (int round = 0; round < 3000; round++) {
        int count = (int)chance(40), kind = (int)chance(4);
        double *edges = room(4 * count * sizeof *edges);
        int64_t *kept = room(count * sizeof *kept);
        for (int n = 0; n < 4 * count; n++)
            edges[n] = any_edge(kind == 3 ? (int)chance(3) : kind);
        for (int over_smaller = 0; over_smaller < 2; over_smaller++) {
            int64_t left = unface_suppress(edges, count, 0.1 * chance(10), over_smaller, kept);
            CHECK(left <= count && (count == 0 || (left > 0 && kept[0] == 0)));
        }
        free(edges);
        free(kept);
    }
}

/* Every function, with each of its allocations failing in turn. */
static void run_out_of_memory(const core *c)
{
    pnet p = new_pnet(c->is_float);
    network net = new_network(c->is_float, 0);
    picture source = new_picture(40, 30);
    cut cuts[3] = {{1, 2, 30, 30, 0}, {-4, 2, 60, 20, 0}, {10, 20, 3, 3, 0}};
    double edges[8] = {0, 0, 10, 10, 1, 1, 11, 11};
    int64_t kept[2];
    uint8_t *bytes = room(3 * 24 * 24 * 3);
    hit *hits = room(150 * sizeof *hits);
    float *outputs = room(3 * 5 * sizeof *outputs);
    int done = 0;
    for (int failing = 1; !done; failing++) {
        done = 1;
#define RUN_OUT(call)                                                                              \
    do {                                                                                           \
        allowed = failing;                                                                         \
        int64_t result = call;                                                                     \
        if (allowed == 0) {                                                                        \
            CHECK(result == NO_MEMORY);                                                            \
            done = 0;                                                                              \
        } else                                                                                     \
            CHECK(result >= 0);                                                                    \
        allowed = -1;                                                                              \
    } while (0)
        RUN_OUT(c->scan(&p, &source, 40, 30, 0, 10, 0, hits));
        RUN_OUT(c->classify(&net, &source, cuts, 3, outputs));
        RUN_OUT(unface_resize(&source, bytes, 20, 15, 0, 15));
        RUN_OUT(unface_crops(&source, cuts, 3, 24, bytes));
        RUN_OUT(unface_suppress(edges, 2, 0.5, 0, kept));
        CHECK(failing < 50);
    }
    free(bytes);
    free(hits);
    free(outputs);
    drop(source);
    drop_network(net);
    drop_pnet(p);
}

int main(int count, char **names)
{
    core wanted[CORES];
    int cores = 0;
    for (int c = 0; c < CORES; c++)
        for (int n = 1; n < count; n++)
            if (!strcmp(names[n], ALL_CORES[c].name)) {
                wanted[cores++] = ALL_CORES[c];
                break;
            }
    CHECK(cores > 0);
    for (int c = 0; c < cores; c++) {
        fprintf(stderr, "%s float %d\n", wanted[c].name, wanted[c].is_float);
        scan_all(wanted + c);
        classify_all(wanted + c);
        run_out_of_memory(wanted + c);
    }
    resize_all();
    crop_all();
    suppress_all();
    huge(wanted, cores);
    puts("done");
    return 0;
}
