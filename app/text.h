/*
 * Text for the screen.
 *
 * Names, samples, log lines and messages come from files and models: they are not trusted. Nothing
 * reaches a cell except through text_next_glyph, so no byte of them can command the terminal.
 * Below are also the forms in which numbers are shown, always at most 15 characters.
 */
#ifndef WINDROW_APP_TEXT_H
#define WINDROW_APP_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What one character of text becomes. */
struct text_glyph {
    uint32_t code[2]; /* code points to place, each with the width below */
    int count;        /* 0: nothing (dropped), 1, or 2 for ^X */
    int width;        /* columns of each: 1 or 2; 0: a mark that belongs to the glyph before it */
    bool odd;         /* stands for something that cannot be shown: draw it dim */
};

/* Reads one character of `size` bytes of strict UTF-8 (size > 0) and returns the bytes consumed,
 * at least 1. Controls (C0, C1, DEL) become ^X, a wrong byte U+FFFD; direction marks and invisible
 * characters are dropped. A tab is one space. */
size_t text_next_glyph(const char *text, size_t size, struct text_glyph *glyph);

/* Columns of a code point: 0 (combining), 1 or 2, from the Unicode tables. */
int text_code_width(uint32_t code);

/* Columns that the whole string takes. */
int text_columns(const char *text);

/* Bytes of the longest beginning of `text` that fits `width` columns and ends before a newline;
 * breaks at a space where there is one. `next` is where the following line begins. At the end of
 * the text `*next` is `size`. */
size_t text_wrap(const char *text, size_t size, int width, size_t *next);

enum { TEXT_NUMBER_SIZE_SHOWN = 32 };
struct text_number {
    char text[TEXT_NUMBER_SIZE_SHOWN];
};

/* "5.38 GiB", "812 MiB", "0 B"; "-" if negative. Three significant digits. */
struct text_number text_bytes(double bytes);
/* "18.4k", "11.9M", "512"; "-" if not finite. */
struct text_number text_count(double value);
/* "0:32:10", "3d 04:10"; "-" if unknown (negative or not finite). */
struct text_number text_duration(double seconds);
/* "1.214", "nan", "inf"; four significant digits. */
struct text_number text_loss(double value);
/* Shortest form with three significant digits: "0.0001" as 1.0e-04. */
struct text_number text_value(double value);
/* "81.3%", "-" if unknown. */
struct text_number text_percent(double share);
/* Time of day in UTC, "11:41:02". */
struct text_number text_clock(double unix_seconds);

#endif
