/*
 * Device memory that the kernels of the cuda backend take for the inside of one operation.
 *
 * Plain C, for two readers: the launchers ask cuda_scratch for exactly these bytes, and the
 * "null-cuda" backend asks for them when a step is planned. A launcher that needs scratch gets its
 * function here and its call in null.c; a kernel that asks for more than was planned ends the run
 * with the operation named, and tests/simt fails on it first.
 */
#ifndef WINDROW_KERNELS_CUDA_SCRATCH_H
#define WINDROW_KERNELS_CUDA_SCRATCH_H

#include "kernels/ops.h"
#include "kernels/select_order.h"

/* Partial sums of a whole tensor; rows that one partial sum of a column covers; blocks that share
 * the gradient of a norm's weight, several for each processor of the largest devices. */
enum { SUM_PARTIALS = 512, ROW_CHUNK = 64, NORM_PARTS = 512, SELECT_COUNTERS = 2 };

/* What cuBLASLt may work in: enough for the split sums of narrow products on every device of
 * today (its manual asks for 32 MiB on Hopper). */
#define PRODUCT_WORKSPACE_BYTES ((size_t)64 << 20)

static inline size_t scratch_aligned(size_t bytes)
{
    return (bytes + 255) & ~(size_t)255;
}

static inline int64_t scratch_chunks(int64_t rows)
{
    return (rows + ROW_CHUNK - 1) / ROW_CHUNK;
}

static inline size_t scratch_sum(void)
{
    return SUM_PARTIALS * sizeof(double);
}

/* The workspace, and an fp32 result where the library has none of the type that is wanted. */
static inline size_t scratch_matmul(const struct matmul *args)
{
    bool direct = args->a->dtype == DTYPE_BF16 || args->c->dtype == DTYPE_F32;
    size_t copy = direct ? 0 : (size_t)tensor_count(args->c) * sizeof(float);
    return PRODUCT_WORKSPACE_BYTES + scratch_aligned(copy);
}

/* Rows whose share of the gradient of the weight one block sums. */
static inline int64_t scratch_norm_rows(int64_t rows)
{
    return (rows + NORM_PARTS - 1) / NORM_PARTS;
}

/* It multiplies y by itself, fp32 all over. */
static inline size_t scratch_orthonormalize(const struct orthonormalize *args)
{
    return tensor_columns(args->y) > 0 ? PRODUCT_WORKSPACE_BYTES : 0;
}

/* What cuSOLVER may work in: it asks for about three matrices of doubles. Where a version wants
 * more the host solves. */
static inline size_t scratch_solver(int64_t size)
{
    return (size_t)(3 * size * size + 256 * size + (1 << 18)) * sizeof(double);
}

/* A matrix of doubles, its eigenvalues, two flags, and what cuSOLVER works in; taken whether the
 * library is there or not, so that the plan does not depend on it. */
static inline size_t scratch_eigenvectors(int64_t size, int64_t count)
{
    size_t matrix = scratch_aligned((size_t)(size * size) * sizeof(double));
    size_t values = scratch_aligned((size_t)size * sizeof(double));
    bool some = size > 0 && count > 0;
    return some ? matrix + values + scratch_aligned(2 * sizeof(int)) + scratch_solver(size) : 0;
}

static inline size_t scratch_rmsnorm_backward(const struct rmsnorm_backward *args)
{
    int64_t rows = tensor_rows(args->x);
    int64_t each = scratch_norm_rows(rows);
    if (args->dweight == NULL || rows == 0) {
        return 0;
    }
    return (size_t)((rows + each - 1) / each * tensor_columns(args->x)) * sizeof(float);
}

static inline size_t scratch_embedding_backward(const struct tensor *dy)
{
    return tensor_columns(dy) > 0 ? 2 * (size_t)tensor_rows(dy) * sizeof(uint64_t) : 0;
}

static inline size_t scratch_squared_norms(const struct tensor *x, enum side side)
{
    size_t count = (size_t)(scratch_chunks(tensor_rows(x)) * tensor_columns(x));
    return side == SIDE_COLUMNS ? (count + 1) * sizeof(double) : 0;
}

/* The arrays of struct choice (select.cu). */
static inline size_t scratch_select(int64_t candidates)
{
    size_t count = (size_t)candidates;
    size_t runs = (count + SELECT_RUN - 1) / SELECT_RUN;
    return count == 0 ? 0
                      : (2 * count + runs) * sizeof(double) + 2 * count * sizeof(uint64_t) +
                            SELECT_COUNTERS * sizeof(int64_t) + count * sizeof(int32_t);
}

/* Two numbers a slot: what its step and its root are multiplied by. */
static inline size_t scratch_adamw(const struct adamw *args)
{
    return (size_t)tensor_count(args->age) * 2 * sizeof(float);
}

/* The two of the one slot, how much the weights decay, and whether anything is done. */
static inline size_t scratch_tradam(void)
{
    return 4 * sizeof(float);
}

#endif
