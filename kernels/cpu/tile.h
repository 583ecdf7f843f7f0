/*
 * Products of small matrices that lie in the nearest cache: the inside of attention.
 *
 * A vector is as wide as the registers that the compiler was told of; products and sums are fused
 * where the processor can. The order of additions does not depend on the width.
 */
#ifndef WINDROW_KERNELS_CPU_TILE_H
#define WINDROW_KERNELS_CPU_TILE_H

#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#include <immintrin.h>
enum { TILE_LANES = 16, TILE_ROWS = 8 };
typedef __m512 tile_vector;
static inline tile_vector tile_fused(float a, tile_vector b, tile_vector c)
{
    return _mm512_fmadd_ps(_mm512_set1_ps(a), b, c);
}
#elif defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
enum { TILE_LANES = 8, TILE_ROWS = 4 };
typedef __m256 tile_vector;
static inline tile_vector tile_fused(float a, tile_vector b, tile_vector c)
{
    return _mm256_fmadd_ps(_mm256_set1_ps(a), b, c);
}
#else
enum { TILE_LANES = 4, TILE_ROWS = 4 };
typedef float tile_vector __attribute__((vector_size(16)));
static inline tile_vector tile_fused(float a, tile_vector b, tile_vector c)
{
    return a * b + c;
}
#endif

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

/* TILE_ROWS rows by `vectors` (at most 2) vectors of c. */
static inline __attribute__((always_inline)) void tile_part(const struct tile *t, int64_t row,
                                                            int64_t column, const int vectors)
{
    tile_vector sum[TILE_ROWS][2];
    float *c = t->c + row * t->c_row + column;
    const float *a = t->a + row * t->a_row;
    const float *b = t->b + column;
    for (int i = 0; i < TILE_ROWS; i++) {
        for (int v = 0; v < vectors; v++) {
            if (t->fresh) {
                memset(&sum[i][v], 0, sizeof sum[i][v]);
            } else {
                memcpy(&sum[i][v], c + i * t->c_row + v * TILE_LANES, sizeof sum[i][v]);
            }
        }
    }
    for (int64_t l = 0; l < t->k; l++) {
        tile_vector factor[2];
        memcpy(factor, b + l * t->b_row, (size_t)vectors * sizeof factor[0]);
        for (int i = 0; i < TILE_ROWS; i++) {
            float scalar = a[i * t->a_row + l * t->a_column];
            for (int v = 0; v < vectors; v++) {
                sum[i][v] = tile_fused(scalar, factor[v], sum[i][v]);
            }
        }
    }
    for (int i = 0; i < TILE_ROWS; i++) {
        for (int v = 0; v < vectors; v++) {
            memcpy(c + i * t->c_row + v * TILE_LANES, &sum[i][v], sizeof sum[i][v]);
        }
    }
}

static inline void tile_product(const struct tile *t)
{
    for (int64_t row = 0; row < t->m; row += TILE_ROWS) {
        int64_t column = 0;
        for (; column + 2 * TILE_LANES <= t->n; column += 2 * TILE_LANES) {
            tile_part(t, row, column, 2);
        }
        if (column < t->n) {
            tile_part(t, row, column, 1);
        }
    }
}

#endif
