/*
 * Orthonormal bases by repeated Cholesky factorisation (formulas in kernels/ops.h; the steps are
 * those of kernels/cpu/subspace.c), and steps that were computed elsewhere.
 *
 * The product y^T y is cuBLASLt's. The factor L is built in panels of PANEL columns: one block
 * factors a panel's triangle, then each row below it, of S and of y, is solved by one thread, and
 * tiles of S and y to the right of the panel lose the panel's products.
 */
#include <stdlib.h>

#include "kernels/backend_private.h"
#include "kernels/cuda/check.cuh"
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/random.cuh"
#include "kernels/cuda/vector.cuh"

enum { PANEL = 32, ROUNDS = 24, TILE_ROWS = 32, PITCH = PANEL + 1 };

/* What a round found of a column. */
enum column { COLUMN_GOOD, COLUMN_SLANTED, COLUMN_REST, COLUMN_REPLACED };

struct basis {
    float *y;     /* (rows, columns) */
    float *s;     /* (columns, columns) */
    float *scale; /* (columns) */
    float *kind;  /* (columns) enum column */
    int64_t rows, columns;
};

/* Columns of the panel that begins at `first`. */
static inline int panel_count(struct basis b, int64_t first)
{
    int64_t left = b.columns - first;
    return left < (int64_t)PANEL ? (int)left : (int)PANEL;
}

/* ---- a round --------------------------------------------------------------------------------- */

static __global__ void columns_kernel(struct basis b)
{
    int64_t j = thread_number();
    if (j < b.columns) {
        float square = b.s[j * b.columns + j];
        bool good = isfinite(square) && square > 1e-36f;
        b.scale[j] = good ? 1.0f / sqrtf(square) : 0.0f;
        b.kind[j] = good ? (float)COLUMN_GOOD : (float)COLUMN_REPLACED;
    }
}

static __global__ void scale_square_kernel(struct basis b)
{
    int64_t at = thread_number();
    int64_t i = at / b.columns;
    int64_t j = at % b.columns;
    if (i < b.columns) {
        bool none = b.scale[i] == 0.0f || b.scale[j] == 0.0f;
        float scaled = none ? 0.0f : b.s[at] * b.scale[i] * b.scale[j];
        b.s[at] = i == j ? 1.0f : scaled;
    }
}

static __global__ void scale_columns_kernel(struct basis b)
{
    int64_t at = thread_number();
    if (at < b.rows * b.columns) {
        float scale = b.scale[at % b.columns];
        b.y[at] = scale == 0.0f ? 0.0f : b.y[at] * scale;
    }
}

/* Judges the pivot of a column; the factor of the column. */
static __device__ inline float judge(float pivot, float *kind)
{
    if (*kind == (float)COLUMN_REPLACED || !(pivot > 1e-6f)) {
        *kind = (float)COLUMN_REPLACED;
        return 0.0f;
    }
    if (pivot < 1e-3f) {
        *kind = (float)COLUMN_REST;
        return 1.0f;
    }
    *kind = pivot < 0.9f ? (float)COLUMN_SLANTED : (float)COLUMN_GOOD;
    return 1.0f / sqrtf(pivot);
}

/* The triangle of columns [first, first + count), by one block of PANEL threads: thread i has row
 * i.
 */
static __global__ void triangle_kernel(struct basis b, int64_t first, int count)
{
    __shared__ float l[PANEL][PITCH];
    __shared__ float factor;
    int i = (int)threadIdx.x;
    for (int j = 0; j < count && i < count; j++) {
        l[i][j] = b.s[(first + i) * b.columns + first + j];
    }
    __syncthreads();
    for (int j = 0; j < count; j++) {
        float sum = 0.0f;
        if (i >= j && i < count) {
            sum = l[i][j];
            for (int k = 0; k < j; k++) {
                sum -= l[i][k] * l[j][k];
            }
        }
        if (i == j) {
            float kind = b.kind[first + j];
            l[j][j] = judge(sum, &kind);
            factor = kind >= (float)COLUMN_REST ? 0.0f : l[j][j];
            b.kind[first + j] = kind;
        }
        __syncthreads();
        if (i > j && i < count) {
            l[i][j] = sum * factor;
        }
        __syncthreads();
    }
    for (int j = 0; j <= i && i < count; j++) {
        b.s[(first + i) * b.columns + first + j] = l[i][j];
    }
}

/* Rows [from, to) of S or y, solved against a panel's triangle: one a thread. */
static __global__ void solve_kernel(struct basis b, float *matrix, int64_t from, int64_t to,
                                    int64_t first, int count, bool of_y)
{
    __shared__ float l[PANEL][PITCH];
    for (int at = (int)threadIdx.x; at < PANEL * PANEL; at += (int)blockDim.x) {
        int i = at / PANEL;
        int j = at % PANEL;
        bool inside = i < count && j <= i;
        float value = inside ? b.s[(first + i) * b.columns + first + j] : 0.0f;
        bool dropped = inside && i == j && !of_y && b.kind[first + i] >= (float)COLUMN_REST;
        l[i][j] = dropped ? 0.0f : value;
    }
    __syncthreads();
    int64_t row = from + thread_number();
    if (row >= to) {
        return;
    }
    float x[PANEL];
    float *line = matrix + row * b.columns + first;
#pragma unroll
    for (int j = 0; j < PANEL; j++) {
        x[j] = j < count ? line[j] : 0.0f;
    }
#pragma unroll
    for (int j = 0; j < PANEL; j++) {
#pragma unroll
        for (int k = 0; k < j; k++) {
            x[j] -= x[k] * l[j][k];
        }
        x[j] *= l[j][j];
        if (j < count) {
            line[j] = x[j];
        }
    }
}

/* Columns from `after` on of rows [from, to) lose what the panel [first, first + count) explains of
 * them: a block of 256 threads has a tile of TILE_ROWS rows and PANEL columns. */
static __global__ void remove_kernel(struct basis b, float *matrix, int64_t from, int64_t to,
                                     int64_t first, int count)
{
    __shared__ float a[TILE_ROWS][PITCH];
    __shared__ float l[PANEL][PITCH];
    int64_t after = first + count;
    int64_t across = (b.columns - after + PANEL - 1) / PANEL;
    int64_t row = from + (int64_t)blockIdx.x / across * TILE_ROWS;
    int64_t column = after + (int64_t)blockIdx.x % across * PANEL;
    for (int at = (int)threadIdx.x; at < TILE_ROWS * PANEL; at += BLOCK_THREADS) {
        int i = at / PANEL;
        int k = at % PANEL;
        bool some = k < count;
        a[i][k] = some && row + i < to ? matrix[(row + i) * b.columns + first + k] : 0.0f;
        l[i][k] = some && column + i < b.columns ? b.s[(column + i) * b.columns + first + k] : 0.0f;
    }
    __syncthreads();
    for (int at = (int)threadIdx.x; at < TILE_ROWS * PANEL; at += BLOCK_THREADS) {
        int i = at / PANEL;
        int j = at % PANEL;
        float sum = 0.0f;
        for (int k = 0; k < PANEL; k++) {
            sum += a[i][k] * l[j][k];
        }
        if (row + i < to && column + j < b.columns) {
            matrix[(row + i) * b.columns + column + j] -= sum;
        }
    }
}

static __global__ void replace_kernel(struct basis b, struct random_key key, int round)
{
    int64_t at = thread_number();
    if (at < b.rows * b.columns && b.kind[at % b.columns] == (float)COLUMN_REPLACED) {
        int64_t element = round * b.rows * b.columns + at;
        b.y[at] = random_uniform_from(random_word(&key, element)) - 0.5f;
    }
}

static void solve_rows(struct backend *be, struct basis b, float *matrix, int64_t from, int64_t to,
                       int64_t first)
{
    int count = panel_count(b, first);
    int64_t across = (b.columns - first - count + PANEL - 1) / PANEL;
    int64_t down = (to - from + TILE_ROWS - 1) / TILE_ROWS;
    if (to <= from) {
        return;
    }
    LAUNCH(solve_kernel, cuda_blocks(to - from), BLOCK_THREADS, 0, cuda_stream(be), b, matrix, from,
           to, first, count, matrix == b.y);
    if (across > 0) {
        LAUNCH(remove_kernel, (unsigned)(across * down), BLOCK_THREADS, 0, cuda_stream(be), b,
               matrix, from, to, first, count);
    }
}

static void round_of(struct backend *be, struct basis b)
{
    int64_t n = b.columns;
    LAUNCH(columns_kernel, cuda_blocks(n), BLOCK_THREADS, 0, cuda_stream(be), b);
    LAUNCH(scale_square_kernel, cuda_blocks(n * n), BLOCK_THREADS, 0, cuda_stream(be), b);
    LAUNCH(scale_columns_kernel, cuda_blocks(b.rows * n), BLOCK_THREADS, 0, cuda_stream(be), b);
    for (int64_t first = 0; first < n; first += PANEL) {
        int count = panel_count(b, first);
        LAUNCH(triangle_kernel, 1, PANEL, 0, cuda_stream(be), b, first, count);
        solve_rows(be, b, b.s, first + count, n, first);
        solve_rows(be, b, b.y, 0, b.rows, first);
    }
}

static bool all_good(struct backend *be, struct basis b, float *kind)
{
    bool good = true;
    backend_download(be, kind, b.kind, (size_t)b.columns * sizeof *kind);
    for (int64_t j = 0; j < b.columns; j++) {
        good = good && kind[j] == (float)COLUMN_GOOD;
    }
    return good;
}

void cuda_orthonormalize(struct backend *be, const struct orthonormalize *args)
{
    int64_t n = tensor_columns(args->y);
    struct tensor s = tensor_row_range(args->scratch, 0, n);
    struct random_key key = args->key;
    struct matmul product;
    struct basis b;
    if (n == 0) {
        return;
    }
    b.y = (float *)args->y->data;
    b.s = (float *)s.data;
    b.scale = b.s + n * n;
    b.kind = b.scale + n;
    b.rows = tensor_rows(args->y);
    b.columns = n;
    key.purpose = RANDOM_FILL;
    memset(&product, 0, sizeof product);
    product.c = &s;
    product.a = args->y;
    product.b = args->y;
    product.transpose_a = true;
    float *kind = (float *)malloc((size_t)n * sizeof *kind);
    if (kind == NULL) {
        backend_fail(be, "orthonormalize: out of memory");
        return;
    }
    for (int round = 0; round < ROUNDS && !be->failed; round++) {
        cuda_matmul(be, &product);
        round_of(be, b);
        if (round > 0 && all_good(be, b, kind)) {
            break;
        }
        LAUNCH(replace_kernel, cuda_blocks(b.rows * n), BLOCK_THREADS, 0, cuda_stream(be), b, key,
               round);
    }
    free(kind);
    cuda_check(be, "orthonormalize");
}

/* ---- elements -------------------------------------------------------------------------------- */

static __global__ void square_kernel(struct view y, int64_t count, bool wide)
{
    int64_t at = thread_number() * VECTOR;
    if (at >= count) {
        return;
    }
    float v[VECTOR];
    int n = vector_count(at, count);
    load8(v, y, at, n, wide);
#pragma unroll
    for (int i = 0; i < VECTOR; i++) {
        v[i] *= v[i];
    }
    store8(y, at, v, n, wide);
}

void cuda_square(struct backend *be, struct tensor *y)
{
    int64_t count = tensor_count(y);
    if (count > 0) {
        LAUNCH(square_kernel, cuda_blocks(vectors_of(count)), BLOCK_THREADS, 0, cuda_stream(be),
               view_of(y), count, view_is_wide(y));
    }
    cuda_check(be, "square");
}

struct descent {
    struct view weight, step;
    const float *control;
    int64_t count, first;
    float lr, scale, decay;
    bool stochastic, wide;
    struct random_key key;
};

static __global__ void descend_kernel(struct descent d)
{
    int64_t at = thread_number() * VECTOR;
    if (at >= d.count || d.control[CONTROL_SKIP] != 0.0f) {
        return;
    }
    float w[VECTOR];
    float step[VECTOR];
    int n = vector_count(at, d.count);
    load8(w, d.weight, at, n, d.wide);
    load8(step, d.step, at, n, d.wide);
#pragma unroll
    for (int i = 0; i < VECTOR; i++) {
        w[i] -= d.lr * (d.scale * step[i] + d.decay * w[i]);
    }
    if (!d.stochastic) {
        store8(d.weight, at, w, n, d.wide);
        return;
    }
    uint16_t *to = (uint16_t *)d.weight.data + at;
    int64_t element = d.first + at;
    struct random_block block = random_words(&d.key, (uint64_t)element / 4);
#pragma unroll
    for (int i = 0; i < VECTOR; i++) {
        if (i > 0 && (element + i) % 4 == 0) {
            block = random_words(&d.key, (uint64_t)(element + i) / 4);
        }
        if (i < n) {
            to[i] = bf16_from_float_stochastic(w[i], word_of(&block, element + i));
        }
    }
}

void cuda_descend(struct backend *be, const struct descend *args)
{
    struct descent d;
    d.weight = view_of(args->weight);
    d.step = view_of(args->step);
    d.control = (const float *)args->control->data;
    d.count = tensor_count(args->weight);
    d.first = args->first;
    d.lr = args->lr;
    d.scale = args->scale;
    d.decay = args->weight_decay;
    d.stochastic = d.weight.half && args->rounding == ROUNDING_STOCHASTIC;
    d.wide = view_is_wide(args->weight) && view_is_wide(args->step);
    d.key = args->key;
    d.key.purpose = RANDOM_ROUND_W;
    if (d.count > 0) {
        LAUNCH(descend_kernel, cuda_blocks(vectors_of(d.count)), BLOCK_THREADS, 0, cuda_stream(be),
               d);
    }
    cuda_check(be, "descend");
}
