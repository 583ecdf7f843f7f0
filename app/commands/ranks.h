/* Starting a command once for each rank. */
#ifndef WINDROW_APP_COMMANDS_RANKS_H
#define WINDROW_APP_COMMANDS_RANKS_H

#include "app/commands/command.h"
#include "engine/launch.h"

/* Starts this very program `ranks` - 1 more times with the same words, but for --gpus; this process
 * goes on as rank 0. NULL with an error. */
struct launch *ranks_start(const struct arguments *arguments, int ranks, struct error *err);

#endif
