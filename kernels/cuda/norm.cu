/*
 * RMSNorm, forward and backward (formulas in kernels/ops.h). A block takes a row.
 *
 * The gradient of the weight is a sum over tokens: partial sums of ROW_CHUNK tokens each, a thread
 * a column, then the partial sums of a column in order.
 */
#include "kernels/cuda/check.cuh"
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/vector.cuh"

enum { ROW_CHUNK = 64 };

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
    for (int64_t at = threadIdx.x * VECTOR; at < f.columns; at += BLOCK_THREADS * VECTOR) {
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
    for (int64_t at = threadIdx.x * VECTOR; at < f.columns; at += BLOCK_THREADS * VECTOR) {
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
        LAUNCH(rmsnorm_forward_kernel, (unsigned)rows, BLOCK_THREADS, 0, cuda_stream(be), f);
    }
    cuda_check(be, "rmsnorm_forward");
}

/* ---- backward ------------------------------------------------------------------------------- */

struct backward {
    struct view dx, dy, x, weight;
    const float *rstd;
    int64_t rows;
    int64_t columns;
    bool wide;
};

static __global__ void rmsnorm_backward_kernel(struct backward b)
{
    int64_t first = blockIdx.x * b.columns;
    float sum = 0.0f;
    float x[VECTOR];
    float dy[VECTOR];
    float w[VECTOR];
    for (int64_t at = threadIdx.x * VECTOR; at < b.columns; at += BLOCK_THREADS * VECTOR) {
        int n = vector_count(at, b.columns);
        load8(x, b.x, first + at, n, b.wide);
        load8(dy, b.dy, first + at, n, b.wide);
        load8(w, b.weight, at, n, b.wide);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            sum += dy[i] * w[i] * x[i];
        }
    }
    float mean = (float)((double)block_sum(sum) / (double)b.columns);
    float rstd = b.rstd[blockIdx.x];
    float pull = rstd * rstd * mean;
    for (int64_t at = threadIdx.x * VECTOR; at < b.columns; at += BLOCK_THREADS * VECTOR) {
        float dx[VECTOR];
        int n = vector_count(at, b.columns);
        load8(x, b.x, first + at, n, b.wide);
        load8(dy, b.dy, first + at, n, b.wide);
        load8(w, b.weight, at, n, b.wide);
        load8(dx, b.dx, first + at, n, b.wide);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            dx[i] += rstd * (dy[i] * w[i] - x[i] * pull);
        }
        store8(b.dx, first + at, dx, n, b.wide);
    }
}

/* partial (chunks, columns): block (x, y) has columns from x * BLOCK_THREADS on, chunk y of rows.
 */
static __global__ void weight_partial_kernel(float *partial, struct backward b)
{
    int64_t column = thread_number();
    int64_t first = (int64_t)blockIdx.y * ROW_CHUNK;
    int64_t last = first + ROW_CHUNK < b.rows ? first + ROW_CHUNK : b.rows;
    if (column < b.columns) {
        float sum = 0.0f;
        for (int64_t row = first; row < last; row++) {
            int64_t at = row * b.columns + column;
            sum += get(b.dy, at) * get(b.x, at) * b.rstd[row];
        }
        partial[blockIdx.y * b.columns + column] = sum;
    }
}

static __global__ void weight_final_kernel(struct view dweight, const float *partial,
                                           int64_t chunks, int64_t columns)
{
    int64_t column = thread_number();
    if (column < columns) {
        double sum = 0.0;
        for (int64_t i = 0; i < chunks; i++) {
            sum += (double)partial[i * columns + column];
        }
        put(dweight, column, (float)((double)get(dweight, column) + sum));
    }
}

void cuda_rmsnorm_backward(struct backend *be, const struct rmsnorm_backward *args)
{
    int64_t rows = tensor_rows(args->x);
    struct backward b = { view_of(args->dx),
                          view_of(args->dy),
                          view_of(args->x),
                          view_of(args->weight),
                          (const float *)args->rstd->data,
                          rows,
                          tensor_columns(args->x),
                          view_has_wide_rows(args->x) && view_is_wide(args->dx) &&
                              view_is_wide(args->dy) && view_is_wide(args->weight) };
    if (rows == 0 || b.columns == 0) {
        return;
    }
    LAUNCH(rmsnorm_backward_kernel, (unsigned)rows, BLOCK_THREADS, 0, cuda_stream(be), b);
    if (args->dweight != NULL) {
        int64_t chunks = (rows + ROW_CHUNK - 1) / ROW_CHUNK;
        size_t count = (size_t)(chunks * b.columns);
        float *partial = (float *)cuda_scratch(be, count * sizeof *partial);
        if (partial == NULL) {
            return;
        }
        dim3 grid(cuda_blocks(b.columns), (unsigned)chunks);
        LAUNCH(weight_partial_kernel, grid, BLOCK_THREADS, 0, cuda_stream(be), partial, b);
        LAUNCH(weight_final_kernel, cuda_blocks(b.columns), BLOCK_THREADS, 0, cuda_stream(be),
               view_of(args->dweight), partial, chunks, b.columns);
    }
    cuda_check(be, "rmsnorm_backward");
}
