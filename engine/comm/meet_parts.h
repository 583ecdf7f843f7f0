/* How ranks find each other: what meet.c (the protocol, rank 0) and join.c (the others) share. */
#ifndef WINDROW_ENGINE_COMM_MEET_PARTS_H
#define WINDROW_ENGINE_COMM_MEET_PARTS_H

#include "engine/comm/gate.h"
#include "engine/comm/tcp.h"

/* For what takes a moment once all ranks are there; and how long one that answers at the place is
 * asked who it is. */
#define MEET_MOMENT_S 30.0
#define MEET_ANSWER_S 5.0

/* A rank, as the list of rank 0 has it. */
struct seat {
    char host[64];
    char machine[64];                  /* the same text is the same machine */
    char address[SOCKET_ADDRESS_SIZE]; /* empty: that of rank 0 */
    int32_t port;
};

struct meet {
    const struct tcp_options *options;
    struct tcp_meeting *meeting;
    struct gate_keys keys;
    struct gate gate;
    struct seat *seat;
    char host[64];
    char machine[64];
    char where[1100]; /* the place, for people */
};

/* The connection to a rank; -1: none yet. */
int *meet_link(const struct meet *meet, int rank);
struct patience meet_patience(const struct meet *meet, double seconds);
bool meet_given_up(const struct meet *meet);
int meet_fail_given_up(struct error *err);
struct note meet_note(const struct meet *meet, enum note_kind kind);
/* Ranks without a connection, "2, 3, 7". */
void meet_list_missing(const struct meet *meet, int first, char *text, size_t size);

/* What a rank other than 0 does. */
int meet_join(struct meet *meet, struct error *err);

#endif
