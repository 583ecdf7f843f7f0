/* The backend of doubles: memory, elementwise operations, and its table. */
#include "gpu/reference.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/backend_ops.h"

double *reference_room(int64_t count)
{
    double *room = calloc((size_t)count + 1, sizeof *room);
    if (room == NULL) {
        abort();
    }
    return room;
}

static void reference_close(struct backend *be)
{
    free(be);
}

static int reference_sync(struct backend *be)
{
    (void)be;
    return 0;
}

/* Enough for a double in place of every byte. */
static void *reference_alloc(struct backend *be, size_t bytes)
{
    (void)be;
    return reference_room((int64_t)bytes);
}

static void reference_free(struct backend *be, void *data, size_t bytes)
{
    (void)be;
    (void)bytes;
    free(data);
}

/* ---- elementwise ----------------------------------------------------------------------------- */

static void reference_zero(struct backend *be, struct tensor *y)
{
    (void)be;
    for (int64_t i = 0; i < tensor_count(y); i++) {
        numbers_of(y)[i] = 0.0;
    }
}

static void reference_copy(struct backend *be, struct tensor *y, const struct tensor *x)
{
    (void)be;
    for (int64_t i = 0; i < tensor_count(y); i++) {
        numbers_of(y)[i] = numbers_of(x)[i];
    }
}

static void reference_add(struct backend *be, struct tensor *y, const struct tensor *x)
{
    (void)be;
    for (int64_t i = 0; i < tensor_count(y); i++) {
        numbers_of(y)[i] += numbers_of(x)[i];
    }
}

static void reference_scale(struct backend *be, struct tensor *y, float s)
{
    (void)be;
    for (int64_t i = 0; i < tensor_count(y); i++) {
        numbers_of(y)[i] *= (double)s;
    }
}

static void reference_square(struct backend *be, struct tensor *y)
{
    (void)be;
    for (int64_t i = 0; i < tensor_count(y); i++) {
        numbers_of(y)[i] *= numbers_of(y)[i];
    }
}

static void reference_sum(struct backend *be, struct tensor *sum, const struct tensor *x,
                          bool accumulate)
{
    (void)be;
    double total = accumulate ? numbers_of(sum)[0] : 0.0;
    for (int64_t i = 0; i < tensor_count(x); i++) {
        total += numbers_of(x)[i];
    }
    numbers_of(sum)[0] = total;
}

static void reference_sum_squares(struct backend *be, struct tensor *sum, const struct tensor *x,
                                  bool accumulate)
{
    (void)be;
    double total = accumulate ? numbers_of(sum)[0] : 0.0;
    for (int64_t i = 0; i < tensor_count(x); i++) {
        total += numbers_of(x)[i] * numbers_of(x)[i];
    }
    numbers_of(sum)[0] = total;
}

static void reference_clip(struct backend *be, struct tensor *control,
                           const struct tensor *sum_squares, const struct tensor *loss, float clip)
{
    (void)be;
    double norm = sqrt(numbers_of(sum_squares)[0]);
    bool skip = !isfinite(norm) || !isfinite(numbers_of(loss)[0]);
    numbers_of(control)[CONTROL_FACTOR] = clip > 0.0f ? fmin(1.0, (double)clip / (norm + 1e-6)) : 1;
    numbers_of(control)[CONTROL_SKIP] = skip ? 1.0 : 0.0;
    numbers_of(control)[CONTROL_NORM] = norm;
}

static const struct backend_ops reference_ops = {
    .name = "reference",
    .close = reference_close,
    .sync = reference_sync,
    .alloc = reference_alloc,
    .free = reference_free,
    .zero = reference_zero,
    .copy = reference_copy,
    .add = reference_add,
    .scale = reference_scale,
    .sum = reference_sum,
    .sum_squares = reference_sum_squares,
    .clip = reference_clip,
    .matmul = reference_matmul,
    .rmsnorm_forward = reference_rmsnorm_forward,
    .rmsnorm_backward = reference_rmsnorm_backward,
    .rope = reference_rope,
    .attention_forward = reference_attention_forward,
    .attention_backward = reference_attention_backward,
    .attention_decode = reference_attention_decode,
    .swiglu_forward = reference_swiglu_forward,
    .swiglu_backward = reference_swiglu_backward,
    .embedding_forward = reference_embedding_forward,
    .embedding_backward = reference_embedding_backward,
    .distinct = reference_distinct,
    .cross_entropy = reference_cross_entropy,
    .squared_norms = reference_squared_norms,
    .select = reference_select,
    .gather = reference_gather,
    .scatter = reference_scatter,
    .scale_side = reference_scale_side,
    .adamw = reference_adamw,
    .settle = reference_settle,
    .adamw_int8 = reference_adamw,
    .sgd = reference_sgd,
    .unit_factors = reference_unit_factors,
    .tradam = reference_tradam,
    .quantize = reference_quantize,
    .dequantize = reference_dequantize,
    .random_normal = reference_random_normal,
    .orthonormalize = reference_orthonormalize,
    .eigenvectors = reference_eigenvectors,
    .square = reference_square,
    .descend = reference_descend,
    .random_sign = reference_random_sign,
};

struct backend *reference_open(void)
{
    struct backend *be = calloc(1, sizeof *be);
    if (be == NULL) {
        abort();
    }
    be->ops = &reference_ops;
    be->facts.host_accessible = true;
    return be;
}
