/* How ranks fare, as it is put in words, ordered, kept and listed. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "app/fare.h"
#include "app/text.h"
#include "recording.h"

/* Ranks that compute so many milliseconds of steps of 100, on hosts "a" and "b" by turns. */
static struct event_ranks make(int count, const double *compute_ms)
{
    struct event_ranks ranks = { .steps = 1, .slowest = EVENT_UNKNOWN, .count = count };
    ranks.item = xcalloc((size_t)count, sizeof(*ranks.item));
    for (int p = 0; p < count; p++) {
        struct event_rank *rank = &ranks.item[p];
        event_rank_init(rank);
        snprintf(rank->host, sizeof(rank->host), "%s", p % 2 ? "b" : "a");
        rank->step_ms = 100;
        rank->compute_ms = compute_ms[p];
        rank->wait_ms = 100 - compute_ms[p];
        rank->peak_bytes = 1000 * (1 + (p * 3) % count);
    }
    return ranks;
}

static void test_numbers(void **state)
{
    (void)state;
    struct fare fare;
    struct event_ranks ranks = make(4, (const double[]){ 60, 60, 80, 40 });
    fare_of(&ranks, &fare);
    assert_int_equal(fare.count, 4);
    assert_int_equal(fare.hosts, 2);
    assert_int_equal(fare.slowest, 2);
    assert_true(fabs(fare.behind - (80.0 / 60.0 - 1)) < 1e-12);
    assert_true(fabs(fare.exchange - 0.4) < 1e-12);
    assert_true(fare.step_ms == 100 && fare.exchanged_bytes == EVENT_UNKNOWN);
    assert_true(fare.peak_low == 1000 && fare.peak_high == 4000);
    /* What is not told of some is not counted; of none, it is unknown. */
    ranks.item[2].compute_ms = (double)NAN;
    ranks.item[2].peak_bytes = EVENT_UNKNOWN;
    fare_of(&ranks, &fare);
    assert_int_equal(fare.slowest, 0);
    assert_true(fabs(fare.behind - (60.0 / (160.0 / 3) - 1)) < 1e-12);
    for (int p = 0; p < 4; p++) {
        event_rank_init(&ranks.item[p]);
    }
    fare_of(&ranks, &fare);
    assert_int_equal(fare.slowest, -1);
    assert_int_equal(fare.hosts, 0);
    assert_true(isnan(fare.behind) && isnan(fare.exchange) && fare.peak_high == EVENT_UNKNOWN);
    char text[128];
    fare_sentence(&ranks, 80, text, sizeof(text));
    assert_string_equal(text, "4 ranks");
    free(ranks.item);
}

static void test_sentence(void **state)
{
    (void)state;
    struct event_ranks ranks = make(4, (const double[]){ 60, 60, 80, 40 });
    char text[192];
    fare_sentence(&ranks, 120, text, sizeof(text));
    assert_string_equal(
        text, "4 ranks on 2 hosts, slowest 2 (a) 33% behind the mean, exchange 40% of a step");
    fare_sentence(&ranks, 42, text, sizeof(text));
    assert_string_equal(text, "4 ranks, slowest 2 (a) +33%, exchange 40%");
    fare_sentence(&ranks, 20, text, sizeof(text));
    assert_string_equal(text, "4 ranks, 2 is +33%");
    for (int width = 0; width < 120; width++) {
        fare_sentence(&ranks, width, text, sizeof(text));
        assert_true(text_columns(text) <= width);
    }
    free(ranks.item);
}

static void test_order(void **state)
{
    (void)state;
    int out[5];
    struct event_ranks ranks = make(5, (const double[]){ 50, 70, 50, (double)NAN, 90 });
    fare_sort(&ranks, FARE_SLOWEST_FIRST, out);
    assert_memory_equal(out, ((const int[]){ 4, 1, 0, 2, 3 }), sizeof(out));
    fare_sort(&ranks, FARE_BY_RANK, out);
    assert_memory_equal(out, ((const int[]){ 0, 1, 2, 3, 4 }), sizeof(out));
    fare_sort(&ranks, FARE_FULLEST_FIRST, out); /* 1, 4, 2, 5, 3 thousand bytes */
    assert_memory_equal(out, ((const int[]){ 3, 1, 4, 2, 0 }), sizeof(out));
    ranks.item[0].limit_bytes = 1001; /* nearly full, of less */
    ranks.item[1].limit_bytes = ranks.item[2].limit_bytes = 100000;
    ranks.item[3].limit_bytes = ranks.item[4].limit_bytes = 100000;
    fare_sort(&ranks, FARE_FULLEST_FIRST, out);
    assert_memory_equal(out, ((const int[]){ 0, 3, 1, 4, 2 }), sizeof(out));
    free(ranks.item);
}

/* Days of events of many ranks take no more memory than hours; the newest is always there, and what
 * is shown of an earlier step is nothing that was said later. */
static void test_thinned(void **state)
{
    (void)state;
    enum { RANKS = 64, STEPS = 4000 };
    struct history history;
    struct history view;
    struct event event;
    history_open(&history);
    for (int64_t step = 1; step <= STEPS; step++) {
        event_init(&event, EVENT_STEP);
        event.step = step;
        event.time = 1000 + (double)step;
        event.step_done.loss = 1;
        history_add(&history, &event);
        event_init(&event, EVENT_RANKS);
        event.step = step;
        event.ranks.steps = step;
        event.ranks.count = RANKS;
        event.ranks.item = xcalloc(RANKS, sizeof(*event.ranks.item));
        history_add(&history, &event);
        event_free(&event);
        assert_int_equal(history_ranks(&history)->steps, step);
    }
    assert_true(history.fare_count > 300 && history.fare_count * RANKS <= 50000);
    assert_int_equal(history.fare_items, (int64_t)history.fare_count * RANKS);
    for (int64_t step = 1; step < STEPS; step += 37) {
        history_at(&history, step, &view);
        assert_true(history_ranks(&view)->steps <= step);
        assert_true(history_ranks(&view)->steps > step - 17);
        history_at_close(&view);
    }
    history_close(&history);
}

/* The digits that stand where the page lists ranks, row by row. */
static bool listed(struct workbench *workbench, int width, int height, int rank)
{
    struct canvas canvas;
    bool found = false;
    resize(workbench, width, height);
    canvas_open(&canvas, width, height, GLYPHS_ASCII);
    workbench_draw(workbench, &canvas);
    for (int y = 6; y < height - 3; y++) {
        int number = -1;
        for (int x = 3; x < 7; x++) {
            uint32_t code = canvas.cell[y * width + x].code;
            if (code >= '0' && code <= '9') {
                number = (number < 0 ? 0 : 10 * number) + (int)(code - '0');
            }
        }
        found |= number == rank;
    }
    canvas_close(&canvas);
    return found;
}

/* Every rank can be scrolled to, however many there are. */
static void test_page(void **state)
{
    (void)state;
    static const int counts[] = { 2, 4, 8, 64, 200 };
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        const struct recording several = {
            .steps = 4, .total = 10, .layers = 1, .gpu = i % 2, .ranks = counts[i]
        };
        struct workbench workbench;
        workbench_open(&workbench);
        recording_feed(&workbench, &several);
        press(&workbench, 'r');
        assert_int_equal(workbench.screen, SCREEN_MEMORY);
        assert_true(listed(&workbench, 80, 24, 0));
        int seen = 0;
        for (int p = 0; p < counts[i]; p++) {
            seen += listed(&workbench, i % 2 ? 80 : 120, i % 2 ? 24 : 36, p);
            press(&workbench, INPUT_DOWN);
        }
        assert_int_equal(seen, counts[i]);
        press(&workbench, INPUT_END);
        assert_true(listed(&workbench, 80, 24, counts[i] - 1));
        press(&workbench, INPUT_HOME);
        press(&workbench, 'v'); /* the slowest first */
        assert_true(listed(&workbench, 80, 15, counts[i] > 2 ? 2 : 1));
        press(&workbench, INPUT_ESCAPE);
        assert_false(workbench.ranks);
        assert_int_equal(workbench.screen, SCREEN_MEMORY);
        press(&workbench, 'r');
        assert_true(workbench.ranks);
        press(&workbench, 'r');
        assert_false(workbench.ranks);
        workbench_close(&workbench);
    }
}

/* A run of one rank has no such page, and is told so. */
static void test_alone(void **state)
{
    (void)state;
    const struct recording alone = { .steps = 4, .total = 10, .layers = 1, .ranks = 1 };
    struct workbench workbench;
    workbench_open(&workbench);
    recording_feed(&workbench, &alone);
    press(&workbench, 'r');
    assert_int_equal(workbench.screen, SCREEN_RUN);
    assert_false(workbench.ranks);
    assert_non_null(strstr(workbench.message, "this run has one"));
    workbench_close(&workbench);
}

static bool take_effect(struct workbench *workbench, enum effect_kind kind, struct effect *effect)
{
    while (workbench_effect(workbench, effect)) {
        if (effect->kind == kind) {
            return true;
        }
    }
    return false;
}

static void type(struct workbench *workbench, const char *text)
{
    press(workbench, 'n');
    press(workbench, 'u' & 0x1f);
    for (; *text; text++) {
        press(workbench, (uint32_t)*text);
    }
    press(workbench, INPUT_ENTER);
}

/* The number of ranks goes into the plan, the command line, and the start. */
static void test_launcher(void **state)
{
    (void)state;
    struct workbench workbench;
    struct effect effect;
    workbench_open(&workbench);
    recording_launcher(&workbench);
    while (workbench_effect(&workbench, &effect)) {
    }
    static const char *const bad[] = { "0", "-2", "x", "2.5", "1025", "4 4" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        type(&workbench, bad[i]);
        assert_int_equal(workbench.launcher.ranks, 0);
        assert_non_null(strstr(workbench.message, "allowed are 1 to 1024"));
    }
    type(&workbench, "4");
    assert_int_equal(workbench.launcher.ranks, 4);
    assert_true(take_effect(&workbench, EFFECT_PLAN, &effect));
    assert_int_equal(effect.ranks, 4);
    press(&workbench, 'c');
    assert_true(take_effect(&workbench, EFFECT_FORM, &effect));
    assert_int_equal(effect.ranks, 4);
    press(&workbench, INPUT_ESCAPE);
    press(&workbench, INPUT_ENTER);
    assert_true(take_effect(&workbench, EFFECT_START, &effect));
    assert_int_equal(effect.ranks, 4);
    workbench_close(&workbench);
}

/* A run goes on with the ranks it had, if there are GPUs for them. */
static void test_resume(void **state)
{
    (void)state;
    struct workbench workbench;
    struct effect effect;
    workbench_open(&workbench);
    recording_launcher(&workbench);
    struct launcher *launcher = &workbench.launcher;
    launcher->pane = LAUNCHER_LISTS;
    struct launcher_run *run = &launcher->run[launcher->run_cursor];
    snprintf(run->status, sizeof(run->status), "stopped");
    run->step = 1;
    run->total_steps = 10;
    run->ranks = 4;
    press(&workbench, 'r');
    assert_true(take_effect(&workbench, EFFECT_RESUME, &effect));
    assert_int_equal(effect.ranks, 4);
    launcher->gpus = 2;
    press(&workbench, 'r');
    assert_false(take_effect(&workbench, EFFECT_RESUME, &effect));
    assert_non_null(strstr(workbench.message, "trained by 4 ranks, here are 2 GPUs"));
    launcher->gpus = 4;
    press(&workbench, 'r');
    assert_true(take_effect(&workbench, EFFECT_RESUME, &effect));
    workbench_close(&workbench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),  cmocka_unit_test(test_sentence),
        cmocka_unit_test(test_order),    cmocka_unit_test(test_thinned),
        cmocka_unit_test(test_page),     cmocka_unit_test(test_alone),
        cmocka_unit_test(test_launcher), cmocka_unit_test(test_resume),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
