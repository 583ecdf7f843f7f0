/*
 * The state of the cuda backend, and how launchers report.
 *
 * Launches are asynchronous: a fault inside a kernel shows at a later call. With KERNELS_SYNC=1 in
 * the environment every operation is waited for and nothing is recorded, and the message names the
 * guilty one.
 */
#ifndef WINDROW_KERNELS_CUDA_CHECK_CUH
#define WINDROW_KERNELS_CUDA_CHECK_CUH

#include "kernels/cuda/cublaslt.h"
#include "kernels/cuda/cudnn.h"
#include "kernels/cuda/cusolver.h"
#include "kernels/cuda/device.cuh"

/* Pinned host memory on its way to or from the device: chunks that are handed out piece by piece;
 * all of it is free again after a wait. */
enum { STAGED_MAX = 64, FETCHED_MAX = 4096 };
struct staged {
    char *data;
    size_t bytes;
    size_t used;
};

/* A download that is under way: staged bytes that go to `host` after the next wait. */
struct fetched {
    void *host;
    const char *staged;
    size_t bytes;
};

struct marks; /* marks.cu */

/* An operation, and the tensor that it writes. */
struct asked {
    const char *op;
    char written[96];
};

/* What backend.state points to. */
struct cuda_state {
    int index;
    bool several; /* devices: each thread has to be told which */
    cudaStream_t stream;
    cudaStream_t feeds; /* copies of inputs, beside the stream */
    cudaStream_t moves; /* transfers (transfer.cu); NULL before the first was opened */
    cudaStream_t lane;  /* of others' libraries (transfer.cu); NULL before the first use */
    cudaEvent_t lane_reached;
    cudaEvent_t lane_done;
    cudaEvent_t computed; /* what was asked of the stream when a feed began */
    cudaEvent_t fed;
    bool feeding; /* a feed that was not joined yet */
    bool recording;
    bool record_broken;
    cudaGraphExec_t record[REPLAY_SLOTS];
    struct cublaslt *products;
    void *scratch; /* its own, while nobody else gives any */
    size_t scratch_bytes;
    struct cudnn *cudnn;     /* NULL: absent, or not wanted */
    struct cusolver *solver; /* NULL: absent, or not asked for yet */
    bool solver_sought;
    struct staged staged[STAGED_MAX];
    int staged_last; /* the chunk in use */
    struct fetched fetched[FETCHED_MAX];
    int fetched_count;
    struct marks *marks;
    struct asked asked_first; /* since the last wait; op NULL: nothing */
    struct asked asked_last;
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

/* Device memory for the inside of one operation, aligned to 256 bytes, contents undefined: from
 * whom backend_set_scratch named, so the bytes have to be those of scratch.h. NULL, with the error
 * latched, if there is not enough. Each call invalidates what an earlier one returned, in the order
 * of the stream. */
void *cuda_scratch(struct backend *be, size_t bytes);

/* Blocks of BLOCK_THREADS for `threads` threads. */
static inline unsigned cuda_blocks(int64_t threads)
{
    return (unsigned)((threads + BLOCK_THREADS - 1) / BLOCK_THREADS);
}

/* ---- stream.cu: entries of the table for memory, transfers and recording --------------------- */

int cuda_sync(struct backend *be);
void *cuda_alloc(struct backend *be, size_t bytes);
void cuda_free(struct backend *be, void *data, size_t bytes);
void cuda_upload(struct backend *be, void *device, const void *host, size_t bytes);
void cuda_download(struct backend *be, void *host, const void *device, size_t bytes);
void cuda_feed(struct backend *be, void *device, const void *host, size_t bytes);
void cuda_join(struct backend *be);
void cuda_fetch(struct backend *be, void *host, const void *device, size_t bytes);
bool cuda_capture_begin(struct backend *be, int slot);
bool cuda_capture_end(struct backend *be, int slot);
void cuda_launch(struct backend *be, int slot);
void cuda_forget(struct backend *be, int slot);
void cuda_drop_scratch(struct backend *be);
int cuda_memory(struct backend *be, size_t *free_bytes, size_t *total_bytes);
/* False inside of a recorded part, where a transfer would be repeated with the bytes of today. */
bool cuda_may_transfer(struct backend *be);
/* Pinned memory goes back to the host. */
void cuda_drop_staged(struct cuda_state *state);

/* ---- marks.cu: entries of the table for times, and what records have to do with them ----------
 */

void cuda_time_begin(struct backend *be);
void cuda_time_part(struct backend *be, int part);
bool cuda_time_read(struct backend *be, double ms[BACKEND_PARTS]);
bool marks_open(struct cuda_state *state);
void marks_close(struct cuda_state *state);
/* Slot `slot` begins to be recorded; -1: nothing is recorded any more. */
void marks_record(struct backend *be, int slot);
/* Before a replay, and after it. */
void marks_replay(struct backend *be, int slot, bool begin);

#endif
