/*
 * Styles name meanings; a theme gives each meaning a look at each colour depth.
 *
 * Backgrounds stay the terminal's own. Nothing is said by colour alone: the same screens are
 * readable in mono. The 256-colour palette keeps a contrast of at least 3:1 on black and on white,
 * and its first two colours stay apart for the three colour-vision deficiencies. With 8 or 16
 * colours only magenta and red are used, the two that are readable on both backgrounds.
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

enum color_depth { COLOR_MONO, COLOR_8, COLOR_16, COLOR_256 };

struct look {
    short foreground; /* palette number; -1: the terminal's own */
    short background;
    bool bold;
    bool dim;
    bool reverse;
};

struct look theme_look(enum style style, enum color_depth depth);

/* One letter for the look, for comparing screens as text: ' ' is plain text; 'B' bold, 'd' dim,
 * 'R' reverse; small letters a.. for colours (the style counted from a). */
char theme_letter(enum style style, enum color_depth depth);

#endif
