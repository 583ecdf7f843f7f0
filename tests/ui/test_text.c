/* Untrusted text never reaches a cell as something a terminal would obey; numbers have fixed forms.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "app/canvas.h"
#include "app/text.h"

/* The text of the first row, ASCII only. */
static void row_text(const struct canvas *canvas, char *out)
{
    for (int x = 0; x < canvas->width; x++) {
        uint32_t code = canvas->cell[x].code;
        out[x] = canvas->cell[x].width == 0 ? '_' : code < 0x7f ? (char)code : 'U';
    }
    out[canvas->width] = '\0';
}

static void expect(const char *text, int width, const char *wanted)
{
    struct canvas canvas;
    char row[128];
    canvas_open(&canvas, (int)strlen(wanted), 1, GLYPHS_BRAILLE);
    canvas_text(&canvas, 0, 0, width, STYLE_TEXT, text);
    row_text(&canvas, row);
    assert_string_equal(row, wanted);
    canvas_close(&canvas);
}

static void test_controls(void **state)
{
    (void)state;
    expect("a\x1b[2Jb", 20, "a^[[2Jb   ");
    expect("x\x7f\x01y", 20, "x^?^Ay  ");
    expect("\xc2\x9b"
           "31m",
           20, "^[31m "); /* CSI as one C1 character */
    expect("a\tb\nc", 20, "a b^Jc ");
    expect("a\xe2\x80\xae"
           "b",
           20, "ab "); /* right-to-left override is dropped */
    expect("a\xe2\x80\x8b"
           "b",
           20, "ab ");                    /* zero width space */
    expect("a\xff\xc0\xaf", 20, "aUUU "); /* wrong bytes, one U+FFFD each */
    expect("\xed\xa0\x80", 20, "UUU ");   /* a surrogate is no character */
}

static void test_wide(void **state)
{
    (void)state;
    expect("\xe6\xbc\xa2x", 20, "U_x ");
    /* A wide glyph that would be cut is not drawn by half. */
    expect("ab\xe6\xbc\xa2", 3, "ab~ ");
    expect("abcdef", 4, "abc~  ");
    struct canvas canvas;
    canvas_open(&canvas, 4, 1, GLYPHS_BRAILLE);
    canvas_text(&canvas, 0, 0, 4, STYLE_TEXT, "\xe6\xbc\xa2\xe6\xbc\xa2");
    canvas_put(&canvas, 1, 0, 'x', STYLE_TEXT);
    char row[8];
    row_text(&canvas, row);
    assert_string_equal(row, " xU_");
    canvas_text(&canvas, 0, 0, 4, STYLE_TEXT, "e\xcc\x81z");
    assert_int_equal(canvas.cell[0].mark[0], 0x301);
    assert_int_equal(canvas.cell[1].code, 'z');
    canvas_close(&canvas);
    canvas_open(&canvas, 4, 1, GLYPHS_ASCII);
    canvas_text(&canvas, 0, 0, 4, STYLE_TEXT, "\xc3\xa9\xe6\xbc\xa2");
    row_text(&canvas, row);
    assert_string_equal(row, "??? ");
    canvas_close(&canvas);
}

/* Random bytes: whatever they are, cells hold printable code points. */
static void test_random(void **state)
{
    (void)state;
    srand(7);
    for (int round = 0; round < 3000; round++) {
        char text[64];
        size_t size = (size_t)(rand() % 63);
        for (size_t i = 0; i < size; i++) {
            text[i] = (char)(rand() % 4 ? rand() % 256 : 0xe0 + rand() % 32);
        }
        struct canvas canvas;
        canvas_open(&canvas, 1 + rand() % 40, 1, GLYPHS_BLOCK);
        canvas_text_size(&canvas, (struct rect){ rand() % 50 - 5, 0, rand() % 50, 1 }, STYLE_TEXT,
                         text, size);
        for (int x = 0; x < canvas.width; x++) {
            const struct cell *cell = &canvas.cell[x];
            assert_true(cell->code >= 0x20 && cell->code != 0x7f &&
                        !(cell->code >= 0x80 && cell->code < 0xa0));
            if (cell->width == 0) {
                assert_true(x > 0 && canvas.cell[x - 1].width == 2);
            }
            if (cell->width == 2) {
                assert_true(x + 1 < canvas.width && canvas.cell[x + 1].width == 0);
            }
        }
        canvas_close(&canvas);
    }
}

static void test_wrap(void **state)
{
    (void)state;
    size_t next = 0;
    assert_int_equal(text_wrap("one two three", 13, 8, &next), 7);
    assert_int_equal(next, 8);
    assert_int_equal(text_wrap("abcdefghij", 10, 4, &next), 4);
    assert_int_equal(next, 4);
    assert_int_equal(text_wrap("ab\ncd", 5, 9, &next), 2);
    assert_int_equal(next, 3);
    assert_int_equal(text_wrap("\xe6\xbc\xa2", 3, 1, &next), 0);
    assert_int_equal(next, 3);
}

static void test_numbers(void **state)
{
    (void)state;
    assert_string_equal(text_bytes(0).text, "0 B");
    assert_string_equal(text_bytes(1536).text, "1.50 KiB");
    assert_string_equal(text_bytes(812.0 * 1048576).text, "812 MiB");
    assert_string_equal(text_bytes(5.38 * 1073741824).text, "5.38 GiB");
    assert_string_equal(text_bytes(-1).text, "-");
    assert_string_equal(text_bytes((double)NAN).text, "-");
    assert_string_equal(text_count(512).text, "512");
    assert_string_equal(text_count(3803.2).text, "3803");
    assert_string_equal(text_count(18412).text, "18.4k");
    assert_string_equal(text_count(9438720).text, "9.4M");
    assert_string_equal(text_count((double)INFINITY).text, "-");
    assert_string_equal(text_duration(1930).text, "0:32:10");
    assert_string_equal(text_duration(3 * 86400 + 4 * 3600 + 600).text, "3d 04:10");
    assert_string_equal(text_duration((double)NAN).text, "-");
    assert_string_equal(text_loss(1.2144).text, "1.214");
    assert_string_equal(text_loss((double)NAN).text, "nan");
    assert_string_equal(text_loss((double)-INFINITY).text, "-inf");
    assert_string_equal(text_percent(0.813).text, "81.3%");
    assert_string_equal(text_clock(1795252262).text, "09:11:02");
    assert_string_equal(text_clock((double)NAN).text, "--:--:--");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_controls), cmocka_unit_test(test_wide),
        cmocka_unit_test(test_random),   cmocka_unit_test(test_wrap),
        cmocka_unit_test(test_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
