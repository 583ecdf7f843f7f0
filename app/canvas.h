/*
 * A grid of cells that screens draw into.
 *
 * Screens never see the terminal: the same grid goes to ncurses and to tests. Every draw function
 * clips to the canvas and to its clip rectangle, so no screen can write where it should not.
 * A glyph of two columns is a cell of width 2 followed by a cell of width 0; it is never split.
 */
#ifndef WINDROW_APP_CANVAS_H
#define WINDROW_APP_CANVAS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "app/theme.h"

/* What the terminal can show. ASCII also replaces every other character of texts by '?'. */
enum glyph_set { GLYPHS_ASCII, GLYPHS_BLOCK, GLYPHS_BRAILLE, GLYPHS_COUNT };
extern const char *const glyph_set_names[GLYPHS_COUNT];
/* What the locale and TERM let one hope for. */
enum glyph_set glyph_set_here(void);

struct rect {
    int x;
    int y;
    int width;
    int height;
};

struct cell {
    uint32_t code;    /* ' ' where nothing was drawn */
    uint32_t mark[2]; /* combining marks, 0 for none */
    uint8_t style;    /* enum style */
    uint8_t width;    /* 1, 2; 0: second column of the cell before */
};

/* What a click there is meant for, and which of its kind. */
enum target {
    TARGET_NONE,
    TARGET_KEY,   /* index: the key that does it */
    TARGET_PANE,  /* a list of the launcher without a row */
    TARGET_MODEL, /* rows of the launcher's lists, in their order */
    TARGET_DATA,
    TARGET_METHOD,
    TARGET_RUN,
    TARGET_OPEN, /* a row of the list of runs */
    TARGET_FORM,
    TARGET_TUNE,
    TARGET_MATRIX,
    TARGET_PROMPT
};
struct spot {
    struct rect area;
    enum target target;
    int index;
};

struct canvas {
    int width;
    int height;
    struct cell *cell; /* width * height, row by row */
    struct rect clip;
    enum glyph_set glyphs;
    struct spot spot[256]; /* as drawn: what comes later lies on top */
    int spot_count;
};

/* An empty canvas of the size; both at least 1 and at most 1000. */
void canvas_open(struct canvas *canvas, int width, int height, enum glyph_set glyphs);
void canvas_close(struct canvas *canvas);
/* Blank, clip set to all. */
void canvas_clear(struct canvas *canvas);

/* Narrows the clip to its intersection with `rect`; returns the old one, for canvas_restore. */
struct rect canvas_clip(struct canvas *canvas, struct rect rect);
void canvas_restore(struct canvas *canvas, struct rect clip);

/* For canvases of the same size: a row of cells; whether some glyph in it has two columns; whether
 * it differs; all cells copied. */
const struct cell *canvas_row(const struct canvas *canvas, int y);
bool canvas_row_is_wide(const struct canvas *canvas, int y);
bool canvas_row_differs(const struct canvas *a, const struct canvas *b, int y);
void canvas_copy(struct canvas *to, const struct canvas *from);

/* One glyph. `code` must be printable and one column wide. */
void canvas_put(struct canvas *canvas, int x, int y, uint32_t code, enum style style);
void canvas_fill(struct canvas *canvas, struct rect rect, uint32_t code, enum style style);
/* Changes the style of what is there. */
void canvas_restyle(struct canvas *canvas, struct rect rect, enum style style);

/* What a click on that part of the clip is meant for. */
void canvas_spot(struct canvas *canvas, struct rect area, enum target target, int index);
/* What lies on top there; TARGET_NONE: nothing. */
struct spot canvas_spot_at(const struct canvas *canvas, int x, int y);

/* Text from anywhere, made harmless, cut at `width` columns (the last one becomes '~' if something
 * was cut). Returns the columns used. */
int canvas_text(struct canvas *canvas, int x, int y, int width, enum style style, const char *text);
int canvas_text_size(struct canvas *canvas, struct rect at, enum style style, const char *text,
                     size_t size);
/* The same with its right end at column x + width. */
void canvas_text_right(struct canvas *canvas, int x, int y, int width, enum style style,
                       const char *text);
/* printf of at most 1023 bytes; the result is treated like any text. */
int canvas_printf(struct canvas *canvas, int x, int y, int width, enum style style,
                  const char *format, ...) __attribute__((format(printf, 6, 7)));

struct rect rect_inside(struct rect outer); /* without a border of one cell */
struct rect rect_cut(struct rect a, struct rect b);

#endif
