/*
 * A host emulation of what the .cu sources use of CUDA, put in front of them by the compiler
 * (-include). Blocks run one after the other, the threads of a block as fibres that change at
 * barriers and warp operations.
 *
 * Streams are queues that run as late as they may: when somebody waits, and as far as that takes.
 * With SIMT_FEEDS=eager in the environment, all but the first one run as early as they may. A copy
 * that is not waited for, or that does not wait, shows in the one or the other. Host memory that a
 * copy will write holds 0xff from the moment it is asked for, if nothing else is queued. Any thread
 * may ask and wait; one at a time gets to run what is queued.
 *
 * Made to find faults: shared memory and fresh device memory are filled with bytes of 0xff (NaN and
 * -1) before each block; device memory is host memory, so the sanitizers see what lies outside of
 * it; blocks and threads run in ascending or descending order (simt_reverse), and a result that
 * depends on it is a race; a barrier that not all threads of a block reach ends the program.
 */
#ifndef WINDROW_TESTS_SIMT_SIMT_H
#define WINDROW_TESTS_SIMT_SIMT_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define SIMT_EMULATION
#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define __shared__ static __attribute__((section("simt_shared")))

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned width, unsigned height = 1, unsigned depth = 1) : x(width), y(height), z(depth)
    {
    }
};
struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};
struct alignas(16) float4 {
    float x, y, z, w;
};

extern struct uint3 threadIdx;
extern struct uint3 blockIdx;
extern struct uint3 blockDim;
extern struct uint3 gridDim;

void __syncthreads(void);
void __syncwarp(void);
float __shfl_xor_sync(unsigned lanes, float value, int mask);
double __shfl_xor_sync(unsigned lanes, double value, int mask);
int atomicAdd(int *at, int value);

/* ---- tensor cores and asynchronous copies: what kernels/cuda/mma.cuh promises ---------------- */

/* Gives `bytes` (at most 32) to the other lanes of the warp; every lane must call. What lane `lane`
 * gave is at simt_given(lane, the result) until the warp has shared twice more. */
unsigned simt_share(const void *data, size_t bytes);
const void *simt_given(unsigned lane, unsigned turn);

/* Copies come late, at the wait for them, or at once if threads run in descending order: a kernel
 * that relies on either one fails in one of the orders. */
void copy_begin(void *shared, const void *global, bool inside);
void copy_begin_word(void *shared, const void *global, bool inside);
void copy_wait(void);
void mma_pair(float left[4], float right[4], const uint32_t a[4], const uint32_t b[4]);
void matrix_load(uint32_t value[4], const uint16_t *row);
void matrix_load_transposed(uint32_t value[4], const uint16_t *row);
float power_of_two(float x);
uint32_t bf16_pair(float low, float high);
int computed_here(int x);

/* ---- launches ------------------------------------------------------------------------------- */

void *simt_pool(void);
void simt_run(struct dim3 grid, struct dim3 block, size_t shared_bytes, void (*body)(void *),
              void *state);

/* Whether a launch of this form would be accepted; else the error of cudaGetLastError is set. */
bool simt_accepts(struct dim3 grid, struct dim3 block, size_t shared_bytes);
/* Queues run(copy of the state) on a stream, or records it (simt_queue.h). */
extern "C" void simt_queue(struct simt_stream *stream, void (*run)(void *), const void *state,
                           size_t bytes);

template <typename F> struct simt_launched {
    struct dim3 grid;
    struct dim3 block;
    size_t shared_bytes;
    F body;
};

template <typename F> static void simt_call(void *body)
{
    (*(F *)body)();
}

template <typename F> static void simt_run_launched(void *state)
{
    struct simt_launched<F> *l = (struct simt_launched<F> *)state;
    simt_run(l->grid, l->block, l->shared_bytes, simt_call<F>, &l->body);
}

template <typename T> struct simt_same {
    typedef T type;
};

/* The arguments are worked out now, and kept with the launch. */
template <typename... P>
static void simt_launch(struct dim3 grid, struct dim3 block, size_t shared_bytes,
                        struct simt_stream *stream, void (*kernel)(P...),
                        typename simt_same<P>::type... arguments)
{
    auto body = [=]() { kernel(arguments...); };
    struct simt_launched<decltype(body)> l = {
        grid, block, shared_bytes, body
    };
    if (simt_accepts(grid, block, shared_bytes)) {
        simt_queue(stream, simt_run_launched<decltype(body)>, &l, sizeof l);
    }
}

#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                     \
    simt_launch(grid, block, shared_bytes, stream, kernel, __VA_ARGS__)
#define SHARED_POOL(type, name) type *name = (type *)simt_pool()

/* ---- the runtime library -------------------------------------------------------------------- */

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorOutOfMemory = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorNotReady = 600,
    cudaErrorIllegalAddress = 700,
    cudaErrorLaunchFailure = 719,
    cudaErrorStreamCaptureUnsupported = 900
};
enum cudaMemcpyKind {
    cudaMemcpyHostToDevice = 1,
    cudaMemcpyDeviceToHost = 2,
    cudaMemcpyDeviceToDevice = 3
};
enum {
    cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
    cudaStreamNonBlocking = 1,
    cudaEventDisableTiming = 2,
    cudaHostRegisterDefault = 0,
    cudaEventRecordExternal = 1
};
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal = 1 };
typedef struct simt_stream *cudaStream_t;
typedef struct simt_event *cudaEvent_t;
typedef struct simt_graph *cudaGraph_t;
typedef struct simt_graph *cudaGraphExec_t;
struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem;
    int major, minor;
    int multiProcessorCount;
};

enum cudaError_t cudaGetLastError(void);
const char *cudaGetErrorString(enum cudaError_t status);
enum cudaError_t cudaGetDeviceCount(int *count);
enum cudaError_t cudaSetDevice(int index);
enum cudaError_t cudaDeviceGetPCIBusId(char *text, int size, int index);
enum cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int index);
enum cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes);
enum cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
enum cudaError_t cudaStreamDestroy(cudaStream_t stream);
enum cudaError_t cudaStreamSynchronize(cudaStream_t stream);
enum cudaError_t cudaStreamQuery(cudaStream_t stream);
enum cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
enum cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
enum cudaError_t cudaEventDestroy(cudaEvent_t event);
enum cudaError_t cudaEventSynchronize(cudaEvent_t event);
enum cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
enum cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags);
enum cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to);
enum cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode);
enum cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph);
enum cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph,
                                      unsigned long long flags);
enum cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t stream);
enum cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
enum cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
enum cudaError_t cudaGraphDestroy(cudaGraph_t graph);
enum cudaError_t cudaMalloc(void **data, size_t bytes);
enum cudaError_t cudaFree(void *data);
enum cudaError_t cudaMallocHost(void **data, size_t bytes);
enum cudaError_t cudaFreeHost(void *data);
enum cudaError_t cudaHostRegister(void *data, size_t bytes, unsigned flags);
enum cudaError_t cudaHostUnregister(void *data);
enum cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                                 cudaStream_t stream);
enum cudaError_t cudaMemsetAsync(void *data, int byte, size_t bytes, cudaStream_t stream);

template <typename K>
static enum cudaError_t cudaFuncSetAttribute(K kernel, int attribute, int value)
{
    (void)kernel;
    (void)attribute;
    return value <= 99 * 1024 ? cudaSuccess : cudaErrorInvalidConfiguration;
}

#endif
