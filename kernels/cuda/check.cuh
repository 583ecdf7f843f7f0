/*
 * The state of the cuda backend, and how launchers report.
 *
 * Launches are asynchronous: a fault inside a kernel shows at a later call. With KERNELS_SYNC=1 in
 * the environment every operation is waited for, and the message names the guilty one.
 */
#ifndef WINDROW_KERNELS_CUDA_CHECK_CUH
#define WINDROW_KERNELS_CUDA_CHECK_CUH

#include "kernels/cuda/cublaslt.h"
#include "kernels/cuda/cudnn.h"
#include "kernels/cuda/device.cuh"

/* What backend.state points to. */
struct cuda_state {
    int index;
    cudaStream_t stream;
    struct cublaslt *products;
    void *scratch;
    size_t scratch_bytes;
    struct cudnn *cudnn; /* NULL: absent, or not wanted */
    const char *last_op;
    bool wait_for_each; /* KERNELS_SYNC */
};

static inline struct cuda_state *cuda_state_of(const struct backend *be)
{
    return (struct cuda_state *)be->state;
}

static inline cudaStream_t cuda_stream(const struct backend *be)
{
    return cuda_state_of(be)->stream;
}

/* After the launches of an operation: latches what went wrong. False if an error is latched. */
bool cuda_check(struct backend *be, const char *op);

/* Device memory for the inside of one operation, aligned to 256 bytes, contents undefined; kept
 * from call to call. NULL, with the error latched, if there is not enough. Each call invalidates
 * what an earlier one returned, in the order of the stream. */
void *cuda_scratch(struct backend *be, size_t bytes);

/* Blocks of BLOCK_THREADS for `threads` threads. */
static inline unsigned cuda_blocks(int64_t threads)
{
    return (unsigned)((threads + BLOCK_THREADS - 1) / BLOCK_THREADS);
}

#endif
