/*
 * Cuts a file into rows: JSON values (one a line, or the elements of one array) or documents (text
 * between lines that hold only "<|endoftext|>").
 *
 * Memory is bounded: of a JSON row above ROWS_LIMIT_BYTES only its place is kept, a document above
 * it is cut after the next newline (or at twice the limit, between two characters).
 */
#ifndef WINDROW_ENGINE_DATA_ROWS_H
#define WINDROW_ENGINE_DATA_ROWS_H

#include "engine/data/source.h"

enum { ROWS_LIMIT_BYTES = 16 << 20 };

enum rows_mode {
    ROWS_UNKNOWN,
    ROWS_LINES,
    ROWS_ARRAY,
    ROWS_END,
};

struct rows {
    struct source source;
    enum rows_mode mode;
    char *text;
    size_t size;
    size_t capacity;
};

/* A row; the text lives until the next call, and a NUL follows it. */
struct row {
    const char *text;
    size_t size;
    int64_t line;  /* of its first byte */
    bool too_long; /* JSON: above the limit; `text` is not whole */
};

/* Initialise with { .source = { .fd = -1 } } so that rows_close is always safe. */
int rows_open(struct rows *rows, const char *path, struct source_watch *watch, struct error *err);
void rows_close(struct rows *rows);

/* The next JSON value that is not blank; 1, 0 at the end, -1 on failure. */
int rows_next_json(struct rows *rows, struct row *row, struct error *err);

/* The next document that is not empty; the same. */
int rows_next_document(struct rows *rows, struct row *row, struct error *err);

#endif
