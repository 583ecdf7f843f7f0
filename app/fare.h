/*
 * How the ranks of a run fare, in a few numbers: who computes longest, how much of a step goes into
 * exchange, who is fullest. From one ranks event; the same for screens and commands.
 */
#ifndef WINDROW_APP_FARE_H
#define WINDROW_APP_FARE_H

#include "engine/event.h"

struct fare {
    int count;               /* ranks */
    int hosts;               /* 0: unknown */
    int slowest;             /* -1: unknown */
    double behind;           /* by how much of the mean it computes longer than that; NaN */
    double exchange;         /* share of a step that ranks stand in collectives, the mean; NaN */
    double step_ms;          /* of the longest; NaN */
    int64_t exchanged_bytes; /* a step, of the rank with most; EVENT_UNKNOWN */
    int64_t peak_low, peak_high; /* bytes; EVENT_UNKNOWN */
};
void fare_of(const struct event_ranks *ranks, struct fare *out);

/* "4 ranks on 2 hosts, slowest 2 (mower) 12% behind the mean, exchange 31% of a step", in as many
 * words as `width` columns have room for; "" if not even the fewest. */
void fare_sentence(const struct event_ranks *ranks, int width, char *out, size_t size);

/* Bytes that a rank may take: its limit, or else what its device has; 0: unknown. */
int64_t fare_limit(const struct event_rank *rank);

/* Orders in which ranks are listed. */
enum fare_order { FARE_BY_RANK, FARE_SLOWEST_FIRST, FARE_FULLEST_FIRST, FARE_ORDERS };
extern const char *const fare_order_names[FARE_ORDERS];
/* Writes the numbers of the ranks (`count` of them) in that order; ties go by number. */
void fare_sort(const struct event_ranks *ranks, enum fare_order order, int *out);

/* A copy of its own, to be freed with free(item). */
struct event_ranks fare_copy(const struct event_ranks *ranks);

#endif
