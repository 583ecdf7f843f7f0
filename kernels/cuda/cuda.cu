/* The cuda backend: opening a device, and the table of operations. */
#include "kernels/cuda/cuda.cuh"

#include <stdio.h>
#include <stdlib.h>

#include "kernels/backend_ops.h"
#include "kernels/backend_private.h"
#include "kernels/cuda/check.cuh"

enum { OLDEST_MAJOR = 8 }; /* compute capability: bf16 arithmetic begins there */

static void cuda_close(struct backend *be)
{
    struct cuda_state *state = cuda_state_of(be);
    if (state->stream != NULL) {
        cudaStreamSynchronize(state->stream);
    }
    backend_forget_replays(be);
    cusolver_close(state->solver);
    cudnn_close(state->cudnn);
    cublaslt_close(state->products);
    cuda_drop_scratch(be);
    cuda_drop_staged(state);
    marks_close(state);
    if (state->moves != NULL) {
        cudaStreamDestroy(state->moves);
    }
    if (state->lane != NULL) {
        cudaStreamDestroy(state->lane);
        cudaEventDestroy(state->lane_reached);
        cudaEventDestroy(state->lane_done);
    }
    if (state->fed != NULL) {
        cudaEventDestroy(state->fed);
    }
    if (state->computed != NULL) {
        cudaEventDestroy(state->computed);
    }
    if (state->feeds != NULL) {
        cudaStreamDestroy(state->feeds);
    }
    if (state->stream != NULL) {
        cudaStreamDestroy(state->stream);
    }
    free(state);
    free(be);
}

/* The device in use belongs to the thread: whoever asks for an operation may be a new one. */
static void cuda_enter(struct backend *be)
{
    struct cuda_state *state = cuda_state_of(be);
    if (state->several) {
        cudaSetDevice(state->index);
    }
}

static char *cuda_tuning_export(struct backend *be)
{
    return tuning_text(cublaslt_tuning(cuda_state_of(be)->products));
}

static int cuda_tuning_import(struct backend *be, const char *text, char *why, size_t why_size)
{
    return cublaslt_import(cuda_state_of(be)->products, text, why, why_size);
}

/* What the choices hold for, in letters that every file system takes. */
static void cuda_tuning_name(struct backend *be, char *name, size_t size)
{
    const char *device = cublaslt_tuning(cuda_state_of(be)->products)->device;
    size_t used = 0;
    for (; *device != '\0' && used + 1 < size; device++) {
        bool plain = (*device >= '0' && *device <= '9') || (*device >= 'a' && *device <= 'z') ||
                     (*device >= 'A' && *device <= 'Z');
        if (plain) {
            name[used++] = *device;
        } else if (used > 0 && name[used - 1] != '-') {
            name[used++] = '-';
        }
    }
    name[used] = '\0';
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
    .feed = cuda_feed,
    .join = cuda_join,
    .fetch = cuda_fetch,
    .capture_begin = cuda_capture_begin,
    .capture_end = cuda_capture_end,
    .launch = cuda_launch,
    .forget = cuda_forget,
    .enter = cuda_enter,
    .time_begin = cuda_time_begin,
    .time_part = cuda_time_part,
    .time_read = cuda_time_read,
    .drop_scratch = cuda_drop_scratch,
    .memory = cuda_memory,
    .tuning_export = cuda_tuning_export,
    .tuning_import = cuda_tuning_import,
    .tuning_name = cuda_tuning_name,
    .transfers = &cuda_transfers,
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

/* ---- opening --------------------------------------------------------------------------------- */

/* What is known of a device before and after its context is made. */
struct found {
    struct cudaDeviceProp properties;
    int count;
    char pci[BUS_ID_SIZE];
    size_t used_before;  /* bytes, by everybody */
    size_t total_before; /* 0 if nobody could tell */
};

static int count_devices(struct found *found, char *why, size_t why_size)
{
    cudaError_t status = cudaGetDeviceCount(&found->count);
    if (status != cudaSuccess || found->count == 0) {
        (void)cudaGetLastError();
        found->count = 0;
        snprintf(why, why_size, "there is no NVIDIA device or no driver for it (%s)",
                 status != cudaSuccess ? cudaGetErrorString(status) : "0 devices");
        return -1;
    }
    return 0;
}

extern "C" int backend_cuda_count(void)
{
    struct found found;
    char why[256];
    return count_devices(&found, why, sizeof why) == 0 ? found.count : 0;
}

/* Whether there is a device `index`; no context is made. */
static bool see_device(int index, struct found *found, char *why, size_t why_size)
{
    if (count_devices(found, why, why_size) != 0) {
        return false;
    }
    if (index < 0 || index >= found->count) {
        snprintf(why, why_size, "there is no cuda:%d; found %d NVIDIA device%s, counted from 0",
                 index, found->count, found->count == 1 ? "" : "s");
        return false;
    }
    if (cudaDeviceGetPCIBusId(found->pci, (int)sizeof found->pci, index) != cudaSuccess) {
        (void)cudaGetLastError();
        found->pci[0] = '\0'; /* only what NVML tells needs it */
    }
    return true;
}

extern "C" int backend_cuda_find(int index, char bus_id[BUS_ID_SIZE], char *why, size_t why_size)
{
    struct found found;
    memset(&found, 0, sizeof found);
    bool seen = see_device(index, &found, why, why_size);
    snprintf(bus_id, BUS_ID_SIZE, "%s", found.pci);
    return seen ? 0 : -1;
}

/* Whether device `index` can be had; its context is made here. */
static bool find_device(int index, struct found *found, char *why, size_t why_size)
{
    if (!see_device(index, found, why, why_size)) {
        return false;
    }
    (void)backend_bus_memory(found->pci, &found->used_before, &found->total_before);
    cudaError_t status = cudaSetDevice(index);
    if (status == cudaSuccess) {
        status = cudaGetDeviceProperties(&found->properties, index);
    }
    if (status != cudaSuccess) {
        (void)cudaGetLastError();
        snprintf(why, why_size, "cuda:%d does not answer: %s", index, cudaGetErrorString(status));
        return false;
    }
    if (found->properties.major < OLDEST_MAJOR) {
        snprintf(why, why_size,
                 "cuda:%d (%.100s) has compute capability %d.%d, at least %d.0 is needed", index,
                 found->properties.name, found->properties.major, found->properties.minor,
                 (int)OLDEST_MAJOR);
        return false;
    }
    return true;
}

static void take_facts(struct backend *be, const struct found *found)
{
    struct backend_facts *facts = &be->facts;
    snprintf(facts->device, sizeof facts->device, "%.100s, sm_%d%d", found->properties.name,
             found->properties.major, found->properties.minor);
    facts->memory_bytes = found->properties.totalGlobalMem;
    snprintf(facts->bus_id, sizeof facts->bus_id, "%s", found->pci);
    facts->asynchronous = true;
    if (found->total_before > found->used_before) {
        facts->found_free_bytes = found->total_before - found->used_before;
        facts->found_used_bytes = found->used_before;
    }
    backend_measure_context(be);
}

static bool make_streams(struct cuda_state *state)
{
    return cudaStreamCreateWithFlags(&state->stream, cudaStreamNonBlocking) == cudaSuccess &&
           cudaStreamCreateWithFlags(&state->feeds, cudaStreamNonBlocking) == cudaSuccess &&
           cudaEventCreateWithFlags(&state->computed, cudaEventDisableTiming) == cudaSuccess &&
           cudaEventCreateWithFlags(&state->fed, cudaEventDisableTiming) == cudaSuccess;
}

extern "C" struct backend *backend_cuda_open(int index, char *why, size_t why_size)
{
    struct found found;
    memset(&found, 0, sizeof found);
    if (!find_device(index, &found, why, why_size)) {
        return NULL;
    }
    struct backend *be = (struct backend *)calloc(1, sizeof *be);
    struct cuda_state *state = (struct cuda_state *)calloc(1, sizeof *state);
    if (be == NULL || state == NULL) {
        snprintf(why, why_size, "out of memory");
        free(state);
        free(be);
        return NULL;
    }
    be->ops = &cuda_ops;
    be->state = state;
    state->index = index;
    state->several = found.count > 1;
    state->wait_for_each = getenv("KERNELS_SYNC") != NULL;
    be->replays_off = state->wait_for_each;
    if (!marks_open(state) || !make_streams(state)) {
        snprintf(why, why_size, "cuda:%d gives no stream: %s", index,
                 cudaGetErrorString(cudaGetLastError()));
        cuda_close(be);
        return NULL;
    }
    state->products =
        cublaslt_open(found.properties.name, found.properties.multiProcessorCount, why, why_size);
    if (state->products == NULL) {
        cuda_close(be);
        return NULL;
    }
    take_facts(be, &found);
    return be;
}
