/* The mouse: what is clicked is what is drawn there, and nothing starts by a click on a row. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "recording.h"

/* Where a text stands on the screen. */
static void find(const struct canvas *canvas, const char *text, int *x, int *y)
{
    int size = (int)strlen(text);
    for (*y = 0; *y < canvas->height; ++*y) {
        for (*x = 0; *x + size <= canvas->width; ++*x) {
            int same = 0;
            const struct cell *cell = &canvas->cell[*y * canvas->width + *x];
            while (same < size && cell[same].code == (uint32_t)(unsigned char)text[same]) {
                same++;
            }
            if (same == size) {
                return;
            }
        }
    }
    fail_msg("not on the screen: %s", text);
}

static void use(struct workbench *workbench, enum mouse_button button, const char *text)
{
    struct canvas canvas;
    int x;
    int y;
    struct workbench_event event = { .kind = WORKBENCH_MOUSE };
    canvas_open(&canvas, workbench->width, workbench->height, GLYPHS_ASCII);
    workbench_draw(workbench, &canvas);
    find(&canvas, text, &x, &y);
    event.mouse.button = button;
    event.mouse.spot = canvas_spot_at(&canvas, x, y);
    workbench_event(workbench, &event);
    canvas_close(&canvas);
}

static void click(struct workbench *workbench, const char *text)
{
    use(workbench, MOUSE_CLICK, text);
}

static void test_tabs(void **state)
{
    (void)state;
    static const char *const names[] = { "7 Log", "2 Layers",  "4 Tune",  "6 Samples",
                                         "1 Run", "5 Compare", "3 Memory" };
    static const enum screen screens[] = { SCREEN_LOG, SCREEN_LAYERS,  SCREEN_TUNE,  SCREEN_SAMPLES,
                                           SCREEN_RUN, SCREEN_COMPARE, SCREEN_MEMORY };
    const struct recording recording = { .steps = 60, .total = 100, .layers = 2 };
    struct workbench workbench;
    struct effect effect;
    workbench_open(&workbench);
    recording_feed(&workbench, &recording);
    for (int wide = 0; wide < 2; wide++) {
        resize(&workbench, wide ? 140 : 80, wide ? 40 : 24);
        for (int i = 0; i < 7; i++) {
            click(&workbench, names[i]);
            assert_int_equal(workbench.screen, screens[i]);
        }
    }
    click(&workbench, "0 Home");
    assert_true(workbench_effect(&workbench, &effect));
    assert_int_equal(effect.kind, EFFECT_HOME);
    workbench_close(&workbench);
}

static void test_footer(void **state)
{
    (void)state;
    const struct recording recording = { .steps = 60, .total = 100, .layers = 2 };
    struct workbench workbench;
    struct effect effect;
    workbench_open(&workbench);
    recording_feed(&workbench, &recording);
    click(&workbench, "p pause");
    assert_true(workbench_effect(&workbench, &effect));
    assert_string_equal(effect.command, "pause");
    click(&workbench, "S stop");
    assert_int_equal(workbench.overlay, OVERLAY_STOP);
    /* A question is answered with keys; nothing below it can be reached. */
    click(&workbench, "2 Layers");
    click(&workbench, "save a checkpoint");
    use(&workbench, MOUSE_WHEEL_DOWN, "2 Layers");
    assert_int_equal(workbench.overlay, OVERLAY_STOP);
    assert_int_equal(workbench.screen, SCREEN_RUN);
    assert_false(workbench_effect(&workbench, &effect));
    press(&workbench, INPUT_ESCAPE);
    click(&workbench, "? help");
    assert_int_equal(workbench.overlay, OVERLAY_HELP);
    use(&workbench, MOUSE_WHEEL_DOWN, "help: Run");
    assert_int_equal(workbench.scroll, 3);
    workbench_close(&workbench);
}

static void test_rows(void **state)
{
    (void)state;
    const struct recording recording = { .steps = 60, .total = 100, .layers = 4 };
    struct workbench workbench;
    struct effect effect;
    workbench_open(&workbench);
    recording_feed(&workbench, &recording);
    press(&workbench, '4');
    click(&workbench, "optimizer.lr");
    assert_string_equal(workbench.tune.row[workbench.tune.cursor].field->key, "optimizer.lr");
    int cursor = workbench.tune.cursor;
    use(&workbench, MOUSE_WHEEL_UP, "method.rank");
    assert_int_equal(workbench.tune.cursor, cursor - 1);
    press(&workbench, '2');
    click(&workbench, "L02");
    use(&workbench, MOUSE_WHEEL_DOWN, "L02");
    assert_true(workbench.cursor > 0);
    assert_false(workbench_effect(&workbench, &effect));
    workbench_close(&workbench);
}

/* Choosing in the launcher starts nothing and opens nothing. */
static void test_launcher(void **state)
{
    (void)state;
    struct workbench workbench;
    struct effect effect;
    workbench_open(&workbench);
    recording_launcher(&workbench);
    const struct launcher *launcher = &workbench.launcher;
    for (int list = 0; list < LAUNCHER_LISTS; list++) {
        for (int i = 0; i < launcher->list[list].count; i++) {
            if (launcher->list[list].item[i].name[0] == '/') {
                continue; /* shortened on the screen */
            }
            struct canvas canvas;
            canvas_open(&canvas, 120, 36, GLYPHS_ASCII);
            resize(&workbench, 120, 36);
            workbench_draw(&workbench, &canvas);
            for (int k = 0; k < canvas.spot_count; k++) {
                struct spot spot = canvas.spot[k];
                if (spot.target == (enum target)(TARGET_MODEL + list) && spot.index == i) {
                    struct workbench_event event = { .kind = WORKBENCH_MOUSE };
                    event.mouse.button = MOUSE_CLICK;
                    event.mouse.spot = canvas_spot_at(&canvas, spot.area.x + 2, spot.area.y);
                    workbench_event(&workbench, &event);
                    assert_int_equal(launcher->pane, list);
                    assert_int_equal(launcher->cursor[list], i);
                }
            }
            canvas_close(&canvas);
        }
    }
    click(&workbench, "4 runs");
    assert_int_equal(launcher->pane, LAUNCHER_LISTS);
    use(&workbench, MOUSE_WHEEL_DOWN, "4 runs");
    assert_int_equal(launcher->run_cursor, 1);
    while (workbench_effect(&workbench, &effect)) {
        assert_true(effect.kind == EFFECT_PLAN || effect.kind == EFFECT_PREVIEW);
    }
    workbench_close(&workbench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tabs),
        cmocka_unit_test(test_footer),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_launcher),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
