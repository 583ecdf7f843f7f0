/*
 * Reads runs for the screens on a thread of its own: a run of a million steps takes seconds, a
 * folder of a thousand runs a moment too long, and the screen waits for neither.
 */
#ifndef WINDROW_APP_RUN_READER_H
#define WINDROW_APP_RUN_READER_H

#include "app/comparison.h"

struct run_reader;

struct run_reader *run_reader_open(void);
/* Ends the thread; one that is in the middle of a file is left to the end of the process. NULL is
 * good. */
void run_reader_close(struct run_reader *reader);

/* Readable when something was read. */
int run_reader_fd(const struct run_reader *reader);

/* Asks for the run of a directory, or with NULL for the list of all runs. Asked twice it is read
 * once; more than 16 wait for nobody: the oldest is dropped. */
void run_reader_ask(struct run_reader *reader, const char *path);
/* Removes the run of a directory from the disk. */
void run_reader_prune(struct run_reader *reader, const char *path);

struct run_reading {
    char *path;                /* NULL: it is the list */
    bool pruned;               /* path was to be removed, not read */
    bool ok;                   /* else `err` says why there is none */
    struct comparison_run run; /* of path */
    struct run_list list;
    struct error err;
};
/* Takes what was read, oldest first; false if there is nothing. The caller releases it, or takes
 * things out of it first. */
bool run_reader_take(struct run_reader *reader, struct run_reading *out);
void run_reading_free(struct run_reading *reading);

#endif
