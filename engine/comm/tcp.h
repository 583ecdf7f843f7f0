/*
 * A transport over TCP: ranks that need nothing but each other.
 *
 * Rank 0 listens at the meeting place. The others come to it and show the key of the job; those who
 * cannot are strangers, who are sent away and change nothing. Once all are there they tell each
 * other where they listen, and each pair is connected. On one machine everything stays on its
 * loopback interface, and once all are connected, what they exchange goes through memory that they
 * share (shared.h), where all of them can; connections then only tell who is there.
 *
 * What is sent is neither encrypted nor signed: the key keeps runs apart and strangers out, not
 * somebody who listens on the wire.
 */
#ifndef WINDROW_ENGINE_COMM_TCP_H
#define WINDROW_ENGINE_COMM_TCP_H

#include "engine/base/error.h"
#include "engine/comm/transport.h"

/* Where ranks meet: an address, or a file that all can see. */
struct tcp_place {
    char host[256]; /* of rank 0: a name or a numeric address */
    int port;
    int port_count;  /* rank 0 takes the first one that is free of this many, from `port` on */
    char file[1024]; /* not empty: instead, rank 0 writes here where it listens */
};

struct tcp_options {
    int rank;
    int ranks;
    int local_rank; /* among the ranks of this machine; -1: the lower ones are counted */
    struct tcp_place place;
    /* What only the ranks of this job know, any text; empty: nothing. */
    char job[256];
    int listener;      /* of rank 0: a socket that listens at the place already; -1: none */
    bool sockets_only; /* of rank 0: nothing goes through memory that ranks of one machine share */
    double wait_s;     /* for all ranks to come */
    /* Called again and again until all have met; false gives up. May be NULL. */
    bool (*waiting)(void *context);
    void *context;
};

/* Meets the other ranks. NULL with an error, which says who did not come. */
struct transport *transport_open_tcp(const struct tcp_options *options, struct error *err);

/* The other end of a connection between two ranks. */
struct tcp_peer {
    int fd;        /* -1: this rank itself */
    char host[64]; /* its name for people */
};

/* What a meeting comes to. */
struct tcp_meeting {
    struct tcp_peer *peer; /* one for each rank; xmalloc'd */
    bool shares;           /* ranks are on one machine, and rank 0 wants them to share memory */
    int local_rank;
    char first[64]; /* the address at which this rank reaches rank 0; of rank 0: its loopback
                       address if all are on one machine, else empty */
};

/* The part of it in meet.c. 0, or -1 with an error; then nothing is left open. */
int tcp_meet(const struct tcp_options *options, struct tcp_meeting *meeting, struct error *err);

/* What stands in the file of a place (place_file.c). */
struct tcp_posted {
    int port;
    char machine[64];    /* where rank 0 is: the same text is the same machine */
    char address[8][64]; /* at which it may be reached */
    char key[33];        /* shown by those who come; empty: nothing */
};
/* Writes it whole, for this user alone. */
int tcp_post(const char *file, const char *job, const struct tcp_posted *posted, struct error *err);
/* Whether it stands there; not if it is of another job. */
bool tcp_read_posted(const char *file, const char *job, struct tcp_posted *posted);
void tcp_unpost(const char *file);
/* Addresses of this machine but for its loopback ones. */
void tcp_own_addresses(struct tcp_posted *posted);

#endif
