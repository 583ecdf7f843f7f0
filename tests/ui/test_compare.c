/* Runs side by side: their numbers, choosing them, forking, removing, and going to another one. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/base/file.h"
#include "engine/base/xalloc.h"
#include "recording.h"
#include "screen_text.h"

static const struct recording recorded = { .steps = 412, .total = 600, .layers = 2 };

static void take(void *context, const struct event *event)
{
    comparison_run_take(context, event);
}

static void assert_near(double found, double wanted)
{
    if (!(fabs(found - wanted) <= 1e-9 * fmax(1, fabs(wanted)))) {
        fail_msg("%.12g, wanted %.12g", found, wanted);
    }
}

/* The mean of a span is what adding it up gives, on every axis. */
static void test_values(void **state)
{
    (void)state;
    struct comparison_run run;
    comparison_run_open(&run, "/runs/a", "a");
    recording_play(&recorded, take, &run);
    comparison_run_settle(&run, 0);
    assert_int_equal(run.count, 412);
    for (int axis = COMPARISON_STEPS; axis <= COMPARISON_SECONDS; axis++) {
        double end = comparison_end(&run, (enum comparison_axis)axis);
        for (int k = 0; k < 40; k++) {
            double from = end * k / 40;
            double to = end * (k + 1) / 40;
            double sum = 0;
            double norm = 0;
            int count = 0;
            for (size_t i = 0; i < run.count; i++) {
                double at = comparison_position(&run, &run.point[i], (enum comparison_axis)axis);
                if (at > from && at <= to && isfinite(run.point[i].loss)) {
                    sum += (double)run.point[i].loss;
                    norm += run.point[i].norm_sum - (i > 0 ? run.point[i - 1].norm_sum : 0);
                    count++;
                }
            }
            assert_near(
                comparison_value(&run, COMPARISON_LOSS, (enum comparison_axis)axis, from, to),
                sum / count);
            assert_near(
                comparison_value(&run, COMPARISON_NORM, (enum comparison_axis)axis, from, to),
                norm / count);
        }
        assert_true(isnan(
            comparison_value(&run, COMPARISON_LOSS, (enum comparison_axis)axis, end, end * 2)));
    }
    /* Told now and then: the newest one holds. Step 321 was skipped. */
    assert_true(isnan(comparison_value(&run, COMPARISON_EVALUATION, COMPARISON_STEPS, 0, 99)));
    double told = comparison_value(&run, COMPARISON_EVALUATION, COMPARISON_STEPS, 100, 199);
    assert_near(told, (double)(float)(2.3 + 6.2 * exp(-100.0 / 90)));
    assert_true(isnan(comparison_value(&run, COMPARISON_LOSS, COMPARISON_STEPS, 320, 321)));
    assert_int_equal(run.energies.count, 9);
    assert_true(comparison_value(&run, COMPARISON_MEMORY, COMPARISON_STEPS, 0, 10) > 1e8);
    /* A step that comes again takes back what came after it. */
    struct event event;
    event_init(&event, EVENT_STEP);
    event.step = 100;
    event.step_done.loss = 5;
    event.step_done.step_ms = 10;
    comparison_run_take(&run, &event);
    assert_int_equal(run.count, 100);
    assert_near(comparison_value(&run, COMPARISON_LOSS, COMPARISON_STEPS, 99, 100), 5);
    comparison_run_free(&run);
}

static void attach(struct workbench *workbench)
{
    struct effect effect;
    workbench_open(workbench);
    recording_launcher(workbench);
    recording_feed(workbench, &recorded);
    while (workbench_effect(workbench, &effect)) {
    }
}

static void expect(struct workbench *workbench, enum effect_kind kind, const char *text)
{
    struct effect effect = { 0 };
    assert_true(workbench_effect(workbench, &effect));
    assert_int_equal(effect.kind, kind);
    assert_string_equal(effect.text, text);
}

static void expect_nothing(struct workbench *workbench)
{
    struct effect effect;
    assert_false(workbench_effect(workbench, &effect));
}

static void deliver(struct workbench *workbench, const char *path, const char *trouble)
{
    struct comparison_run run;
    const struct recording shorter = { .steps = 300, .total = 300, .layers = 2, .stop = true };
    comparison_run_open(&run, path, "other");
    recording_play(&shorter, take, &run);
    comparison_run_settle(&run, 0);
    run.status = RUN_DONE;
    struct workbench_event event = { .kind = WORKBENCH_COMPARED,
                                     .compared = { path, &run, trouble } };
    workbench_event(workbench, &event);
    comparison_run_free(&run);
}

static void type(struct workbench *workbench, const char *text)
{
    for (; *text; text++) {
        press(workbench, (uint32_t)(unsigned char)*text);
    }
    press(workbench, INPUT_ENTER);
}

static void test_choosing(void **state)
{
    (void)state;
    struct workbench workbench;
    struct compare_view view;
    attach(&workbench);
    struct compare *compare = &workbench.compare;
    press(&workbench, '5');
    assert_int_equal(workbench.screen, SCREEN_COMPARE);
    press(&workbench, INPUT_ENTER);
    expect(&workbench, EFFECT_LIST_RUNS, "");
    press(&workbench, INPUT_DOWN);
    press(&workbench, ' ');
    expect(&workbench, EFFECT_READ_RUN, "/runs/20261121-1131-grass");
    press(&workbench, INPUT_ENTER); /* closes; nothing is opened */
    expect_nothing(&workbench);
    assert_int_equal(workbench.overlay, OVERLAY_NONE);
    assert_int_equal(compare->count, 1);
    compare_view_open(compare, &view);
    assert_int_equal(view.all.count, 1); /* it is still being read */
    compare_view_free(&view);
    deliver(&workbench, "/runs/nobody-asked", NULL);
    deliver(&workbench, "/runs/20261121-1131-grass", NULL);
    compare_view_open(compare, &view);
    assert_int_equal(view.all.count, 2);
    assert_near(view.all.equal_tokens, 300.0 * 2048);
    assert_near(view.all.run[0].loss_equal_tokens, view.all.run[1].loss_equal_tokens);
    assert_true(view.all.run[0].tokens_per_second > 0 && isfinite(view.all.run[1].step_ms));
    compare_view_free(&view);
    press(&workbench, 'x');
    assert_int_equal(compare->axis, COMPARISON_TOKENS);
    for (int i = 0; i < COMPARISON_METRICS; i++) {
        assert_int_equal(compare->metric, i);
        press(&workbench, 'v');
    }
    assert_int_equal(compare->metric, COMPARISON_LOSS);
    press(&workbench, 'y');
    assert_true(compare->linear && !workbench.linear);
    press(&workbench, INPUT_DOWN);
    press(&workbench, ' ');
    assert_int_equal(compare->hide, 2);
    /* Another run is shown: the others stay; taken away they are gone. */
    workbench_show_run(&workbench, "20261121-1141-grass", CONNECTION_LIVE);
    assert_int_equal(compare->own.count, 0);
    assert_int_equal(compare->count, 1);
    compare_toggle(&workbench, "/runs/20261121-1131-grass");
    assert_int_equal(compare->count, 0);
    for (int i = 0; i < COMPARE_OTHERS + 2; i++) {
        char path[32];
        snprintf(path, sizeof(path), "/runs/%d", i);
        compare_toggle(&workbench, path);
        deliver(&workbench, path, i % 2 ? "no such run" : NULL);
    }
    assert_int_equal(compare->count, COMPARE_OTHERS);
    workbench_close(&workbench);
}

/* Beside a run that has told nothing yet there is nothing to say, and no number for it. */
static void test_nothing_known(void **state)
{
    (void)state;
    struct workbench workbench;
    struct comparison_run run;
    struct canvas canvas;
    struct buffer text = { 0 };
    attach(&workbench);
    press(&workbench, '5');
    compare_toggle(&workbench, "/runs/empty");
    comparison_run_open(&run, "/runs/empty", "empty");
    comparison_run_settle(&run, 0);
    struct workbench_event event = { .kind = WORKBENCH_COMPARED,
                                     .compared = { "/runs/empty", &run, NULL } };
    workbench_event(&workbench, &event);
    canvas_open(&canvas, 120, 36, GLYPHS_ASCII);
    workbench_draw(&workbench, &canvas);
    screen_text(&canvas, COLOR_MONO, &text);
    assert_non_null(strstr(text.text, "a against b: loss - at =tokens, - at =time, - memory"));
    assert_null(strstr(text.text, "nan"));
    assert_null(strstr(text.text, "inf"));
    buffer_free(&text);
    canvas_close(&canvas);
    comparison_run_free(&run);
    workbench_close(&workbench);
}

/* Runs that go on are read again from time to time, others are not. */
static void test_reading_again(void **state)
{
    (void)state;
    struct workbench workbench;
    attach(&workbench);
    compare_toggle(&workbench, "/runs/a");
    expect(&workbench, EFFECT_READ_RUN, "/runs/a");
    deliver(&workbench, "/runs/a", NULL);
    struct workbench_event tick = { .kind = WORKBENCH_TICK, .now = 100 };
    workbench_event(&workbench, &tick);
    expect_nothing(&workbench);
    workbench.compare.other[0].run.status = RUN_RUNNING;
    workbench_event(&workbench, &tick);
    expect(&workbench, EFFECT_READ_RUN, "/runs/a");
    workbench_event(&workbench, &tick);
    expect_nothing(&workbench);
    workbench_close(&workbench);
}

static void link_is(struct workbench *workbench, enum connection connection)
{
    struct workbench_event event = { .kind = WORKBENCH_CONNECTION, .link = { connection, "done" } };
    workbench_event(workbench, &event);
}

static void test_fork(void **state)
{
    (void)state;
    struct workbench workbench;
    attach(&workbench);
    press(&workbench, '4');
    tune_typed(&workbench, "64");
    struct effect effect;
    assert_true(workbench_effect(&workbench, &effect));
    press(&workbench, 'F');
    assert_int_equal(workbench.overlay, OVERLAY_FIELD);
    assert_string_equal(workbench.field, "1121-1141-grass method.rank=64");
    type(&workbench, " train.steps=500");
    expect(&workbench, EFFECT_FORK, "1121-1141-grass method.rank=64 train.steps=500");
    link_is(&workbench, CONNECTION_NONE);
    press(&workbench, 'F');
    assert_string_equal(workbench.field, "1121-1141-grass@400 method.rank=64");
    press(&workbench, INPUT_ESCAPE);
    link_is(&workbench, CONNECTION_LIVE);
    workbench.history.checkpoint_step = -1;
    press(&workbench, 'F');
    assert_int_equal(workbench.overlay, OVERLAY_NONE);
    assert_non_null(strstr(workbench.message, "no checkpoint yet"));
    press(&workbench, '5');
    compare_toggle(&workbench, "/runs/other");
    expect(&workbench, EFFECT_READ_RUN, "/runs/other");
    press(&workbench, INPUT_DOWN);
    press(&workbench, 'F');
    assert_string_equal(workbench.field, "other ");
    press(&workbench, INPUT_ESCAPE);
    expect_nothing(&workbench);
    workbench_close(&workbench);
}

static void test_prune(void **state)
{
    (void)state;
    struct workbench workbench;
    attach(&workbench);
    press(&workbench, 'R');
    expect(&workbench, EFFECT_LIST_RUNS, "");
    press(&workbench, 'd'); /* it is running */
    assert_int_equal(workbench.overlay, OVERLAY_RUNS);
    press(&workbench, INPUT_DOWN);
    press(&workbench, 'd');
    type(&workbench, "20261121-1131");
    expect_nothing(&workbench);
    press(&workbench, 'R');
    expect(&workbench, EFFECT_LIST_RUNS, "");
    press(&workbench, INPUT_DOWN);
    press(&workbench, 'd');
    type(&workbench, "20261121-1131-grass");
    expect(&workbench, EFFECT_PRUNE, "/runs/20261121-1131-grass");
    workbench_close(&workbench);
}

static void list_runs(struct workbench *workbench, const char *const *status, int count)
{
    struct launcher_run *run = xcalloc((size_t)count, sizeof(run[0]));
    for (int i = 0; i < count; i++) {
        snprintf(run[i].name, sizeof(run[i].name), "run-%d", i);
        snprintf(run[i].path, sizeof(run[i].path), "/runs/run-%d", i);
        snprintf(run[i].status, sizeof(run[i].status), "%s", status[i]);
    }
    struct workbench_event event = { .kind = WORKBENCH_RUNS, .runs = { run, count } };
    workbench_event(workbench, &event);
}

static void test_switching(void **state)
{
    (void)state;
    static const char *const status[] = { "running", "done", "running", "paused" };
    struct workbench workbench;
    attach(&workbench);
    snprintf(workbench.run_name, sizeof(workbench.run_name), "run-2");
    press(&workbench, '>');
    expect(&workbench, EFFECT_LIST_RUNS, ""); /* runs come and go: asked every time */
    list_runs(&workbench, status, 4);
    expect(&workbench, EFFECT_OPEN, "/runs/run-3");
    snprintf(workbench.run_name, sizeof(workbench.run_name), "run-3");
    press(&workbench, '>');
    expect(&workbench, EFFECT_LIST_RUNS, "");
    list_runs(&workbench, status, 4);
    expect(&workbench, EFFECT_OPEN, "/runs/run-0");
    press(&workbench, '<');
    expect(&workbench, EFFECT_LIST_RUNS, "");
    list_runs(&workbench, status, 4);
    expect(&workbench, EFFECT_OPEN, "/runs/run-2");
    press(&workbench, '<');
    expect(&workbench, EFFECT_LIST_RUNS, "");
    snprintf(workbench.run_name, sizeof(workbench.run_name), "run-0");
    list_runs(&workbench, status, 2);
    expect_nothing(&workbench);
    assert_non_null(strstr(workbench.message, "no other run"));
    list_runs(&workbench, status, 4); /* without a key nothing is opened */
    expect_nothing(&workbench);
    press(&workbench, 'R');
    expect(&workbench, EFFECT_LIST_RUNS, "");
    press(&workbench, INPUT_DOWN);
    press(&workbench, INPUT_ENTER);
    expect(&workbench, EFFECT_OPEN, "/runs/run-1");
    workbench_close(&workbench);
}

/* Steps first .. last of `ms` each; a fork of `parent` from the step before the first. */
static void make_run(struct comparison_run *run, const char *path, const char *parent,
                     const int64_t steps[2], double ms)
{
    struct event event;
    comparison_run_open(run, path, path_base(path));
    if (parent) {
        event_init(&event, EVENT_RESUME);
        event.step = event.resume.from_step = steps[0] - 1;
        event.resume.path = xasprintf("/runs/%s/checkpoints/step-000100", parent);
        event.resume.reason = xstrdup("forked");
        comparison_run_take(run, &event);
        event_free(&event);
    }
    for (int64_t step = steps[0]; step <= steps[1]; step++) {
        event_init(&event, EVENT_STEP);
        event.step = step;
        event.step_done.loss = 3.0f;
        event.step_done.step_ms = ms;
        event.step_done.tokens_total = step * 100;
        comparison_run_take(run, &event);
        event_free(&event);
    }
    comparison_run_settle(run, 0);
}

/* The time of a fork is that of its parent up to the fork and its own after it, through several
 * generations; where the parent is not there it counts from the fork, and the note says so. */
static void test_forks(void **state)
{
    (void)state;
    struct comparison all = { .run = xcalloc(3, sizeof(struct comparison_run)), .count = 3 };
    make_run(&all.run[0], "/runs/child", "mother", (const int64_t[]){ 101, 150 }, 2000);
    make_run(&all.run[1], "/runs/mother", NULL, (const int64_t[]){ 1, 300 }, 1000);
    make_run(&all.run[2], "/runs/grandchild", "child", (const int64_t[]){ 121, 130 }, 500);
    comparison_finish(&all);
    assert_string_equal(all.run[0].parent, "mother");
    assert_near(comparison_end(&all.run[1], COMPARISON_SECONDS), 300);
    assert_near(comparison_end(&all.run[0], COMPARISON_SECONDS), 100 + 50 * 2);
    assert_near(comparison_end(&all.run[2], COMPARISON_SECONDS), 100 + 20 * 2 + 10 * 0.5);
    assert_near(all.equal_seconds, 145);
    assert_true(
        isnan(comparison_value(&all.run[0], COMPARISON_LOSS, COMPARISON_SECONDS, 98, 100.5)));
    assert_near(comparison_value(&all.run[0], COMPARISON_LOSS, COMPARISON_SECONDS, 100, 103), 3);
    assert_near(comparison_end(&all.run[0], COMPARISON_TOKENS), 15000);
    assert_string_equal(comparison_fork_note(&all, "abc").text, "a, c after its parent");
    /* Without the mother. */
    struct comparison_run mother = all.run[1];
    all.run[1] = all.run[2];
    all.count = 2;
    comparison_finish(&all);
    assert_near(comparison_end(&all.run[0], COMPARISON_SECONDS), 100);
    assert_near(comparison_end(&all.run[1], COMPARISON_SECONDS), 40 + 5);
    assert_string_equal(comparison_fork_note(&all, "ac").text,
                        "c after its parent; a since its fork");
    comparison_run_free(&mother);
    comparison_free(&all);
}

/* A run that names itself as its parent, or a resumed one, is no fork. */
static void test_no_forks(void **state)
{
    (void)state;
    struct comparison all = { .run = xcalloc(2, sizeof(struct comparison_run)), .count = 2 };
    make_run(&all.run[0], "/runs/odd", "odd", (const int64_t[]){ 11, 20 }, 1000);
    make_run(&all.run[1], "/runs/plain", NULL, (const int64_t[]){ 1, 20 }, 1000);
    struct event event;
    event_init(&event, EVENT_RESUME);
    event.resume.path = xstrdup("/runs/odd/checkpoints/step-000010");
    event.resume.reason = xstrdup("resumed");
    event.resume.from_step = 10;
    comparison_run_take(&all.run[1], &event);
    event_free(&event);
    comparison_finish(&all);
    assert_null(all.run[1].parent);
    assert_near(comparison_end(&all.run[0], COMPARISON_SECONDS), 10);
    assert_string_equal(comparison_fork_note(&all, "ab").text, "a since its fork");
    comparison_free(&all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),        cmocka_unit_test(test_choosing),
        cmocka_unit_test(test_fork),          cmocka_unit_test(test_nothing_known),
        cmocka_unit_test(test_reading_again), cmocka_unit_test(test_switching),
        cmocka_unit_test(test_prune),         cmocka_unit_test(test_forks),
        cmocka_unit_test(test_no_forks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
