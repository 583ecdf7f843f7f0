/* The run directory: making one, holding its lock, appending its events. */
#ifndef WINDROW_ENGINE_RUN_DIRECTORY_H
#define WINDROW_ENGINE_RUN_DIRECTORY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "engine/base/error.h"
#include "engine/event.h"

struct run_directory {
    char *path;
    char *name;
    int lock;      /* held as long as it is open */
    int events;    /* events.jsonl, for appending */
    int64_t bytes; /* its length: whole lines only */
    bool broken;   /* an event could not be written */
};

/* Makes a new run. `path` may name a directory that does not exist or is empty; NULL: one under the
 * state directory, named date-time-recipe. The lock is held on return. */
int run_directory_make(const char *path, const char *recipe_name, struct run_directory *out,
                       struct error *err);

/* Opens an existing one and takes its lock; refused if another process holds it. The events are not
 * touched before run_directory_cut. */
int run_directory_open(const char *path, struct run_directory *out, struct error *err);

/* Cuts events.jsonl back to `bytes` (to the last whole line if it is shorter) and opens it for
 * appending. */
int run_directory_cut(struct run_directory *directory, int64_t bytes, struct error *err);

/* Appends one line with a single write. A short write is taken back, so that no torn line stays. */
int run_directory_append(struct run_directory *directory, const char *line, size_t size,
                         struct error *err);

/* Makes all events durable. */
int run_directory_sync(struct run_directory *directory, struct error *err);

void run_directory_close(struct run_directory *directory);

/* True if a process holds the lock of the run at `path`; its id goes to `pid` (0: unknown), which
 * may be NULL. */
bool run_is_locked(const char *path, int64_t *pid);

/* Whether `path` is a directory that holds a run. */
bool run_is_run(const char *path);

#endif
