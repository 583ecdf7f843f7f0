/* Transfers beside the operations: what a backend without a lane for them does. */
#include "kernels/transfer.h"

#include <stdlib.h>

#include "kernels/backend_ops.h"

struct transfer {
    struct backend *be;
    const struct transfer_ops *ops; /* NULL: copies at once */
    void *state;
};

struct transfer *transfer_open(struct backend *be)
{
    struct transfer *transfer = calloc(1, sizeof *transfer);
    if (transfer == NULL) {
        return NULL;
    }
    transfer->be = be;
    transfer->ops = be->ops->transfers;
    if (transfer->ops != NULL) {
        transfer->state = transfer->ops->open(be);
        if (transfer->state == NULL) {
            free(transfer);
            return NULL;
        }
    }
    return transfer;
}

void transfer_close(struct transfer *transfer)
{
    if (transfer != NULL && transfer->ops != NULL) {
        transfer->ops->close(transfer->be, transfer->state);
    }
    free(transfer);
}

void transfer_mark(struct transfer *transfer)
{
    if (transfer->ops != NULL && !transfer->be->failed) {
        transfer->ops->mark(transfer->be, transfer->state);
    }
}

void transfer_out(struct transfer *transfer, void *host, const void *device, size_t bytes)
{
    if (transfer->ops == NULL) {
        backend_download(transfer->be, host, device, bytes);
    } else if (!transfer->be->failed && bytes > 0) {
        transfer->ops->move(transfer->be, transfer->state, host, device, bytes, true);
    }
}

void transfer_in(struct transfer *transfer, void *device, const void *host, size_t bytes)
{
    if (transfer->ops == NULL) {
        backend_upload(transfer->be, device, host, bytes);
    } else if (!transfer->be->failed && bytes > 0) {
        transfer->ops->move(transfer->be, transfer->state, device, host, bytes, false);
    }
}

void transfer_join(struct transfer *transfer)
{
    if (transfer->ops != NULL && !transfer->be->failed) {
        transfer->ops->join(transfer->be, transfer->state);
    }
}

int transfer_wait(struct transfer *transfer)
{
    return transfer->ops != NULL ? transfer->ops->wait(transfer->be, transfer->state) : 0;
}

bool backend_pin(struct backend *be, void *host, size_t bytes)
{
    const struct transfer_ops *ops = be->ops->transfers;
    return ops == NULL || ops->pin(be, host, bytes);
}

void backend_unpin(struct backend *be, void *host)
{
    if (be->ops->transfers != NULL) {
        be->ops->transfers->unpin(be, host);
    }
}

bool backend_idle(struct backend *be)
{
    return be->ops->transfers == NULL || be->ops->transfers->idle(be);
}

bool backend_lane_begin(struct backend *be, void **stream)
{
    *stream = NULL;
    if (be->ops->enter != NULL) {
        be->ops->enter(be);
    }
    return !be->failed &&
           (be->ops->transfers == NULL || be->ops->transfers->lane_begin(be, stream));
}

void backend_lane_end(struct backend *be)
{
    if (be->ops->transfers != NULL && !be->failed) {
        be->ops->transfers->lane_end(be);
    }
}

bool backend_lane_idle(struct backend *be)
{
    return be->ops->transfers == NULL || be->ops->transfers->lane_idle(be);
}
