/*
 * The null backend: a device that computes nothing and owns no memory.
 *
 * A training step runs on it for its sizes and counts. Addresses are handed out one after the other
 * from a part of the address space that no x86-64 or AArch64 process can map (the upper bits are
 * neither all 0 nor all 1), so that anything that touches a tensor faults at once, under every
 * tool. They never repeat: memory freed is not given out again.
 */
#include <stdio.h>
#include <stdlib.h>

#include "kernels/backend_ops.h"
#include "kernels/backend_private.h"
#include "kernels/cuda/cudnn.h"
#include "kernels/cuda/scratch.h"
#include "kernels/ops.h"

static const uintptr_t null_first = (uintptr_t)0x1000000000000000u;
static const uintptr_t null_last = (uintptr_t)0xF000000000000000u;

struct null_state {
    uintptr_t next;
    bool cuda; /* stands for that backend: asks for its scratch */
};

/* What an operation of the backend that is stood for takes for its inside. */
static void null_scratch(struct backend *be, size_t bytes)
{
    const struct null_state *state = be->state;
    if (state->cuda && be->scratch.take != NULL && bytes > 0) {
        (void)be->scratch.take(be->scratch.context, bytes);
    }
}

static void null_close(struct backend *be)
{
    free(be->state);
    free(be);
}

static int null_configure(struct backend *be, const struct backend_options *options, char *why,
                          size_t why_size)
{
    (void)be;
    (void)options;
    (void)why;
    (void)why_size;
    return 0;
}

static int null_sync(struct backend *be)
{
    (void)be;
    return 0;
}

static void *null_alloc(struct backend *be, size_t bytes)
{
    struct null_state *state = be->state;
    uintptr_t left = null_last - state->next;
    if (bytes > left - 512) {
        return NULL;
    }
    void *address = (void *)state->next;
    /* 256 bytes more than asked for: two tensors never touch, not even two of no size. */
    state->next += ((uintptr_t)bytes + 256 + 255) & ~(uintptr_t)255;
    return address;
}

static void null_free(struct backend *be, void *data, size_t bytes)
{
    (void)be;
    (void)data;
    (void)bytes;
}

static void null_upload(struct backend *be, void *device, const void *host, size_t bytes)
{
    (void)be;
    (void)device;
    (void)host;
    (void)bytes;
}

static void null_download(struct backend *be, void *host, const void *device, size_t bytes)
{
    (void)be;
    (void)device;
    memset(host, 0, bytes);
}

/* One function a signature: an operation that has been checked and counted has nothing left to do.
 */

static void null_unary(struct backend *be, struct tensor *y)
{
    (void)be;
    (void)y;
}

static void null_binary(struct backend *be, struct tensor *y, const struct tensor *x)
{
    (void)be;
    (void)y;
    (void)x;
}

static void null_ternary(struct backend *be, struct tensor *y, const struct tensor *a,
                         const struct tensor *b)
{
    (void)be;
    (void)y;
    (void)a;
    (void)b;
}

static void null_scale(struct backend *be, struct tensor *y, float s)
{
    (void)be;
    (void)y;
    (void)s;
}

static void null_sum(struct backend *be, struct tensor *sum, const struct tensor *x,
                     bool accumulate)
{
    (void)sum;
    (void)x;
    (void)accumulate;
    null_scratch(be, scratch_sum());
}

static void null_clip(struct backend *be, struct tensor *control, const struct tensor *sum_squares,
                      const struct tensor *loss, float clip)
{
    (void)be;
    (void)control;
    (void)sum_squares;
    (void)loss;
    (void)clip;
}

static void null_side(struct backend *be, struct tensor *y, const struct tensor *x, enum side side)
{
    (void)be;
    (void)y;
    (void)x;
    (void)side;
}

static void null_side_index(struct backend *be, struct tensor *y, const struct tensor *x,
                            const struct tensor *index, enum side side)
{
    (void)be;
    (void)y;
    (void)x;
    (void)index;
    (void)side;
}

static void null_random(struct backend *be, struct tensor *x, float deviation,
                        struct random_key key)
{
    (void)be;
    (void)x;
    (void)deviation;
    (void)key;
}

#define NULL_ARGUMENTS(name)                                                                       \
    static void null_##name(struct backend *be, const struct name *args)                           \
    {                                                                                              \
        (void)be;                                                                                  \
        (void)args;                                                                                \
    }

NULL_ARGUMENTS(rmsnorm_forward)
NULL_ARGUMENTS(rope)
NULL_ARGUMENTS(attention_decode)
NULL_ARGUMENTS(swiglu_backward)
NULL_ARGUMENTS(distinct)
NULL_ARGUMENTS(cross_entropy)
NULL_ARGUMENTS(settle)
NULL_ARGUMENTS(sgd)
NULL_ARGUMENTS(unit_factors)
NULL_ARGUMENTS(quantize)
NULL_ARGUMENTS(dequantize)
NULL_ARGUMENTS(descend)

#define NULL_SCRATCH(name)                                                                         \
    static void null_##name(struct backend *be, const struct name *args)                           \
    {                                                                                              \
        null_scratch(be, scratch_##name(args));                                                    \
    }

NULL_SCRATCH(matmul)
NULL_SCRATCH(rmsnorm_backward)
NULL_SCRATCH(adamw)
NULL_SCRATCH(orthonormalize)

/* Whether cuDNN does it is known on a device only: then as if it did. */
static void attention_scratch(struct backend *be, const struct attention_shape *a,
                              const struct tensor *qkv, bool backward)
{
    const struct cudnn_shape shape = { a->batch,    a->sequence,  a->heads,
                                       a->kv_heads, a->head_size, backward };
    bool asked = be->options.attention != ATTENTION_OWN && qkv->dtype == DTYPE_BF16 &&
                 !(backward && be->options.deterministic);
    if (asked && cudnn_takes(&shape)) {
        null_scratch(be, cudnn_scratch_bytes(&shape));
    }
}

static void null_attention_forward(struct backend *be, const struct attention_forward *args)
{
    attention_scratch(be, &args->shape, args->qkv, false);
}

static void null_attention_backward(struct backend *be, const struct attention_backward *args)
{
    attention_scratch(be, &args->shape, args->qkv, true);
}

static void null_select(struct backend *be, const struct select *args)
{
    null_scratch(be, scratch_select(tensor_count(args->norms)));
}

static void null_eigenvectors(struct backend *be, struct tensor *vectors,
                              const struct tensor *matrix)
{
    null_scratch(be, scratch_eigenvectors(tensor_rows(matrix), tensor_columns(vectors)));
}

static void null_tradam(struct backend *be, const struct tradam *args)
{
    (void)args;
    null_scratch(be, scratch_tradam());
}

static void null_embedding_backward(struct backend *be, struct tensor *dtable,
                                    const struct tensor *dy, const struct tensor *ids)
{
    (void)dtable;
    (void)ids;
    null_scratch(be, scratch_embedding_backward(dy));
}

static void null_squared_norms(struct backend *be, struct tensor *norms, const struct tensor *x,
                               enum side side)
{
    (void)norms;
    null_scratch(be, scratch_squared_norms(x, side));
}

static const struct backend_ops null_ops = {
    .name = "null",
    .close = null_close,
    .configure = null_configure,
    .sync = null_sync,
    .alloc = null_alloc,
    .free = null_free,
    .upload = null_upload,
    .download = null_download,
    .zero = null_unary,
    .copy = null_binary,
    .add = null_binary,
    .scale = null_scale,
    .sum = null_sum,
    .sum_squares = null_sum,
    .clip = null_clip,
    .matmul = null_matmul,
    .rmsnorm_forward = null_rmsnorm_forward,
    .rmsnorm_backward = null_rmsnorm_backward,
    .rope = null_rope,
    .attention_forward = null_attention_forward,
    .attention_backward = null_attention_backward,
    .attention_decode = null_attention_decode,
    .swiglu_forward = null_binary,
    .swiglu_backward = null_swiglu_backward,
    .embedding_forward = null_ternary,
    .embedding_backward = null_embedding_backward,
    .distinct = null_distinct,
    .cross_entropy = null_cross_entropy,
    .squared_norms = null_squared_norms,
    .select = null_select,
    .gather = null_side_index,
    .scatter = null_side_index,
    .scale_side = null_side,
    .adamw = null_adamw,
    .settle = null_settle,
    .adamw_int8 = null_adamw,
    .sgd = null_sgd,
    .unit_factors = null_unit_factors,
    .tradam = null_tradam,
    .quantize = null_quantize,
    .dequantize = null_dequantize,
    .random_normal = null_random,
    .orthonormalize = null_orthonormalize,
    .eigenvectors = null_eigenvectors,
    .square = null_unary,
    .descend = null_descend,
    .random_sign = null_random,
};

static struct backend *open_for(bool cuda, int index, char *why, size_t why_size)
{
    if (index != 0) {
        snprintf(why, why_size, "there is only one null backend, number 0, not %d", index);
        return NULL;
    }
    struct backend *be = calloc(1, sizeof *be);
    struct null_state *state = calloc(1, sizeof *state);
    if (be == NULL || state == NULL) {
        free(be);
        free(state);
        snprintf(why, why_size, "out of memory");
        return NULL;
    }
    state->next = null_first;
    state->cuda = cuda;
    be->facts.asynchronous = cuda;
    be->ops = &null_ops;
    be->state = state;
    snprintf(be->facts.device, sizeof be->facts.device, "null");
    be->facts.imaginary = true;
    return be;
}

struct backend *backend_null_open(int index, char *why, size_t why_size)
{
    return open_for(false, index, why, why_size);
}

struct backend *backend_null_cuda_open(int index, char *why, size_t why_size)
{
    return open_for(true, index, why, why_size);
}
