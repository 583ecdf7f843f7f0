/*
 * Orthonormal bases by repeated Cholesky factorisation (kernels/ops.h), eigenvectors, and steps
 * that were computed elsewhere.
 *
 * The factor L is built in panels of columns, right-looking. What a panel does to the rows of S
 * below it - solve against its triangle, subtract its products from the columns to its right - it
 * does to the rows of y as well, and what is left of y in the end is y L^-T. In place of a diagonal
 * element of L its inverse is kept, the factor of a solved column: 1 where a column is left as the
 * rest that it is, 0 where it will be replaced.
 */
#include "kernels/cpu/cpu.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/cpu/lanes.h"
#include "kernels/eigen.h"

enum { PANEL = 32, ROUNDS = 24 };

/* What a round found of a column, as numbers in the scratch. */
static const float column_good = 0.0f;     /* a pivot of at least 0.9 */
static const float column_slanted = 1.0f;  /* less, so that rounding may be felt */
static const float column_rest = 2.0f;     /* less than 1e-3: kept undivided */
static const float column_replaced = 3.0f; /* zero, not finite, or less than 1e-6 */

struct basis {
    float *y;     /* (rows, columns) */
    float *s;     /* (columns, columns) */
    float *scale; /* (columns) */
    float *kind;  /* (columns) */
    int64_t rows, columns;
};

/* S = y^T y scaled to a diagonal of 1, and y scaled by the same. */
static void scale_columns(const struct basis *b)
{
    int64_t n = b->columns;
    for (int64_t j = 0; j < n; j++) {
        float square = b->s[j * n + j];
        bool good = isfinite(square) && square > 1e-36f;
        b->scale[j] = good ? 1.0f / sqrtf(square) : 0.0f;
        b->kind[j] = good ? column_good : column_replaced;
    }
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < n; j++) {
            bool none = b->scale[i] == 0.0f || b->scale[j] == 0.0f;
            float scaled = none ? 0.0f : b->s[i * n + j] * b->scale[i] * b->scale[j];
            b->s[i * n + j] = i == j ? 1.0f : scaled;
        }
    }
#pragma omp parallel for schedule(static) if (b->rows * n > CPU_GRAIN)
    for (int64_t i = 0; i < b->rows; i++) {
        float *row = b->y + i * n;
        for (int64_t j = 0; j < n; j++) {
            row[j] = b->scale[j] == 0.0f ? 0.0f : row[j] * b->scale[j];
        }
    }
}

/* Judges the pivot of a column; the factor of the column. */
static float judge(float pivot, float *kind)
{
    if (*kind == column_replaced || !(pivot > 1e-6f)) {
        *kind = column_replaced;
        return 0.0f;
    }
    if (pivot < 1e-3f) {
        *kind = column_rest;
        return 1.0f;
    }
    *kind = pivot < 0.9f ? column_slanted : column_good;
    return 1.0f / sqrtf(pivot);
}

/* The factor of column `k` in rows of S. */
static float factor_below(const struct basis *b, int64_t k)
{
    return b->kind[k] >= column_rest ? 0.0f : b->s[k * b->columns + k];
}

/* The triangle of a panel. */
static void factor_triangle(const struct basis *b, int64_t first, int64_t last)
{
    int64_t n = b->columns;
    for (int64_t j = first; j < last; j++) {
        for (int64_t i = j; i < last; i++) {
            float sum = b->s[i * n + j];
            for (int64_t k = first; k < j; k++) {
                sum -= b->s[i * n + k] * b->s[j * n + k];
            }
            if (i == j) {
                b->s[j * n + j] = judge(sum, &b->kind[j]);
            } else {
                b->s[i * n + j] = sum * factor_below(b, j);
            }
        }
    }
}

static float dot(const float *a, const float *b, int64_t count)
{
    float lane[CPU_LANES] = { 0 };
    int64_t i = 0;
    for (; i + CPU_LANES <= count; i += CPU_LANES) {
        for (int l = 0; l < CPU_LANES; l++) {
            lane[l] += a[i + l] * b[i + l];
        }
    }
    for (int l = 0; i < count; i++, l++) {
        lane[l] += a[i] * b[i];
    }
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) +
           ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

/* One row of S or y: solved against the panel's triangle, and taken out of the columns to the right
 * of it, up to `end`. */
static void pass_row(const struct basis *b, float *row, int64_t first, int64_t last, int64_t end)
{
    int64_t n = b->columns;
    bool of_y = row >= b->y && row < b->y + b->rows * n;
    for (int64_t j = first; j < last; j++) {
        float sum = row[j];
        for (int64_t k = first; k < j; k++) {
            sum -= row[k] * b->s[j * n + k];
        }
        row[j] = sum * (of_y ? b->s[j * n + j] : factor_below(b, j));
    }
    if (of_y) {
        for (int64_t j = last; j < end; j++) {
            row[j] -= dot(row + first, b->s + j * n + first, last - first);
        }
    }
}

static void factor_panel(const struct basis *b, int64_t first, int64_t last)
{
    int64_t n = b->columns;
    factor_triangle(b, first, last);
#pragma omp parallel for schedule(static) if ((n - last) * n > CPU_GRAIN)
    for (int64_t i = last; i < n; i++) {
        pass_row(b, b->s + i * n, first, last, 0);
    }
#pragma omp parallel for schedule(static) if ((n - last) * n > CPU_GRAIN)
    for (int64_t i = last; i < n; i++) {
        for (int64_t j = last; j <= i; j++) {
            b->s[i * n + j] -= dot(b->s + i * n + first, b->s + j * n + first, last - first);
        }
    }
#pragma omp parallel for schedule(static) if (b->rows * n > CPU_GRAIN)
    for (int64_t i = 0; i < b->rows; i++) {
        pass_row(b, b->y + i * n, first, last, n);
    }
}

/* Random numbers into the columns that are replaced. */
static void replace_columns(const struct basis *b, struct random_key key, int round)
{
    int64_t n = b->columns;
    key.purpose = RANDOM_FILL;
    for (int64_t j = 0; j < n; j++) {
        for (int64_t i = 0; i < b->rows && b->kind[j] == column_replaced; i++) {
            uint64_t element = (uint64_t)(round * b->rows * n + i * n + j);
            b->y[i * n + j] = random_uniform(&key, element) - 0.5f;
        }
    }
}

static bool all_good(const struct basis *b)
{
    for (int64_t j = 0; j < b->columns; j++) {
        if (b->kind[j] != column_good) {
            return false;
        }
    }
    return true;
}

void cpu_orthonormalize(struct backend *be, const struct orthonormalize *args)
{
    int64_t n = tensor_columns(args->y);
    struct tensor s = tensor_row_range(args->scratch, 0, n);
    struct basis b = { .y = args->y->data,
                       .s = s.data,
                       .scale = (float *)s.data + n * n,
                       .kind = (float *)s.data + n * n + n,
                       .rows = tensor_rows(args->y),
                       .columns = n };
    for (int round = 0; round < ROUNDS && n > 0; round++) {
        cpu_matmul(be,
                   &(struct matmul){ .c = &s, .a = args->y, .b = args->y, .transpose_a = true });
        scale_columns(&b);
        for (int64_t first = 0; first < n; first += PANEL) {
            factor_panel(&b, first, cpu_min(first + PANEL, n));
        }
        if (round > 0 && all_good(&b)) {
            return;
        }
        replace_columns(&b, args->key, round);
    }
}

void cpu_eigenvectors(struct backend *be, struct tensor *vectors, const struct tensor *matrix)
{
    char why[128];
    struct eigen eigen = { .vectors = vectors->data,
                           .matrix = matrix->data,
                           .size = tensor_rows(matrix),
                           .count = tensor_columns(vectors) };
    eigen.work = cpu_scratch(be, eigen_work_bytes(eigen.size, eigen.count));
    if (eigen.work != NULL && eigen_solve(&eigen, why, sizeof why) != 0) {
        backend_fail(be, "eigenvectors: %s", why);
    }
}

void cpu_square(struct backend *be, struct tensor *y)
{
    (void)be;
    int64_t count = tensor_count(y);
    int64_t chunks = cpu_chunk_count(count, CPU_GRAIN);
#pragma omp parallel for schedule(static) if (chunks > 1)
    for (int64_t i = 0; i < chunks; i++) {
        struct cpu_range r = cpu_chunk(count, CPU_GRAIN, i);
        for (int64_t at = r.first; at < r.last; at++) {
            float x = cpu_get(y, at);
            cpu_set(y, at, x * x);
        }
    }
}

/* Elements [at, at + count) of a bf16 weight, rounded up or down at random. */
static void store_rounded(const struct descend *args, int64_t at, const float *w, int64_t count)
{
    uint32_t words[CPU_BLOCK + 2 * CPU_RANDOM_WORDS];
    uint16_t *to = (uint16_t *)args->weight->data + at;
    struct random_key key = args->key;
    int64_t element = args->first + at;
    int64_t skip = element % 4;
    key.purpose = RANDOM_ROUND_W;
    for (int64_t i = 0; i < skip + count; i += CPU_RANDOM_WORDS) {
        cpu_lanes_random_run(&key, (uint64_t)(element - skip + i) / 4, words + i);
    }
    for (int64_t i = 0; i < count; i++) {
        to[i] = bf16_from_float_stochastic(w[i], words[skip + i]);
    }
}

static void descend_block(const struct descend *args, int64_t at, int64_t count)
{
    float w[CPU_BLOCK];
    const float *step = (const float *)args->step->data + at;
    cpu_load(w, args->weight, at, count);
    for (int64_t i = 0; i < count; i++) {
        w[i] -= args->lr * (args->scale * step[i] + args->weight_decay * w[i]);
    }
    if (args->weight->dtype == DTYPE_F32 || args->rounding == ROUNDING_NEAREST) {
        cpu_store(args->weight, at, w, count);
    } else {
        store_rounded(args, at, w, count);
    }
}

void cpu_descend(struct backend *be, const struct descend *args)
{
    (void)be;
    if (((const float *)args->control->data)[CONTROL_SKIP] != 0.0f) {
        return;
    }
    int64_t count = tensor_count(args->weight);
    int64_t chunks = cpu_chunk_count(count, CPU_GRAIN);
#pragma omp parallel for schedule(static) if (chunks > 1)
    for (int64_t i = 0; i < chunks; i++) {
        struct cpu_range r = cpu_chunk(count, CPU_GRAIN, i);
        for (int64_t at = r.first; at < r.last; at += CPU_BLOCK) {
            descend_block(args, at, cpu_min(CPU_BLOCK, r.last - at));
        }
    }
}
