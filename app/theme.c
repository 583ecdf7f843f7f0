/* The one table of looks. */
#include "app/theme.h"

#define PLAIN                                                                                      \
    {                                                                                              \
        -1, -1, false, false, false                                                                \
    }
#define BOLD                                                                                       \
    {                                                                                              \
        -1, -1, true, false, false                                                                 \
    }
#define DIM                                                                                        \
    {                                                                                              \
        -1, -1, false, true, false                                                                 \
    }
#define REVERSE                                                                                    \
    {                                                                                              \
        -1, -1, false, false, true                                                                 \
    }

/* Blue, orange, violet and brown of the 256-colour cube. */
#define BLUE   32
#define ORANGE 166
#define VIOLET 93
#define BROWN  131

struct row {
    struct look mono;
    struct look few;  /* 8 and 16 colours */
    struct look many; /* 256 colours */
};

static const struct row rows[STYLE_COUNT] = {
    [STYLE_TEXT] = { PLAIN, PLAIN, PLAIN },
    [STYLE_DIM] = { DIM, DIM, { 243, -1, false, false, false } },
    [STYLE_STRONG] = { BOLD, BOLD, BOLD },
    [STYLE_TITLE] = { BOLD, BOLD, BOLD },
    [STYLE_BORDER] = { DIM, DIM, { 243, -1, false, false, false } },
    [STYLE_FOCUS] = { BOLD, BOLD, { BLUE, -1, true, false, false } },
    [STYLE_CURSOR] = { REVERSE, REVERSE, REVERSE },
    [STYLE_KEY] = { BOLD, BOLD, { BLUE, -1, true, false, false } },
    [STYLE_TAB] = { REVERSE, REVERSE, REVERSE },
    [STYLE_GOOD] = { PLAIN, PLAIN, { 28, -1, false, false, false } },
    [STYLE_WARN] = { BOLD, { 5, -1, true, false, false }, { ORANGE, -1, true, false, false } },
    [STYLE_BAD] = { REVERSE, { 1, -1, true, false, false }, { 160, -1, true, false, false } },
    [STYLE_RAW] = { DIM, DIM, { 243, -1, false, false, false } },
    [STYLE_SERIES_1] = { BOLD, BOLD, { BLUE, -1, true, false, false } },
    [STYLE_SERIES_2] = { BOLD, { 5, -1, true, false, false }, { ORANGE, -1, true, false, false } },
    [STYLE_SERIES_3] = { PLAIN, PLAIN, { VIOLET, -1, false, false, false } },
    [STYLE_SERIES_4] = { PLAIN, PLAIN, { BROWN, -1, false, false, false } },
    [STYLE_HEAT_0] = { DIM, DIM, { 243, -1, false, false, false } },
    [STYLE_HEAT_1] = { PLAIN, PLAIN, { 24, -1, false, false, false } },
    [STYLE_HEAT_2] = { PLAIN, PLAIN, { 30, -1, false, false, false } },
    [STYLE_HEAT_3] = { BOLD, BOLD, { 64, -1, false, false, false } },
    [STYLE_HEAT_4] = { BOLD, BOLD, { 136, -1, true, false, false } },
};

struct look theme_look(enum style style, enum color_depth depth)
{
    if ((unsigned)style >= STYLE_COUNT) {
        style = STYLE_TEXT;
    }
    const struct row *row = &rows[style];
    return depth == COLOR_MONO ? row->mono : depth == COLOR_256 ? row->many : row->few;
}

char theme_letter(enum style style, enum color_depth depth)
{
    struct look look = theme_look(style, depth);
    if (look.foreground >= 0) {
        return (char)('a' + (int)style);
    }
    return look.reverse ? 'R' : look.bold ? 'B' : look.dim ? 'd' : ' ';
}
