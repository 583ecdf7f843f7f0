/*
 * Collectives between the ranks of a run: processes that train the same model on shares of the same
 * batch (data parallelism), each with all weights.
 *
 * Training code says what is summed or spread; engines say how: "single" (one rank, every
 * collective is the identity), "imaginary" (N ranks of which only this one exists: what a plan
 * counts with), "host" (through host memory, over a transport of transport.h), and "nccl" (on the
 * device). All ranks ask for the same collectives in the same order.
 *
 * Sums are made in the order of the ranks, in fp32, and rounded once to the tensor's dtype; every
 * rank that gets a number gets the same bits. (Of "nccl" only the latter holds.)
 *
 * Errors are latched as on backends: the first one is written to `error` with the collective named,
 * later collectives do nothing, and comm_check reports it.
 */
#ifndef WINDROW_ENGINE_COMM_COMM_H
#define WINDROW_ENGINE_COMM_COMM_H

#include "engine/base/error.h"
#include "kernels/backend.h"

struct comm;
struct comm_ops; /* engine/comm/engine.h */
struct comm_bucket;
struct transport;

/* What has been sent since the start.
 *
 * `payload_bytes`: of the tensors that were summed, whether every rank got the sum or each its rows
 * of it, and of host memory that was spread or gathered. `gathered_bytes`: of the tensors that
 * all-gathers made whole again, which are no payload: a reduce-scatter and the all-gather of the
 * same matrix together are one exchange of it, as an all-reduce is. `wire_bytes`: what each rank
 * sends at least, 2 (P - 1) / P of an all-reduce and (P - 1) / P of the others, as a ring does (of
 * rows whose shares are uneven "host" sends up to twice as much);
 * `hops`: how often it sends for that, one after another: of each bucket P - 1 times if it holds
 * sums, and P - 1 times if it holds what all ranks get, as an all-reduce does.
 *
 * `wait_seconds`: that this rank stood in collectives on host memory. In those on tensors stands
 * the device, whose time counts to BACKEND_PART_EXCHANGE (kernels/backend.h). */
struct comm_counts {
    int64_t calls;
    double payload_bytes;
    double gathered_bytes;
    double wire_bytes;
    int64_t hops;
    double wait_seconds;
};

struct comm {
    const struct comm_ops *ops;
    int rank;  /* of this process, from 0 */
    int ranks; /* in all */
    int local_rank;
    char first[64];       /* where rank 0 is reached, as in transport.h */
    const char *launcher; /* who started the ranks (world.h); NULL: not known */
    bool imaginary;       /* the other ranks do not exist */
    bool to_itself;       /* one rank sends tensors all the same: a check of its engine */
    struct comm_counts counts;
    char last[128]; /* the collective under way or done last, "all-reduce of x.weight" */
    /* Told of each collective as it begins, or NULL. */
    void (*begun)(void *context, const char *last);
    void *begun_context;
    bool failed;
    char error[512];
    bool (*waiting)(void *context); /* see comm_on_wait */
    void *context;
    struct comm_bucket *bucket; /* what has been asked for and is not sent yet */
    size_t bucket_bytes;        /* COMM_BUCKET_BYTES; the same on all ranks */
    void *state;
};

/*
 * Tensors that are asked for are sent together, in buckets: once so many bytes have been asked for,
 * and at the latest when somebody waits. A bucket takes a time for its bytes, and the latency of
 * its hops, which small tensors would pay one by one; but the last one goes out when nothing is
 * left to compute beside it. Of eight GPUs the hops of an all-reduce take 196 us where bytes go
 * through host memory (14 us each), 25 us with peer access (1.8 us), and these bytes take 2.7 ms
 * (11 GB/s), 0.8 ms (38 GB/s) and 0.08 ms (NVLink, 370 GB/s): so latency is less than a tenth on
 * PCIe and less than half on NVLink, where it hardly matters, and what is late is some
 * milliseconds. (The figures of the links: engine/train/plan_link.c.)
 */
enum { COMM_BUCKET_BYTES = 16 << 20 };

/* One rank. */
struct comm *comm_open_single(void);
/* Rank `rank` of `ranks`, alone: sums keep their own share, what others would send is zero. */
struct comm *comm_open_imaginary(int rank, int ranks);
/* Over a transport, which it owns from now on. */
struct comm *comm_open_host(struct transport *transport);
/* NULL: nothing. */
void comm_close(struct comm *comm);

/* ---- tensors ---------------------------------------------------------------------------------
 *
 * comm_ask_* only asks: nothing of it needs to have happened before comm_wait, which waits for all
 * ranks in a way that can be given up. From the asking to the wait the tensor is the collective's:
 * nobody else may read it, write it, free it or ask for it again. After comm_wait it is the
 * caller's, whatever happened; before it, the host must not wait for the device.
 *
 * What goes on beside what the caller computes:
 *   host   Buckets of tensors that lie in host memory (the cpu backend). A thread of the engine's
 *          own sends them, and shares the processor's cores with the computing. One that the
 *          caller waits for at once, with none before it under way, it sends itself, with less
 *          delay. Tensors of devices are sent by the caller, before it goes on.
 *   nccl   Buckets, in a lane of the device, after the operations asked before them and beside
 *          those asked later.
 * Collectives on host memory go on beside nothing, and come after all that was asked before them.
 *
 * A communicator belongs to one thread. `waiting` and `begun` are called, and errors are latched,
 * only inside of calls of that thread.
 */

/* Sums a tensor (fp32 or bf16) over all ranks, in place. */
void comm_ask_all_reduce(struct comm *comm, struct backend *be, struct tensor *tensor);

/* Rows of a tensor are those of tensor_rows: a vector is one row, and belongs to one rank whole.
 * Rank p has rows [bound[p], bound[p + 1]): ranks + 1 numbers from 0 to the number of rows, none
 * smaller than the one before it, the same on all ranks; they are copied. NULL: the shares of
 * comm_share_of. */

/* Sums a tensor (fp32 or bf16) over all ranks; each gets its own rows of the sum, in place. What is
 * in the rows of others is undefined after that. */
void comm_ask_reduce_scatter(struct comm *comm, struct backend *be, struct tensor *tensor,
                             const int64_t *bound);
/* Gives every rank all rows of a tensor (of any dtype), of which each holds its own. */
void comm_ask_all_gather(struct comm *comm, struct backend *be, struct tensor *tensor,
                         const int64_t *bound);

void comm_wait(struct comm *comm, struct backend *be);

/* Ask and wait, with shares of comm_share_of. */
void comm_all_reduce(struct comm *comm, struct backend *be, struct tensor *tensor);
void comm_all_gather(struct comm *comm, struct backend *be, struct tensor *tensor);

/* Rows [first, first + count) of `rows` that belong to a rank: shares are equal, but for the last
 * ones, which may be shorter or empty. */
struct comm_share {
    int64_t first;
    int64_t count;
};
struct comm_share comm_share_of(const struct comm *comm, int rank, int64_t rows);
/* Rows of the largest share: what a rank makes room for. */
int64_t comm_share_rows(const struct comm *comm, int64_t rows);

/* ---- host memory ----------------------------------------------------------------------------
 *
 * Done when they return. `what` names them in messages.
 */

/* From rank 0 to all. */
void comm_broadcast_bytes(struct comm *comm, const char *what, void *data, size_t bytes);
/* `bytes` of each rank at `mine`, put together in the order of ranks at `all`. */
void comm_all_gather_bytes(struct comm *comm, const char *what, const void *mine, void *all,
                           size_t bytes);
/* From rank `owner` to rank 0. All ranks ask; on the others `data` may be NULL. */
void comm_fetch_bytes(struct comm *comm, const char *what, int owner, void *data, size_t bytes);
int64_t comm_sum_count(struct comm *comm, int64_t count);
/* Until all ranks are here. */
void comm_barrier(struct comm *comm, const char *what);

/* ---- waiting and ending --------------------------------------------------------------------- */

/* While this rank waits for others, `waiting` is called again and again; once it returns false, the
 * collective is given up. */
void comm_on_wait(struct comm *comm, bool (*waiting)(void *context), void *context);

/* Lets go of the device, which is closed before the communicator. No collective on tensors may
 * follow. */
void comm_leave_device(struct comm *comm);

/* Latches an error (printf style), if none is latched yet. */
void comm_fail(struct comm *comm, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same, and ends the connection to the others at once, not only with comm_close: what they wait
 * for with this rank does not come about, which they notice as of a rank that died. */
void comm_abort(struct comm *comm, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* 0, or -1 with what is latched. */
int comm_check(const struct comm *comm, struct error *err);

#endif
