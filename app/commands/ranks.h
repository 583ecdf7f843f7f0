/* Starting a command once for each rank. */
#ifndef WINDROW_APP_COMMANDS_RANKS_H
#define WINDROW_APP_COMMANDS_RANKS_H

#include "app/commands/command.h"

/* Becomes mpirun, which starts this very program `ranks` times with the same words, but for --gpus.
 * Returns only on failure, with -1. */
int ranks_start(const struct arguments *arguments, int ranks, struct error *err);

#endif
