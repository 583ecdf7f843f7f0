/*
 * The files of a data set, and reading one of them front to back in blocks.
 *
 * A path is a file, or a directory with train.jsonl (or train.json, train.txt) and perhaps a
 * valid.* of the same kind beside it, or with *.txt files, taken in the order of their names. What
 * is compressed or in a format of spreadsheets is refused with the command that helps.
 */
#ifndef WINDROW_ENGINE_DATA_SOURCE_H
#define WINDROW_ENGINE_DATA_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/digest.h"
#include "engine/base/error.h"
#include "engine/dataset.h"

struct source_list {
    char **path;
    size_t count;
    bool records;       /* JSON rows, not text */
    int64_t size_bytes; /* of all files */
};

/* The training files of `path`, and the validation file beside them, if any (else an empty list;
 * NULL if not wanted). Free each with source_list_free. */
int source_list_open(const char *path, struct source_list *train, struct source_list *validation,
                     struct error *err);
void source_list_free(struct source_list *list);

/* What all reading of a data set shares. */
struct source_watch {
    struct digest *digest;                   /* of every byte read, or NULL */
    const struct dataset_progress *progress; /* or NULL */
    int64_t done_bytes;
    int64_t total_bytes;
};

enum { SOURCE_BLOCK_BYTES = 1 << 20 };

/* One file. `line` counts from 1 and is kept by who takes bytes. */
struct source {
    const char *path; /* borrowed */
    int fd;
    int64_t size;
    int64_t offset; /* of the next block */
    char *block;
    size_t have;
    size_t used;
    int64_t line;
    struct source_watch *watch; /* or NULL */
};

/* Skips a byte order mark. Initialise with { .fd = -1 } so that source_close is always safe. */
int source_open(struct source *source, const char *path, struct source_watch *watch,
                struct error *err);
void source_close(struct source *source);

/* Makes at least one byte available in block[used .. have). 1, 0 at the end, -1 on failure. */
int source_fill(struct source *source, struct error *err);

#endif
