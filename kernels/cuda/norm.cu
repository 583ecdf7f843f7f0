/*
 * RMSNorm, forward and backward (formulas in kernels/ops.h).
 *
 * Floor, bytes a token in bf16: forward 4C, backward 8C, and 2R for R captured columns. A row is
 * gone over twice, the second time out of the cache.
 *
 * Forward: a block takes a row. Backward: a block takes the rows of one of at most NORM_PARTS
 * parts, whose borders depend on the number of rows alone, and sums its share of the weight's
 * gradient on the way: a thread always has the same columns, whose partial sums only it touches. A
 * second kernel adds the shares in a fixed order.
 */
#include "kernels/cuda/capture.cuh"
#include "kernels/cuda/check.cuh"
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/scratch.h"
#include "kernels/cuda/vector.cuh"

/* NORM_PARTS: several blocks for each processor of the largest devices; SLICES of them are summed
 * side by side for COLUMN_RUN columns each. */
enum { COLUMN_RUN = 32, SLICES = 8, SHARED_COLUMNS = 12 * 1024 };

struct forward {
    struct view y, x, weight;
    float *rstd;
    int64_t columns;
    float eps;
    bool wide;
};

static __global__ void rmsnorm_forward_kernel(struct forward f)
{
    int64_t first = blockIdx.x * f.columns;
    float sum = 0.0f;
    float x[VECTOR];
    for (int64_t at = threadIdx.x * VECTOR; at < f.columns; at += blockDim.x * VECTOR) {
        load8(x, f.x, first + at, vector_count(at, f.columns), f.wide);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            sum += x[i] * x[i];
        }
    }
    double mean = (double)block_sum(sum) / (double)f.columns;
    float rstd = (float)(1.0 / sqrt(mean + (double)f.eps));
    if (threadIdx.x == 0) {
        f.rstd[blockIdx.x] = rstd;
    }
    for (int64_t at = threadIdx.x * VECTOR; at < f.columns; at += blockDim.x * VECTOR) {
        float w[VECTOR];
        int n = vector_count(at, f.columns);
        load8(x, f.x, first + at, n, f.wide);
        load8(w, f.weight, at, n, f.wide);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            x[i] = x[i] * rstd * w[i];
        }
        store8(f.y, first + at, x, n, f.wide);
    }
}

void cuda_rmsnorm_forward(struct backend *be, const struct rmsnorm_forward *args)
{
    int64_t rows = tensor_rows(args->x);
    struct forward f = { view_of(args->y),
                         view_of(args->x),
                         view_of(args->weight),
                         (float *)args->rstd->data,
                         tensor_columns(args->x),
                         args->eps,
                         view_has_wide_rows(args->x) && view_is_wide(args->y) &&
                             view_is_wide(args->weight) };
    if (rows > 0 && f.columns > 0) {
        LAUNCH(rmsnorm_forward_kernel, (unsigned)rows, row_threads(f.columns), 0, cuda_stream(be),
               f);
    }
    cuda_check(be, "rmsnorm_forward");
}

/* ---- backward ------------------------------------------------------------------------------- */

struct backward {
    struct view dx, dy, x, weight;
    const float *rstd;
    float *partial; /* (parts, columns), or NULL: the weight is frozen */
    int64_t rows;
    int64_t columns;
    int64_t rows_each; /* of a part */
    struct captured captured;
    bool wide;
};

/* mean over the row of dy * weight * x. */
static __device__ float row_mean(const struct backward *b, int64_t first)
{
    float sum = 0.0f;
    for (int64_t at = threadIdx.x * VECTOR; at < b->columns; at += blockDim.x * VECTOR) {
        float x[VECTOR];
        float dy[VECTOR];
        float w[VECTOR];
        int n = vector_count(at, b->columns);
        load8(x, b->x, first + at, n, b->wide);
        load8(dy, b->dy, first + at, n, b->wide);
        load8(w, b->weight, at, n, b->wide);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            sum += dy[i] * w[i] * x[i];
        }
    }
    return (float)((double)block_sum(sum) / (double)b->columns);
}

/* Adds dy * x * rstd to this thread's partial sums from `at` on; the first row sets them. */
static __device__ inline void add_share(float *share, int64_t at, int count, bool set,
                                        const float term[VECTOR])
{
#pragma unroll
    for (int i = 0; i < VECTOR; i++) {
        if (i < count) {
            share[at + i] = (set ? 0.0f : share[at + i]) + term[i];
        }
    }
}

static __device__ void backward_row(const struct backward *b, int64_t row, float *share, bool set)
{
    int64_t first = row * b->columns;
    float rstd = b->rstd[row];
    float pull = rstd * rstd * row_mean(b, first);
    for (int64_t at = threadIdx.x * VECTOR; at < b->columns; at += blockDim.x * VECTOR) {
        float x[VECTOR];
        float dy[VECTOR];
        float w[VECTOR];
        float dx[VECTOR];
        int n = vector_count(at, b->columns);
        load8(x, b->x, first + at, n, b->wide);
        load8(dy, b->dy, first + at, n, b->wide);
        load8(w, b->weight, at, n, b->wide);
        load8(dx, b->dx, first + at, n, b->wide);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            dx[i] += rstd * (dy[i] * w[i] - x[i] * pull);
            x[i] = dy[i] * x[i] * rstd;
        }
        store8(b->dx, first + at, dx, n, b->wide);
        if (share != NULL) {
            add_share(share, at, n, set, x);
        }
    }
    capture_row(&b->captured, b->dx, row, b->columns);
}

/* `staged`: the partial sums grow in shared memory, which has room for a row of them. */
static __global__ void rmsnorm_backward_kernel(struct backward b, bool staged)
{
    SHARED_POOL(float, pool);
    int64_t first = blockIdx.x * b.rows_each;
    int64_t last = first + b.rows_each < b.rows ? first + b.rows_each : b.rows;
    float *target = b.partial != NULL ? b.partial + blockIdx.x * b.columns : NULL;
    float *share = staged ? pool : target;
    for (int64_t row = first; row < last; row++) {
        backward_row(&b, row, share, row == first);
    }
    if (!staged) {
        return;
    }
    for (int64_t at = threadIdx.x * VECTOR; at < b.columns; at += blockDim.x * VECTOR) {
        int n = vector_count(at, b.columns);
        for (int i = 0; i < n; i++) {
            target[at + i] = pool[at + i];
        }
    }
}

/* A block sums COLUMN_RUN columns: each of its SLICES warps every SLICES-th part, then the warps in
 * order. */
static __global__ void weight_kernel(struct view dweight, const float *partial, int64_t parts,
                                     int64_t columns)
{
    __shared__ double slice[SLICES][COLUMN_RUN];
    int64_t lane = threadIdx.x % COLUMN_RUN;
    int64_t own = threadIdx.x / COLUMN_RUN;
    int64_t column = (int64_t)blockIdx.x * COLUMN_RUN + lane;
    double sum = 0.0;
    for (int64_t i = own; i < parts && column < columns; i += SLICES) {
        sum += (double)partial[i * columns + column];
    }
    slice[own][lane] = sum;
    __syncthreads();
    if (own == 0 && column < columns) {
        sum = (double)get(dweight, column);
        for (int i = 0; i < SLICES; i++) {
            sum += slice[i][lane];
        }
        put(dweight, column, (float)sum);
    }
}

void cuda_rmsnorm_backward(struct backend *be, const struct rmsnorm_backward *args)
{
    int64_t rows = tensor_rows(args->x);
    int64_t columns = tensor_columns(args->x);
    struct backward b = { view_of(args->dx),
                          view_of(args->dy),
                          view_of(args->x),
                          view_of(args->weight),
                          (const float *)args->rstd->data,
                          NULL,
                          rows,
                          columns,
                          args->dweight != NULL ? scratch_norm_rows(rows) : 1,
                          captured_of(args->capture),
                          view_has_wide_rows(args->x) && view_is_wide(args->dx) &&
                              view_is_wide(args->dy) && view_is_wide(args->weight) };
    if (rows == 0 || columns == 0) {
        return;
    }
    int64_t parts = (rows + b.rows_each - 1) / b.rows_each;
    bool staged = args->dweight != NULL && columns <= SHARED_COLUMNS;
    if (args->dweight != NULL) {
        b.partial = (float *)cuda_scratch(be, scratch_rmsnorm_backward(args));
        if (b.partial == NULL) {
            return;
        }
    }
    LAUNCH(rmsnorm_backward_kernel, (unsigned)parts, row_threads(columns),
           staged ? (size_t)columns * sizeof(float) : 0, cuda_stream(be), b, staged);
    if (args->dweight != NULL) {
        LAUNCH(weight_kernel, (unsigned)((columns + COLUMN_RUN - 1) / COLUMN_RUN),
               COLUMN_RUN * SLICES, 0, cuda_stream(be), view_of(args->dweight), b.partial, parts,
               columns);
    }
    cuda_check(be, "rmsnorm_backward");
}
