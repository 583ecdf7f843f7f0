/* A folder with a tiny model preset, text and a recipe, and runs of it in child processes. */
#ifndef WINDROW_TESTS_RUN_FIXTURE_H
#define WINDROW_TESTS_RUN_FIXTURE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "engine/base/file.h"
#include "engine/recipe.h"
#include "engine/run.h"

struct fixture {
    char path[64];
    struct recipe recipe; /* 8 steps of grass, rank 8, saves every 3 */
};

/* Starts the program again with one thread for arithmetic, which must be known when it is loaded:
 * threads of several tests at a time would wait for each other. */
void fixture_single_thread(char **argv);

/* cmocka's setup and teardown. The state directory lies in the folder. */
int fixture_make(void **state);
int fixture_remove(void **state);

/* "<folder>/<name>" (xmalloc'd). */
char *fixture_path(const struct fixture *fixture, const char *name);
void fixture_set(struct fixture *fixture, const char *word);

/* What a child wrote about its end. */
struct child {
    pid_t pid;
    char *report; /* file with the error message and hint */
};

/* run_train in a child process; `ops` (may be NULL) is installed there. */
struct child fixture_start(const struct run_options *options, const struct file_ops *ops);
/* Its exit code; message and hint go to `report` (xmalloc'd, may be NULL). */
int fixture_finish(struct child *child, char **report);
/* Both in one. */
int fixture_run(const struct run_options *options, char **report);

/* Runs the fixture's recipe into the directory "<folder>/<name>"; it must end with 0. */
void fixture_train(struct fixture *fixture, const char *name);

/* Events of a kind in a run's events.jsonl; the last one goes to `last` (may be NULL, else release
 * it with event_free if the count is not 0). */
int64_t fixture_events(const char *run, enum event_kind kind, struct event *last);

#endif
