/* The command line: every action by name, settings, completion, what was typed before; searching
 * and filtering the log; prompts of one's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/base/xalloc.h"
#include "recording.h"

static const struct recording recorded = { .steps = 412, .total = 600, .layers = 2 };

static void attach(struct workbench *workbench)
{
    struct effect effect;
    workbench_open(workbench);
    recording_launcher(workbench);
    recording_feed(workbench, &recorded);
    while (workbench_effect(workbench, &effect)) {
    }
}

static void put(struct workbench *workbench, const char *text)
{
    for (; *text; text++) {
        press(workbench, (uint32_t)(unsigned char)*text);
    }
}

static void enter(struct workbench *workbench, const char *line)
{
    struct effect effect;
    press(workbench, ':');
    assert_true(workbench_effect(workbench, &effect)); /* names of runs are wanted */
    assert_int_equal(effect.kind, EFFECT_LIST_RUNS);
    put(workbench, line);
    press(workbench, INPUT_ENTER);
}

static void expect(struct workbench *workbench, enum effect_kind kind, const char *text)
{
    struct effect effect = { 0 };
    assert_true(workbench_effect(workbench, &effect));
    assert_int_equal(effect.kind, kind);
    assert_string_equal(effect.text, text);
}

static void expect_sent(struct workbench *workbench, const char *command, const char *key,
                        const char *value)
{
    struct effect effect = { 0 };
    assert_true(workbench_effect(workbench, &effect));
    assert_int_equal(effect.kind, EFFECT_SEND);
    assert_string_equal(effect.command, command);
    assert_string_equal(effect.key, key);
    assert_string_equal(effect.value, value);
}

static void expect_refusal(struct workbench *workbench, const char *line, const char *words)
{
    struct effect effect;
    enter(workbench, line);
    assert_false(workbench_effect(workbench, &effect));
    if (!strstr(workbench->message, words)) {
        fail_msg("%s: %s", line, workbench->message);
    }
}

/* Every name in the table does what its key does, on every screen where the key does something. */
static void test_every_action(void **state)
{
    (void)state;
    for (size_t i = 0; i < keymap_count; i++) {
        const struct action_row *row = &keymap_rows[i];
        for (int screen = 0; screen < SCREEN_COUNT; screen++) {
            struct workbench by_key;
            struct workbench by_name;
            struct effect effect;
            attach(&by_key);
            attach(&by_name);
            by_key.screen = by_name.screen = (enum screen)screen;
            if (row->context & workbench_context(&by_key)) {
                press(&by_key, row->key[0]);
                press(&by_name, ':');
                assert_true(workbench_effect(&by_name, &effect));
                put(&by_name, row->name);
                press(&by_name, INPUT_ENTER);
                bool line = row->action == ACTION_COMMAND;
                if (by_key.overlay != by_name.overlay || by_key.screen != by_name.screen ||
                    (by_key.effect_count != by_name.effect_count && !line)) {
                    fail_msg("%s on screen %d", row->name, screen);
                }
            }
            workbench_close(&by_key);
            workbench_close(&by_name);
        }
    }
}

static void test_commands(void **state)
{
    (void)state;
    struct workbench workbench;
    attach(&workbench);
    enter(&workbench, "set method.rank=64 optimizer.lr=1e-4");
    expect_sent(&workbench, "set", "method.rank", "64");
    expect_sent(&workbench, "set", "optimizer.lr", "1e-4");
    enter(&workbench, "rank 16");
    expect_sent(&workbench, "set", "method.rank", "16");
    struct control_reply reply = { .ok = true, .id = workbench.line.set_id, .step = 413 };
    struct workbench_event event = { .kind = WORKBENCH_REPLY, .reply = &reply };
    workbench_event(&workbench, &event);
    assert_string_equal(workbench.message, "method.rank = 16 holds from step 413");
    enter(&workbench, "train.clip=0.5");
    expect_sent(&workbench, "set", "train.clip", "0.5");
    enter(&workbench, "  pause ");
    expect_sent(&workbench, "pause", "", "");
    enter(&workbench, "screen layers");
    assert_int_equal(workbench.screen, SCREEN_LAYERS);
    enter(&workbench, "open 20261121-1131");
    expect(&workbench, EFFECT_OPEN, "/runs/20261121-1131-grass");
    enter(&workbench, "compare 20261121-1131-grass");
    expect(&workbench, EFFECT_READ_RUN, "/runs/20261121-1131-grass");
    assert_int_equal(workbench.screen, SCREEN_COMPARE);
    enter(&workbench, "fork 1121-1141-grass@400 method.rank=8");
    expect(&workbench, EFFECT_FORK, "1121-1141-grass@400 method.rank=8");
    enter(&workbench, "prune /tmp/old-run");
    put(&workbench, "old-run");
    press(&workbench, INPUT_ENTER);
    expect(&workbench, EFFECT_PRUNE, "/tmp/old-run");
    enter(&workbench, "sample Once upon a time");
    expect(&workbench, EFFECT_SEND, "Once upon a time");
    enter(&workbench, "goto 100");
    assert_int_equal(workbench_at(&workbench), 100);
    enter(&workbench, "quit");
    expect(&workbench, EFFECT_QUIT, "");
    expect_refusal(&workbench, "set rank", "not KEY=VALUE");
    expect_refusal(&workbench, "open 2026", "several runs");
    expect_refusal(&workbench, "open nothing", "no run");
    expect_refusal(&workbench, "goto soon", "wants a step");
    expect_refusal(&workbench, "screen nowhere", "no screen");
    expect_refusal(&workbench, "dance", "no command \"dance\"");
    workbench_event(&workbench, &(struct workbench_event){ .kind = WORKBENCH_CONNECTION,
                                                           .link = { CONNECTION_NONE, "done" } });
    expect_refusal(&workbench, "rank 8", "recording");
    expect_refusal(&workbench, "sample it", "recording");
    workbench_close(&workbench);
}

static void test_launcher_line(void **state)
{
    (void)state;
    struct workbench workbench;
    workbench_open(&workbench);
    recording_launcher(&workbench);
    enter(&workbench, "set train.steps=20");
    expect(&workbench, EFFECT_OVERRIDE, "train.steps=20");
    enter(&workbench, "open 20261121-1141-grass");
    expect(&workbench, EFFECT_OPEN, "/runs/20261121-1141-grass");
    expect_refusal(&workbench, "sample it", "no command");
    workbench_close(&workbench);
}

static void expect_completed(struct workbench *workbench, const char *typed, const char *completed)
{
    struct effect effect;
    press(workbench, ':');
    put(workbench, typed);
    press(workbench, INPUT_TAB);
    assert_string_equal(workbench->field, completed);
    press(workbench, INPUT_ESCAPE);
    while (workbench_effect(workbench, &effect)) {
    }
}

static void test_completion(void **state)
{
    (void)state;
    struct workbench workbench;
    attach(&workbench);
    expect_completed(&workbench, "pau", "pause ");
    expect_completed(&workbench, "xyz", "xyz");
    expect_completed(&workbench, "set method.r", "set method.rank=");
    expect_completed(&workbench, "set method.selection=un", "set method.selection=uniform ");
    expect_completed(&workbench, "set batch", "set batch"); /* not live */
    expect_completed(&workbench, "open 20", "open 20261121-11");
    expect_completed(&workbench, "open 20261121-114", "open 20261121-1141-grass ");
    expect_completed(&workbench, "fork 20261121-1141-grass batch.mi",
                     "fork 20261121-1141-grass batch.micro=");
    expect_completed(&workbench, "screen co", "screen compare ");
    /* What was typed comes back, newest first, without repetitions. */
    enter(&workbench, "rank 16");
    expect_sent(&workbench, "set", "method.rank", "16");
    enter(&workbench, "pause");
    expect_sent(&workbench, "pause", "", "");
    enter(&workbench, "pause");
    expect_sent(&workbench, "pause", "", "");
    press(&workbench, ':');
    press(&workbench, INPUT_UP);
    assert_string_equal(workbench.field, "pause");
    press(&workbench, INPUT_UP);
    press(&workbench, INPUT_UP);
    assert_string_equal(workbench.field, "rank 16");
    press(&workbench, INPUT_DOWN);
    press(&workbench, INPUT_DOWN);
    assert_string_equal(workbench.field, "");
    workbench_close(&workbench);
    attach(&workbench);
    for (int i = 0; i < 3 * COMMAND_PAST; i++) {
        char line[32];
        snprintf(line, sizeof(line), "goto %d", i + 1);
        command_run(&workbench, line);
    }
    assert_int_equal(workbench.line.past_count, COMMAND_PAST);
    assert_string_equal(workbench.line.past[COMMAND_PAST - 1], "goto 96");
    workbench_close(&workbench);
}

static const struct history_line *top_line(const struct workbench *workbench)
{
    int skip = workbench->scroll;
    const struct history_line *line;
    for (size_t i = 0; (line = history_line_at(&workbench->history, i)) != NULL; i++) {
        if (log_shows(workbench, line) && skip-- == 0) {
            return line;
        }
    }
    return NULL;
}

static void test_log(void **state)
{
    (void)state;
    struct workbench workbench;
    attach(&workbench);
    press(&workbench, '7');
    press(&workbench, 'n');
    assert_non_null(strstr(workbench.message, "nothing was searched"));
    press(&workbench, '/');
    put(&workbench, "EVALUATION");
    press(&workbench, INPUT_ENTER);
    assert_int_equal(top_line(&workbench)->step, 400);
    press(&workbench, 'n');
    assert_int_equal(top_line(&workbench)->step, 300);
    press(&workbench, 'N');
    assert_int_equal(top_line(&workbench)->step, 400);
    press(&workbench, 'N');
    assert_non_null(strstr(workbench.message, "no newer line"));
    press(&workbench, '\\');
    put(&workbench, "refresh");
    press(&workbench, INPUT_ENTER);
    assert_int_equal(workbench.scroll, 0);
    assert_int_equal(top_line(&workbench)->kind, EVENT_SELECTION);
    press(&workbench, 'n');
    assert_non_null(strstr(workbench.message, "no older line")); /* it is filtered away */
    press(&workbench, '\\');
    for (int i = 0; i < 7; i++) {
        press(&workbench, INPUT_BACKSPACE);
    }
    press(&workbench, INPUT_ENTER);
    assert_string_equal(workbench.filter, "");
    assert_null(log_match("abc", ""));
    assert_string_equal(log_match("a Warning", "wARN"), "Warning");
    workbench_close(&workbench);
}

static void sample(struct workbench *workbench, int64_t step, const char *prompt)
{
    struct event event;
    event_init(&event, EVENT_SAMPLE);
    event.step = step;
    event.sample.prompt = xstrdup(prompt);
    event.sample.text = xstrdup("text");
    struct workbench_event record = { .kind = WORKBENCH_RECORD, .record = &event };
    workbench_event(workbench, &record);
    event_free(&event);
}

static void test_samples(void **state)
{
    (void)state;
    struct workbench workbench;
    int prompts[SAMPLES_PROMPTS];
    attach(&workbench);
    press(&workbench, '6');
    sample(&workbench, 401, "rain");
    sample(&workbench, 402, "The meadow");
    sample(&workbench, 403, "rain");
    assert_int_equal(samples_prompts(&workbench.history, prompts), 2);
    assert_string_equal(workbench.history.sample[prompts[0]].prompt, "rain");
    press(&workbench, 'r');
    expect(&workbench, EFFECT_SEND, "rain");
    press(&workbench, INPUT_DOWN);
    press(&workbench, INPUT_DOWN);
    press(&workbench, 'r');
    expect(&workbench, EFFECT_SEND, "The meadow");
    press(&workbench, 'e');
    assert_string_equal(workbench.field, "rain");
    put(&workbench, " and sun");
    press(&workbench, INPUT_ENTER);
    expect(&workbench, EFFECT_SEND, "rain and sun");
    for (int i = 0; i < 200; i++) {
        press(&workbench, INPUT_LEFT);
    }
    assert_true(workbench.generation <= HISTORY_SAMPLES);
    workbench_close(&workbench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_action),  cmocka_unit_test(test_commands),
        cmocka_unit_test(test_launcher_line), cmocka_unit_test(test_completion),
        cmocka_unit_test(test_log),           cmocka_unit_test(test_samples),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
