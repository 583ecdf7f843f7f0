/*
 * Collectives between the ranks of a run: processes that train the same model on shares of the same
 * batch (data parallelism), each with all weights.
 *
 * Training code says what is summed or spread; engines say how: "single" (one rank, every
 * collective is the identity), "imaginary" (N ranks of which only this one exists: what a plan
 * counts with), "host" (through host memory, over a transport of transport.h: MPI), and "nccl" (on
 * the device). All ranks ask for the same collectives in the same order.
 *
 * Sums are made in the order of the ranks, in fp32, and rounded once to the tensor's dtype; every
 * rank ends with the same bits. (Of "nccl" only the latter holds.)
 *
 * Errors are latched as on backends: the first one is written to `error` with the collective named,
 * later collectives do nothing, and comm_check reports it.
 */
#ifndef WINDROW_ENGINE_COMM_COMM_H
#define WINDROW_ENGINE_COMM_COMM_H

#include "engine/base/error.h"
#include "kernels/backend.h"

struct comm;
struct transport;

/* What has been asked for since the start. `payload_bytes`: of the tensors; `wire_bytes`: what each
 * rank sends at least, 2 (P - 1) / P of an all-reduce and (P - 1) / P of an all-gather, as a ring
 * does; `hops`: how often it sends for that, one after another: 2 (P - 1) and P - 1. */
struct comm_counts {
    int64_t calls;
    double payload_bytes;
    double wire_bytes;
    int64_t hops;
};

struct comm_ops {
    const char *name;
    void (*all_reduce)(struct comm *comm, struct backend *be, struct tensor *tensor);
    void (*all_gather)(struct comm *comm, struct backend *be, struct tensor *tensor);
    /* May be NULL: nothing is under way when the others return. */
    void (*wait)(struct comm *comm, struct backend *be);
    void (*broadcast_bytes)(struct comm *comm, void *data, size_t bytes);
    void (*all_gather_bytes)(struct comm *comm, const void *mine, void *all, size_t bytes);
    /* May be NULL. */
    void (*on_wait)(struct comm *comm, bool (*waiting)(void *context), void *context);
    void (*leave)(struct comm *comm); /* may be NULL */
    void (*close)(struct comm *comm);
};

struct comm {
    const struct comm_ops *ops;
    int rank;  /* of this process, from 0 */
    int ranks; /* in all */
    int local_rank;
    bool imaginary; /* the other ranks do not exist */
    struct comm_counts counts;
    char last[128]; /* the collective under way or done last, "all-reduce of x.weight" */
    /* Told of each collective as it begins, or NULL. */
    void (*begun)(void *context, const char *last);
    void *begun_context;
    bool failed;
    char error[512];
    bool (*waiting)(void *context); /* see comm_on_wait */
    void *context;
    void *state;
};

/* One rank. */
struct comm *comm_open_single(void);
/* Rank `rank` of `ranks`, alone: sums keep their own share, what others would send is zero. */
struct comm *comm_open_imaginary(int rank, int ranks);
/* Over a transport, which it owns from now on. */
struct comm *comm_open_host(struct transport *transport);
/* NULL: nothing. */
void comm_close(struct comm *comm);

/* Sums a tensor (fp32 or bf16) over all ranks, in place. */
void comm_all_reduce(struct comm *comm, struct backend *be, struct tensor *tensor);
/* Only asks for it: operations asked later come after it, but before the host waits for the device
 * there has to be a comm_wait, which waits for all ranks in a way that can be given up. */
void comm_ask_all_reduce(struct comm *comm, struct backend *be, struct tensor *tensor);
void comm_wait(struct comm *comm, struct backend *be);

/* Rows [first, first + count) of `rows` that belong to a rank: shares are equal, but for the last
 * ones, which may be shorter or empty. */
struct comm_share {
    int64_t first;
    int64_t count;
};
struct comm_share comm_share_of(const struct comm *comm, int rank, int64_t rows);
/* Rows of the largest share: what a rank makes room for. */
int64_t comm_share_rows(const struct comm *comm, int64_t rows);
/* Gives every rank all rows of a matrix, of which each holds its own share. */
void comm_all_gather(struct comm *comm, struct backend *be, struct tensor *tensor);

/* On host memory: from rank 0 to all; and of each rank `bytes` at `mine`, put together in the order
 * of ranks at `all`. `what` names it in messages. */
void comm_broadcast_bytes(struct comm *comm, const char *what, void *data, size_t bytes);
void comm_all_gather_bytes(struct comm *comm, const char *what, const void *mine, void *all,
                           size_t bytes);
int64_t comm_sum_count(struct comm *comm, int64_t count);

/* While this rank waits for others, `waiting` is called again and again; once it returns false, the
 * collective is given up. */
void comm_on_wait(struct comm *comm, bool (*waiting)(void *context), void *context);

/* Lets go of the device, which is closed before the communicator. No collective on tensors may
 * follow. */
void comm_leave_device(struct comm *comm);

/* Latches an error (printf style), if none is latched yet. */
void comm_fail(struct comm *comm, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* 0, or -1 with what is latched. */
int comm_check(const struct comm *comm, struct error *err);

#endif
