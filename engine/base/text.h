/*
 * Untrusted bytes: checking UTF-8, and showing names from files in messages without letting a
 * terminal obey them. Numbers to and from text that do not depend on the locale.
 */
#ifndef WINDROW_ENGINE_BASE_TEXT_H
#define WINDROW_ENGINE_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Decodes one code point of strict UTF-8 (no overlong forms, no surrogates, at most U+10FFFF).
 * Its length in bytes, or 0 if there is none at `text`; `code` may be NULL. */
size_t text_decode(const char *text, size_t size, uint32_t *code);
/* The bytes of a code point; returns how many. */
size_t text_encode(uint32_t code, char out[4]);

/* Whether all of it is UTF-8; else `bad` (may be NULL) is the offset of the first wrong byte. */
bool text_is_utf8(const char *text, size_t size, size_t *bad);

/* Code points a terminal may obey or that make text look like something else: controls (C0, DEL,
 * C1), line separators, direction marks, invisible ones and tags. */
bool text_is_control(uint32_t code);

/* A name made fit for a message. Passed by value, so that it can stand among the arguments:
 *     fail(err, ERROR_DATA, "unknown tensor %s", text_show(name).text); */
enum { TEXT_SHOWN_COLUMNS = 80, TEXT_SHOWN_SIZE = 360 };
struct text_shown {
    char text[TEXT_SHOWN_SIZE];
};

/* Control and invalid bytes become \x1b, dangerous code points \u202e; what is wider than 80
 * columns is cut in the middle with "...". */
struct text_shown text_show(const char *text);
struct text_shown text_escape(const char *text, size_t size);

/* Makes the string at `text` harmless in place, cut to `capacity` (with its NUL) if it grows too
 * long. */
void text_clean(char *text, size_t capacity);

/* Decimal numbers with a point, whatever the locale says. `text` must hold nothing else. */
bool text_to_double(const char *text, double *out);
bool text_to_integer(const char *text, int64_t *out);

/* The shortest decimal that reads back as the same value; integers below 1e15 without exponent.
 * Finite values only. */
enum { TEXT_NUMBER_SIZE = 40 };
void text_from_double(char out[TEXT_NUMBER_SIZE], double value);
void text_from_float(char out[TEXT_NUMBER_SIZE], float value);

#endif
