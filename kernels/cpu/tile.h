/* Products of small matrices that lie in the nearest cache: the inside of attention. */
#ifndef WINDROW_KERNELS_CPU_TILE_H
#define WINDROW_KERNELS_CPU_TILE_H

#include <stdint.h>

/* Sizes given to tile_product are multiples of these, whatever the width of a vector. */
enum { TILE_ROW_STEP = 8, TILE_COLUMN_STEP = 16 };

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
};
void tile_product(const struct tile *t);

#endif
