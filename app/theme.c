/* The one table of looks. */
#include "app/theme.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *const theme_names[] = { "auto", "dark", "light", "safe", "mono", NULL };

enum attribute { PLAIN, BOLD, DIM, REVERSE };
enum { OWN = -1 }; /* the terminal's own colour, with the attribute alone */

/* Numbers of the 256-colour palette; the same RGB where colours are true, but for dark and light,
 * which have their own. Numbers of the 8 colours where there are few. */
struct row {
    enum attribute mono;
    enum attribute few;
    enum attribute many;
    short few_both;
    short few_dark;
    short few_light;
    short both;
    short dark;
    short light;
    short safe_dark;
    short safe_light;
    unsigned true_dark;
    unsigned true_light;
};

#define COLORLESS(attribute)                                                                       \
    {                                                                                              \
        attribute, attribute, attribute, OWN, OWN, OWN, OWN, OWN, OWN, OWN, OWN, 0, 0              \
    }
#define FAINT(dark, light, true_dark, true_light)                                                  \
    {                                                                                              \
        DIM, DIM, PLAIN, OWN, OWN, OWN, 243, dark, light, dark, light, true_dark, true_light       \
    }
#define BLUE                                                                                       \
    {                                                                                              \
        BOLD, BOLD, BOLD, OWN, 6, 4, 32, 75, 25, 75, 26, 0x6cb6ff, 0x0550ae                        \
    }
#define ORANGE                                                                                     \
    {                                                                                              \
        BOLD, BOLD, BOLD, 5, 3, 5, 166, 214, 130, 214, 94, 0xf0b050, 0x953800                      \
    }

static const struct row rows[STYLE_COUNT] = {
    [STYLE_TEXT] = COLORLESS(PLAIN),
    [STYLE_DIM] = FAINT(246, 241, 0x9198a1, 0x57606a),
    [STYLE_STRONG] = COLORLESS(BOLD),
    [STYLE_TITLE] = COLORLESS(BOLD),
    [STYLE_BORDER] = FAINT(244, 244, 0x808a96, 0x6e7781),
    [STYLE_FOCUS] = BLUE,
    [STYLE_CURSOR] = COLORLESS(REVERSE),
    [STYLE_KEY] = BLUE,
    [STYLE_TAB] = COLORLESS(REVERSE),
    [STYLE_GOOD] = { PLAIN, PLAIN, PLAIN, OWN, 2, OWN, 28, 114, 28, 75, 26, 0x8ddb8c, 0x116329 },
    [STYLE_WARN] = ORANGE,
    [STYLE_BAD] = { REVERSE, BOLD, BOLD, 1, 1, 1, 160, 203, 160, 203, 160, 0xff7b72, 0xcf222e },
    [STYLE_RAW] = FAINT(246, 241, 0x9198a1, 0x57606a),
    [STYLE_SERIES_1] = BLUE,
    [STYLE_SERIES_2] = { BOLD, BOLD, BOLD, 5, 3, 5, 166, 214, 130, 214, 160, 0xf0b050, 0x953800 },
    [STYLE_SERIES_3] = { PLAIN, PLAIN, PLAIN, OWN, 5, OWN, 93, 176, 91, 203, 95, 0xdcbdfb,
                         0x8250df },
    [STYLE_SERIES_4] = { PLAIN, PLAIN, PLAIN, OWN, 2, 1, 131, 114, 28, 188, 17, 0x8ddb8c,
                         0x116329 },
    [STYLE_HEAT_0] = FAINT(243, 245, 0x7d8590, 0x818b98),
    [STYLE_HEAT_1] = { PLAIN, PLAIN, PLAIN, OWN, OWN, OWN, 24, 67, 67, 67, 67, 0x6f9fc8, 0x4f86b8 },
    [STYLE_HEAT_2] = { PLAIN, PLAIN, PLAIN, OWN, 6, OWN, 30, 73, 30, 73, 30, 0x7cc0b0, 0x2a7a78 },
    [STYLE_HEAT_3] = { BOLD, BOLD, PLAIN, OWN, OWN, OWN, 64, 143, 25, 143, 25, 0xc8c864, 0x005fa0 },
    [STYLE_HEAT_4] = { BOLD, BOLD, BOLD, OWN, 3, 4, 136, 227, 54, 227, 54, 0xffe45c, 0x4b0a77 },
};

/* The ground that counts: what the theme says, else what is known. */
static enum ground ground_of(struct theme theme)
{
    return theme.name == THEME_DARK    ? GROUND_DARK
           : theme.name == THEME_LIGHT ? GROUND_LIGHT
                                       : theme.ground;
}

static short few_color(const struct row *row, struct theme theme, enum ground ground)
{
    short color = ground == GROUND_DARK    ? row->few_dark
                  : ground == GROUND_LIGHT ? row->few_light
                                           : row->few_both;
    /* Green beside red is what many people cannot tell apart. */
    if (theme.name == THEME_SAFE && color == 2) {
        color = ground == GROUND_DARK ? 6 : OWN;
    }
    /* The brighter red of 16 colours reads better on black. */
    return theme.depth == COLOR_16 && ground == GROUND_DARK && color == 1 ? 9 : color;
}

static short many_color(const struct row *row, struct theme theme, enum ground ground)
{
    bool safe = theme.name == THEME_SAFE;
    if (ground == GROUND_DARK) {
        return safe ? row->safe_dark : row->dark;
    }
    if (ground == GROUND_LIGHT) {
        return safe ? row->safe_light : row->light;
    }
    /* Green beside red, again. */
    return safe && row->both == 28 ? 32 : row->both;
}

struct look theme_look(struct theme theme, enum style style)
{
    const struct row *row = &rows[(unsigned)style < STYLE_COUNT ? style : STYLE_TEXT];
    enum ground ground = ground_of(theme);
    enum attribute attribute = row->many;
    struct look look = { .foreground = OWN };
    if (theme.depth == COLOR_MONO || theme.name == THEME_MONO) {
        attribute = row->mono;
    } else if (theme.depth < COLOR_256) {
        attribute = row->few;
        look.foreground = few_color(row, theme, ground);
        /* A colour of its own tells it apart better than a faint one. */
        attribute = attribute == DIM && look.foreground != OWN ? PLAIN : attribute;
    } else {
        look.foreground = many_color(row, theme, ground);
        look.rgb = look.foreground == OWN ? 0 : theme_palette(look.foreground);
        if (look.foreground != OWN && theme.name != THEME_SAFE && ground != GROUND_UNKNOWN) {
            look.rgb = ground == GROUND_DARK ? row->true_dark : row->true_light;
        }
    }
    look.bold = attribute == BOLD;
    look.dim = attribute == DIM;
    look.reverse = attribute == REVERSE;
    return look;
}

enum ground theme_ground(double red, double green, double blue)
{
    /* Relative luminance; black and white text are equally readable where it is 0.18. */
    double part[3] = { red, green, blue };
    for (int i = 0; i < 3; i++) {
        part[i] = part[i] <= 0.04045 ? part[i] / 12.92 : pow((part[i] + 0.055) / 1.055, 2.4);
    }
    double luminance = 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
    return luminance > 0.18 ? GROUND_LIGHT : GROUND_DARK;
}

enum ground theme_ground_of(const char *colors)
{
    const char *last = colors ? strrchr(colors, ';') : NULL;
    if (!last || last[1] < '0' || last[1] > '9') {
        return GROUND_UNKNOWN;
    }
    char *end;
    long number = strtol(last + 1, &end, 10);
    if (*end != '\0' || number > 15) {
        return GROUND_UNKNOWN;
    }
    /* White and light grey; the others are no ground for black text. */
    return number == 7 || number > 8 ? GROUND_LIGHT : GROUND_DARK;
}

unsigned theme_palette(int number)
{
    static const unsigned named[16] = { 0x000000, 0xcd3131, 0x0dbc79, 0xe5e510, 0x2472c8, 0xbc3fbc,
                                        0x11a8cd, 0xe5e5e5, 0x666666, 0xf14c4c, 0x23d18b, 0xf5f543,
                                        0x3b8eea, 0xd670d6, 0x29b8db, 0xffffff };
    static const unsigned steps[6] = { 0, 95, 135, 175, 215, 255 };
    if (number < 16) {
        return named[number & 15];
    }
    if (number < 232) {
        int n = number - 16;
        return steps[n / 36] << 16 | steps[n / 6 % 6] << 8 | steps[n % 6];
    }
    unsigned grey = 8 + 10 * (unsigned)(number - 232);
    return grey << 16 | grey << 8 | grey;
}

char theme_letter(enum style style, enum color_depth depth)
{
    struct look look = theme_look((struct theme){ .depth = depth }, style);
    if (look.foreground >= 0) {
        return (char)('a' + (int)style);
    }
    return look.reverse ? 'R' : look.bold ? 'B' : look.dim ? 'd' : ' ';
}
