/*
 * Softmax cross-entropy (formula in kernels/ops.h). A block takes a row.
 *
 * Floor, bytes a row in bf16: 4V with the gradient, 2V without. A row of a large vocabulary leaves
 * the first-level cache before its second reading, which then comes out of the second level.
 *
 * One pass finds the largest logit and the sum of exponentials together (Milakov, Gimelshein,
 * "Online normalizer calculation for softmax", arXiv 1805.02867), a second one writes the
 * gradient. A NaN or +inf among the logits of a trained row makes its loss NaN.
 */
#include <float.h>

#include "kernels/cuda/check.cuh"
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/vector.cuh"

struct entropy {
    float *losses;
    struct view logits;
    const int32_t *targets;
    const float *factor; /* NULL: 1 */
    int64_t columns;
    float scale;
    bool gradient;
    bool wide;
};

static __device__ void forget_row(struct entropy e, int64_t first)
{
    const float zeros[VECTOR] = { 0.0f };
    for (int64_t at = threadIdx.x * VECTOR; at < e.columns; at += BLOCK_THREADS * VECTOR) {
        store8(e.logits, first + at, zeros, vector_count(at, e.columns), e.wide);
    }
}

/* The largest of this thread's logits, and the sum of exponentials of the distances to it. */
static __device__ void scan_row(struct entropy e, int64_t first, float *most, float *sum)
{
    float m = -FLT_MAX;
    float s = 0.0f;
    for (int64_t at = threadIdx.x * VECTOR; at < e.columns; at += BLOCK_THREADS * VECTOR) {
        float x[VECTOR];
        int n = vector_count(at, e.columns);
        load8(x, e.logits, first + at, n, e.wide);
        float old = m;
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            m = i < n && x[i] > m ? x[i] : m;
        }
        s *= expf(old - m);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            s += i < n ? expf(x[i] - m) : 0.0f; /* inf - inf is NaN, as it should be */
        }
    }
    *most = m;
    *sum = s;
}

static __global__ void cross_entropy_kernel(struct entropy e)
{
    int64_t first = blockIdx.x * e.columns;
    int32_t target = e.targets[blockIdx.x];
    if (target < 0) {
        if (threadIdx.x == 0) {
            e.losses[blockIdx.x] = 0.0f;
        }
        if (e.gradient) {
            forget_row(e, first);
        }
        return;
    }
    float own_most;
    float own_sum;
    scan_row(e, first, &own_most, &own_sum);
    float logit = get(e.logits, first + target);
    float most = block_max(own_most);
    double sum = (double)block_sum(own_sum * expf(own_most - most));
    if (threadIdx.x == 0) {
        e.losses[blockIdx.x] = (float)(log(sum) + ((double)most - (double)logit));
    }
    if (!e.gradient) {
        return;
    }
    float scale = e.factor != NULL ? e.scale * *e.factor : e.scale;
    float factor = (float)((double)scale / sum);
    double chosen = exp((double)logit - (double)most) / sum;
    float at_target = (float)((double)scale * (chosen - 1.0));
    for (int64_t at = threadIdx.x * VECTOR; at < e.columns; at += BLOCK_THREADS * VECTOR) {
        float x[VECTOR];
        int n = vector_count(at, e.columns);
        load8(x, e.logits, first + at, n, e.wide);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) {
            x[i] = at + i == target ? at_target : expf(x[i] - most) * factor;
        }
        store8(e.logits, first + at, x, n, e.wide);
    }
}

void cuda_cross_entropy(struct backend *be, const struct cross_entropy *args)
{
    int64_t rows = tensor_rows(args->logits);
    struct entropy e = { (float *)args->losses->data,
                         view_of(args->logits),
                         (const int32_t *)args->targets->data,
                         args->factor != NULL ? (const float *)args->factor->data : NULL,
                         tensor_columns(args->logits),
                         args->scale,
                         args->gradient,
                         view_has_wide_rows(args->logits) };
    if (rows > 0) {
        LAUNCH(cross_entropy_kernel, (unsigned)rows, BLOCK_THREADS, 0, cuda_stream(be), e);
    }
    cuda_check(be, "cross_entropy");
}
