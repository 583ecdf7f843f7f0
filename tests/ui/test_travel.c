/* Time travel: a cursor at a step shows what a history shows that was folded only up to it. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "recording.h"
#include "screen_text.h"

static const struct recording recorded = {
    .steps = 412, .total = 600, .layers = 3, .gpu = true, .ranks = 3, .stop = true
};

struct fold {
    struct workbench *workbench;
    int64_t until; /* events from the first later step on are left out */
    bool over;
};

static void take(void *context, const struct event *event)
{
    struct fold *fold = context;
    fold->over |= event->kind == EVENT_STEP && event->step > fold->until;
    if (!fold->over && !(event->kind == EVENT_STOP && fold->until < recorded.steps)) {
        struct workbench_event record = { .kind = WORKBENCH_RECORD, .record = event };
        workbench_event(fold->workbench, &record);
    }
}

static void draw_body(struct workbench *workbench, struct buffer *out)
{
    struct canvas canvas;
    canvas_open(&canvas, 120, 36, GLYPHS_ASCII);
    resize(workbench, 120, 36);
    workbench_draw(workbench, &canvas);
    /* Without the line of the state and the message line, which tell that one looks back. */
    for (int x = 0; x < canvas.width; x++) {
        canvas_put(&canvas, x, 34, ' ', STYLE_TEXT);
        if (x > 60) {
            canvas_put(&canvas, x, 0, ' ', STYLE_TEXT);
        }
    }
    screen_text(&canvas, COLOR_MONO, out);
    canvas_close(&canvas);
}

static void compare(struct workbench *whole, struct workbench *part, int64_t step,
                    enum screen screen)
{
    struct buffer wanted = { 0 };
    struct buffer found = { 0 };
    whole->screen = part->screen = screen;
    part->view = whole->view = (int)(step % LAYERS_VIEWS);
    part->ranks = whole->ranks = step % 3 > 0; /* in Memory their page */
    workbench_travel(whole, step);
    draw_body(whole, &found);
    draw_body(part, &wanted);
    if (wanted.size != found.size || memcmp(wanted.text, found.text, wanted.size) != 0) {
        fprintf(stderr, "wanted\n%s\nfound\n%s", wanted.text, found.text);
        fail_msg("step %d, screen %s", (int)step, screen_names[screen]);
    }
    buffer_free(&wanted);
    buffer_free(&found);
}

static void test_same_as_folded(void **state)
{
    (void)state;
    struct workbench whole;
    workbench_open(&whole);
    recording_feed(&whole, &recorded);
    for (int64_t step = 1; step <= recorded.steps; step += step < 4 || step % 50 < 3 ? 1 : 17) {
        struct workbench part;
        struct fold fold = { &part, step, false };
        workbench_open(&part);
        workbench_show_run(&part, "1121-1141-grass", CONNECTION_LIVE);
        recording_play(&recorded, take, &fold);
        for (int screen = 0; screen < SCREEN_COUNT; screen++) {
            if (screen != SCREEN_COMPARE) { /* whole runs, always */
                compare(&whole, &part, step, (enum screen)screen);
            }
        }
        double left = history_remaining(&part.history);
        if (step < recorded.steps) {
            struct history view;
            history_at(&whole.history, step, &view);
            assert_true(history_remaining(&view) == left);
            assert_int_equal(view.warnings, part.history.warnings);
            assert_int_equal(view.line_count, part.history.line_count);
            history_at_close(&view);
        }
        workbench_close(&part);
    }
    workbench_close(&whole);
}

/* After a return to a checkpoint the steps behind it are told again: what is shown of a step is
 * what was told last. */
static void test_taken_back(void **state)
{
    (void)state;
    struct history history;
    history_open(&history);
    struct event event;
    for (int i = 0; i < 150; i++) {
        int64_t step = i < 100 ? i + 1 : i - 49; /* 1 .. 100, 51 .. 100 */
        event_init(&event, EVENT_STEP);
        event.step = step;
        event.time = 1000 + i;
        event.step_done.loss = (float)i;
        history_add(&history, &event);
        event_init(&event, EVENT_CHECKPOINT);
        event.step = step;
        event.time = 1000 + i;
        event.checkpoint.bytes = i;
        if (step % 30 == 0) {
            history_add(&history, &event);
        }
    }
    struct history view;
    history_at(&history, 70, &view);
    assert_true(view.last_step.loss == 119.0f);
    assert_int_equal(view.step, 70);
    assert_int_equal(view.checkpoint_step, 60); /* the second one of step 60 */
    assert_int_equal(view.checkpoint_bytes, 109);
    history_at_close(&view);
    history_at(&history, 40, &view);
    assert_true(view.last_step.loss == 39.0f);
    assert_int_equal(view.checkpoint_bytes, 29);
    history_at_close(&view);
    history_close(&history);
}

/* Keys: back by a hundredth of what is shown, never before the first step, to the newest again. */
static void test_keys(void **state)
{
    (void)state;
    struct workbench workbench;
    workbench_open(&workbench);
    recording_feed(&workbench, &recorded);
    press(&workbench, '[');
    assert_int_equal(workbench_at(&workbench), 408);
    press(&workbench, '{');
    assert_int_equal(workbench_at(&workbench), 367);
    press(&workbench, ']');
    assert_int_equal(workbench_at(&workbench), 371);
    press(&workbench, 'f');
    assert_int_equal(workbench_at(&workbench), 0);
    press(&workbench, '2');
    press(&workbench, '['); /* refreshes are at 1, 51 .. 401 */
    assert_int_equal(workbench_at(&workbench), 351);
    press(&workbench, '[');
    assert_int_equal(workbench_at(&workbench), 301);
    press(&workbench, ']');
    assert_int_equal(workbench_at(&workbench), 351);
    press(&workbench, ']');
    press(&workbench, ']');
    assert_int_equal(workbench_at(&workbench), 0);
    press(&workbench, '1');
    for (int i = 0; i < 40; i++) {
        press(&workbench, '{');
    }
    assert_int_equal(workbench_at(&workbench), 1);
    workbench_close(&workbench);
}

/* Seconds to the end: the median step, refreshes, evaluations and checkpoints at their cost. A
 * pause of an hour does not count. */
static void test_time_left(void **state)
{
    (void)state;
    struct history history;
    history_open(&history);
    struct event event;
    event_init(&event, EVENT_START);
    event.time = 0;
    event.start.total_steps = 1000;
    event.start.recipe_json = strdup("{\"train\":{\"eval_every\":50,\"save_every\":0},"
                                     "\"method\":{\"interval\":10}}");
    history_add(&history, &event);
    event_free(&event);
    double time = 100;
    for (int64_t step = 1; step <= 500; step++) {
        event_init(&event, EVENT_STEP);
        event.step_done.refreshed = step % 10 == 0;
        time += event.step_done.refreshed ? 3 : 1;
        time += step == 470 ? 3600 : 0;
        event.step = step;
        event.time = time;
        history_add(&history, &event);
        if (step % 50 == 0) {
            event_init(&event, EVENT_EVALUATION);
            event.step = step;
            event.time = time += 20;
            history_add(&history, &event);
        }
    }
    /* 450 steps of 1 s, 50 of 3 s, 10 evaluations of 20 s */
    assert_true(fabs(history_remaining(&history) - (450 + 150 + 200)) < 9);
    assert_true(history_step_seconds(&history) == 1);
    assert_true(history_pause_seconds(&history, EVENT_EVALUATION) == 20);
    assert_int_equal(history_next(&history, EVENT_EVALUATION), 550);
    assert_int_equal(history_next(&history, EVENT_CHECKPOINT), 0);
    history_close(&history);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_as_folded),
        cmocka_unit_test(test_taken_back),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_time_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
