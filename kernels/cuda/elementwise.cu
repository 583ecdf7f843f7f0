/*
 * Elementwise operations, sums over a whole tensor, and the decision about a step.
 *
 * Floor: every operand is read once, every result written once. A thread takes eight elements. Sums
 * go in two stages, in double: a partial sum for each of at most SUM_PARTIALS blocks, whose
 * borders depend on the size alone, then the partial sums in order.
 */
#include "kernels/cuda/check.cuh"
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/scratch.h"
#include "kernels/cuda/vector.cuh"

void cuda_zero(struct backend *be, struct tensor *y)
{
    if (tensor_bytes(y) > 0) {
        cudaMemsetAsync(y->data, 0, tensor_bytes(y), cuda_stream(be));
    }
    cuda_check(be, "zero");
}

static __global__ void copy_kernel(struct view y, struct view x, int64_t count, bool wide)
{
    int64_t at = thread_number() * VECTOR;
    if (at < count) {
        float v[VECTOR];
        int n = vector_count(at, count);
        load8(v, x, at, n, wide);
        store8(y, at, v, n, wide);
    }
}

void cuda_copy(struct backend *be, struct tensor *y, const struct tensor *x)
{
    int64_t count = tensor_count(x);
    if (count > 0 && y->dtype == x->dtype) {
        cudaMemcpyAsync(y->data, x->data, tensor_bytes(x), cudaMemcpyDeviceToDevice,
                        cuda_stream(be));
    } else if (count > 0) {
        LAUNCH(copy_kernel, cuda_blocks(vectors_of(count)), BLOCK_THREADS, 0, cuda_stream(be),
               view_of(y), view_of(x), count, view_is_wide(y) && view_is_wide(x));
    }
    cuda_check(be, "copy");
}

static __global__ void add_kernel(struct view y, struct view x, int64_t count, bool wide)
{
    int64_t at = thread_number() * VECTOR;
    if (at < count) {
        float a[VECTOR];
        float b[VECTOR];
        int n = vector_count(at, count);
        load8(a, y, at, n, wide);
        load8(b, x, at, n, wide);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            a[i] += b[i];
        }
        store8(y, at, a, n, wide);
    }
}

void cuda_add(struct backend *be, struct tensor *y, const struct tensor *x)
{
    int64_t count = tensor_count(x);
    if (count > 0) {
        LAUNCH(add_kernel, cuda_blocks(vectors_of(count)), BLOCK_THREADS, 0, cuda_stream(be),
               view_of(y), view_of(x), count, view_is_wide(y) && view_is_wide(x));
    }
    cuda_check(be, "add");
}

static __global__ void scale_kernel(struct view y, float s, int64_t count, bool wide)
{
    int64_t at = thread_number() * VECTOR;
    if (at < count) {
        float a[VECTOR];
        int n = vector_count(at, count);
        load8(a, y, at, n, wide);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            a[i] *= s;
        }
        store8(y, at, a, n, wide);
    }
}

void cuda_scale(struct backend *be, struct tensor *y, float s)
{
    int64_t count = tensor_count(y);
    if (count > 0) {
        LAUNCH(scale_kernel, cuda_blocks(vectors_of(count)), BLOCK_THREADS, 0, cuda_stream(be),
               view_of(y), s, count, view_is_wide(y));
    }
    cuda_check(be, "scale");
}

/* ---- sums ----------------------------------------------------------------------------------- */

/* Block b sums elements [b * grain, (b + 1) * grain); grain is a multiple of eight. */
static __global__ void partial_sum_kernel(double *partial, struct view x, int64_t count,
                                          int64_t grain, bool square, bool wide)
{
    int64_t first = blockIdx.x * grain;
    int64_t last = first + grain < count ? first + grain : count;
    double sum = 0.0;
    for (int64_t at = first + threadIdx.x * VECTOR; at < last; at += BLOCK_THREADS * VECTOR) {
        float v[VECTOR];
        load8(v, x, at, vector_count(at, last), wide);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            sum += square ? (double)v[i] * (double)v[i] : (double)v[i];
        }
    }
    sum = block_sum_double(sum);
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = sum;
    }
}

static __global__ void final_sum_kernel(float *result, const double *partial, int count,
                                        bool accumulate)
{
    double sum = 0.0;
    for (int i = (int)threadIdx.x; i < count; i += BLOCK_THREADS) {
        sum += partial[i];
    }
    sum = block_sum_double(sum);
    if (threadIdx.x == 0) {
        *result = (float)((accumulate ? (double)*result : 0.0) + sum);
    }
}

static void sum_tensor(struct backend *be, struct tensor *sum, const struct tensor *x,
                       bool accumulate, bool square)
{
    int64_t count = tensor_count(x);
    int64_t unit = BLOCK_THREADS * VECTOR;
    int64_t grain = ((count + SUM_PARTIALS - 1) / SUM_PARTIALS + unit - 1) / unit * unit;
    int64_t blocks = count > 0 ? (count + grain - 1) / grain : 0;
    double *partial = (double *)cuda_scratch(be, scratch_sum());
    if (partial == NULL) {
        return;
    }
    if (blocks > 0) {
        LAUNCH(partial_sum_kernel, (unsigned)blocks, BLOCK_THREADS, 0, cuda_stream(be), partial,
               view_of(x), count, grain, square, view_is_wide(x));
    }
    LAUNCH(final_sum_kernel, 1, BLOCK_THREADS, 0, cuda_stream(be), (float *)sum->data, partial,
           (int)blocks, accumulate);
}

void cuda_sum(struct backend *be, struct tensor *sum, const struct tensor *x, bool accumulate)
{
    sum_tensor(be, sum, x, accumulate, false);
    cuda_check(be, "sum");
}

void cuda_sum_squares(struct backend *be, struct tensor *sum, const struct tensor *x,
                      bool accumulate)
{
    sum_tensor(be, sum, x, accumulate, true);
    cuda_check(be, "sum_squares");
}

static __global__ void clip_kernel(float *control, const float *sum_squares, const float *loss,
                                   float clip)
{
    float norm = sqrtf(*sum_squares);
    float limit = clip / (norm + 1e-6f);
    control[CONTROL_FACTOR] = clip > 0.0f && limit < 1.0f ? limit : 1.0f;
    control[CONTROL_SKIP] = isfinite(norm) && isfinite(*loss) ? 0.0f : 1.0f;
    control[CONTROL_NORM] = norm;
}

void cuda_clip(struct backend *be, struct tensor *control, const struct tensor *sum_squares,
               const struct tensor *loss, float clip)
{
    LAUNCH(clip_kernel, 1, 1, 0, cuda_stream(be), (float *)control->data,
           (const float *)sum_squares->data, (const float *)loss->data, clip);
    cuda_check(be, "clip");
}
