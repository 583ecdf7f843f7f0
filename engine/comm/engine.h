/*
 * What an engine of collectives provides, and what it is given: buckets of tensors that are sent
 * together. comm.c fills and counts them, the same for every engine.
 */
#ifndef WINDROW_ENGINE_COMM_ENGINE_H
#define WINDROW_ENGINE_COMM_ENGINE_H

#include "engine/comm/comm.h"

enum comm_kind { COMM_ALL_REDUCE, COMM_REDUCE_SCATTER, COMM_ALL_GATHER };

/* One tensor that was asked for: contiguous, seen as units that each belong to one rank. Units are
 * rows, and elements of an all-reduce, whose shares only say who adds what. */
struct comm_ask {
    enum comm_kind kind;
    enum dtype dtype;
    char *data;
    size_t bytes;
    size_t unit_bytes;
    int64_t *bound; /* units [bound[p], bound[p + 1]) are rank p's; ranks + 1 numbers */
    bool uneven;    /* the longest share is more than twice the mean */
};

enum { COMM_BUCKET_ASKS = 256, COMM_WHAT = 128 };

struct comm_bucket {
    struct comm_ask ask[COMM_BUCKET_ASKS];
    int count;
    size_t bytes;
    struct backend *be;   /* of all its tensors */
    int64_t *bounds;      /* those of its asks */
    char what[COMM_WHAT]; /* "all-reduce of x.weight and 3 more" */
};

void comm_bucket_init(struct comm_bucket *bucket, int ranks);
void comm_bucket_copy(struct comm_bucket *to, const struct comm_bucket *from, int ranks);
void comm_bucket_free(struct comm_bucket *bucket);

/* Bytes of a rank's share of an asked tensor, and where it begins. */
static inline size_t comm_part_first(const struct comm_ask *ask, int rank)
{
    return (size_t)ask->bound[rank] * ask->unit_bytes;
}

static inline size_t comm_part_bytes(const struct comm_ask *ask, int rank)
{
    return (size_t)(ask->bound[rank + 1] - ask->bound[rank]) * ask->unit_bytes;
}

/* send and those of bytes are called only while no error is latched and there is more than one
 * rank. */
struct comm_ops {
    const char *name;
    /* Begins to send a bucket, as one exchange. What `bucket` says is gone after that. `waits`: the
     * caller waits for it next. */
    void (*send)(struct comm *comm, const struct comm_bucket *bucket, bool waits);
    /* After that no tensor is in use any more: once an error is latched, what is under way is given
     * up. May be NULL: nothing is under way when send returns. */
    void (*wait)(struct comm *comm, struct backend *be);
    /* `data` may be NULL where nobody wants it. */
    void (*broadcast_bytes)(struct comm *comm, void *data, size_t bytes, int root);
    void (*all_gather_bytes)(struct comm *comm, const void *mine, void *all, size_t bytes);
    void (*leave)(struct comm *comm); /* may be NULL */
    void (*abort)(struct comm *comm); /* an error is latched; may be NULL */
    void (*close)(struct comm *comm);
};

/* For engines: a communicator without state. */
struct comm *comm_make(const struct comm_ops *ops, int rank, int ranks);

#endif
