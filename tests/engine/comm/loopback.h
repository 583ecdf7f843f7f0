/* Ranks that are threads of one process: a transport for tests. */
#ifndef WINDROW_TESTS_ENGINE_COMM_LOOPBACK_H
#define WINDROW_TESTS_ENGINE_COMM_LOOPBACK_H

#include "engine/comm/comm.h"
#include "engine/comm/transport.h"

enum { LOOPBACK_RANKS_MAX = 8 };

/* `silent_rank` does not come to collective number `silent_at` (from 0) nor to any later one, and
 * is told that it was given up; -1: all do. `tells`: the others notice when a rank closes its
 * transport as broken; else they wait until they give up. `gives`: `work` closes the communicator.
 */
struct loopback_options {
    int ranks;
    int silent_rank;
    int64_t silent_at;
    bool tells;
    bool one_thread;
    double
        *carried; /* by rank: bytes that it sent to others in exchanges and gathers; may be NULL */
    bool gives;
};

/* Runs work(comm, context) on a thread for each rank and waits for all of them. */
void loopback_run(const struct loopback_options *options,
                  void (*work)(struct comm *comm, void *context), void *context);

#endif
