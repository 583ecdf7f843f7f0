/*
 * Squared norms of rows or columns.
 *
 * Floor: the matrix is read once. Rows: a block each. Columns: a thread has eight, and a chunk of
 * ROW_CHUNK rows; the chunks of a column are added in order.
 */
#include "kernels/cuda/check.cuh"
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/scratch.h"
#include "kernels/cuda/vector.cuh"

static __global__ void row_norms_kernel(float *norms, struct view x, int64_t columns, bool wide)
{
    int64_t first = blockIdx.x * columns;
    double sum = 0.0;
    for (int64_t at = threadIdx.x * VECTOR; at < columns; at += BLOCK_THREADS * VECTOR) {
        float v[VECTOR];
        load8(v, x, first + at, vector_count(at, columns), wide);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            sum += (double)v[i] * (double)v[i];
        }
    }
    sum = block_sum_double(sum);
    if (threadIdx.x == 0) {
        norms[blockIdx.x] = (float)sum;
    }
}

/* partial (chunks of rows, columns): a thread has eight columns. */
static __global__ void column_partial_kernel(double *partial, struct view x, int64_t rows,
                                             int64_t columns, bool wide)
{
    int64_t at = thread_number() * VECTOR;
    int64_t first = (int64_t)blockIdx.y * ROW_CHUNK;
    int64_t last = first + ROW_CHUNK < rows ? first + ROW_CHUNK : rows;
    if (at >= columns) {
        return;
    }
    double sum[VECTOR] = { 0.0 };
    int n = vector_count(at, columns);
    for (int64_t row = first; row < last; row++) {
        float v[VECTOR];
        load8(v, x, row * columns + at, n, wide);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            sum[i] += (double)v[i] * (double)v[i];
        }
    }
#pragma unroll
    for (int i = 0; i < VECTOR; i++) {
        if (i < n) {
            partial[blockIdx.y * columns + at + i] = sum[i];
        }
    }
}

static __global__ void column_final_kernel(float *norms, const double *partial, int64_t chunks,
                                           int64_t columns)
{
    int64_t column = thread_number();
    if (column < columns) {
        double sum = 0.0;
        for (int64_t i = 0; i < chunks; i++) {
            sum += partial[i * columns + column];
        }
        norms[column] = (float)sum;
    }
}

void cuda_squared_norms(struct backend *be, struct tensor *norms, const struct tensor *x,
                        enum side side)
{
    int64_t rows = tensor_rows(x);
    int64_t columns = tensor_columns(x);
    float *out = (float *)norms->data;
    if (side == SIDE_ROWS && rows > 0) {
        LAUNCH(row_norms_kernel, (unsigned)rows, BLOCK_THREADS, 0, cuda_stream(be), out, view_of(x),
               columns, view_has_wide_rows(x));
    } else if (side == SIDE_COLUMNS && columns > 0) {
        int64_t chunks = scratch_chunks(rows);
        double *partial = (double *)cuda_scratch(be, scratch_squared_norms(x, side));
        if (partial == NULL) {
            return;
        }
        dim3 grid(cuda_blocks(vectors_of(columns)), (unsigned)chunks);
        LAUNCH(column_partial_kernel, grid, BLOCK_THREADS, 0, cuda_stream(be), partial, view_of(x),
               rows, columns, view_has_wide_rows(x));
        LAUNCH(column_final_kernel, cuda_blocks(columns), BLOCK_THREADS, 0, cuda_stream(be), out,
               partial, chunks, columns);
    }
    cuda_check(be, "squared_norms");
}
