/* Products of small matrices that lie in the nearest cache: the inside of attention. */
#ifndef WINDROW_KERNELS_CPU_TILE_H
#define WINDROW_KERNELS_CPU_TILE_H

#include <stdint.h>

/* Sizes given to tile_product are multiples of these, whatever the width of a vector. */
enum { TILE_ROW_STEP = 8, TILE_COLUMN_STEP = 16 };

/* What of a product is wanted when one of its matrices is a triangle. */
enum tile_want {
    TILE_ALL,
    TILE_UPPER,    /* of c only columns from tile_first_column(row) on; others may be written */
    TILE_FROM_ROW, /* a (i, l) is 0 for all l < i, i rounded down to a multiple of TILE_ROW_STEP */
    TILE_TO_ROW,   /* a (i, l) is 0 for all l >= i + 1, i + 1 rounded up to such a multiple */
};

/* First column of TILE_UPPER. */
static inline int64_t tile_first_column(int64_t row)
{
    return row / TILE_COLUMN_STEP * TILE_COLUMN_STEP;
}

/* c (m, n) += a b, or = a b if `fresh`. Element (i, l) of a is a[i * a_row + l * a_column]; b is
 * (k, n) with rows b_row apart, c has rows c_row apart. m is a multiple of TILE_ROW_STEP, n of
 * TILE_COLUMN_STEP. */
struct tile {
    float *c;
    const float *a;
    const float *b;
    int64_t c_row, a_row, a_column, b_row;
    int64_t m, n, k;
    int fresh;
    enum tile_want want;
};
void tile_product(const struct tile *t);

#endif
