/*
 * A thread that sends buckets, one after the other, while the one who asked for them goes on.
 *
 * `send` runs on the worker's thread; whatever it waits for there, it asks worker_goes_on again and
 * again, and ends when that says no. Everything else is called by the one thread that opened the
 * worker.
 */
#ifndef WINDROW_ENGINE_COMM_WORKER_H
#define WINDROW_ENGINE_COMM_WORKER_H

#include "engine/comm/engine.h"

struct worker;

/* NULL if there is no thread to be had. `send`: 0, or -1, and then it is not called again. */
struct worker *worker_open(int ranks, int (*send)(void *context, const struct comm_bucket *bucket),
                           void *context);
/* Copies the bucket. False, and nothing has happened, while there is no room. */
bool worker_post(struct worker *worker, const struct comm_bucket *bucket);
/* Whether anything is not done yet; waits for that, but not longer than `seconds`. Then `what` is
 * the name of the bucket that is under way. */
bool worker_busy(struct worker *worker, double seconds, char what[COMM_WHAT]);
/* Whether `send` has failed, and with which bucket. */
bool worker_failed(struct worker *worker, char what[COMM_WHAT]);
/* Asks for what is under way to end. */
void worker_give_up(struct worker *worker);
bool worker_goes_on(void *worker);
/* Gives up what is not done. NULL: nothing. */
void worker_close(struct worker *worker);

#endif
