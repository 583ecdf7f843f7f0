/* Engines without anybody on the other side: one rank, and one of N for a plan. */
#include "engine/base/xalloc.h"
#include "engine/comm/comm.h"

static void keep_tensor(struct comm *comm, struct backend *be, struct tensor *tensor)
{
    (void)comm;
    (void)be;
    (void)tensor;
}

static void keep_bytes(struct comm *comm, void *data, size_t bytes)
{
    (void)comm;
    (void)data;
    (void)bytes;
}

static void gather_own(struct comm *comm, const void *mine, void *all, size_t bytes)
{
    (void)comm;
    (void)mine;
    (void)all; /* the own share is there, the others are zero */
    (void)bytes;
}

static void close_nothing(struct comm *comm)
{
    (void)comm;
}

static const struct comm_ops single_ops = {
    .name = "single",
    .all_reduce = keep_tensor,
    .all_gather = keep_tensor,
    .broadcast_bytes = keep_bytes,
    .all_gather_bytes = gather_own,
    .close = close_nothing,
};

static const struct comm_ops imaginary_ops = {
    .name = "imaginary",
    .all_reduce = keep_tensor,
    .all_gather = keep_tensor,
    .broadcast_bytes = keep_bytes,
    .all_gather_bytes = gather_own,
    .close = close_nothing,
};

struct comm *comm_open_single(void)
{
    struct comm *comm = xcalloc(1, sizeof *comm);
    comm->ops = &single_ops;
    comm->ranks = 1;
    return comm;
}

struct comm *comm_open_imaginary(int rank, int ranks)
{
    struct comm *comm = xcalloc(1, sizeof *comm);
    comm->ops = &imaginary_ops;
    comm->rank = rank;
    comm->ranks = ranks;
    comm->imaginary = true;
    return comm;
}
