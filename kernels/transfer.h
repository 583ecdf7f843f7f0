/*
 * Large pieces of memory that leave a device and come back beside its operations.
 *
 * Transfers are made in the order asked, in a lane of their own. Where they stand among the
 * operations is said around each of them:
 *
 *     transfer_mark(t)     the next transfer_in begins after the operations asked so far, not after
 *                          all those asked when it is
 *     transfer_out, _in    asks for it; the host does not wait
 *     transfer_join(t)     operations asked from now on come after it; the host does not wait
 *     transfer_wait(t)     the host waits for it
 *
 * Both ends belong to the transfer until it was joined or waited for. A handle stands for one
 * transfer at a time: the last one asked with it. Backends that compute on the host copy at once,
 * and the null backend copies nothing.
 *
 * transfer_wait may be called by any thread; all else only by the thread of the backend.
 */
#ifndef WINDROW_KERNELS_TRANSFER_H
#define WINDROW_KERNELS_TRANSFER_H

#include "kernels/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

struct transfer;

/* NULL if the device gives none. Closing waits for its transfer. */
struct transfer *transfer_open(struct backend *be);
void transfer_close(struct transfer *transfer);

void transfer_mark(struct transfer *transfer);
/* Device to host. After a failure of the backend nothing is copied. */
void transfer_out(struct transfer *transfer, void *host, const void *device, size_t bytes);
/* Host to device. */
void transfer_in(struct transfer *transfer, void *device, const void *host, size_t bytes);
void transfer_join(struct transfer *transfer);
/* 0, or -1 if the device has failed: backend_sync says how. */
int transfer_wait(struct transfer *transfer);

/* Lets the device reach host memory (whole pages of it) by itself: without, each transfer makes the
 * host wait. False if the host does not allow it; where it is of no use, true. */
bool backend_pin(struct backend *be, void *host, size_t bytes);
void backend_unpin(struct backend *be, void *host);

/* Whether everything asked so far is done; does not wait. */
bool backend_idle(struct backend *be);

/*
 * A lane for the work of others' libraries beside the operations: what they are asked between begin
 * and end comes after the operations asked before and before those asked later. `stream` is a
 * cudaStream_t; NULL on backends that compute on the host, where everything asked before is done.
 *
 * begin: false, and nothing may be asked, after a failure, and inside of a part that is being
 * recorded (which then is not). Several may come before one end: between them goes on what does not
 * touch the same memory, beside the lane.
 */
bool backend_lane_begin(struct backend *be, void **stream);
void backend_lane_end(struct backend *be);
/* Whether the lane has done everything; does not wait. */
bool backend_lane_idle(struct backend *be);

#ifdef __cplusplus
}
#endif

#endif
