/* Whole screens, compared with the texts in tests/data/ui. WINDROW_UPDATE_GOLDEN=1 writes them. */
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

static const struct recording recorded = { .steps = 412, .total = 600, .layers = 6 };

#define MIB ((int64_t)1048576)

struct shape {
    const char *name;
    int width;
    int height;
    enum glyph_set glyphs;
    enum color_depth depth;
};
static const struct shape shapes[] = {
    { "80x24-ascii", 80, 24, GLYPHS_ASCII, COLOR_MONO },
    { "80x24-braille", 80, 24, GLYPHS_BRAILLE, COLOR_256 },
    { "120x36-ascii", 120, 36, GLYPHS_ASCII, COLOR_MONO },
    { "120x36-braille", 120, 36, GLYPHS_BRAILLE, COLOR_256 },
    { "200x50-ascii", 200, 50, GLYPHS_ASCII, COLOR_MONO },
    { "200x50-braille", 200, 50, GLYPHS_BRAILLE, COLOR_256 },
};

static void compare(struct workbench *workbench, const char *name, const struct shape *shape)
{
    struct canvas canvas;
    struct buffer text = { 0 };
    canvas_open(&canvas, shape->width, shape->height, shape->glyphs);
    resize(workbench, shape->width, shape->height);
    workbench_draw(workbench, &canvas);
    screen_text(&canvas, shape->depth, &text);
    canvas_close(&canvas);
    char *path = xasprintf("%s/ui/%s-%s.txt", TEST_DATA, name, shape->name);
    struct error err = { 0 };
    if (getenv("WINDROW_UPDATE_GOLDEN")) {
        assert_int_equal(file_replace(path, text.text, text.size, &err), 0);
    }
    size_t size = 0;
    char *wanted = file_read_all(path, 1 << 20, &size, &err);
    if (!wanted) {
        fail_msg("%s", err.message);
    }
    if (size != text.size || memcmp(wanted, text.text, size) != 0) {
        fail_msg("%s differs. It is now:\n%s", path, text.text);
    }
    free(wanted);
    free(path);
    buffer_free(&text);
}

static void compare_all(struct workbench *workbench, const char *name)
{
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        compare(workbench, name, &shapes[i]);
    }
}

static void test_launcher(void **state)
{
    (void)state;
    struct workbench workbench;
    workbench_open(&workbench);
    recording_launcher(&workbench);
    compare_all(&workbench, "launcher");
    press(&workbench, '?');
    compare(&workbench, "launcher-help", &shapes[0]);
    workbench_close(&workbench);
}

/* What the launcher shows of data, of a plan that does not fit, and before it removes a run. */
static void test_choice(void **state)
{
    (void)state;
    struct workbench workbench;
    workbench_open(&workbench);
    recording_launcher(&workbench);
    workbench.launcher.pane = LAUNCHER_DATA;
    recording_preview(&workbench);
    compare_all(&workbench, "launcher-data");
    workbench.launcher.pane = LAUNCHER_METHOD;
    recording_unfit(&workbench);
    compare(&workbench, "launcher-unfit", &shapes[0]);
    compare(&workbench, "launcher-unfit", &shapes[3]);
    press(&workbench, INPUT_TAB);
    compare(&workbench, "launcher-runs", &shapes[0]);
    press(&workbench, INPUT_DOWN);
    press(&workbench, 'd');
    compare(&workbench, "launcher-remove", &shapes[0]);
    press(&workbench, INPUT_ESCAPE);
    press(&workbench, 'c');
    recording_form(&workbench);
    compare(&workbench, "launcher-command", &shapes[0]);
    workbench_close(&workbench);
}

/* A choice for four of eight GPUs. */
static void test_gpus(void **state)
{
    (void)state;
    struct workbench workbench;
    workbench_open(&workbench);
    recording_launcher(&workbench);
    recording_ranks(&workbench);
    compare(&workbench, "launcher-ranks", &shapes[0]);
    compare(&workbench, "launcher-ranks", &shapes[3]);
    press(&workbench, 'n');
    compare(&workbench, "launcher-ranks-field", &shapes[0]);
    workbench_close(&workbench);
}

static void test_form(void **state)
{
    (void)state;
    struct workbench workbench;
    workbench_open(&workbench);
    recording_launcher(&workbench);
    press(&workbench, 'e');
    recording_form(&workbench);
    for (int i = 0; i < 20; i++) {
        press(&workbench, INPUT_DOWN);
    }
    compare_all(&workbench, "form");
    press(&workbench, INPUT_ENTER);
    press(&workbench, 'x');
    press(&workbench, INPUT_ENTER);
    compare(&workbench, "form-field", &shapes[0]);
    workbench_close(&workbench);
}

static void test_run(void **state)
{
    (void)state;
    struct workbench workbench;
    workbench_open(&workbench);
    recording_feed(&workbench, &recorded);
    compare_all(&workbench, "run");
    press(&workbench, '?');
    compare_all(&workbench, "help");
    press(&workbench, INPUT_ESCAPE);
    press(&workbench, 'S');
    compare(&workbench, "stop", &shapes[0]);
    workbench_close(&workbench);
}

/* Stages a rank, with the run's answer about the memory it would take. */
static void test_tune(void **state)
{
    (void)state;
    struct workbench workbench;
    workbench_open(&workbench);
    recording_feed(&workbench, &recorded);
    press(&workbench, '4');
    press(&workbench, INPUT_RIGHT);
    struct effect effect = { 0 };
    assert_true(workbench_effect(&workbench, &effect));
    struct control_reply reply = { .ok = true,
                                   .id = effect.id,
                                   .step = -1,
                                   .bytes = 162 * (int64_t)1048576,
                                   .bytes_now = 134 * (int64_t)1048576,
                                   .flops = 2.4e10,
                                   .flops_now = 2.1e10,
                                   .refresh_flops = 3.2e10,
                                   .refresh_flops_now = 2.9e10 };
    struct workbench_event event = { .kind = WORKBENCH_REPLY, .reply = &reply };
    workbench_event(&workbench, &event);
    compare_all(&workbench, "tune");
    press(&workbench, INPUT_ENTER);
    compare(&workbench, "tune-field", &shapes[0]);
    workbench_close(&workbench);
}

static void take_other(void *context, const struct event *event)
{
    if (event->kind == EVENT_START) {
        struct event changed = *event;
        changed.start.recipe_json = xasprintf(
            "{\"method\":{\"name\":\"full\",\"interval\":50},\"optimizer\":{\"lr\":0.0001}}");
        comparison_run_take(context, &changed);
        free(changed.start.recipe_json);
        return;
    }
    comparison_run_take(context, event);
}

/* The run beside one of another method that ended at step 300, and one that cannot be read. */
static void test_compare(void **state)
{
    (void)state;
    const struct recording other = { .steps = 300, .total = 300, .layers = 6, .stop = true };
    struct workbench workbench;
    struct comparison_run run;
    struct comparison_run none = { 0 };
    workbench_open(&workbench);
    recording_launcher(&workbench);
    recording_feed(&workbench, &recorded);
    press(&workbench, '5');
    compare_all(&workbench, "compare-alone");
    compare_toggle(&workbench, "/runs/20261121-1131-grass");
    compare_toggle(&workbench, "/runs/gone");
    comparison_run_open(&run, "/runs/20261121-1131-grass", "20261121-1131-grass");
    recording_play(&other, take_other, &run);
    for (size_t i = 0; i < run.count; i++) {
        run.point[i].seconds *= 1.4;
        run.point[i].loss_sum *= 1.1;
    }
    struct workbench_event event = { .kind = WORKBENCH_COMPARED,
                                     .compared = { run.path, &run, NULL } };
    char *path = xstrdup(run.path);
    event.compared.path = path;
    workbench_event(&workbench, &event);
    event.compared.path = "/runs/gone";
    event.compared.run = &none;
    event.compared.trouble = "/runs/gone: no such run";
    workbench_event(&workbench, &event);
    compare_all(&workbench, "compare");
    press(&workbench, INPUT_TAB);
    press(&workbench, 'v');
    press(&workbench, 'x');
    compare(&workbench, "compare-settings", &shapes[0]);
    press(&workbench, INPUT_ENTER);
    compare(&workbench, "compare-choose", &shapes[0]);
    free(path);
    workbench_close(&workbench);
}

/* Three prompts, one of them at four steps; the command line over it; the log filtered. */
static void test_texts(void **state)
{
    (void)state;
    static const char *const prompts[] = { "The meadow",      "Rain",       "The meadow",
                                           "A very old song", "The meadow", "The meadow" };
    struct workbench workbench;
    workbench_open(&workbench);
    recording_launcher(&workbench);
    recording_feed(&workbench, &recorded);
    for (int i = 0; i < 6; i++) {
        struct event event;
        event_init(&event, EVENT_SAMPLE);
        event.step = 401 + i;
        event.sample.prompt = xstrdup(prompts[i]);
        event.sample.text =
            xasprintf("%s at step %d, which goes on and on until there is nothing more to say of "
                      "it,\nand then one more line.",
                      prompts[i], 401 + i);
        workbench_event(&workbench,
                        &(struct workbench_event){ .kind = WORKBENCH_RECORD, .record = &event });
        event_free(&event);
    }
    press(&workbench, '6');
    compare_all(&workbench, "samples-many");
    press(&workbench, ':');
    for (const char *text = "fork 20261121-1141-grass@400 batch."; *text; text++) {
        press(&workbench, (uint32_t)*text);
    }
    compare_all(&workbench, "command");
    press(&workbench, INPUT_ESCAPE);
    log_filter(&workbench, "e");
    log_search(&workbench, "evaluation");
    compare(&workbench, "log-search", &shapes[0]);
    workbench_close(&workbench);
}

static void test_others(void **state)
{
    (void)state;
    static const char *const names[] = { "samples", "log" };
    static const char keys[] = { '6', '7' };
    struct workbench workbench;
    workbench_open(&workbench);
    recording_feed(&workbench, &recorded);
    for (int i = 0; i < 2; i++) {
        press(&workbench, (uint32_t)keys[i]);
        compare_all(&workbench, names[i]);
    }
    workbench_close(&workbench);
}

/* The views of Layers, the page of one matrix, and both at an earlier refresh. */
static void test_layers(void **state)
{
    (void)state;
    struct workbench workbench;
    workbench_open(&workbench);
    recording_feed(&workbench, &recorded);
    press(&workbench, '2');
    compare_all(&workbench, "layers");
    press(&workbench, INPUT_DOWN);
    press(&workbench, INPUT_RIGHT);
    press(&workbench, INPUT_ENTER);
    compare_all(&workbench, "matrix");
    press(&workbench, INPUT_ESCAPE);
    static const char *const views[] = { NULL, "layers-overlap", "layers-coverage",
                                         "layers-evenness", "layers-rows" };
    for (int i = LAYERS_OVERLAP; i <= LAYERS_ROWS; i++) {
        press(&workbench, 'v');
        compare_all(&workbench, views[i]);
    }
    press(&workbench, '[');
    compare(&workbench, "layers-rows-earlier", &shapes[0]);
    compare(&workbench, "layers-rows-earlier", &shapes[3]);
    press(&workbench, 'f');
    press(&workbench, 'v');
    compare_all(&workbench, "layers-often");
    workbench_close(&workbench);
}

/* Memory, and the answers of the run to what changes would take. */
static void test_memory(void **state)
{
    (void)state;
    struct workbench workbench;
    workbench_open(&workbench);
    recording_feed(&workbench, &recorded);
    press(&workbench, '3');
    compare_all(&workbench, "memory");
    press(&workbench, 'w');
    struct effect effect;
    int asked = 0;
    /* One question at a time; the run refuses the largest rank. */
    while (workbench_effect(&workbench, &effect)) {
        assert_int_equal(effect.kind, EFFECT_SEND);
        assert_string_equal(effect.command, "plan");
        assert_false(workbench.effect_count);
        bool rank = strcmp(effect.key, "method.rank") == 0;
        int64_t value = strtoll(effect.value, NULL, 10);
        struct control_reply reply = { .id = effect.id, .step = -1, .bytes_now = 134 * MIB };
        reply.ok = !rank || value < 128;
        reply.bytes = rank ? (106 + value * 7 / 8) * MIB : 134 * MIB;
        snprintf(reply.error, sizeof(reply.error), "the plan takes 218 MiB, the limit is 200 MiB");
        snprintf(reply.hint, sizeof(reply.hint), "the largest rank that fits is 107");
        struct workbench_event event = { .kind = WORKBENCH_REPLY, .reply = &reply };
        workbench_event(&workbench, &event);
        asked++;
    }
    assert_true(asked >= 10 && asked == workbench.whatif.count);
    assert_string_equal(workbench.message, "");
    compare_all(&workbench, "memory-asked");
    workbench_close(&workbench);
}

/* A run of several ranks: the sentence about them on the dashboard, what each takes in Memory, and
 * their page, in another order and further down. */
static void compare_ranks(int ranks, bool gpu, const char *const names[4])
{
    const struct recording several = {
        .steps = 412, .total = 600, .layers = 6, .gpu = gpu, .ranks = ranks
    };
    struct workbench workbench;
    workbench_open(&workbench);
    recording_feed(&workbench, &several);
    compare_all(&workbench, names[0]);
    press(&workbench, 'r');
    compare_all(&workbench, names[1]);
    press(&workbench, 'v');
    press(&workbench, INPUT_PAGE_DOWN);
    compare(&workbench, names[2], &shapes[0]);
    compare(&workbench, names[2], &shapes[3]);
    press(&workbench, INPUT_ESCAPE);
    compare_all(&workbench, names[3]);
    workbench_close(&workbench);
}

static void test_ranks(void **state)
{
    (void)state;
    static const char *const two[] = { "run-2-ranks", "ranks-2", "ranks-2-order",
                                       "memory-2-ranks" };
    static const char *const many[] = { "run-64-ranks", "ranks-64", "ranks-64-order",
                                        "memory-64-ranks" };
    compare_ranks(2, false, two);
    compare_ranks(64, true, many);
}

/* The list of runs over the dashboard, to open one and to choose some to compare. */
static void test_runs(void **state)
{
    (void)state;
    struct workbench workbench;
    workbench_open(&workbench);
    recording_launcher(&workbench);
    recording_feed(&workbench, &recorded);
    press(&workbench, 'R');
    press(&workbench, INPUT_DOWN);
    compare_all(&workbench, "runs");
    workbench_close(&workbench);
}

/* Every view has its six goldens: three sizes, in UTF-8 with 256 colours and in ASCII without any.
 * (Screens know no colours: they draw styles, and the second half of a golden says what becomes of
 * those.) */
static void test_matrix_is_whole(void **state)
{
    (void)state;
    static const char *const views[] = { "launcher",
                                         "launcher-data",
                                         "form",
                                         "run",
                                         "layers",
                                         "layers-overlap",
                                         "layers-rows",
                                         "layers-often",
                                         "matrix",
                                         "layers-coverage",
                                         "layers-evenness",
                                         "memory",
                                         "memory-asked",
                                         "tune",
                                         "compare",
                                         "samples",
                                         "samples-many",
                                         "log",
                                         "help",
                                         "command",
                                         "runs",
                                         "finished",
                                         "gpu",
                                         "run-2-ranks",
                                         "ranks-2",
                                         "memory-2-ranks",
                                         "run-64-ranks",
                                         "ranks-64",
                                         "memory-64-ranks",
                                         "compare-alone" };
    for (size_t i = 0; i < sizeof(views) / sizeof(views[0]); i++) {
        for (size_t k = 0; k < sizeof(shapes) / sizeof(shapes[0]); k++) {
            char *path = xasprintf("%s/ui/%s-%s.txt", TEST_DATA, views[i], shapes[k].name);
            if (!file_exists(path)) {
                fail_msg("there is no %s", path);
            }
            free(path);
        }
    }
}

static void test_compact(void **state)
{
    (void)state;
    const struct shape shape = { "40x10-ascii", 40, 10, GLYPHS_ASCII, COLOR_MONO };
    struct workbench workbench;
    workbench_open(&workbench);
    recording_feed(&workbench, &recorded);
    compare(&workbench, "compact", &shape);
    workbench_close(&workbench);
}

/* The same run on a GPU that tells what it does. */
static void test_gpu(void **state)
{
    (void)state;
    const struct recording on_gpu = { .steps = 412, .total = 600, .layers = 6, .gpu = true };
    struct workbench workbench;
    workbench_open(&workbench);
    recording_feed(&workbench, &on_gpu);
    compare_all(&workbench, "gpu");
    workbench_close(&workbench);
}

static void test_finished(void **state)
{
    (void)state;
    const struct recording ended = { .steps = 600, .total = 600, .layers = 6, .stop = true };
    struct workbench workbench;
    workbench_open(&workbench);
    recording_feed(&workbench, &ended);
    struct workbench_event event = { .kind = WORKBENCH_CONNECTION,
                                     .link = { CONNECTION_NONE, "done" } };
    workbench_event(&workbench, &event);
    compare_all(&workbench, "finished");
    workbench_close(&workbench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_launcher),
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_gpus),
        cmocka_unit_test(test_form),
        cmocka_unit_test(test_run),
        cmocka_unit_test(test_tune),
        cmocka_unit_test(test_others),
        cmocka_unit_test(test_compact),
        cmocka_unit_test(test_layers),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_finished),
        cmocka_unit_test(test_compare),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_gpu),
        cmocka_unit_test(test_runs),
        cmocka_unit_test(test_ranks),
        cmocka_unit_test(test_matrix_is_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
