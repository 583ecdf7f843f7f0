/*
 * Products of small matrices in registers.
 *
 * A vector is as wide as the registers that the compiler was told of; products and sums are fused
 * where the processor can. Every element of c is summed over k in ascending order, whatever the
 * width of a vector.
 */
#include "kernels/cpu/tile.h"

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

static inline tile_vector tile_load(const float *at)
{
    tile_vector v;
    memcpy(&v, at, sizeof v);
    return v;
}

static inline void tile_store(float *at, tile_vector v)
{
    memcpy(at, &v, sizeof v);
}

/* TILE_ROWS rows by `vectors` (1 or 2) vectors of c. All loops but the one over k are unrolled: the
 * sums live in registers. */
static inline __attribute__((always_inline)) void tile_part(const struct tile *t, int64_t row,
                                                            int64_t column, const int vectors)
{
    tile_vector sum[TILE_ROWS][2];
    float *c = t->c + row * t->c_row + column;
    const float *a = t->a + row * t->a_row;
    const float *b = t->b + column;
    const int64_t a_row = t->a_row;
#pragma GCC unroll 8
    for (int i = 0; i < TILE_ROWS; i++) {
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) {
            sum[i][v] =
                t->fresh ? (tile_vector){ 0 } : tile_load(c + i * t->c_row + v * TILE_LANES);
        }
    }
    for (int64_t l = 0; l < t->k; l++) {
        tile_vector first = tile_load(b);
        tile_vector second = vectors > 1 ? tile_load(b + TILE_LANES) : first;
#pragma GCC unroll 8
        for (int i = 0; i < TILE_ROWS; i++) {
            float scalar = a[i * a_row];
            sum[i][0] = tile_fused(scalar, first, sum[i][0]);
            if (vectors > 1) {
                sum[i][1] = tile_fused(scalar, second, sum[i][1]);
            }
        }
        a += t->a_column;
        b += t->b_row;
    }
#pragma GCC unroll 8
    for (int i = 0; i < TILE_ROWS; i++) {
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) {
            tile_store(c + i * t->c_row + v * TILE_LANES, sum[i][v]);
        }
    }
}

/* The part of `whole` that rows [row, row + TILE_ROW_STEP) need; sets their first column. */
static struct tile tile_rows(const struct tile *whole, int64_t row, int64_t *column)
{
    struct tile t = *whole;
    *column = 0;
    if (t.want == TILE_UPPER) {
        *column = tile_first_column(row);
    } else if (t.want == TILE_FROM_ROW) {
        t.a += row * t.a_column;
        t.b += row * t.b_row;
        t.k = t.k > row ? t.k - row : 0;
    } else if (t.want == TILE_TO_ROW) {
        t.k = t.k < row + TILE_ROW_STEP ? t.k : row + TILE_ROW_STEP;
    }
    return t;
}

void tile_product(const struct tile *whole)
{
    for (int64_t first = 0; first < whole->m; first += TILE_ROW_STEP) {
        int64_t begin;
        struct tile t = tile_rows(whole, first, &begin);
        for (int64_t row = first; row < first + TILE_ROW_STEP; row += TILE_ROWS) {
            int64_t column = begin;
            for (; column + 2 * TILE_LANES <= t.n; column += 2 * TILE_LANES) {
                tile_part(&t, row, column, 2);
            }
            for (; column < t.n; column += TILE_LANES) {
                tile_part(&t, row, column, 1);
            }
        }
    }
}
