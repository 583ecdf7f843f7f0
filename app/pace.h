/*
 * How much may be sent to the terminal, and when.
 *
 * After every piece the terminal is asked for a sign of life (ESC [ 5 n); the next one waits for
 * the answer, so that there is never more than one piece under way, however long the line. From the
 * time it took follows how large a piece may be: what the line takes in a twentieth of a second, so
 * a key does not wait a tenth of one behind what was sent before it. A terminal that does not
 * answer is paced by its driver alone. No I/O here; times are monotonic seconds.
 */
#ifndef WINDROW_APP_PACE_H
#define WINDROW_APP_PACE_H

#include <stdbool.h>
#include <stddef.h>

enum { PACE_LEAST_BYTES = 200, PACE_FIRST_BYTES = 4096, PACE_MOST_BYTES = 1 << 20 };

struct pace {
    bool answers;   /* the terminal answered at least once */
    bool silent;    /* it was asked often enough in vain */
    bool waiting;   /* a piece is under way */
    int unanswered; /* questions that were not answered yet */
    int misses;
    int slow_pieces; /* small ones in a row that took long */
    double sent_at;
    size_t sent_bytes;
    double round_trip; /* the shortest; 0: unknown */
    double limit;      /* bytes of a piece */
};

void pace_open(struct pace *pace);
/* Bytes that the next piece may have. */
size_t pace_limit(const struct pace *pace);
/* Whether a question should follow a piece. */
bool pace_asks(const struct pace *pace);
/* A piece was sent, with its question if pace_asks; 0 bytes: the question alone. */
void pace_sent(struct pace *pace, size_t bytes, double now);
void pace_answered(struct pace *pace, double now);
/* Whether the next piece may go; overdue answers are given up here. */
bool pace_ready(struct pace *pace, double now);
/* When pace_ready becomes true without an answer; INFINITY: it is. */
double pace_overdue(const struct pace *pace);

#endif
