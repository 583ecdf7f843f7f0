/* The inside of the transport over TCP: connections (tcp_flow.c) and what is made of them (tcp.c).
 */
#ifndef WINDROW_ENGINE_COMM_TCP_PARTS_H
#define WINDROW_ENGINE_COMM_TCP_PARTS_H

#include <poll.h>
#include <stdint.h>

#include "engine/comm/tcp.h"

enum frame_kind {
    FRAME_EXCHANGE = 1,
    FRAME_GATHER,
    FRAME_BROADCAST,
    FRAME_FAREWELL,
    FRAME_GIVES_UP
};

struct frame {
    uint32_t magic;
    uint32_t kind;
    uint32_t number; /* of FRAME_GIVES_UP: the rank that is lost */
    uint32_t bytes;
};
#define FRAME_MAGIC 0x57526b31u

/* One direction of a connection in an exchange. */
struct flow {
    struct frame frame;
    char *data;
    size_t done; /* of frame and data */
    size_t total;
};

struct link {
    struct tcp_peer peer;
    struct flow out;
    struct flow in;
    bool left;  /* on good terms */
    bool ahead; /* has sent what belongs to a later exchange; its end can wait until then */
};

struct tcp {
    struct transport transport; /* first: a transport is one of these */
    struct link *link;
    struct pollfd *polled;
    uint32_t number;
    int lost;              /* the rank for whose sake it gave up; -1: none */
    struct shared *shared; /* NULL: all goes through sockets */
    double looked_s;       /* after the connections, while bytes go through memory */
    int left;              /* a rank that has ended its part; -1 */
};

/* Notes that a rank is lost or wrong, "rank 2 on host did this". -1. */
int tcp_refuse(struct tcp *tcp, int rank, const char *what);
/* Somebody is lost: who is asked while waiting gets a moment to say whose fault it is. -1. */
int tcp_linger(struct tcp *tcp);
/* Looks after connections, at most so long. -1: one has ended. */
int tcp_look(struct tcp *tcp, int wait_ms);
/* Prepares what goes to and comes from a rank in the next exchange; NULL: nothing. */
void tcp_prepare(struct tcp *tcp, int rank, enum frame_kind kind, size_t bytes, const void *out,
                 void *in);
/* Carries the exchange out. */
int tcp_complete(struct tcp *tcp);

#endif
