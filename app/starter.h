/* Starts training as a process of its own, which outlives the terminal. */
#ifndef WINDROW_APP_STARTER_H
#define WINDROW_APP_STARTER_H

#include <stdbool.h>
#include <sys/types.h>

#include "engine/base/error.h"
#include "engine/recipe.h"

struct starter {
    char *directory; /* of the run */
    char *waiting;   /* folder with the recipe and the output until the run has a directory */
    pid_t pid;       /* 0: none */
};

/* `directory` NULL: a new one under the state directory, named date-time-recipe; `ranks` of this
 * machine train together. The process gets its own session, no input, and its output in
 * WAITING/output.log. */
int starter_start(struct starter *starter, const struct recipe *recipe, const char *directory,
                  int ranks, struct error *err);

/* The same for a fork: `words` are those of windrow fork, RUN[@STEP] first, `count` of them. */
int starter_fork(struct starter *starter, const char *const *words, size_t count, int ranks,
                 struct error *err);

/* The same for a run that goes on from its last checkpoint. */
int starter_resume(struct starter *starter, const char *directory, int ranks, struct error *err);

/* Whether the process has ended; then `err` says why, from its output. */
bool starter_failed(struct starter *starter, struct error *err);

/* The run has begun: its output moves into the run directory, the rest is removed. */
void starter_settle(struct starter *starter);

void starter_free(struct starter *starter);

#endif
