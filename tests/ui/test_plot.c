/* The pyramid against brute force; charts: gaps, spikes, all three sets of glyphs. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "app/plot.h"

static void check_ranges(const struct series *series, const float *value, int64_t count)
{
    for (int round = 0; round < 300; round++) {
        int64_t first = 1 + rand() % (count + 5);
        int64_t last = first + rand() % (count + 5) - 2;
        double low = 0;
        double high = 0;
        double sum = 0;
        int64_t found = 0;
        for (int64_t i = first; i <= last && i <= count; i++) {
            double v = (double)value[i - 1];
            if (isfinite(v)) {
                low = found == 0 || v < low ? v : low;
                high = found == 0 || v > high ? v : high;
                sum += v;
                found++;
            }
        }
        struct series_range range = series_look(series, first, last);
        assert_int_equal(range.count, found);
        if (found > 0) {
            assert_true(range.minimum == low && range.maximum == high);
            /* Nodes keep their means as floats. */
            double scale = fmax(fabs(low), fabs(high));
            assert_true(fabs(range.mean - sum / (double)found) <= 1e-6 * scale);
        }
    }
}

static void test_pyramid(void **state)
{
    (void)state;
    enum { COUNT = 5000 };
    static float value[COUNT];
    struct series series = { 0 };
    srand(3);
    for (int i = 0; i < COUNT; i++) {
        value[i] = rand() % 17 == 0 ? NAN : (float)(rand() % 1000) / 10;
        assert_true(series_set(&series, i + 1, value[i]));
        if (i % 617 == 3) {
            check_ranges(&series, value, i + 1);
        }
    }
    check_ranges(&series, value, COUNT);
    /* Back to an earlier step, as after a checkpoint, and on from there. */
    for (int i = 1234; i < 3000; i++) {
        value[i] = (float)(rand() % 100);
        assert_true(series_set(&series, i + 1, value[i]));
    }
    assert_int_equal(series.count, 3000);
    check_ranges(&series, value, 3000);
    series_cut(&series, 17);
    check_ranges(&series, value, 17);
    assert_false(series_set(&series, INT64_MAX, 1));
    assert_false(series_set(&series, 0, 1));
    series_free(&series);
}

/* One spike among a million steps is seen on any chart. */
static void test_spike(void **state)
{
    (void)state;
    struct series series = { 0 };
    for (int64_t i = 1; i <= 1000000; i++) {
        series_set(&series, i, i == 654321 ? 90.0f : 1.0f);
    }
    for (int glyphs = 0; glyphs < GLYPHS_COUNT; glyphs++) {
        struct canvas canvas;
        struct plot plot;
        canvas_open(&canvas, 60, 12, (enum glyph_set)glyphs);
        plot_begin(&plot, &canvas, (struct rect){ 0, 0, 60, 12 });
        plot_range(&plot, 1, 90, false);
        plot_steps(&plot, 1, 1000000);
        plot_band(&plot, &series, STYLE_RAW);
        int column = plot_column(&plot, 654321);
        assert_int_not_equal(canvas.cell[column].code, ' ');
        assert_int_equal(canvas.cell[column + 3].code, ' ');
        plot_end(&plot);
        canvas_close(&canvas);
    }
    series_free(&series);
}

static void test_gap(void **state)
{
    (void)state;
    struct series series = { 0 };
    for (int64_t i = 1; i <= 30; i++) {
        series_set(&series, i, i >= 11 && i <= 20 ? NAN : 5.0f);
    }
    struct canvas canvas;
    struct plot plot;
    canvas_open(&canvas, 30, 3, GLYPHS_ASCII);
    plot_begin(&plot, &canvas, (struct rect){ 0, 0, 30, 3 });
    plot_range(&plot, 0, 10, false);
    plot_steps(&plot, 1, 30);
    plot_line(&plot, &series, STYLE_SERIES_1, '*');
    for (int x = 0; x < 30; x++) {
        bool drawn = canvas.cell[30 + x].code == '*';
        assert_int_equal(drawn, x < 10 || x >= 20);
    }
    plot_end(&plot);
    canvas_close(&canvas);
    series_free(&series);
}

/* Every range, however odd, leaves a chart that can be drawn and stays in its area. */
static void test_odd_ranges(void **state)
{
    (void)state;
    static const double odd[] = { 0, 1, -1, NAN, INFINITY, -INFINITY, 1e308, -1e308, 1e-300 };
    enum { ODD = sizeof(odd) / sizeof(odd[0]) };
    struct series series = { 0 };
    for (int i = 0; i < ODD * 3; i++) {
        series_set(&series, i + 1, (float)odd[i % ODD]);
    }
    for (int i = 0; i < ODD * ODD * 2; i++) {
        struct canvas canvas;
        struct plot plot;
        canvas_open(&canvas, 20, 8, GLYPHS_BRAILLE);
        plot_begin(&plot, &canvas, (struct rect){ 2, 2, 10, 4 });
        plot_range(&plot, odd[i % ODD], odd[i / ODD % ODD], i % 2);
        plot_steps(&plot, 1, 1 + i);
        plot_band(&plot, &series, STYLE_RAW);
        plot_line(&plot, &series, STYLE_SERIES_1, '*');
        plot_point(&plot, 3, odd[i % ODD], 'o', STYLE_TEXT);
        plot_end(&plot);
        for (int cell = 0; cell < 20 * 8; cell++) {
            int x = cell % 20;
            int y = cell / 20;
            if (x < 2 || x >= 12 || y < 2 || y >= 6) {
                assert_int_equal(canvas.cell[cell].code, ' ');
            }
        }
        canvas_close(&canvas);
    }
    series_free(&series);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pyramid),
        cmocka_unit_test(test_spike),
        cmocka_unit_test(test_gap),
        cmocka_unit_test(test_odd_ranges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
