/*
 * Errors are sentences.
 *
 * A function that can fail returns int (0, or -1) or a pointer (or NULL) and takes a
 * `struct error *err` last, never NULL. Success leaves it untouched. The message names the file,
 * the key or the line, the value found and the values allowed; the hint says what to do next.
 */
#ifndef WINDROW_ENGINE_BASE_ERROR_H
#define WINDROW_ENGINE_BASE_ERROR_H

#include <stddef.h>

/* The exit codes of the program. */
enum error_code {
    ERROR_NONE = 0,
    ERROR_RUNTIME = 1,  /* failed while running: disk, device, memory */
    ERROR_USAGE = 2,    /* command line or recipe */
    ERROR_DATA = 3,     /* a data or model file */
    ERROR_FIT = 4,      /* does not fit into memory */
    ERROR_DIVERGED = 5, /* not finite again and again */
};

struct error {
    enum error_code code;
    char message[1024];
    char hint[512];
};

/* Sets code and message (printf style), clears the hint, returns -1. The parentheses keep a macro
 * of this name away, which cmocka has: tests call (fail)(...). */
int(fail)(struct error *err, enum error_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Adds what to do next. Returns -1, so that `return hint(...)` reads well. */
int hint(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts "prefix: " before the message. Returns -1. */
int fail_within(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* For what cannot happen: prints file, line and message to stderr and aborts. */
#define BUG(...) bug_at(__FILE__, __LINE__, __VA_ARGS__)
void bug_at(const char *file, int line, const char *format, ...)
    __attribute__((noreturn, format(printf, 3, 4)));

/* Of `count` names, the one nearest to `name` by edit distance, or NULL if none is near. */
const char *nearest_name(const char *name, const char *const *names, size_t count);

#endif
