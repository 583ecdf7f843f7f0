/* The grammar of RFC 8259, checked before cJSON sees a byte. For json.c alone. */
#ifndef WINDROW_ENGINE_BASE_JSON_CHECK_H
#define WINDROW_ENGINE_BASE_JSON_CHECK_H

#include <stddef.h>
#include <stdint.h>

#include "engine/base/error.h"

enum {
    JSON_DEPTH_LIMIT = 64,
    JSON_NUMBER_LIMIT = 60,            /* characters; cJSON cuts at 63 without a word */
    JSON_VALUE_LIMIT = 8 * 1024 * 1024 /* values; each takes 64 bytes and more as a tree */
};

/* Whether `text` is exactly one value with blanks around it: valid UTF-8, no NUL inside strings,
 * paired surrogates, nesting and number length within limits. 0, or -1 with line and column. */
int json_check(const char *text, size_t size, const char *name, int64_t first_line,
               struct error *err);

#endif
