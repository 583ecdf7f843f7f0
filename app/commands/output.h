/* What commands print: sentences for people on stderr, data on stdout. */
#ifndef WINDROW_APP_COMMANDS_OUTPUT_H
#define WINDROW_APP_COMMANDS_OUTPUT_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>

#include "engine/base/error.h"
#include "engine/base/xalloc.h"

/* Whether colours may be written to a descriptor: NO_COLOR, then CLICOLOR_FORCE, then whether it is
 * a terminal that has them. --color sets these variables for the process and its children. */
bool output_has_color(int fd);

/* A sentence on stderr, made harmless, with a newline. */
void output_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* "windrow: error: ..." with its hint. Returns the exit code that belongs to it. */
int output_error(const struct error *err);
void output_warning(const char *text);
/* For callbacks of the engine: the context is not used. */
void output_notice(void *context, const char *text);

/* Text on stdout; control characters other than newline and tab are escaped. */
void output_data(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Bytes on stdout as they are (JSON lines, generated text to a file). */
void output_bytes(const char *text, size_t size);
/* Prints a tree with indentation, frees it. */
void output_json(cJSON *value);
/* Flushes stdout: 0, or 1 with a message if it could not be written. */
int output_finish(int code);

/* Columns that line up. Cells are copied and made harmless. */
struct table {
    int columns;
    int rows;
    char **cell;       /* row by row */
    const char *align; /* a letter a column: 'l' or 'r' */
};
void table_open(struct table *table, const char *align);
/* Takes as many strings as there are columns. */
void table_add(struct table *table, const char *const *cells);
/* Prints to stdout, the first row bold where there are colours, and frees. */
void table_print(struct table *table);
void table_free(struct table *table);

/* Members of JSON objects; NaN becomes no member at all. */
void json_add_text(cJSON *object, const char *key, const char *text);
void json_add_number(cJSON *object, const char *key, double value);
void json_add_bool(cJSON *object, const char *key, bool value);
cJSON *json_add_object(cJSON *object, const char *key);
cJSON *json_add_array(cJSON *object, const char *key);
/* A new object at the end of an array. */
cJSON *json_append_object(cJSON *array);

#endif
