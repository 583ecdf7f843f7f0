/* The options of the backend: which attention kernels run, and when cuDNN is asked. */
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/flash.cuh"

int cuda_configure(struct backend *be, const struct backend_options *options, char *why,
                   size_t why_size)
{
    struct cuda_state *state = cuda_state_of(be);
    struct cudnn *cudnn = NULL;
    if (options->attention != ATTENTION_OWN) {
        cudnn = cudnn_open(why, why_size);
        if (cudnn == NULL && options->attention == ATTENTION_CUDNN) {
            return -1;
        }
    }
    cudnn_close(state->cudnn);
    state->cudnn = cudnn;
    if (options->deterministic) {
        cublaslt_be_deterministic(state->products);
    }
    backend_forget_replays(be);
    return 0;
}

/* Whether cuDNN does it. One that was asked for by name and fails ends the run; with auto our own
 * kernels do it. */
static bool prepare(struct backend *be, const struct cudnn_shape *shape, const char *op)
{
    char why[256] = "";
    if (cudnn_prepare(cuda_state_of(be)->cudnn, shape, why, sizeof why) == 0) {
        return true;
    }
    if (be->options.attention == ATTENTION_CUDNN) {
        backend_fail(be, "%s: %s (kernel.attention=auto falls back to our own kernels)", op, why);
    }
    return be->failed;
}

/* After prepare: true in every case, the operation is done or an error latched. */
static bool run(struct backend *be, const struct cudnn_shape *shape, struct cudnn_tensors *tensors,
                const char *op)
{
    char why[256] = "";
    if (be->failed) {
        return true;
    }
    tensors->scratch = cuda_scratch(be, cudnn_scratch_bytes(shape));
    if (tensors->scratch == NULL) {
        return true;
    }
    if (cudnn_run(cuda_state_of(be)->cudnn, shape, tensors, cuda_stream(be), why, sizeof why) !=
        0) {
        backend_fail(be, "%s: %s", op, why);
    }
    cuda_check(be, op);
    return true;
}

static struct cudnn_shape shape_of(const struct attention_shape *a, bool backward)
{
    struct cudnn_shape s = { a->batch, a->sequence, a->heads, a->kv_heads, a->head_size, backward };
    return s;
}

bool cudnn_forward(struct backend *be, const struct attention_forward *args)
{
    struct cudnn_shape shape = shape_of(&args->shape, false);
    const struct tensor *tensors[] = { args->qkv, args->out };
    if (cuda_state_of(be)->cudnn == NULL || args->starts != NULL || !cudnn_takes(&shape) ||
        !flash_aligned(tensors, 2) || !prepare(be, &shape, "attention_forward")) {
        return false;
    }
    struct cudnn_tensors t;
    memset(&t, 0, sizeof t);
    t.qkv = args->qkv->data;
    t.out = args->out->data;
    t.lse = (float *)args->lse->data;
    t.scale = args->shape.scale;
    return run(be, &shape, &t, "attention_forward");
}

bool cudnn_backward(struct backend *be, const struct attention_backward *args)
{
    struct cudnn_shape shape = shape_of(&args->shape, true);
    const struct tensor *tensors[] = { args->qkv, args->out, args->dout, args->dqkv };
    if (cuda_state_of(be)->cudnn == NULL || be->options.deterministic || args->starts != NULL ||
        !cudnn_takes(&shape) || !flash_aligned(tensors, 4) ||
        !prepare(be, &shape, "attention_backward")) {
        return false;
    }
    struct cudnn_tensors t;
    memset(&t, 0, sizeof t);
    t.qkv = args->qkv->data;
    t.out = args->out->data;
    t.lse = (float *)args->lse->data;
    t.dout = args->dout->data;
    t.dqkv = args->dqkv->data;
    t.delta = (float *)args->delta->data;
    t.scale = args->shape.scale;
    return run(be, &shape, &t, "attention_backward");
}
