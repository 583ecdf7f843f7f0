/* Predictions before a live change, measurements after it, and taking changes back. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "engine/base/xalloc.h"
#include "recording.h"

static const struct recording recorded = { .steps = 412, .total = 600, .layers = 2 };

static void assert_near(double found, double wanted, double margin)
{
    if (!(fabs(found - wanted) <= margin)) {
        fail_msg("%.12g, wanted %.12g", found, wanted);
    }
}

static void test_curve(void **state)
{
    (void)state;
    const double curve[EVENT_CURVE_POINTS] = { 0.1, 0.2, 0.35, 0.55, 0.75, 0.9, 1 };
    const double unknown[EVENT_CURVE_POINTS] = { NAN, NAN, NAN, NAN, NAN, NAN, NAN };
    double share = 1;
    for (int i = EVENT_CURVE_POINTS - 1; i >= 0; i--, share /= 2) {
        assert_near(tune_energy_at(curve, share), curve[i], 1e-12);
    }
    assert_near(tune_energy_at(curve, 2), 1, 0);
    assert_near(tune_energy_at(curve, 1.0 / 128), 0.05, 1e-12);
    double before = 0;
    for (share = 0.001; share < 1; share *= 1.07) {
        double now = tune_energy_at(curve, share);
        assert_true(now > before && now <= 1);
        before = now;
    }
    assert_true(isnan(tune_energy_at(unknown, 0.5)));
    assert_true(isnan(tune_energy_at(curve, 0)));
    assert_true(isnan(tune_energy_at(curve, (double)NAN)));
}

static struct tune_row *row_of(struct workbench *workbench, const char *key)
{
    for (int i = 0; i < workbench->tune.count; i++) {
        if (strcmp(workbench->tune.row[i].field->key, key) == 0) {
            workbench->tune.cursor = i;
            return &workbench->tune.row[i];
        }
    }
    fail_msg("%s is not live", key);
    return NULL;
}

static void answer(struct workbench *workbench, const struct control_reply *reply)
{
    struct workbench_event event = { .kind = WORKBENCH_REPLY, .reply = reply };
    workbench_event(workbench, &event);
}

static void test_prediction(void **state)
{
    (void)state;
    struct workbench workbench;
    struct tune_prediction guess;
    workbench_open(&workbench);
    recording_feed(&workbench, &recorded);
    press(&workbench, '4');
    struct tune_row *row = row_of(&workbench, "method.rank");
    tune_typed(&workbench, "64");
    struct control_reply reply = { .ok = true,
                                   .id = row->ask_id,
                                   .bytes = 20,
                                   .bytes_now = 10,
                                   .flops = 120,
                                   .flops_now = 100,
                                   .refresh_flops = 170,
                                   .refresh_flops_now = 150 };
    answer(&workbench, &reply);
    tune_predict(&workbench.history, row, &guess);
    /* One step of 50 chooses rows: 101 FLOPs now, 121 then. */
    assert_near(guess.speed_then / guess.speed_now, 101.0 / 121, 1e-6);
    /* 1/8 of the rows are kept now, 1/4 then: two points of every curve. */
    double now = 0;
    double then = 0;
    for (size_t i = 0; i < workbench.history.matrix_count; i++) {
        now += workbench.history.matrix[i].energy;
        then += workbench.history.matrix[i].curve[4];
    }
    assert_near(guess.energy_now, now / (double)workbench.history.matrix_count, 1e-6);
    assert_near(guess.energy_then, then / (double)workbench.history.matrix_count, 1e-6);
    assert_true(guess.worst_then < guess.energy_then && !guess.energy_bounds);
    /* Twice as rarely chosen: half as much of the refresh in the mean step. */
    row = row_of(&workbench, "method.interval");
    tune_typed(&workbench, "100");
    reply.id = row->ask_id;
    reply.flops = 100;
    reply.refresh_flops = 150;
    answer(&workbench, &reply);
    tune_predict(&workbench.history, row, &guess);
    assert_near(guess.speed_then / guess.speed_now, 101.0 / 100.5, 1e-6);
    assert_true(isnan(guess.energy_then));
    /* Rows at random hold their share; of norms only a bound is known. */
    row = row_of(&workbench, "method.selection");
    tune_typed(&workbench, "uniform");
    tune_predict(&workbench.history, row, &guess);
    assert_near(guess.energy_then, 0.125, 1e-6);
    tune_typed(&workbench, "norm");
    tune_predict(&workbench.history, row, &guess);
    assert_true(guess.energy_bounds && isfinite(guess.energy_then));
    workbench_close(&workbench);
}

/* A plan that does not fit is told at once and never sent. */
static void test_unfit(void **state)
{
    (void)state;
    struct workbench workbench;
    struct effect effect;
    workbench_open(&workbench);
    recording_feed(&workbench, &recorded);
    press(&workbench, '4');
    struct tune_row *row = row_of(&workbench, "method.rank");
    tune_typed(&workbench, "256");
    assert_true(workbench_effect(&workbench, &effect));
    struct control_reply reply = {
        .ok = true, .id = row->ask_id, .bytes = 20, .bytes_now = 10, .unfit = true
    };
    snprintf(reply.error, sizeof(reply.error), "9 GiB do not fit 8 GiB");
    snprintf(reply.hint, sizeof(reply.hint), "the largest rank that fits is 128");
    answer(&workbench, &reply);
    assert_int_equal(strncmp(row->refusal, "the largest rank that fits is 128", 33), 0);
    press(&workbench, 'a');
    assert_false(workbench_effect(&workbench, &effect));
    assert_non_null(strstr(workbench.message, "largest rank that fits is 128"));
    tune_typed(&workbench, "128"); /* another value is another question */
    assert_true(workbench_effect(&workbench, &effect) && !row->unfit && !row->refusal[0]);
    press(&workbench, 'a');
    assert_true(workbench_effect(&workbench, &effect));
    assert_string_equal(effect.command, "set");
    workbench_close(&workbench);
}

static void set_event(struct workbench *workbench, int64_t step, const char *words)
{
    struct event event;
    char key[64];
    char from[16];
    char to[16];
    assert_int_equal(sscanf(words, "%63s %15s %15s", key, from, to), 3);
    event_init(&event, EVENT_SETTING);
    event.setting.key = xstrdup(key);
    event.setting.from = xstrdup(from);
    event.setting.to = xstrdup(to);
    event.setting.effective_step = step;
    struct workbench_event record = { .kind = WORKBENCH_RECORD, .record = &event };
    workbench_event(workbench, &record);
    event_free(&event);
}

/* u goes back change by change, waits for each answer, and ends where the run began. */
static void test_undo(void **state)
{
    (void)state;
    struct workbench workbench;
    struct effect effect;
    struct control_reply reply = { .ok = true, .step = 421 };
    workbench_open(&workbench);
    recording_feed(&workbench, &recorded); /* optimizer.lr 0.001 -> 0.0005 */
    press(&workbench, '4');
    set_event(&workbench, 413, "method.rank 32 64");
    press(&workbench, 'u');
    press(&workbench, 'u');
    assert_true(workbench_effect(&workbench, &effect));
    assert_string_equal(effect.key, "method.rank");
    assert_string_equal(effect.value, "32");
    assert_false(workbench_effect(&workbench, &effect));
    set_event(&workbench, 414, "method.rank 64 32");
    reply.id = effect.id;
    answer(&workbench, &reply);
    press(&workbench, 'u');
    assert_true(workbench_effect(&workbench, &effect));
    assert_string_equal(effect.key, "optimizer.lr");
    assert_string_equal(effect.value, "0.001");
    set_event(&workbench, 415, "optimizer.lr 0.0005 0.001");
    reply.id = effect.id;
    answer(&workbench, &reply);
    press(&workbench, 'u');
    assert_false(workbench_effect(&workbench, &effect));
    assert_non_null(strstr(workbench.message, "every change was taken back"));
    workbench_close(&workbench);
}

/* The span of a change ends where the next one begins. */
static void test_outcome(void **state)
{
    (void)state;
    struct workbench workbench;
    struct tune_outcome found;
    workbench_open(&workbench);
    recording_feed(&workbench, &recorded); /* a change at 300 */
    set_event(&workbench, 302, "method.rank 32 48");
    set_event(&workbench, 311, "method.rank 48 64");
    tune_measure(&workbench.history, 311, &found);
    assert_near(found.loss[0], series_look(&workbench.history.loss, 302, 310).mean, 1e-6);
    assert_near(found.loss[1], series_look(&workbench.history.loss, 311, 360).mean, 1e-6);
    assert_true(isnan(found.energy[0])); /* no refresh in 302 .. 310 */
    assert_true(isfinite(found.energy[1]) && found.bytes[0] == -1 && found.bytes[1] > 0);
    tune_measure(&workbench.history, 300, &found);
    assert_near(found.loss[1], series_look(&workbench.history.loss, 300, 301).mean, 1e-6);
    workbench_close(&workbench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_curve),   cmocka_unit_test(test_prediction),
        cmocka_unit_test(test_unfit),   cmocka_unit_test(test_undo),
        cmocka_unit_test(test_outcome),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
