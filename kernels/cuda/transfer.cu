/*
 * The cuda backend's lane for transfers beside the operations (kernels/transfer.h): a third stream.
 *
 * Events hold the order on both edges: the copy waits for what was asked of the stream of the
 * operations when it was marked, and operations wait for the copy when it is joined. Copies follow
 * each other, so a piece of host memory that is filled by one and read by the next needs no more.
 */
#include <stdlib.h>

#include "kernels/backend_ops.h"
#include "kernels/cuda/check.cuh"
#include "kernels/cuda/cuda.cuh"

struct cuda_transfer {
    cudaEvent_t reached; /* by the operations: the copy may begin */
    cudaEvent_t done;
    bool marked; /* for the next copy in */
};

static void close_transfer(struct backend *be, void *state)
{
    struct cuda_transfer *t = (struct cuda_transfer *)state;
    (void)be;
    if (t->done != NULL) {
        cudaEventSynchronize(t->done);
        cudaEventDestroy(t->done);
    }
    if (t->reached != NULL) {
        cudaEventDestroy(t->reached);
    }
    free(t);
}

static void *open_transfer(struct backend *be)
{
    struct cuda_state *state = cuda_state_of(be);
    struct cuda_transfer *t = (struct cuda_transfer *)calloc(1, sizeof *t);
    if (t == NULL) {
        return NULL;
    }
    be->tally.allocations++;
    if ((state->moves == NULL &&
         cudaStreamCreateWithFlags(&state->moves, cudaStreamNonBlocking) != cudaSuccess) ||
        cudaEventCreateWithFlags(&t->reached, cudaEventDisableTiming) != cudaSuccess ||
        cudaEventCreateWithFlags(&t->done, cudaEventDisableTiming) != cudaSuccess) {
        (void)cudaGetLastError();
        close_transfer(be, t);
        return NULL;
    }
    return t;
}

static void mark(struct backend *be, void *state)
{
    struct cuda_transfer *t = (struct cuda_transfer *)state;
    cudaEventRecord(t->reached, cuda_stream(be));
    t->marked = true;
    cuda_check(be, "transfer");
}

static void move(struct backend *be, void *state, void *to, const void *from, size_t bytes,
                 bool out)
{
    struct cuda_transfer *t = (struct cuda_transfer *)state;
    cudaStream_t moves = cuda_state_of(be)->moves;
    if (!cuda_may_transfer(be)) {
        return;
    }
    if (out || !t->marked) {
        cudaEventRecord(t->reached, cuda_stream(be));
    }
    t->marked = false;
    cudaStreamWaitEvent(moves, t->reached, 0);
    cudaMemcpyAsync(to, from, bytes, out ? cudaMemcpyDeviceToHost : cudaMemcpyHostToDevice, moves);
    cudaEventRecord(t->done, moves);
    cuda_check(be, "transfer");
}

static void join(struct backend *be, void *state)
{
    const struct cuda_transfer *t = (const struct cuda_transfer *)state;
    if (cuda_may_transfer(be)) {
        cudaStreamWaitEvent(cuda_stream(be), t->done, 0);
        cuda_check(be, "transfer");
    }
}

/* Also by other threads: nothing of the backend is changed. */
static int wait(struct backend *be, void *state)
{
    const struct cuda_transfer *t = (const struct cuda_transfer *)state;
    const struct cuda_state *device = cuda_state_of(be);
    if (device->several) {
        cudaSetDevice(device->index);
    }
    return cudaEventSynchronize(t->done) == cudaSuccess ? 0 : -1;
}

/* Pageable memory does as well, with copies that the host waits for. */
static bool pin(struct backend *be, void *host, size_t bytes)
{
    be->tally.allocations++;
    if (cudaHostRegister(host, bytes, cudaHostRegisterDefault) != cudaSuccess) {
        (void)cudaGetLastError();
        return false;
    }
    return true;
}

static void unpin(struct backend *be, void *host)
{
    (void)be;
    cudaHostUnregister(host);
}

static bool is_done(cudaStream_t stream)
{
    cudaError_t status = cudaStreamQuery(stream);
    if (status == cudaErrorNotReady) {
        (void)cudaGetLastError();
    }
    return status != cudaErrorNotReady; /* a fault shows at the next wait */
}

static bool idle(struct backend *be)
{
    return is_done(cuda_stream(be));
}

/* ---- the lane for others' libraries ---------------------------------------------------------- */

static bool lane_begin(struct backend *be, void **stream)
{
    struct cuda_state *state = cuda_state_of(be);
    if (!cuda_may_transfer(be)) {
        return false;
    }
    if (state->lane == NULL) {
        be->tally.allocations++;
        cudaStreamCreateWithFlags(&state->lane, cudaStreamNonBlocking);
        cudaEventCreateWithFlags(&state->lane_reached, cudaEventDisableTiming);
        cudaEventCreateWithFlags(&state->lane_done, cudaEventDisableTiming);
        if (!cuda_check(be, "a further stream")) {
            return false;
        }
    }
    cudaEventRecord(state->lane_reached, state->stream);
    cudaStreamWaitEvent(state->lane, state->lane_reached, 0);
    *stream = state->lane;
    return cuda_check(be, "collective");
}

static void lane_end(struct backend *be)
{
    struct cuda_state *state = cuda_state_of(be);
    cudaEventRecord(state->lane_done, state->lane);
    cudaStreamWaitEvent(state->stream, state->lane_done, 0);
    cuda_check(be, "collective");
}

static bool lane_idle(struct backend *be)
{
    const struct cuda_state *state = cuda_state_of(be);
    return state->lane == NULL || is_done(state->lane);
}

const struct transfer_ops cuda_transfers = {
    .pin = pin,
    .unpin = unpin,
    .open = open_transfer,
    .close = close_transfer,
    .mark = mark,
    .move = move,
    .join = join,
    .wait = wait,
    .idle = idle,
    .lane_begin = lane_begin,
    .lane_end = lane_end,
    .lane_idle = lane_idle,
};
