/*
 * The door of a rank: who comes to a listening socket says who it is and shows a key. Others
 * (scanners, wrong addresses, ranks of other jobs) are sent away without being waited for.
 */
#ifndef WINDROW_ENGINE_COMM_GATE_H
#define WINDROW_ENGINE_COMM_GATE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/digest.h"
#include "engine/comm/socket.h"

enum note_kind {
    NOTE_JOIN = 1, /* to a door: here is `rank` of `ranks` */
    NOTE_WELCOME,  /* rank 0: you are expected */
    NOTE_REFUSED,  /* to or from rank 0: it comes to nothing, `text` says why */
    NOTE_HERE, /* rank 0: all are there; `number`: 1 on one machine, 2 and they share memory, or 0
                */
    NOTE_LISTENING, /* to rank 0: at port `number`; its answer is the list of all ranks */
    NOTE_READY,     /* to rank 0: connected with all */
    NOTE_GO,        /* rank 0: so is everybody */
};

/* What ranks tell each other until all are connected; they run the same program. */
struct note {
    char magic[8];
    char key[DIGEST_TEXT_SIZE];
    int32_t kind;
    int32_t rank;
    int32_t ranks;
    int32_t number;
    char host[64];
    char machine[64];
    char text[256];
};

/* The two sides of a key: one is shown at the door, the other by who lets in. */
struct gate_keys {
    char join[DIGEST_TEXT_SIZE];
    char answer[DIGEST_TEXT_SIZE];
};
struct gate_keys gate_keys(const char *job, const char *drawn);

enum { GATE_GUESTS = 64 };
#define GATE_GUEST_S 10.0

/* Connections that have not said yet who they are; when the room is full, the oldest leaves. */
struct gate {
    int listener;
    const struct gate_keys *keys;
    struct guest {
        int fd; /* 0: nobody */
        double until_s;
        size_t filled;
        struct note note;
    } guest[GATE_GUESTS];
};

void gate_open(struct gate *gate, int listener, const struct gate_keys *keys);
/* Closes the listener too. */
void gate_close(struct gate *gate);
/* Lets a moment pass. The connection of somebody with the right key, and what they said; -1: nobody
 * has come. */
int gate_step(struct gate *gate, struct note *note);

/* Sends a note with this key. */
int note_send(int fd, const struct note *note, const char *key, const struct patience *patience,
              char why[SOCKET_WHY_SIZE]);
/* Receives one that shows this key; its texts are harmless. A NOTE_REFUSED is a failure with its
 * text in `why`, *refused tells it from others (may be NULL). */
int note_receive(int fd, struct note *note, const char *key, const struct patience *patience,
                 bool *refused, char why[SOCKET_WHY_SIZE]);

#endif
