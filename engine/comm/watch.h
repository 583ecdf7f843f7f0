/*
 * Whether the other ranks are alive.
 *
 * A thread beside training keeps a TCP connection between rank 0 and every other rank and sends a
 * beat each second: who it is, on which host, and the collective it came to last. It has nothing to
 * do with the collectives themselves, so a slow step is no fault. A connection that ends without a
 * farewell is a rank that died; one that is silent for WATCH_SECONDS is a rank that hangs. Rank 0
 * tells the others what it found, and every rank can say it in the same words.
 *
 * If the process does not come to its end within WATCH_GRACE_S after that (it may be inside a call
 * that waits for the lost rank), the thread writes the sentence to standard error and ends it.
 */
#ifndef WINDROW_ENGINE_COMM_WATCH_H
#define WINDROW_ENGINE_COMM_WATCH_H

#include "engine/comm/comm.h"

#define WATCH_SECONDS 60.0
#define WATCH_GRACE_S 6.0

struct watch;

/* Connects all ranks; all ask for it together. NULL with an error; NULL without one for one rank.
 * `silence_s`: after so many seconds a rank hangs. */
struct watch *watch_open(struct comm *comm, double silence_s, struct error *err);
/* Whether a rank was lost, and the sentence that says which. */
bool watch_lost(struct watch *watch, char *sentence, size_t size);
/* False once a rank was lost; then the communicator has failed, with the sentence and what this
 * rank was at. What is asked while waiting (comm_on_wait). */
bool watch_check(struct watch *watch, struct comm *comm);
/* Takes leave of the others, unless `broken`. NULL: nothing. */
void watch_close(struct watch *watch, bool broken);

#endif
