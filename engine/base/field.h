/*
 * A setting is one row of a table: recipe key, command line, form, help, unit, range, default and
 * "can change while running" all come from it.
 */
#ifndef WINDROW_ENGINE_BASE_FIELD_H
#define WINDROW_ENGINE_BASE_FIELD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/error.h"

enum field_type {
    FIELD_INTEGER, /* int64_t */
    FIELD_NUMBER,  /* double */
    FIELD_BOOL,    /* bool */
    FIELD_CHOICE,  /* int: position in `choices` */
    FIELD_STRING,  /* char *, owned by the struct, never NULL (may be empty) */
    FIELD_BYTES,   /* int64_t, written as 24GiB, 512MB, 1048576; 0: no limit */
};

struct field {
    const char *key; /* "method.rank" */
    enum field_type type;
    size_t offset;    /* in the struct that holds the settings */
    const char *unit; /* "rows", "steps", "" */
    const char *help; /* one sentence */
    double minimum;   /* INTEGER, NUMBER, BYTES */
    double maximum;
    const char *const *choices; /* CHOICE: NULL-terminated */
    const char *default_text;   /* as it would be written after key= */
    bool live;                  /* may change while running */
    bool exclusive_minimum;     /* NUMBER: the minimum itself is refused */
};

/* Reads `text` (as after key=) into the struct at `base`. Errors name the key, what was found and
 * what is allowed. */
int field_set(const struct field *field, void *base, const char *text, struct error *err);

/* The value as it would be written after key= (xmalloc'd). */
char *field_text(const struct field *field, const void *base);

/* What is allowed, for messages and help: "1 .. 65536", "top|norm|norm2|uniform", "a path". */
char *field_range(const struct field *field);

/* Releases strings. */
void field_release(const struct field *field, void *base);

#endif
