/* The cuda backend: the device, its stream and memory, faults, and the table of operations. */
#include "kernels/cuda/cuda.cuh"

#include <stdio.h>
#include <stdlib.h>

#include "kernels/backend_private.h"
#include "kernels/cuda/check.cuh"

enum { OLDEST_MAJOR = 8 }; /* compute capability: bf16 arithmetic begins there */

bool cuda_check(struct backend *be, const char *op)
{
    struct cuda_state *state = cuda_state_of(be);
    cudaError_t status = cudaGetLastError();
    state->last_op = op;
    if (status == cudaSuccess && state->wait_for_each) {
        status = cudaStreamSynchronize(state->stream);
    }
    if (status != cudaSuccess) {
        backend_fail(be, "%s on cuda:%d: %s", op, state->index, cudaGetErrorString(status));
    }
    return !be->failed;
}

void *cuda_scratch(struct backend *be, size_t bytes)
{
    struct cuda_state *state = cuda_state_of(be);
    if (bytes > state->scratch_bytes) {
        cudaStreamSynchronize(state->stream);
        cudaFree(state->scratch);
        state->scratch = NULL;
        state->scratch_bytes = 0;
        if (cudaMalloc(&state->scratch, bytes) != cudaSuccess) {
            (void)cudaGetLastError();
            state->scratch = NULL;
            backend_fail(be, "cuda:%d is out of memory (%zu bytes of scratch)", state->index,
                         bytes);
            return NULL;
        }
        state->scratch_bytes = bytes;
    }
    return state->scratch;
}

static void cuda_close(struct backend *be)
{
    struct cuda_state *state = cuda_state_of(be);
    cudnn_close(state->cudnn);
    cublaslt_close(state->products);
    cudaFree(state->scratch);
    cudaStreamDestroy(state->stream);
    free(state);
    free(be);
}

/* A fault in a kernel shows here, or at a transfer. */
static int cuda_wait(struct backend *be, const char *what)
{
    struct cuda_state *state = cuda_state_of(be);
    cudaError_t status = cudaStreamSynchronize(state->stream);
    if (status != cudaSuccess) {
        backend_fail(be,
                     "%s on cuda:%d, the last operation being %s: %s (KERNELS_SYNC=1 in the "
                     "environment names the one that failed)",
                     what, state->index, state->last_op, cudaGetErrorString(status));
    }
    return be->failed ? -1 : 0;
}

static int cuda_sync(struct backend *be)
{
    return cuda_wait(be, "waiting");
}

static void *cuda_alloc(struct backend *be, size_t bytes)
{
    (void)be;
    void *data = NULL;
    if (cudaMalloc(&data, bytes > 0 ? bytes : 1) != cudaSuccess) {
        (void)cudaGetLastError();
        return NULL;
    }
    return data;
}

static void cuda_free(struct backend *be, void *data, size_t bytes)
{
    (void)be;
    (void)bytes;
    cudaFree(data);
}

static void cuda_upload(struct backend *be, void *device, const void *host, size_t bytes)
{
    cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, cuda_stream(be));
    if (cuda_check(be, "upload")) {
        cuda_wait(be, "upload");
    }
}

static void cuda_download(struct backend *be, void *host, const void *device, size_t bytes)
{
    cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, cuda_stream(be));
    if (!cuda_check(be, "download") || cuda_wait(be, "download") != 0) {
        memset(host, 0, bytes);
    }
}

static const struct backend_ops cuda_ops = {
    .name = "cuda",
    .close = cuda_close,
    .configure = cuda_configure,
    .sync = cuda_sync,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .upload = cuda_upload,
    .download = cuda_download,
    .zero = cuda_zero,
    .copy = cuda_copy,
    .add = cuda_add,
    .scale = cuda_scale,
    .sum = cuda_sum,
    .sum_squares = cuda_sum_squares,
    .clip = cuda_clip,
    .matmul = cuda_matmul,
    .rmsnorm_forward = cuda_rmsnorm_forward,
    .rmsnorm_backward = cuda_rmsnorm_backward,
    .rope = cuda_rope,
    .attention_forward = cuda_attention_forward,
    .attention_backward = cuda_attention_backward,
    .attention_decode = cuda_attention_decode,
    .swiglu_forward = cuda_swiglu_forward,
    .swiglu_backward = cuda_swiglu_backward,
    .embedding_forward = cuda_embedding_forward,
    .embedding_backward = cuda_embedding_backward,
    .distinct = cuda_distinct,
    .cross_entropy = cuda_cross_entropy,
    .squared_norms = cuda_squared_norms,
    .select = cuda_select,
    .gather = cuda_gather,
    .scatter = cuda_scatter,
    .scale_side = cuda_scale_side,
    .adamw = cuda_adamw,
    .settle = cuda_settle,
    .adamw_int8 = cuda_adamw_int8,
    .sgd = cuda_sgd,
    .unit_factors = cuda_unit_factors,
    .tradam = cuda_tradam,
    .quantize = cuda_quantize,
    .dequantize = cuda_dequantize,
    .random_normal = cuda_random_normal,
    .orthonormalize = cuda_orthonormalize,
    .eigenvectors = cuda_eigenvectors,
    .square = cuda_square,
    .descend = cuda_descend,
    .random_sign = cuda_random_sign,
};

/* Whether device `index` can be had; its facts. */
static bool find_device(int index, struct backend_facts *facts, char *why, size_t why_size)
{
    int count = 0;
    struct cudaDeviceProp properties;
    cudaError_t status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess || count == 0) {
        (void)cudaGetLastError();
        snprintf(why, why_size, "there is no NVIDIA device or no driver for it (%s)",
                 status != cudaSuccess ? cudaGetErrorString(status) : "0 devices");
        return false;
    }
    if (index < 0 || index >= count) {
        snprintf(why, why_size, "there is no cuda:%d; found %d NVIDIA device%s, counted from 0",
                 index, count, count == 1 ? "" : "s");
        return false;
    }
    status = cudaSetDevice(index);
    if (status == cudaSuccess) {
        status = cudaGetDeviceProperties(&properties, index);
    }
    if (status != cudaSuccess) {
        (void)cudaGetLastError();
        snprintf(why, why_size, "cuda:%d does not answer: %s", index, cudaGetErrorString(status));
        return false;
    }
    if (properties.major < OLDEST_MAJOR) {
        snprintf(why, why_size,
                 "cuda:%d (%.100s) has compute capability %d.%d, at least %d.0 is needed", index,
                 properties.name, properties.major, properties.minor, (int)OLDEST_MAJOR);
        return false;
    }
    snprintf(facts->device, sizeof facts->device, "%.100s, sm_%d%d", properties.name,
             properties.major, properties.minor);
    facts->memory_bytes = properties.totalGlobalMem;
    if (cudaDeviceGetPCIBusId(facts->bus_id, (int)sizeof facts->bus_id, index) != cudaSuccess) {
        (void)cudaGetLastError();
        facts->bus_id[0] = '\0'; /* only telemetry needs it */
    }
    return true;
}

extern "C" struct backend *backend_cuda_open(int index, char *why, size_t why_size)
{
    struct backend_facts facts;
    memset(&facts, 0, sizeof facts);
    if (!find_device(index, &facts, why, why_size)) {
        return NULL;
    }
    struct backend *be = (struct backend *)calloc(1, sizeof *be);
    struct cuda_state *state = (struct cuda_state *)calloc(1, sizeof *state);
    if (be == NULL || state == NULL) {
        snprintf(why, why_size, "out of memory");
        goto refuse;
    }
    state->products = cublaslt_open(why, why_size);
    if (state->products == NULL) {
        goto refuse;
    }
    if (cudaStreamCreate(&state->stream) != cudaSuccess) {
        snprintf(why, why_size, "cuda:%d gives no stream: %s", index,
                 cudaGetErrorString(cudaGetLastError()));
        cublaslt_close(state->products);
        goto refuse;
    }
    state->index = index;
    state->last_op = "none";
    state->wait_for_each = getenv("KERNELS_SYNC") != NULL;
    be->ops = &cuda_ops;
    be->state = state;
    be->facts = facts;
    return be;

refuse:
    free(state);
    free(be);
    return NULL;
}
