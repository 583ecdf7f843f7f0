/* The reducer: keys, effects, hostile records; layouts of every size; no clash of keys. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "app/layout.h"
#include "recording.h"

static void test_keymap(void **state)
{
    (void)state;
    for (size_t i = 0; i < keymap_count; i++) {
        const struct action_row *a = &keymap_rows[i];
        assert_true(a->action > ACTION_NONE && a->action < ACTION_COUNT && a->key[0] != 0);
        for (size_t k = i + 1; k < keymap_count; k++) {
            const struct action_row *b = &keymap_rows[k];
            for (int x = 0; x < 9; x++) {
                uint32_t key = a->key[x / 3];
                if ((a->context & b->context) && key != 0 && key == b->key[x % 3]) {
                    fail_msg("%s and %s share key %u", a->name, b->name, key);
                }
            }
        }
    }
}

static bool inside(struct rect inner, struct rect outer)
{
    return inner.width >= 0 && inner.height >= 0 &&
           (inner.width == 0 || inner.height == 0 ||
            (inner.x >= outer.x && inner.y >= outer.y &&
             inner.x + inner.width <= outer.x + outer.width &&
             inner.y + inner.height <= outer.y + outer.height));
}

static void check_panes(const struct rect *pane, int count, struct rect body)
{
    for (int i = 0; i < count; i++) {
        assert_true(inside(pane[i], body));
        for (int k = i + 1; k < count; k++) {
            struct rect both = rect_cut(pane[i], pane[k]);
            assert_true(both.width == 0 || both.height == 0);
        }
    }
}

static void test_layout(void **state)
{
    (void)state;
    for (int width = LAYOUT_WIDTH_MIN; width <= 260; width++) {
        for (int height = LAYOUT_HEIGHT_MIN; height <= 80; height++) {
            struct layout_frame frame = layout_frame(width, height, true);
            struct rect all = { 0, 0, width, height };
            struct rect parts[] = { frame.header, frame.tabs, frame.body, frame.message,
                                    frame.footer };
            check_panes(parts, 5, all);
            struct layout_dashboard run = layout_dashboard(frame.body);
            struct rect panes[] = { run.loss,      run.memory, run.speed, run.gradient,
                                    run.selection, run.worst,  run.events };
            check_panes(panes, 7, frame.body);
            assert_true(run.loss.width > 20 && run.loss.height >= 4);
            struct layout_tune tune = layout_tune(frame.body);
            struct rect tunes[] = { tune.settings, tune.effect, tune.changes };
            check_panes(tunes, 3, frame.body);
            struct layout_compare compare = layout_compare(frame.body);
            struct rect compares[] = { compare.chart, compare.numbers, compare.settings };
            check_panes(compares, 3, frame.body);
            frame = layout_frame(width, height, false);
            for (int runs = 0; runs < 2; runs++) {
                struct layout_launcher home = layout_launcher(frame.body, runs);
                struct rect homes[] = { home.list[0], home.list[1], home.list[2],
                                        home.plan,    home.detail,  home.runs };
                check_panes(homes, 6, frame.body);
                assert_true(home.list[0].height >= 3 && home.plan.height >= 3);
                assert_true((runs ? home.runs : home.detail).height >= 3);
            }
        }
    }
}

/* Draws and looks for anything a terminal should not get. */
static void draw_and_check(struct workbench *workbench, int width, int height,
                           enum glyph_set glyphs)
{
    struct canvas canvas;
    canvas_open(&canvas, width, height, glyphs);
    int real_width = canvas.width;
    workbench_draw(workbench, &canvas);
    for (int i = 0; i < real_width * canvas.height; i++) {
        const struct cell *cell = &canvas.cell[i];
        assert_true(cell->code >= 0x20 && cell->code != 0x7f &&
                    !(cell->code >= 0x80 && cell->code < 0xa0));
        assert_true(glyphs != GLYPHS_ASCII || (cell->code < 0x7f && cell->mark[0] == 0));
        assert_true(cell->style < STYLE_COUNT);
        if (cell->width == 2) {
            assert_true(i % real_width + 1 < real_width && canvas.cell[i + 1].width == 0);
        }
    }
    canvas_close(&canvas);
}

static void draw_sizes(struct workbench *workbench, int step)
{
    for (int width = 1; width <= 220; width += step) {
        for (int height = 1; height <= 70; height += step) {
            resize(workbench, width, height);
            draw_and_check(workbench, width, height,
                           (enum glyph_set)((width + height) % GLYPHS_COUNT));
        }
    }
}

static void test_sizes(void **state)
{
    (void)state;
    static const char keys[] = "123rv4567";
    struct workbench workbench;
    workbench_open(&workbench);
    draw_sizes(&workbench, 23); /* nothing known at all */
    recording_launcher(&workbench);
    draw_sizes(&workbench, 3);
    recording_feed_hostile(&workbench);
    for (int i = 0; keys[i]; i++) {
        press(&workbench, (uint32_t)keys[i]);
        if (keys[i] == 'v') { /* every other order of the ranks */
            draw_sizes(&workbench, 9);
            press(&workbench, 'v');
        }
        draw_sizes(&workbench, 4);
        press(&workbench, '?');
        draw_sizes(&workbench, 41);
        press(&workbench, INPUT_ESCAPE);
    }
    workbench_close(&workbench);
}

static bool effect_is(struct workbench *workbench, enum effect_kind kind, const char *command)
{
    struct effect effect = { 0 };
    if (!workbench_effect(workbench, &effect)) {
        return kind == EFFECT_NONE;
    }
    return effect.kind == kind && strcmp(effect.command, command) == 0;
}

static void link_is(struct workbench *workbench, enum connection connection)
{
    struct workbench_event event = { .kind = WORKBENCH_CONNECTION, .link = { connection, "done" } };
    workbench_event(workbench, &event);
}

/* q never stops a run; stopping takes two keys; a recording takes no commands. */
static void test_leaving(void **state)
{
    (void)state;
    const struct recording recording = { .steps = 60, .total = 100, .layers = 2 };
    struct workbench workbench;
    workbench_open(&workbench);
    recording_feed(&workbench, &recording);
    press(&workbench, 'q');
    assert_true(effect_is(&workbench, EFFECT_QUIT, ""));
    press(&workbench, 'S');
    assert_true(effect_is(&workbench, EFFECT_NONE, ""));
    press(&workbench, INPUT_ESCAPE);
    assert_true(effect_is(&workbench, EFFECT_NONE, ""));
    press(&workbench, 3); /* Ctrl-C */
    assert_int_equal(workbench.overlay, OVERLAY_STOP);
    press(&workbench, 's');
    assert_true(effect_is(&workbench, EFFECT_SEND, "stop"));
    press(&workbench, 'p');
    assert_true(effect_is(&workbench, EFFECT_SEND, "pause"));
    press(&workbench, 'c');
    assert_true(effect_is(&workbench, EFFECT_SEND, "save"));
    link_is(&workbench, CONNECTION_NONE);
    press(&workbench, 'p');
    press(&workbench, 'c');
    press(&workbench, 'S');
    assert_true(effect_is(&workbench, EFFECT_NONE, ""));
    assert_int_equal(workbench.overlay, OVERLAY_NONE);
    press(&workbench, '4');
    press(&workbench, INPUT_RIGHT);
    press(&workbench, 'a');
    assert_true(effect_is(&workbench, EFFECT_NONE, ""));
    workbench_close(&workbench);
}

static void answer(struct workbench *workbench, int64_t id, bool ok)
{
    struct control_reply reply = { .ok = ok, .id = id, .step = 61, .bytes = 900, .bytes_now = 700 };
    snprintf(reply.error, sizeof(reply.error), "does not fit");
    struct workbench_event event = { .kind = WORKBENCH_REPLY, .reply = &reply };
    workbench_event(workbench, &event);
}

/* Staging asks for a plan and sends nothing; a applies; the answer clears what was staged. */
static void test_tune(void **state)
{
    (void)state;
    const struct recording recording = { .steps = 60, .total = 100, .layers = 2 };
    struct workbench workbench;
    struct effect effect;
    workbench_open(&workbench);
    recording_feed(&workbench, &recording);
    press(&workbench, '4');
    struct tune_row *row = &workbench.tune.row[0];
    assert_string_equal(row->field->key, "method.rank");
    press(&workbench, INPUT_RIGHT);
    assert_string_equal(row->staged, "64");
    assert_true(workbench_effect(&workbench, &effect));
    assert_string_equal(effect.command, "plan");
    assert_string_equal(effect.key, "method.rank");
    assert_string_equal(effect.value, "64");
    answer(&workbench, effect.id + 1000, true); /* somebody else's answer */
    assert_int_equal(row->bytes, -1);
    answer(&workbench, effect.id, true);
    assert_int_equal(row->bytes, 900);
    assert_true(effect_is(&workbench, EFFECT_NONE, ""));
    press(&workbench, 'a');
    assert_true(workbench_effect(&workbench, &effect));
    assert_string_equal(effect.command, "set");
    answer(&workbench, effect.id, true);
    assert_string_equal(row->staged, "");
    assert_int_equal(row->applied_step, 61);
    /* Typed values are checked by the table of settings; wrong ones are never sent. */
    press(&workbench, INPUT_ENTER);
    press(&workbench, '-');
    press(&workbench, '3');
    press(&workbench, INPUT_ENTER);
    assert_true(effect_is(&workbench, EFFECT_NONE, ""));
    assert_string_equal(row->staged, "");
    press(&workbench, INPUT_RIGHT);
    assert_true(workbench_effect(&workbench, &effect));
    press(&workbench, 'a');
    assert_true(workbench_effect(&workbench, &effect));
    answer(&workbench, effect.id, false);
    assert_string_equal(row->refusal, "does not fit");
    assert_false(row->sent);
    press(&workbench, INPUT_ESCAPE);
    assert_string_equal(row->staged, "");
    workbench_close(&workbench);
}

static void test_launcher(void **state)
{
    (void)state;
    struct workbench workbench;
    struct effect effect;
    workbench_open(&workbench);
    recording_launcher(&workbench);
    press(&workbench, INPUT_ENTER);
    assert_true(workbench_effect(&workbench, &effect));
    assert_int_equal(effect.kind, EFFECT_START);
    assert_int_equal(effect.choice[LAUNCHER_METHOD], 1);
    press(&workbench, INPUT_ENTER); /* once is enough */
    assert_true(effect_is(&workbench, EFFECT_NONE, ""));
    workbench.launcher.starting = false;
    press(&workbench, INPUT_END); /* a combination that cannot be */
    press(&workbench, INPUT_ENTER);
    assert_true(effect_is(&workbench, EFFECT_NONE, ""));
    press(&workbench, INPUT_TAB);
    press(&workbench, INPUT_DOWN);
    press(&workbench, INPUT_ENTER);
    assert_true(workbench_effect(&workbench, &effect));
    assert_int_equal(effect.kind, EFFECT_OPEN);
    assert_string_equal(effect.text, "/runs/20261121-1131-grass");
    press(&workbench, INPUT_TAB);
    press(&workbench, INPUT_DOWN); /* another model: its plan is asked for */
    assert_true(workbench_effect(&workbench, &effect));
    assert_int_equal(effect.kind, EFFECT_PLAN);
    assert_int_equal(effect.choice[LAUNCHER_MODEL], 1);
    press(&workbench, 'q');
    assert_true(effect_is(&workbench, EFFECT_QUIT, ""));
    workbench_close(&workbench);
}

static void random_event(struct workbench *workbench)
{
    static const uint32_t special[] = { 3, 8, 9, 12, 13, 26, 27, 127 };
    int what = rand() % 100;
    if (what < 10) {
        struct canvas canvas;
        canvas_open(&canvas, workbench->width, workbench->height, workbench->glyphs);
        workbench_draw(workbench, &canvas);
        struct workbench_event event = { .kind = WORKBENCH_MOUSE };
        event.mouse.button = (enum mouse_button)(rand() % 4);
        event.mouse.spot = canvas_spot_at(&canvas, rand() % canvas.width, rand() % canvas.height);
        workbench_event(workbench, &event);
        canvas_close(&canvas);
    } else if (what < 90) {
        uint32_t key = what < 45   ? (uint32_t)(32 + rand() % 95)
                       : what < 70 ? INPUT_UP + (uint32_t)(rand() % 11)
                                   : special[rand() % 8];
        press(workbench, key);
    } else if (what < 96) {
        resize(workbench, 1 + rand() % 200, 1 + rand() % 60);
    } else if (what < 98) {
        answer(workbench, rand() % 50, rand() % 2);
    } else {
        link_is(workbench, (enum connection)(rand() % 5));
    }
}

static void test_random_keys(void **state)
{
    (void)state;
    struct workbench workbench;
    struct effect effect;
    workbench_open(&workbench);
    recording_launcher(&workbench);
    recording_preview(&workbench);
    recording_form(&workbench);
    srand(11);
    for (int i = 0; i < 100000; i++) {
        if (i == 30000) {
            recording_feed_hostile(&workbench);
        }
        random_event(&workbench);
        bool live = workbench_live(&workbench);
        while (workbench_effect(&workbench, &effect)) {
            assert_true(live || effect.kind != EFFECT_SEND);
        }
        if (i % 251 == 0) {
            draw_and_check(&workbench, workbench.width, workbench.height, workbench.glyphs);
        }
        for (int k = 0; k < LAUNCHER_LISTS; k++) {
            assert_in_range(workbench.launcher.cursor[k], 0, 4);
        }
        assert_true(workbench.tune.cursor >= 0 && workbench.tune.cursor < workbench.tune.count);
    }
    workbench_close(&workbench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keymap),      cmocka_unit_test(test_layout),
        cmocka_unit_test(test_sizes),       cmocka_unit_test(test_leaving),
        cmocka_unit_test(test_tune),        cmocka_unit_test(test_launcher),
        cmocka_unit_test(test_random_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
