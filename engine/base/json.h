/*
 * Strict JSON over cJSON.
 *
 * json_parse refuses what lets two readers disagree: duplicate keys, trailing text, invalid UTF-8,
 * NUL inside strings, nesting deeper than 64. Errors name the file, line and column.
 * Getters name the full path of the key ("model.hidden_size") in their errors.
 */
#ifndef WINDROW_ENGINE_BASE_JSON_H
#define WINDROW_ENGINE_BASE_JSON_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/base/error.h"
#include "engine/base/xalloc.h"

/* Parses exactly one value out of `size` bytes; `name` is for messages. NULL on failure; free with
 * cJSON_Delete. `first_line` is the line number of the first byte (1 for whole files). */
cJSON *json_parse(const char *text, size_t size, const char *name, int64_t first_line,
                  struct error *err);

/* Reads and parses a file of at most 64 MiB. */
cJSON *json_read(const char *path, struct error *err);

/* Exact-case lookup; NULL if absent. */
const cJSON *json_get(const cJSON *object, const char *key);

/* Integer in [minimum, maximum]; numbers with a fraction, or beyond 2^53, are refused. If the key
 * is absent (or null): `fallback` if `required` is false, else an error. */
struct json_range {
    int64_t minimum;
    int64_t maximum;
    int64_t fallback;
    bool required;
};
int json_integer(const cJSON *object, const char *key, struct json_range range, int64_t *out,
                 const char *name, struct error *err);
int json_number(const cJSON *object, const char *key, double fallback, double *out,
                const char *name, struct error *err);
int json_bool(const cJSON *object, const char *key, bool fallback, bool *out, const char *name,
              struct error *err);
/* The string, owned by `object`, or `fallback`. -1 only if it is not a string. */
int json_string(const cJSON *object, const char *key, const char *fallback, const char **out,
                const char *name, struct error *err);

/* Writing. Floats survive a round trip: the shortest decimal that reads back as the same float (or
 * double). Non-finite numbers are refused by the caller: these write null. Control characters and
 * everything a terminal might obey are escaped; invalid UTF-8 becomes U+FFFD. */
void json_write_string(struct buffer *out, const char *text, size_t size);
void json_write_float(struct buffer *out, float value);
void json_write_double(struct buffer *out, double value);

/* Compact text of a tree (xmalloc'd); numbers as in json_write_double, integers without a point. */
char *json_print(const cJSON *value);
/* The same, indented by two spaces. */
char *json_print_pretty(const cJSON *value);

#endif
