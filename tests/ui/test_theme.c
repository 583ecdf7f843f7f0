/* Colours: contrast on the grounds they are for, apart for colour-blind eyes, never alone. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "app/theme.h"

enum { BLACK = 0x000000, WHITE = 0xffffff, DARK_GREY = 0x282c34, PAPER = 0xfdf6e3 };

/* Linear light of the three parts (IEC 61966-2-1). */
static void linear(unsigned rgb, double out[3])
{
    for (int i = 0; i < 3; i++) {
        double part = (double)(rgb >> (16 - 8 * i) & 255) / 255;
        out[i] = part <= 0.04045 ? part / 12.92 : pow((part + 0.055) / 1.055, 2.4);
    }
}

static double luminance(unsigned rgb)
{
    double part[3];
    linear(rgb, part);
    return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
}

/* WCAG 2.2, "contrast ratio". */
static double contrast(unsigned a, unsigned b)
{
    double high = fmax(luminance(a), luminance(b));
    double low = fmin(luminance(a), luminance(b));
    return (high + 0.05) / (low + 0.05);
}

/* The 16 colours as xterm has them; what else terminals show for them is theirs. */
static unsigned color_of(struct theme theme, struct look look)
{
    static const unsigned xterm[16] = { 0x000000, 0xcd0000, 0x00cd00, 0xcdcd00, 0x0000ee, 0xcd00cd,
                                        0x00cdcd, 0xe5e5e5, 0x7f7f7f, 0xff0000, 0x00ff00, 0xffff00,
                                        0x5c5cff, 0xff00ff, 0x00ffff, 0xffffff };
    if (theme.depth == COLOR_TRUE) {
        return look.rgb;
    }
    return look.foreground < 16 ? xterm[look.foreground & 15] : theme_palette(look.foreground);
}

static bool is_ornament(enum style style)
{
    return style == STYLE_BORDER || (style >= STYLE_HEAT_0 && style <= STYLE_HEAT_4);
}

static void check_ground(struct theme theme, enum style style, unsigned ground, double least)
{
    struct look look = theme_look(theme, style);
    if (look.foreground >= 0 && contrast(color_of(theme, look), ground) < least) {
        fail_msg("theme %s, depth %d, style %d: %06x on %06x has %.2f, wanted %.1f",
                 theme_names[theme.name], (int)theme.depth, (int)style, color_of(theme, look),
                 ground, contrast(color_of(theme, look), ground), least);
    }
}

static void check_contrast(struct theme theme, enum ground ground)
{
    for (int i = 0; i < STYLE_COUNT; i++) {
        enum style style = (enum style)i;
        /* Where there are few colours, which they are is the terminal's choice. */
        double text = is_ornament(style) || theme.depth < COLOR_256 ? 3 : 4.5;
        if (ground == GROUND_DARK) {
            check_ground(theme, style, BLACK, text);
            if (theme.depth >= COLOR_256) {
                check_ground(theme, style, DARK_GREY, 3);
            }
        } else if (ground == GROUND_LIGHT) {
            check_ground(theme, style, WHITE, text);
            if (theme.depth >= COLOR_256) {
                check_ground(theme, style, PAPER, 3);
            }
        } else {
            double least = style >= STYLE_HEAT_0 && style <= STYLE_HEAT_4 ? 1.9 : 3;
            check_ground(theme, style, BLACK, least);
            check_ground(theme, style, WHITE, 3);
        }
    }
}

static void test_contrast(void **state)
{
    (void)state;
    for (int depth = COLOR_8; depth <= COLOR_TRUE; depth++) {
        for (int name = THEME_AUTO; name < THEME_COUNT; name++) {
            for (int ground = GROUND_UNKNOWN; ground <= GROUND_LIGHT; ground++) {
                struct theme theme = { (enum theme_name)name, (enum ground)ground,
                                       (enum color_depth)depth };
                enum ground meant = name == THEME_DARK    ? GROUND_DARK
                                    : name == THEME_LIGHT ? GROUND_LIGHT
                                                          : (enum ground)ground;
                check_contrast(theme, meant);
            }
        }
    }
}

/* ---- colour-blind eyes --------------------------------------------------------------------------
 */

/* Machado, Oliveira and Fernandes 2009, table 1, severity 1.0: protanopia, deuteranopia and
 * tritanopia; and eyes that see all colours. */
static const double eyes[4][9] = {
    { 1, 0, 0, 0, 1, 0, 0, 0, 1 },
    { 0.152286, 1.052583, -0.204868, 0.114503, 0.786281, 0.099216, -0.003882, -0.048116, 1.051998 },
    { 0.367322, 0.860646, -0.227968, 0.280085, 0.672501, 0.047413, -0.011820, 0.042940, 0.968881 },
    { 1.255528, -0.076749, -0.178779, -0.078411, 0.930809, 0.147602, 0.004733, 0.691367, 0.303900 },
};

static double lab_part(double value)
{
    return value > 0.008856 ? cbrt(value) : 7.787 * value + 16.0 / 116;
}

/* CIE L*a*b* of 1976, white D65, as these eyes see it. */
static void lab(unsigned rgb, const double eye[9], double out[3])
{
    double in[3];
    double seen[3];
    linear(rgb, in);
    for (int i = 0; i < 3; i++) {
        double part = eye[3 * i] * in[0] + eye[3 * i + 1] * in[1] + eye[3 * i + 2] * in[2];
        seen[i] = fmin(fmax(part, 0), 1);
    }
    double x = lab_part((0.4124 * seen[0] + 0.3576 * seen[1] + 0.1805 * seen[2]) / 0.95047);
    double y = lab_part(0.2126 * seen[0] + 0.7152 * seen[1] + 0.0722 * seen[2]);
    double z = lab_part((0.0193 * seen[0] + 0.1192 * seen[1] + 0.9505 * seen[2]) / 1.08883);
    out[0] = 116 * y - 16;
    out[1] = 500 * (x - y);
    out[2] = 200 * (y - z);
}

static double distance(unsigned a, unsigned b, const double eye[9])
{
    double p[3];
    double q[3];
    lab(a, eye, p);
    lab(b, eye, q);
    return sqrt((p[0] - q[0]) * (p[0] - q[0]) + (p[1] - q[1]) * (p[1] - q[1]) +
                (p[2] - q[2]) * (p[2] - q[2]));
}

static double apart(struct theme theme, enum style a, enum style b, int eye)
{
    return distance(color_of(theme, theme_look(theme, a)), color_of(theme, theme_look(theme, b)),
                    eyes[eye]);
}

static void check_apart(struct theme theme, int eye)
{
    for (int a = STYLE_SERIES_1; a <= STYLE_SERIES_4; a++) {
        for (int b = a + 1; b <= STYLE_SERIES_4; b++) {
            double far = apart(theme, (enum style)a, (enum style)b, eye);
            if (far < 28) {
                fail_msg("ground %d, eye %d: series %d and %d are %.1f apart", (int)theme.ground,
                         eye, a - STYLE_SERIES_1 + 1, b - STYLE_SERIES_1 + 1, far);
            }
        }
    }
    assert_true(apart(theme, STYLE_GOOD, STYLE_BAD, eye) >= 28);
}

static void test_safe(void **state)
{
    (void)state;
    for (int ground = GROUND_UNKNOWN; ground <= GROUND_LIGHT; ground++) {
        for (int depth = COLOR_256; depth <= COLOR_TRUE; depth++) {
            for (int eye = 0; eye < 4; eye++) {
                struct theme theme = { THEME_SAFE, (enum ground)ground, (enum color_depth)depth };
                check_apart(theme, eye);
            }
        }
    }
    /* Eyes that see all colours tell the series of the default themes apart. */
    for (int name = THEME_DARK; name <= THEME_LIGHT; name++) {
        for (int depth = COLOR_256; depth <= COLOR_TRUE; depth++) {
            struct theme theme = { (enum theme_name)name, GROUND_UNKNOWN, (enum color_depth)depth };
            check_apart(theme, 0);
        }
    }
}

/* From little to much a heat map goes steadily away from the ground. */
static void test_heat(void **state)
{
    (void)state;
    for (int name = THEME_DARK; name <= THEME_LIGHT; name++) {
        for (int depth = COLOR_256; depth <= COLOR_TRUE; depth++) {
            struct theme theme = { (enum theme_name)name, GROUND_UNKNOWN, (enum color_depth)depth };
            unsigned ground = name == THEME_DARK ? BLACK : WHITE;
            double before = 0;
            for (int i = STYLE_HEAT_0; i <= STYLE_HEAT_4; i++) {
                double now = contrast(color_of(theme, theme_look(theme, (enum style)i)), ground);
                assert_true(now > before * 1.05);
                before = now;
            }
        }
    }
}

/* ---- no colour ----------------------------------------------------------------------------------
 */

static void test_mono(void **state)
{
    (void)state;
    for (int i = 0; i < STYLE_COUNT; i++) {
        struct theme none = { THEME_DARK, GROUND_DARK, COLOR_MONO };
        struct theme mono = { THEME_MONO, GROUND_DARK, COLOR_TRUE };
        struct look a = theme_look(none, (enum style)i);
        struct look b = theme_look(mono, (enum style)i);
        assert_int_equal(a.foreground, -1);
        assert_int_equal(b.foreground, -1);
        assert_true(a.bold == b.bold && a.dim == b.dim && a.reverse == b.reverse);
    }
    assert_true(theme_look((struct theme){ 0 }, STYLE_CURSOR).reverse);
    assert_true(theme_look((struct theme){ 0 }, STYLE_BAD).reverse);
}

static void test_ground(void **state)
{
    (void)state;
    assert_int_equal(theme_ground(0, 0, 0), GROUND_DARK);
    assert_int_equal(theme_ground(1, 1, 1), GROUND_LIGHT);
    assert_int_equal(theme_ground(0.16, 0.17, 0.2), GROUND_DARK);
    assert_int_equal(theme_ground(0.99, 0.96, 0.89), GROUND_LIGHT);
    assert_int_equal(theme_ground(0, 0.17, 0.21), GROUND_DARK); /* solarized dark */
    assert_int_equal(theme_ground_of("15;0"), GROUND_DARK);
    assert_int_equal(theme_ground_of("0;default;15"), GROUND_LIGHT);
    assert_int_equal(theme_ground_of("0;7"), GROUND_LIGHT);
    assert_int_equal(theme_ground_of("7;8"), GROUND_DARK);
    assert_int_equal(theme_ground_of("15;default"), GROUND_UNKNOWN);
    assert_int_equal(theme_ground_of("15"), GROUND_UNKNOWN);
    assert_int_equal(theme_ground_of("15;99"), GROUND_UNKNOWN);
    assert_int_equal(theme_ground_of("15;0x"), GROUND_UNKNOWN);
    assert_int_equal(theme_ground_of(""), GROUND_UNKNOWN);
    assert_int_equal(theme_ground_of(NULL), GROUND_UNKNOWN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_contrast), cmocka_unit_test(test_safe),   cmocka_unit_test(test_heat),
        cmocka_unit_test(test_mono),     cmocka_unit_test(test_ground),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
