/*
 * Memory that ranks of one machine share, to leave bytes for each other in: several times as fast
 * as sockets. Who is lost is not seen here; who waits is asked again and again.
 */
#ifndef WINDROW_ENGINE_COMM_SHARED_H
#define WINDROW_ENGINE_COMM_SHARED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SHARED_RANKS_MAX = 16 };

struct shared;

/* Where the memory is found: a descriptor of rank 0. */
struct shared_place {
    int64_t process; /* 0: there is none */
    int64_t fd;
    uint64_t token; /* stands in the memory */
};

/* Rank 0 makes it. NULL: there is none to be had. */
struct shared *shared_create(int ranks, struct shared_place *place);
/* The others find it, while rank 0 holds it open. NULL: they cannot. */
struct shared *shared_join(int rank, int ranks, const struct shared_place *place);
/* Rank 0, once all have joined or not: nobody else can any more. */
void shared_seal(struct shared *shared);
void shared_close(struct shared *shared);

/* An exchange, as of a transport (transport.h): all ranks ask for the same in the same order. */
struct shared_move {
    uint32_t kind;      /* with number and bytes, what all must agree on */
    uint32_t number;    /* of the exchange, growing */
    size_t bytes;       /* of a part, at most TRANSPORT_PART_BYTES */
    const char *send;   /* NULL: nothing */
    size_t send_stride; /* 0: the same part for all */
    char *receive;      /* NULL: nothing */
    size_t receive_stride;
    int from;                    /* the only rank that sends; -1: all do */
    bool (*rest)(void *context); /* called while waiting; false gives up */
    void *context;
};

enum shared_result { SHARED_DONE, SHARED_GIVEN_UP, SHARED_APART };

/* What is not SHARED_DONE is about the rank in `rank`: it is farthest behind, or it is at another
 * exchange. */
enum shared_result shared_exchange(struct shared *shared, const struct shared_move *move,
                                   int *rank);

#endif
