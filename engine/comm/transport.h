/*
 * Moves bytes between the host memories of ranks. What a transport cannot do it says in words; the
 * communicator above it names rank and collective.
 *
 * TCP is one (tcp.h); MPI is one, as a module that is loaded only when it is used (mpi.c); tests
 * bring one of threads.
 * A transport is used by one thread at a time, but not always by the same one: the engine "host"
 * may send from a thread of its own (`one_thread`: then it does not). While it waits it calls
 * `waiting`, if that is set, again and again; when that returns false it gives up and returns -1,
 * and cannot be used any more.
 */
#ifndef WINDROW_ENGINE_COMM_TRANSPORT_H
#define WINDROW_ENGINE_COMM_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>

struct transport;

struct transport_ops {
    const char *name; /* "mpi" */
    /* Part p of `send` (each of `bytes`) goes to rank p; part p of `receive` comes from it. */
    int (*exchange)(struct transport *transport, const void *send, void *receive, size_t bytes);
    /* `bytes` of each rank, put together in the order of ranks at `all`. */
    int (*gather)(struct transport *transport, const void *mine, void *all, size_t bytes);
    int (*broadcast)(struct transport *transport, void *data, size_t bytes, int root);
    /* Ends it on good terms with the others, or (`broken`) without waiting for anybody. */
    void (*close)(struct transport *transport, bool broken);
};

struct transport {
    const struct transport_ops *ops;
    int rank;
    int ranks;
    int local_rank;  /* among the ranks of this host */
    bool one_thread; /* only the one that opened it may use it */
    char first[64];  /* a numeric address at which this rank reaches rank 0; of rank 0: one that all
                        reach, if that is less than every address it has. Empty: not known */
    bool (*waiting)(void *context);
    void *context;
    char error[256]; /* of the last -1 */
};

/* Parts of no more than this many bytes are asked of it. */
enum { TRANSPORT_PART_BYTES = 1 << 20 };

/* Joins the ranks that mpirun (or srun) started. Loads the module; NULL with a sentence. */
struct transport *transport_open_mpi(char *why, size_t why_size);

#endif
