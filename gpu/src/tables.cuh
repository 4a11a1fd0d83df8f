/* What kernels share with the host; `unface.gpu.tables` has the same structures for numpy. */
#pragma once
#include "device.cuh"

#define HALVINGS 20 /* of an image, itself counted: 65535 pixels a side */
#define P_NET 12    /* pixels a P-Net cell looks at */
#define P_STRIDE 2  /* level pixels from one cell to the next */
#define PATCH_W 32  /* cells of a patch, one block's work in P-Net */
#define PATCH_H 16
#define MOST_CANDIDATES 65536 /* a list has room for at most */

struct Level {
    int32_t width, height, columns, rows; /* pixels, cells */
    int32_t source, first_cell;           /* halving; place of its first cell in `logits` */
    float step_x, step_y;                 /* image pixels a level pixel */
};

/* A rectangle of a level that lies in one piece in the canvas. */
struct Tile {
    int32_t level, x, y, width, height; /* in level pixels */
    int32_t pitch, offset, padding;     /* bytes of a canvas row; pixels before its first one */
};

/* Up to PATCH_W x PATCH_H cells of a tile, from (column, row) of the tile on. */
struct Patch {
    int32_t tile, column, row;
};

struct Frame {
    uint64_t pixels[HALVINGS]; /* RGB, 3 bytes a pixel, no gap between rows */
    int32_t widths[HALVINGS], heights[HALVINGS];
    int32_t halvings, levels, tiles, patches;
    float least[3]; /* logits: P-Net >=, R-Net >, O-Net > */
    float crop_offset;
};

/* A cell of P-Net at or above the threshold. */
struct Hit {
    int32_t level, row, column;
    float logit, box[4];
};

/* A square of the image that the next network shall see. `key` is the cell it comes from. */
struct Square {
    float x, y, side;
    int32_t key;
};

/* What a network kept: box before (P-, R-Net) or after (O-Net) regression, in image pixels. */
struct Candidate {
    float box[4], offsets[4], logit;
    int32_t key;
};

struct Face {
    float box[4], logit, landmarks[10]; /* landmarks x1..x5, y1..y5 in image pixels */
    int32_t key;
};

/* How many there were of each, also beyond what fits; `invalid` counts values that are no numbers. */
struct Counters {
    int32_t hits, squares[2], candidates[3], faces, invalid;
};

/* Everything one stream works with. Lists hold `capacity` elements, `hits` hit_capacity. */
struct Lane {
    Frame *frame;
    Level *levels;
    Tile *tiles;
    Patch *patches;
    uint8_t *canvas;
    float *logits; /* of every cell; kept ones become +infinity, suppressed ones -infinity */
    Hit *hits;
    Square *squares[2];       /* for R-Net, O-Net */
    uint16_t *features[2];    /* halves: what the dense layers of R-, O-Net take, [n][576], [n][1152] */
    uint8_t *crops;           /* RGB, for engines: [n][size][size][3] */
    Candidate *candidates[3]; /* of P-Net (where levels overlap), R-Net, O-Net */
    float *landmarks;         /* [n][10] of candidates[2] */
    uint32_t *rivals;         /* bits [capacity / 32][capacity]: who may suppress whom */
    Face *faces;
    Counters *counters;
    uint8_t *weights[3];
    float *outputs[3]; /* of engines: logit, box, landmarks */
    int32_t hit_capacity, capacity;
};

#define MAX_TAPS 16

/* What covers a face; `unface.anonymize.plans` says how. */
struct Mask {
    double center[2], half[2];        /* of the ellipse, in pixels of the picture: x, y */
    long long scratch;                /* bytes */
    int32_t left, top, width, height; /* a rectangle within the picture */
    int32_t method, ellipse;          /* method: for the host; ellipse 0: all of the rectangle */
    int32_t parts[2], small[2];       /* across, down: cells of a mosaic; pixels to shrink to for blur */
    int32_t radius, color;            /* of the Gaussian kernel; R + 256 G + 65536 B */
    float taps[MAX_TAPS];             /* the Gaussian kernel from its middle on */
};

/* Masks `first` ... `first` + `count`, at least one, of which no two share a pixel. */
struct Covering {
    uint8_t *pixels; /* of a picture `width` wide, RGB, no gap between rows */
    Mask *masks;
    uint8_t *scratch; /* for blur, 15 bytes a shrunk pixel */
    int32_t width, first, count, unused;
};
