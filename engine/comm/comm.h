/*
 * Collectives between the ranks of a run.
 *
 * One rank today ("single"): every collective is the identity. Training code calls it where several
 * ranks would meet, so that data-parallel engines are one more file.
 */
#ifndef WINDROW_ENGINE_COMM_COMM_H
#define WINDROW_ENGINE_COMM_COMM_H

#include "engine/base/error.h"
#include "kernels/backend.h"

struct comm;

struct comm_ops {
    const char *name; /* "single" */
    /* Sums `tensor` over all ranks, in rank order, in place. */
    void (*all_reduce)(struct comm *comm, struct backend *be, struct tensor *tensor);
    /* Sums a host number over all ranks. */
    int64_t (*sum_count)(struct comm *comm, int64_t count);
    void (*close)(struct comm *comm);
};

struct comm {
    const struct comm_ops *ops;
    int rank;
    int ranks;
};

/* Opens "single". NULL with an error for engines that are not built in. */
struct comm *comm_open(const char *name, struct error *err);
void comm_close(struct comm *comm);

#endif
