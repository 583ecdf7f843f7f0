/*
 * Starting the other ranks of a run on this machine.
 *
 * The process that asks becomes rank 0. The others are copies of its program with words of their
 * own, which it tells through their environment (engine/comm/world.h) with whom they train. They
 * end when it ends, however it does.
 */
#ifndef WINDROW_ENGINE_LAUNCH_H
#define WINDROW_ENGINE_LAUNCH_H

#include <stdbool.h>

#include "engine/base/error.h"

struct launch;

/* Starts ranks 1 to `ranks` - 1 with `words` (the program's name first, NULL last) and prepares
 * this process as rank 0. Their standard output and input are closed; what they write on standard
 * error appears. Only before any thread exists. NULL with an error, also where this process is one
 * of several ranks already. */
struct launch *launch_ranks(int ranks, const char *const *words, struct error *err);

/* Waits for the others to end, and kills those that take too long: `failed` says that rank 0 did
 * not end well, and nothing is waited for that could be lost. NULL: nothing. */
void launch_end(struct launch *launch, bool failed);

#endif
