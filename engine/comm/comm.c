/* What all engines share: counting, naming, latching. */
#include "engine/comm/comm.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/xalloc.h"

void comm_close(struct comm *comm)
{
    if (comm != NULL) {
        comm->ops->close(comm);
        free(comm);
    }
}

void comm_fail(struct comm *comm, const char *format, ...)
{
    if (comm->failed) {
        return;
    }
    va_list args;
    va_start(args, format);
    vsnprintf(comm->error, sizeof comm->error, format, args);
    va_end(args);
    comm->failed = true;
}

int comm_check(const struct comm *comm, struct error *err)
{
    return comm->failed ? fail(err, ERROR_RUNTIME, "%s", comm->error) : 0;
}

void comm_on_wait(struct comm *comm, bool (*waiting)(void *context), void *context)
{
    comm->waiting = waiting;
    comm->context = context;
    if (comm->ops->on_wait != NULL) {
        comm->ops->on_wait(comm, waiting, context);
    }
}

void comm_leave_device(struct comm *comm)
{
    if (comm->ops->leave != NULL) {
        comm->ops->leave(comm);
    }
}

void comm_wait(struct comm *comm, struct backend *be)
{
    if (comm->ops->wait != NULL && !comm->failed) {
        comm->ops->wait(comm, be);
    }
}

/* Whether there is anything to do; notes what. */
static bool begins(struct comm *comm, const char *verb, const char *what, double payload_bytes,
                   int passes)
{
    if (comm->ranks == 1 || comm->failed) {
        return false;
    }
    snprintf(comm->last, sizeof comm->last, "%s of %.90s", verb, what ? what : "a tensor");
    if (comm->begun != NULL) {
        comm->begun(comm->begun_context, comm->last);
    }
    comm->counts.calls++;
    comm->counts.payload_bytes += payload_bytes;
    comm->counts.wire_bytes += passes * payload_bytes * (comm->ranks - 1) / comm->ranks;
    comm->counts.hops += (int64_t)passes * (comm->ranks - 1);
    return true;
}

void comm_all_reduce(struct comm *comm, struct backend *be, struct tensor *tensor)
{
    comm_ask_all_reduce(comm, be, tensor);
    comm_wait(comm, be);
}

void comm_ask_all_reduce(struct comm *comm, struct backend *be, struct tensor *tensor)
{
    if (begins(comm, "all-reduce", tensor->name, (double)tensor_bytes(tensor), 2)) {
        comm->ops->all_reduce(comm, be, tensor);
    }
}

struct comm_share comm_share_of(const struct comm *comm, int rank, int64_t rows)
{
    int64_t share = comm_share_rows(comm, rows);
    int64_t first = rank * share < rows ? rank * share : rows;
    return (struct comm_share){ first, rows - first < share ? rows - first : share };
}

int64_t comm_share_rows(const struct comm *comm, int64_t rows)
{
    return (rows + comm->ranks - 1) / comm->ranks;
}

void comm_all_gather(struct comm *comm, struct backend *be, struct tensor *tensor)
{
    if (begins(comm, "all-gather", tensor->name, (double)tensor_bytes(tensor), 1)) {
        comm->ops->all_gather(comm, be, tensor);
        comm_wait(comm, be);
    }
}

void comm_broadcast_bytes(struct comm *comm, const char *what, void *data, size_t bytes)
{
    if (begins(comm, "broadcast", what, (double)bytes, 1)) {
        comm->ops->broadcast_bytes(comm, data, bytes);
    }
}

void comm_all_gather_bytes(struct comm *comm, const char *what, const void *mine, void *all,
                           size_t bytes)
{
    memset(all, 0, bytes * (size_t)comm->ranks);
    memcpy((char *)all + bytes * (size_t)comm->rank, mine, bytes);
    if (begins(comm, "all-gather", what, (double)bytes * comm->ranks, 1)) {
        comm->ops->all_gather_bytes(comm, mine, all, bytes);
    }
}

int64_t comm_sum_count(struct comm *comm, int64_t count)
{
    int64_t *all = xcalloc((size_t)comm->ranks, sizeof *all);
    int64_t sum = 0;
    comm_all_gather_bytes(comm, "counts", &count, all, sizeof count);
    for (int p = 0; p < comm->ranks; p++) {
        sum += all[p];
    }
    free(all);
    /* Ranks that nobody plays have as much as this one. */
    return comm->imaginary ? count * comm->ranks : sum;
}
