/*
 * Collectives through host memory, over a transport.
 *
 * A sum goes in blocks of one part a rank: part p of everybody's block is sent to rank p, which
 * adds them in the order of the ranks and hands the sum to all. So each rank sends 2 (P - 1) / P of
 * the tensor, adds 1 / P of it, and all get the same bits whatever P is and whoever is late.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/base/xalloc.h"
#include "engine/comm/comm.h"
#include "engine/comm/transport.h"

struct host {
    struct transport *transport;
    char *send;    /* a part for each rank */
    char *receive; /* likewise */
    char *sum;     /* one part */
};

static struct host *host_of(struct comm *comm)
{
    return comm->state;
}

static void lost(struct comm *comm)
{
    comm_fail(comm, "rank %d: the %s did not come about: %s", comm->rank, comm->last,
              host_of(comm)->transport->error);
}

/* Adds part p of the block, for p in order, and rounds once. */
static void add_parts(const struct host *host, int ranks, size_t part, enum dtype dtype)
{
    size_t count = part / dtype_size(dtype);
    for (size_t i = 0; i < count; i++) {
        float sum = 0.0f;
        for (int p = 0; p < ranks; p++) {
            const char *from = host->receive + (size_t)p * part;
            sum += dtype == DTYPE_BF16 ? bf16_to_float(((const uint16_t *)(const void *)from)[i])
                                       : ((const float *)(const void *)from)[i];
        }
        if (dtype == DTYPE_BF16) {
            ((uint16_t *)(void *)host->sum)[i] = bf16_from_float(sum);
        } else {
            ((float *)(void *)host->sum)[i] = sum;
        }
    }
}

static void host_all_reduce(struct comm *comm, struct backend *be, struct tensor *tensor)
{
    struct host *host = host_of(comm);
    size_t ranks = (size_t)comm->ranks;
    size_t width = dtype_size(tensor->dtype);
    size_t total = tensor_bytes(tensor);
    size_t block = TRANSPORT_PART_BYTES * ranks;
    for (size_t at = 0; at < total && !comm->failed; at += block) {
        size_t bytes = total - at < block ? total - at : block;
        size_t part = ((bytes / width + ranks - 1) / ranks) * width;
        char *device = (char *)tensor->data + at;
        backend_download(be, host->send, device, bytes);
        memset(host->send + bytes, 0, part * ranks - bytes);
        if (host->transport->ops->exchange(host->transport, host->send, host->receive, part) != 0) {
            lost(comm);
            return;
        }
        add_parts(host, comm->ranks, part, tensor->dtype);
        if (host->transport->ops->gather(host->transport, host->sum, host->receive, part) != 0) {
            lost(comm);
            return;
        }
        backend_upload(be, device, host->receive, bytes);
    }
}

static void broadcast_range(struct comm *comm, char *data, size_t bytes, int root)
{
    struct host *host = host_of(comm);
    for (size_t at = 0; at < bytes && !comm->failed; at += TRANSPORT_PART_BYTES) {
        size_t part = bytes - at < TRANSPORT_PART_BYTES ? bytes - at : TRANSPORT_PART_BYTES;
        if (host->transport->ops->broadcast(host->transport, data + at, part, root) != 0) {
            lost(comm);
        }
    }
}

static void host_all_gather(struct comm *comm, struct backend *be, struct tensor *tensor)
{
    struct host *host = host_of(comm);
    size_t row = (size_t)tensor_columns(tensor) * dtype_size(tensor->dtype);
    for (int p = 0; p < comm->ranks; p++) {
        struct comm_share share = comm_share_of(comm, p, tensor_rows(tensor));
        char *device = (char *)tensor->data + (size_t)share.first * row;
        size_t bytes = (size_t)share.count * row;
        for (size_t at = 0; at < bytes && !comm->failed; at += TRANSPORT_PART_BYTES) {
            size_t part = bytes - at < TRANSPORT_PART_BYTES ? bytes - at : TRANSPORT_PART_BYTES;
            if (p == comm->rank) {
                backend_download(be, host->send, device + at, part);
            }
            broadcast_range(comm, host->send, part, p);
            if (p != comm->rank) {
                backend_upload(be, device + at, host->send, part);
            }
        }
    }
}

static void host_broadcast_bytes(struct comm *comm, void *data, size_t bytes)
{
    broadcast_range(comm, data, bytes, 0);
}

static void host_all_gather_bytes(struct comm *comm, const void *mine, void *all, size_t bytes)
{
    struct host *host = host_of(comm);
    if (host->transport->ops->gather(host->transport, mine, all, bytes) != 0) {
        lost(comm);
    }
}

static void host_on_wait(struct comm *comm, bool (*waiting)(void *context), void *context)
{
    host_of(comm)->transport->waiting = waiting;
    host_of(comm)->transport->context = context;
}

static void host_close(struct comm *comm)
{
    struct host *host = host_of(comm);
    host->transport->ops->close(host->transport, comm->failed);
    free(host->send);
    free(host->receive);
    free(host->sum);
    free(host);
}

static const struct comm_ops host_ops = {
    .name = "host",
    .all_reduce = host_all_reduce,
    .all_gather = host_all_gather,
    .broadcast_bytes = host_broadcast_bytes,
    .all_gather_bytes = host_all_gather_bytes,
    .on_wait = host_on_wait,
    .close = host_close,
};

struct comm *comm_open_host(struct transport *transport)
{
    struct comm *comm = xcalloc(1, sizeof *comm);
    struct host *host = xcalloc(1, sizeof *host);
    size_t block = TRANSPORT_PART_BYTES * (size_t)transport->ranks;
    host->transport = transport;
    host->send = xcalloc(block, 1);
    host->receive = xcalloc(block, 1);
    host->sum = xcalloc(TRANSPORT_PART_BYTES, 1);
    comm->ops = &host_ops;
    comm->rank = transport->rank;
    comm->ranks = transport->ranks;
    comm->local_rank = transport->local_rank;
    comm->state = host;
    return comm;
}
