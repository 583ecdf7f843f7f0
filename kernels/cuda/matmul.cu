/*
 * Matrix products (formula in kernels/ops.h) in terms of column-major ones: a row-major matrix is
 * its transpose in column-major order, so c = op(a) op(b) is computed as c' = op(b)' op(a)', and
 * nothing is ever transposed in memory. A range of columns is an address and a stride.
 */
#include "kernels/cuda/check.cuh"
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/scratch.h"

static struct gemm gemm_of(const struct matmul *args)
{
    struct gemm g;
    int64_t a_width = tensor_columns(args->a);
    int64_t b_width = tensor_columns(args->b);
    int64_t columns = args->a_columns > 0 ? args->a_columns : a_width;
    size_t size = dtype_size(args->a->dtype);
    g.m = args->transpose_b ? tensor_rows(args->b) : b_width;
    g.n = args->transpose_a ? columns : tensor_rows(args->a);
    g.k = args->transpose_a ? tensor_rows(args->a) : columns;
    g.a = args->b->data;
    g.b = (const char *)args->a->data + (size_t)args->a_first * size;
    g.c = args->c->data;
    g.addend = args->addend != NULL ? args->addend->data : args->c->data;
    g.a_stride = b_width;
    g.b_stride = a_width;
    g.c_stride = g.m;
    g.transpose_a = args->transpose_b;
    g.transpose_b = args->transpose_a;
    g.factor_type = args->a->dtype;
    g.result_type = args->c->dtype;
    g.beta = args->addend != NULL ? 1.0f : args->beta;
    return g;
}

static void multiply(struct backend *be, const struct gemm *g, void *workspace)
{
    char why[256] = "";
    struct cuda_state *state = cuda_state_of(be);
    struct product_place place;
    place.stream = (void *)state->stream;
    place.workspace = workspace;
    place.recording = state->recording;
    if (cublaslt_multiply(state->products, g, &place, why, sizeof why) != 0) {
        backend_fail(be, "matmul: %s", why);
    }
}

void cuda_matmul(struct backend *be, const struct matmul *args)
{
    struct gemm g = gemm_of(args);
    if (g.m == 0 || g.n == 0) {
        return;
    }
    if (g.k == 0) {
        if (g.beta == 0.0f) {
            cuda_zero(be, args->c);
        } else if (args->addend != NULL) {
            cuda_copy(be, args->c, args->addend);
        }
        return;
    }
    char *room = (char *)cuda_scratch(be, scratch_matmul(args));
    if (room == NULL) {
        return;
    }
    if (g.factor_type == DTYPE_BF16 || g.result_type == DTYPE_F32) {
        multiply(be, &g, room);
        cuda_check(be, "matmul");
        return;
    }
    /* The library has no fp32 factors with a bf16 result: through an fp32 copy. */
    struct tensor whole = *args->c;
    whole.dtype = DTYPE_F32;
    whole.data = room + PRODUCT_WORKSPACE_BYTES;
    if (g.beta != 0.0f) {
        cuda_copy(be, &whole, args->addend != NULL ? args->addend : args->c);
    }
    g.c = whole.data;
    g.addend = whole.data;
    g.result_type = DTYPE_F32;
    multiply(be, &g, room);
    cuda_copy(be, args->c, &whole);
    cuda_check(be, "matmul");
}
