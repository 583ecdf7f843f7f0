/*
 * Styles name meanings; a theme gives each meaning a look.
 *
 * Backgrounds stay the terminal's own, so a theme has to know whether that is dark or light. Where
 * nobody says so, colours are taken that can be read on both. Nothing is said by colour alone: the
 * same screens are readable in mono.
 *
 * What a test holds the palettes to (contrast as WCAG 2.2 defines it, section "contrast ratio"):
 *
 *     dark     texts 4.5:1 on black, everything 3:1 on #282c34
 *     light    texts 4.5:1 on white, everything 3:1 on #fdf6e3
 *     unknown  3:1 on black and on white
 *     safe     its series, and good against bad, stay apart for protanopia, deuteranopia and
 *              tritanopia (simulated as in Machado, Oliveira and Fernandes 2009, table 1), too
 *
 * With 8 or 16 colours and an unknown ground only magenta and red are used, the two that are
 * readable on both.
 */
#ifndef WINDROW_APP_THEME_H
#define WINDROW_APP_THEME_H

#include <stdbool.h>

enum style {
    STYLE_TEXT,
    STYLE_DIM,
    STYLE_STRONG,
    STYLE_TITLE,
    STYLE_BORDER,
    STYLE_FOCUS,  /* border of the pane that has the keys */
    STYLE_CURSOR, /* the chosen row */
    STYLE_KEY,    /* a key in the footer or in help */
    STYLE_TAB,    /* the current tab */
    STYLE_GOOD,
    STYLE_WARN,
    STYLE_BAD,
    STYLE_RAW, /* a series as measured */
    STYLE_SERIES_1,
    STYLE_SERIES_2,
    STYLE_SERIES_3,
    STYLE_SERIES_4,
    STYLE_HEAT_0, /* five steps from little to much */
    STYLE_HEAT_1,
    STYLE_HEAT_2,
    STYLE_HEAT_3,
    STYLE_HEAT_4,
    STYLE_COUNT
};

enum color_depth { COLOR_MONO, COLOR_8, COLOR_16, COLOR_256, COLOR_TRUE };

/* What the user chooses; auto and safe follow the ground. */
enum theme_name { THEME_AUTO, THEME_DARK, THEME_LIGHT, THEME_SAFE, THEME_MONO, THEME_COUNT };
extern const char *const theme_names[]; /* ends with NULL */

/* The terminal's background. */
enum ground { GROUND_UNKNOWN, GROUND_DARK, GROUND_LIGHT };

struct theme {
    enum theme_name name;
    enum ground ground;
    enum color_depth depth;
};

struct look {
    short foreground; /* palette number; -1: the terminal's own */
    bool bold;
    bool dim;
    bool reverse;
    unsigned rgb; /* of the foreground where the depth is COLOR_TRUE, 0xrrggbb */
};

struct look theme_look(struct theme theme, enum style style);

/* The ground that a background of that colour is; parts 0 .. 1. */
enum ground theme_ground(double red, double green, double blue);
/* The ground that a value of COLORFGBG ("15;0", "0;default;15") names; NULL names none. */
enum ground theme_ground_of(const char *colors);

/* 0xrrggbb of a number of the 256-colour palette, as xterm has it. */
unsigned theme_palette(int number);

/* One letter for the look of the unknown ground, for comparing screens as text: ' ' is plain text;
 * 'B' bold, 'd' dim, 'R' reverse; small letters a.. for colours (the style counted from a). */
char theme_letter(enum style style, enum color_depth depth);

#endif
