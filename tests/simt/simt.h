/*
 * A host emulation of what the .cu sources use of CUDA, put in front of them by the compiler
 * (-include). Blocks run one after the other, the threads of a block as fibres that change at
 * barriers and warp operations.
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

template <typename F> static void simt_call(void *body)
{
    (*(F *)body)();
}

template <typename F>
static void simt_launch(struct dim3 grid, struct dim3 block, size_t shared_bytes,
                        struct simt_stream *stream, F body)
{
    (void)stream; /* everything runs at once, in order */
    simt_run(grid, block, shared_bytes, simt_call<F>, &body);
}

#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                     \
    simt_launch(grid, block, shared_bytes, stream, [=]() { kernel(__VA_ARGS__); })
#define SHARED_POOL(type, name) type *name = (type *)simt_pool()

/* ---- the runtime library -------------------------------------------------------------------- */

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidConfiguration = 9, cudaErrorOutOfMemory = 2 };
enum cudaMemcpyKind {
    cudaMemcpyHostToDevice = 1,
    cudaMemcpyDeviceToHost = 2,
    cudaMemcpyDeviceToDevice = 3
};
enum { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
typedef struct simt_stream *cudaStream_t;
struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem;
    int major, minor;
};

enum cudaError_t cudaGetLastError(void);
const char *cudaGetErrorString(enum cudaError_t status);
enum cudaError_t cudaGetDeviceCount(int *count);
enum cudaError_t cudaSetDevice(int index);
enum cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int index);
enum cudaError_t cudaDeviceGetPCIBusId(char *out, int size, int index);
enum cudaError_t cudaStreamCreate(cudaStream_t *stream);
enum cudaError_t cudaStreamDestroy(cudaStream_t stream);
enum cudaError_t cudaStreamSynchronize(cudaStream_t stream);
enum cudaError_t cudaMalloc(void **data, size_t bytes);
enum cudaError_t cudaFree(void *data);
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
