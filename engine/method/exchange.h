/*
 * The format in which gradients are exchanged between ranks (precision.exchange): their own, or
 * another one, into which they are converted before the sum and back after it.
 *
 * bf16 for fp32 gradients halves the bytes. Every rank rounds its gradient to the nearest, engines
 * sum in fp32 and round the sum once ("nccl" rounds at each hop): errors of 2^-9 of the largest
 * term. The format is converted in place: packed, an fp32 gradient takes the first half of its own
 * memory, and no copy of it is made.
 *
 * fp32 for bf16 gradients matters where an engine rounds at each hop; it takes twice the bytes.
 * They pass through the workspace piece by piece, each of which is waited for.
 *
 * What a choice of rows rests on is exchanged likewise where it is a gradient; sketches, bases and
 * sums of squares are not.
 */
#ifndef WINDROW_ENGINE_METHOD_EXCHANGE_H
#define WINDROW_ENGINE_METHOD_EXCHANGE_H

#include "engine/comm/comm.h"
#include "engine/memory/memory.h"

struct exchange {
    struct backend *be;
    struct memory *memory;
    struct comm *comm;
    bool converts;   /* false: gradients go as they are */
    enum dtype wire; /* DTYPE_F32 or DTYPE_BF16 */
};

/* Which rows of a sum a rank gets. */
struct exchange_rows {
    bool split;           /* false: all of them */
    const int64_t *bound; /* rank p's are [bound[p], bound[p + 1]); NULL: those of comm_share_of */
};

/* Asks for the sum of a gradient over the ranks. After a comm_wait exchange_take completes it;
 * nobody touches it in between. Without other ranks nothing happens. */
void exchange_ask(const struct exchange *exchange, struct tensor *gradient,
                  struct exchange_rows rows);
void exchange_take(const struct exchange *exchange, struct tensor *gradient,
                   struct exchange_rows rows);

/* Asks, waits and takes: all of it. */
void exchange_now(const struct exchange *exchange, struct tensor *gradient);

#endif
