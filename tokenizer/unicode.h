/*
 * Strict UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing above U+10FFFF, no sequence
 * cut short. NUL is a character like any other.
 */
#ifndef WINDROW_TOKENIZER_UNICODE_H
#define WINDROW_TOKENIZER_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The code point that starts at `*offset`, which must be below `size`; `*offset` moves behind it.
 * -1 if no valid sequence starts there; `*offset` then moves by one byte, so that a loop goes on.
 */
int32_t utf8_next(const char *text, size_t size, size_t *offset);

/* Whether all of `text` is valid. If not, `*bad_offset` (may be NULL) gets the place of the first
 * byte that starts no valid sequence. */
bool utf8_check(const char *text, size_t size, size_t *bad_offset);

#endif
