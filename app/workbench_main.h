/* The live workbench: a terminal, a run, and the loop between them. */
#ifndef WINDROW_APP_WORKBENCH_MAIN_H
#define WINDROW_APP_WORKBENCH_MAIN_H

#include "engine/base/error.h"
#include "engine/run.h"

/* The launcher with the embedded default chosen, until the user leaves. Standard input and output
 * must be a terminal. Returns the exit code; what went wrong is told on stderr. NO_COLOR and the
 * locale decide about colours and glyphs. */
int workbench_launcher(void);

/* The dashboard of a run, running or ended; NULL: the newest running one, else the newest.
 * `choose`: the list of runs lies over it. */
int workbench_attach(const char *run, bool choose);

/* Starts the recipe of `options` (with `directory`, if given; nothing else is used) on so many
 * ranks as a process of its own and shows its dashboard. The exit code, or -1 with an error if it
 * could not be started. */
int workbench_start_and_attach(const struct run_options *options, int ranks, struct error *err);

#endif
