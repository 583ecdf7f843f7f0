/* Events: every kind survives a round trip, nothing in them can command a terminal, and damaged
 * lines are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/event.h"
#include "engine/run/event_rows.h"

static char *line_of(const struct event *event)
{
    struct buffer out = { 0 };
    event_write(event, &out);
    assert_non_null(out.text);
    assert_int_equal(out.text[out.size - 1], '\n');
    assert_ptr_equal(strchr(out.text, '\n'), out.text + out.size - 1);
    return out.text;
}

/* Writes, reads, writes again: the lines must be the same, byte for byte. */
static void round_trip(const struct event *event, struct event *back)
{
    struct error err = { 0 };
    char *line = line_of(event);
    if (event_read(line, strlen(line), back, &err) != 0) {
        fail_msg("%s: %s", line, err.message);
    }
    char *again = line_of(back);
    assert_string_equal(line, again);
    assert_int_equal(back->kind, event->kind);
    assert_true(back->time == event->time);
    assert_true(back->step == event->step);
    free(again);
    free(line);
}

static void unknown_values_are_absent(void **state)
{
    (void)state;
    for (int kind = 0; kind < EVENT_KIND_COUNT; kind++) {
        struct event event;
        struct event back;
        event_init(&event, (enum event_kind)kind);
        event.time = 1753870000.25;
        round_trip(&event, &back);
        char *line = line_of(&event);
        struct error err = { 0 };
        cJSON *root = json_parse(line, strlen(line), "line", 1, &err);
        assert_int_equal(cJSON_GetArraySize(root), 2); /* event and time alone */
        cJSON_Delete(root);
        free(line);
        event_free(&back);
        event_free(&event);
    }
}

static void a_step_keeps_every_bit(void **state)
{
    (void)state;
    struct event event;
    struct event back;
    event_init(&event, EVENT_STEP);
    event.time = 1753870000.123456;
    event.step = 7;
    event.step_done.loss = nextafterf(2.5f, 3.0f);
    event.step_done.grad_norm = 1e-38f;
    event.step_done.learning_rate = 0.1 + 0.2;
    event.step_done.tokens = 4096;
    event.step_done.rank = 128;
    event.step_done.refreshed = true;
    round_trip(&event, &back);
    assert_true(back.step_done.loss == event.step_done.loss);
    assert_true(back.step_done.grad_norm == event.step_done.grad_norm);
    assert_true(back.step_done.learning_rate == event.step_done.learning_rate);
    assert_int_equal(back.step_done.tokens, 4096);
    assert_true(back.step_done.refreshed && !back.step_done.skipped);
    assert_true(isnan(back.step_done.mfu));
    assert_true(back.step_done.tokens_total == EVENT_UNKNOWN);
    event_free(&back);
}

static void a_skipped_step_has_no_loss(void **state)
{
    (void)state;
    struct event event;
    event_init(&event, EVENT_STEP);
    event.time = 1.0;
    event.step = 3;
    event.step_done.loss = INFINITY;
    event.step_done.skipped = true;
    event.step_done.reason = xstrdup("the loss is not finite");
    char *line = line_of(&event);
    assert_null(strstr(line, "\"loss\""));
    assert_non_null(strstr(line, "\"skipped\":true"));
    free(line);
    event_free(&event);
}

static void a_plan_comes_back_whole(void **state)
{
    (void)state;
    struct event event;
    struct event back;
    event_init(&event, EVENT_PLAN);
    event.time = 5.0;
    for (int i = 0; i < MEMORY_CATEGORY_COUNT; i++) {
        event.plan.planned_bytes[i] = 1000 + i;
        event.plan.phase[0].bytes[i] = 10 + i;
        event.plan.phase[1].bytes[i] = 20 + i;
    }
    event.plan.total_bytes = 5010;
    event.plan.step_flops = 1.5e12;
    event.plan.phase_count = 2;
    memcpy(event.plan.phase[0].name, "forward", 8);
    memcpy(event.plan.phase[1].name, "update", 7);
    event.plan.largest_count = 1;
    event.plan.largest[0] = (struct memory_record){ .name = "model.embed_tokens.weight",
                                                    .category = MEMORY_WEIGHTS,
                                                    .dtype = DTYPE_BF16,
                                                    .rank = 2,
                                                    .dim = { 300, 16 },
                                                    .bytes = 9728 };
    round_trip(&event, &back);
    assert_int_equal(back.plan.phase_count, 2);
    assert_string_equal(back.plan.phase[1].name, "update");
    assert_int_equal(back.plan.phase[1].bytes[4], 24);
    assert_int_equal(back.plan.largest[0].dim[1], 16);
    assert_int_equal(back.plan.largest[0].dtype, DTYPE_BF16);
    event_free(&back);
}

static void memory_and_selection_come_back(void **state)
{
    (void)state;
    struct event event;
    struct event back;
    event_init(&event, EVENT_MEMORY);
    event.step = 2;
    for (int i = 0; i < MEMORY_CATEGORY_COUNT; i++) {
        event.memory.bytes[i] = i;
        event.memory.peak_bytes[i] = 2 * i;
        event.memory.planned_bytes[i] = 3 * i;
    }
    event.memory.host_bytes = 1LL << 40;
    round_trip(&event, &back);
    assert_int_equal(back.memory.planned_bytes[4], 12);
    assert_true(back.memory.host_bytes == 1LL << 40);
    event_free(&back);

    event_init(&event, EVENT_SELECTION);
    event.step = 2;
    event.selection.tensor = xstrdup("model.layers.0.self_attn.q_proj.weight");
    event.selection.side = xstrdup("out");
    event.selection.captured_energy = 0.75;
    for (int i = 0; i < EVENT_CURVE_POINTS; i++) {
        event.selection.curve[i] = (i + 1) / 7.0;
    }
    for (int i = 0; i < EVENT_HISTOGRAM_BINS; i++) {
        event.selection.histogram[i] = i * i;
    }
    round_trip(&event, &back);
    assert_int_equal(back.selection.histogram[63], 63 * 63);
    assert_true(back.selection.curve[2] == 3.0 / 7.0 && back.selection.curve[6] == 1.0);
    assert_true(isnan(back.selection.overlap));
    event_free(&back);
    event_free(&event);
}

static void ranks_come_back(void **state)
{
    (void)state;
    struct event event;
    struct event back;
    event_init(&event, EVENT_RANKS);
    event.time = 5.0;
    event.step = 12;
    event.ranks.steps = 3;
    event.ranks.slowest = 1;
    event.ranks.count = 3;
    event.ranks.item = xcalloc(3, sizeof *event.ranks.item);
    for (int p = 0; p < 3; p++) {
        event_rank_init(&event.ranks.item[p]);
    }
    struct event_rank *second = &event.ranks.item[1];
    snprintf(second->host, sizeof second->host, "mower-\xc3\xa4");
    snprintf(second->device, sizeof second->device, "a GPU \x1b[31m");
    second->local_rank = 0;
    second->compute_ms = 0.1 + 0.2;
    second->peak_bytes = 1LL << 40;
    second->temperature_c = 61.0;
    round_trip(&event, &back);
    assert_int_equal(back.ranks.count, 3);
    assert_int_equal(back.ranks.slowest, 1);
    assert_int_equal(back.ranks.steps, 3);
    assert_string_equal(back.ranks.item[1].host, "mower-\xc3\xa4");
    assert_true(back.ranks.item[1].compute_ms == 0.1 + 0.2);
    assert_true(back.ranks.item[1].peak_bytes == 1LL << 40);
    assert_int_equal(back.ranks.item[1].local_rank, 0);
    assert_true(isnan(back.ranks.item[1].wait_ms) && isnan(back.ranks.item[2].compute_ms));
    assert_true(back.ranks.item[0].peak_bytes == EVENT_UNKNOWN);
    assert_string_equal(back.ranks.item[2].host, "");
    event_free(&back);
    /* Every prefix is refused, and nothing of it is left behind. */
    char *line = line_of(&event);
    for (size_t cut = 0; cut + 2 < strlen(line); cut++) {
        struct error err = { 0 };
        assert_int_equal(event_read(line, cut, &back, &err), -1);
    }
    free(line);
    event_free(&event);
    assert_null(event.ranks.item);
}

/* A name that is too long loses its end; more members than are known do no harm. */
static void ranks_of_others_are_read(void **state)
{
    (void)state;
    struct event event;
    struct error err = { 0 };
    char line[512];
    char name[201];
    memset(name, 'n', 200);
    name[200] = '\0';
    snprintf(line, sizeof line,
             "{\"event\":\"ranks\",\"time\":1,\"ranks\":[{\"rank\":0,\"host\":\"%s\",\"mood\":[1],"
             "\"step_ms\":null}]}",
             name);
    assert_int_equal(event_read(line, strlen(line), &event, &err), 0);
    assert_int_equal(strlen(event.ranks.item[0].host), 63);
    assert_true(isnan(event.ranks.item[0].step_ms));
    assert_true(event.ranks.slowest == EVENT_UNKNOWN);
    event_free(&event);
}

static void the_start_carries_the_recipe(void **state)
{
    (void)state;
    struct event event;
    struct event back;
    event_init(&event, EVENT_START);
    event.start.run = xstrdup("a run");
    event.start.recipe_json = xstrdup("{\n  \"method\": {\n    \"rank\": 64\n  }\n}\n");
    event.start.parameters = 123;
    round_trip(&event, &back);
    assert_string_equal(back.start.recipe_json, "{\"method\":{\"rank\":64}}");
    assert_int_equal(back.start.parameters, 123);
    event_free(&back);
    event_free(&event);
}

static void no_text_can_command_a_terminal(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "\x1b]0;title\x07",
        "\x1b[31mred\x1b[0m",
        "\x9b"
        "31m",
        "a\nb\r\tc\x7f",
        "\xc2\x9b"
        "31m",
        "\xe2\x80\xae"
        "backwards",
        "\xff\xfe not UTF-8",
        "\"quoted\\\"",
        "\xf0\x9f\x98\x80",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct event event;
        struct event back;
        event_init(&event, EVENT_SAMPLE);
        event.sample.prompt = xstrdup(texts[i]);
        event.sample.text = xstrdup(texts[i]);
        char *line = line_of(&event);
        for (const unsigned char *c = (const unsigned char *)line; *c; c++) {
            assert_true(*c == '\n' || (*c >= 0x20 && *c != 0x7f));
        }
        assert_null(strstr(line, "\xe2\x80\xae"));
        assert_null(strstr(line, "\xc2\x9b"));
        round_trip(&event, &back);
        event_free(&back);
        event_free(&event);
        free(line);
    }
}

static void refuse(const char *line)
{
    struct event event;
    struct error err = { 0 };
    if (event_read(line, strlen(line), &event, &err) == 0) {
        fail_msg("accepted: %s", line);
    }
    assert_int_not_equal(err.message[0], '\0');
}

static void damaged_lines_are_refused(void **state)
{
    (void)state;
    refuse("");
    refuse("{");
    refuse("[]");
    refuse("{}");
    refuse("{\"event\":\"step\"}");
    refuse("{\"event\":\"party\",\"time\":1}");
    refuse("{\"event\":5,\"time\":1}");
    refuse("{\"event\":\"step\",\"time\":1,\"step\":1.5}");
    refuse("{\"event\":\"step\",\"time\":1,\"loss\":\"high\"}");
    refuse("{\"event\":\"step\",\"time\":1,\"tokens\":1e300}");
    refuse("{\"event\":\"memory\",\"time\":1,\"bytes\":{\"weights\":1}}");
    refuse("{\"event\":\"memory\",\"time\":1,\"bytes\":5}");
    refuse("{\"event\":\"selection\",\"time\":1,\"tensor\":\"a\",\"histogram\":[1,2]}");
    refuse("{\"event\":\"selection\",\"time\":1,\"tensor\":\"a\",\"energy_curve\":[1,2]}");
    refuse("{\"event\":\"plan\",\"time\":1,\"phases\":{\"a name much too long for a phase\":{}}}");
    refuse("{\"event\":\"plan\",\"time\":1,\"largest\":[{\"name\":\"a\"}]}");
    refuse("{\"event\":\"ranks\",\"time\":1,\"ranks\":[]}");
    refuse("{\"event\":\"ranks\",\"time\":1,\"ranks\":[{}]}");
    refuse("{\"event\":\"ranks\",\"time\":1,\"ranks\":[{\"rank\":1}]}");
    refuse("{\"event\":\"ranks\",\"time\":1,\"ranks\":[{\"rank\":0},{\"rank\":0}]}");
    refuse("{\"event\":\"ranks\",\"time\":1,\"ranks\":[{\"rank\":0,\"host\":5}]}");
    refuse("{\"event\":\"ranks\",\"time\":1,\"ranks\":[{\"rank\":0,\"bytes\":0.5}]}");
    refuse("{\"event\":\"step\",\"time\":1,\"time\":2}");
    refuse("{\"event\":\"step\",\"time\":1} {}");
}

static void unknown_keys_are_ignored(void **state)
{
    (void)state;
    struct event event;
    struct error err = { 0 };
    const char *line = "{\"event\":\"step\",\"time\":1,\"step\":4,\"flavour\":[1],\"loss\":null}";
    assert_int_equal(event_read(line, strlen(line), &event, &err), 0);
    assert_int_equal(event.step, 4);
    assert_true(isnan(event.step_done.loss));
    event_free(&event);
}

/* Every prefix, and every line with one byte changed, is either read or refused. */
static void no_damage_crashes(void **state)
{
    (void)state;
    struct event event;
    event_init(&event, EVENT_SELECTION);
    event.selection.tensor = xstrdup("w");
    event.selection.rows = 10;
    event.selection.histogram[0] = 0;
    char *line = line_of(&event);
    size_t size = strlen(line);
    for (size_t cut = 0; cut < size; cut++) {
        struct event back;
        struct error err = { 0 };
        if (event_read(line, cut, &back, &err) == 0) {
            event_free(&back);
        }
        char old = line[cut];
        line[cut] = (char)(old ^ 0x11);
        if (event_read(line, size, &back, &err) == 0) {
            event_free(&back);
        }
        line[cut] = old;
    }
    free(line);
    event_free(&event);
}

/* Numbers of any size and length are read to the same bits by both readers. */
static void both_readers_agree_on_numbers(void **state)
{
    (void)state;
    int fast = 0;
    srand(7);
    for (int i = 0; i < 60000; i++) {
        uint64_t bits = (uint64_t)rand() << 42 ^ (uint64_t)rand() << 21 ^ (uint64_t)rand();
        double value = 0;
        memcpy(&value, &bits, sizeof value);
        if (i % 3) {
            value = (double)(bits % 1000000007) / (double)(1 + rand() % 1000) * (i % 2 ? 1 : 1e-6);
        }
        char number[400];
        char line[500];
        value = isfinite(value) ? value : 0.5;
        switch (i % 6) {
        case 0:
            snprintf(number, sizeof number, "%.17g", value);
            break;
        case 1:
            snprintf(number, sizeof number, "%.9g", value);
            break;
        case 2:
            snprintf(number, sizeof number, "%.3f", value);
            break;
        case 3:
            snprintf(number, sizeof number, "%.0f", value);
            break;
        case 4:
            snprintf(number, sizeof number, "%.12e", value);
            break;
        default:
            snprintf(number, sizeof number, "%.19f", value);
        }
        snprintf(line, sizeof line, "{\"event\":\"step\",\"time\":%s,\"step\":3,\"loss\":2.5}\n",
                 number);
        struct event a;
        struct event b;
        struct error err = { 0 };
        if (event_read_any(line, strlen(line), &b, &err) != 0) {
            assert_false(event_scan(line, strlen(line), &a)); /* hundreds of digits */
        } else if (event_scan(line, strlen(line), &a)) {
            assert_memory_equal(&a.time, &b.time, sizeof a.time);
            assert_true(a.step == 3 && a.step_done.loss == 2.5f);
            fast++;
        }
    }
    assert_true(fast > 30000);
}

/* What the fast reader takes is what the general one reads; the rest it leaves alone. */
static void both_readers_agree_on_damage(void **state)
{
    (void)state;
    struct event event;
    event_init(&event, EVENT_SELECTION);
    event.time = 1753870000.25;
    event.step = 51;
    event.selection.tensor = xstrdup("model.layers.0.mlp.up_proj.weight");
    event.selection.side = xstrdup("out");
    event.selection.rows = 704;
    event.selection.overlap = 0.1;
    event.selection.captured_energy = 1.0 / 3;
    for (int i = 0; i < EVENT_CURVE_POINTS; i++) {
        event.selection.curve[i] = i / 6.0;
    }
    for (int i = 0; i < EVENT_HISTOGRAM_BINS; i++) {
        event.selection.histogram[i] = i;
    }
    char *line = line_of(&event);
    size_t size = strlen(line);
    struct event a;
    struct event b;
    assert_true(event_scan(line, size, &a));
    event_free(&a);
    srand(3);
    int taken = 0;
    for (int round = 0; round < 20000; round++) {
        char *copy = xmalloc(size);
        struct error err = { 0 };
        memcpy(copy, line, size);
        size_t length = round % 4 ? size : (size_t)rand() % size;
        for (int k = rand() % 3; k > 0 && length > 0; k--) {
            copy[(size_t)rand() % length] = "0123456789.,-e\"[]{}: x\\"[rand() % 24];
        }
        char *exact = xmalloc(length + 1); /* a byte read behind it is noticed */
        memcpy(exact, copy, length);
        free(copy);
        copy = xrealloc(exact, length ? length : 1);
        if (event_scan(copy, length, &a)) {
            assert_int_equal(event_read_any(copy, length, &b, &err), 0);
            char *one = line_of(&a);
            char *two = line_of(&b);
            assert_string_equal(one, two);
            free(one);
            free(two);
            event_free(&a);
            event_free(&b);
            taken++;
        }
        free(copy);
    }
    assert_true(taken > 1000);
    free(line);
    event_free(&event);
}

static void take_in_turn(void *context, struct event *event)
{
    int64_t *steps = context;
    assert_int_equal(event->step, *steps + 1);
    assert_true(event->time == 1.5e9 + (double)event->step / 7);
    (*steps)++;
}

/* A file of several slices: no line is lost or torn where two of them meet, a last one without its
 * newline is left alone. */
static void a_long_file_is_read_whole(void **state)
{
    (void)state;
    enum { STEPS = 30000 };
    char folder[] = "/tmp/windrow-events-XXXXXX";
    struct error err = { 0 };
    struct buffer text = { 0 };
    int64_t steps = 0;
    assert_non_null(mkdtemp(folder));
    for (int64_t step = 1; step <= STEPS; step++) {
        struct event event;
        event_init(&event, EVENT_STEP);
        event.step = step;
        event.time = 1.5e9 + (double)step / 7;
        event.step_done.step_ms = 1.0 / (double)step;
        event_write(&event, &text);
    }
    assert_true(text.size > 2 << 20);
    buffer_printf(&text, "{\"event\":\"step\",\"time\":1,\"step\":77}");
    char *path = path_join(folder, "events.jsonl");
    assert_int_equal(file_replace(path, text.text, text.size, &err), 0);
    assert_int_equal(event_file_read(folder, take_in_turn, &steps, &err), 0);
    assert_int_equal(steps, STEPS);
    free(path);
    buffer_free(&text);
    file_remove_tree(folder, &err);
    assert_int_equal(event_file_read(folder, take_in_turn, &steps, &err), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_values_are_absent),
        cmocka_unit_test(a_step_keeps_every_bit),
        cmocka_unit_test(a_skipped_step_has_no_loss),
        cmocka_unit_test(a_plan_comes_back_whole),
        cmocka_unit_test(memory_and_selection_come_back),
        cmocka_unit_test(ranks_come_back),
        cmocka_unit_test(ranks_of_others_are_read),
        cmocka_unit_test(the_start_carries_the_recipe),
        cmocka_unit_test(no_text_can_command_a_terminal),
        cmocka_unit_test(damaged_lines_are_refused),
        cmocka_unit_test(unknown_keys_are_ignored),
        cmocka_unit_test(no_damage_crashes),
        cmocka_unit_test(both_readers_agree_on_numbers),
        cmocka_unit_test(both_readers_agree_on_damage),
        cmocka_unit_test(a_long_file_is_read_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
