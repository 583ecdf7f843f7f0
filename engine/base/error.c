/* Errors are sentences. Whatever a file or a user put into one is made harmless for terminals. */
#include "engine/base/error.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/text.h"

/* A cut by vsnprintf may split a code point: drop its first half. */
static void trim_cut(char *text, size_t capacity, int wanted)
{
    if (wanted < 0 || (size_t)wanted < capacity) {
        return;
    }
    size_t bad = 0;
    size_t size = strlen(text);
    if (!text_is_utf8(text, size, &bad) && size - bad < 4) {
        text[bad] = '\0';
    }
}

static void print_clean(char *out, size_t capacity, const char *format, va_list arguments)
    __attribute__((format(printf, 3, 0)));

static void print_clean(char *out, size_t capacity, const char *format, va_list arguments)
{
    int wanted = vsnprintf(out, capacity, format, arguments);
    trim_cut(out, capacity, wanted);
    text_clean(out, capacity);
}

int fail(struct error *err, enum error_code code, const char *format, ...)
{
    /* Formatted aside: an argument may be the old message. */
    char message[sizeof err->message];
    va_list arguments;
    va_start(arguments, format);
    print_clean(message, sizeof message, format, arguments);
    va_end(arguments);
    memcpy(err->message, message, sizeof message);
    err->code = code;
    err->hint[0] = '\0';
    return -1;
}

int hint(struct error *err, const char *format, ...)
{
    char text[sizeof err->hint];
    va_list arguments;
    va_start(arguments, format);
    print_clean(text, sizeof text, format, arguments);
    va_end(arguments);
    memcpy(err->hint, text, sizeof text);
    return -1;
}

int fail_within(struct error *err, const char *format, ...)
{
    char text[sizeof err->message];
    va_list arguments;
    va_start(arguments, format);
    print_clean(text, sizeof text, format, arguments);
    va_end(arguments);
    size_t used = strlen(text);
    int wanted = snprintf(text + used, sizeof text - used, ": %s", err->message);
    trim_cut(text, sizeof text - used, wanted);
    memcpy(err->message, text, sizeof text);
    return -1;
}

void bug_at(const char *file, int line, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "windrow: this cannot happen, please report it: %s:%d: ", file, line);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    abort();
}

enum { NAME_LIMIT = 64 };

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Optimal string alignment distance: insertions, deletions, replacements and swaps of neighbours
 * cost 1, upper and lower case are the same. */
static size_t edit_distance(const char *a, size_t a_size, const char *b, size_t b_size)
{
    size_t row[3][NAME_LIMIT + 1];
    for (size_t j = 0; j <= b_size; j++) {
        row[0][j] = j;
    }
    for (size_t i = 1; i <= a_size; i++) {
        size_t *now = row[i % 3];
        const size_t *above = row[(i + 2) % 3];
        const size_t *two_above = row[(i + 1) % 3];
        now[0] = i;
        for (size_t j = 1; j <= b_size; j++) {
            int x = tolower((unsigned char)a[i - 1]);
            int y = tolower((unsigned char)b[j - 1]);
            size_t best = least(least(above[j] + 1, now[j - 1] + 1), above[j - 1] + (x != y));
            if (i > 1 && j > 1 && x == tolower((unsigned char)b[j - 2]) &&
                y == tolower((unsigned char)a[i - 2])) {
                best = least(best, two_above[j - 2] + 1);
            }
            now[j] = best;
        }
    }
    return row[a_size % 3][b_size];
}

const char *nearest_name(const char *name, const char *const *names, size_t count)
{
    const char *best = NULL;
    size_t best_distance = 0;
    size_t size = strlen(name);
    if (size == 0 || size > NAME_LIMIT) {
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        size_t other = strlen(names[i]);
        if (other > NAME_LIMIT) {
            continue;
        }
        size_t distance = edit_distance(name, size, names[i], other);
        const char *last = strrchr(names[i], '.');
        if (last && strcmp(last + 1, name) == 0) {
            distance = 1; /* the part after the point alone: "rank" for "method.rank" */
        }
        size_t longer = size > other ? size : other;
        if (distance <= (longer + 2) / 3 && distance < longer &&
            (!best || distance < best_distance)) {
            best = names[i];
            best_distance = distance;
        }
    }
    return best;
}
