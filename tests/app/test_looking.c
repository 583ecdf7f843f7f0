/* plan, doctor and the lists: data on stdout that adds up. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "app/program.h"
#include "engine/base/json.h"

static double number(const cJSON *object, const char *key)
{
    const cJSON *value = json_get(object, key);
    if (!cJSON_IsNumber(value)) {
        print_error("no number %s\n", key);
    }
    assert_true(cJSON_IsNumber(value));
    return value->valuedouble;
}

static double sum_of(const cJSON *object)
{
    const cJSON *item;
    double sum = 0;
    int count = 0;
    cJSON_ArrayForEach (item, object) {
        sum += item->valuedouble;
        count++;
    }
    assert_int_equal(count, 5);
    return sum;
}

static void check_plan(const cJSON *plan)
{
    const cJSON *phase;
    double total = number(plan, "total_bytes");
    assert_true(total > 0);
    assert_true(sum_of(json_get(plan, "planned_bytes")) == total);
    assert_true(number(plan, "peak_bytes") <= total);
    assert_true(number(plan, "step_flops") > 0);
    assert_true(number(plan, "checkpoint_bytes") > 0);
    assert_true(number(plan, "trained_parameters") <= number(plan, "parameters"));
    cJSON_ArrayForEach (phase, json_get(plan, "phases")) {
        assert_true(sum_of(phase) <= total);
    }
    assert_true(cJSON_GetArraySize(json_get(plan, "phases")) >= 3);
    assert_true(cJSON_GetArraySize(json_get(plan, "largest")) > 0);
}

static void every_recipe_that_comes_along_can_be_planned(void **state)
{
    (void)state;
    cJSON *presets = RUN_JSON(0, "presets", "--json");
    const cJSON *preset;
    int planned = 0;
    cJSON_ArrayForEach (preset, presets) {
        const char *name = json_get(preset, "name")->valuestring;
        assert_true(strlen(json_get(preset, "intent")->valuestring) > 0);
        if (strcmp(json_get(preset, "kind")->valuestring, "recipe") != 0) {
            continue;
        }
        cJSON *plan = RUN_JSON(0, "plan", name, "--json", "--limit", "1000GiB");
        check_plan(plan);
        assert_true(cJSON_IsTrue(json_get(plan, "fits")));
        cJSON_Delete(plan);
        planned++;
    }
    assert_true(planned >= 2);
    cJSON_Delete(presets);
}

static void a_plan_that_does_not_fit_says_what_would(void **state)
{
    (void)state;
    cJSON *plan = RUN_JSON(0, "plan", "stories", "--json");
    double total = number(plan, "total_bytes");
    cJSON_Delete(plan);
    char limit[64];
    snprintf(limit, sizeof limit, "%.0f", total - 1);
    plan = RUN_JSON(4, "plan", "stories", "--json", "--limit", limit);
    assert_false(cJSON_IsTrue(json_get(plan, "fits")));
    assert_true(number(plan, "limit_bytes") == total - 1);
    const cJSON *change = cJSON_GetArrayItem(json_get(plan, "changes"), 0);
    assert_non_null(change);
    assert_true(number(change, "total_bytes") <= total - 1);
    const cJSON *fastest = json_get(plan, "fastest");
    assert_true(cJSON_IsTrue(json_get(fastest, "found")));
    assert_true(number(fastest, "total_bytes") <= total - 1);
    assert_true(number(fastest, "predicted_step_seconds") > 0);
    const cJSON *trade;
    double factor = 0;
    assert_true(cJSON_GetArraySize(json_get(plan, "trade")) >= 4);
    cJSON_ArrayForEach (trade, json_get(plan, "trade")) {
        assert_true(number(trade, "total_bytes") < total);
        assert_true(number(trade, "time_factor") >= factor);
        factor = number(trade, "time_factor");
    }

    /* The change keeps its word: planned with it, it takes what was said and fits. */
    const char *words[16] = { "plan", "stories", "--json", "--limit", limit };
    char *assignments = strdup(json_get(change, "assignments")->valuestring);
    int count = 5;
    char *rest = NULL;
    for (char *word = strtok_r(assignments, " ", &rest); word != NULL && count < 15;
         word = strtok_r(NULL, " ", &rest)) {
        words[count++] = word;
    }
    cJSON *changed = program_json(0, words);
    assert_true(number(changed, "total_bytes") == number(change, "total_bytes"));
    cJSON_Delete(changed);
    cJSON_Delete(plan);
    free(assignments);
    struct result text = RUN("plan", "stories", "--limit", limit);
    assert_int_equal(text.code, 4);
    assert_non_null(strstr(text.output, "does not fit"));
    assert_non_null(strstr(text.output, "EACH CHANGE ALONE"));
    assert_non_null(strstr(text.output, "the fastest found that fits"));
    result_free(&text);
    REFUSES(2, "--limit", "plan", "stories", "--limit", "lots");
}

static void a_higher_rank_takes_more(void **state)
{
    (void)state;
    cJSON *low = RUN_JSON(0, "plan", "stories", "--json", "method.name=grass", "method.rank=8");
    cJSON *high = RUN_JSON(0, "plan", "stories", "--json", "method.name=grass", "method.rank=64");
    cJSON *full = RUN_JSON(0, "plan", "stories", "--json", "method.name=full");
    assert_true(number(low, "total_bytes") < number(high, "total_bytes"));
    assert_true(number(high, "total_bytes") < number(full, "total_bytes"));
    assert_true(number(low, "step_flops") < number(full, "step_flops"));
    cJSON_Delete(low);
    cJSON_Delete(high);
    cJSON_Delete(full);
}

static void doctor_finds_what_the_program_runs_on(void **state)
{
    (void)state;
    cJSON *doctor = RUN_JSON(0, "doctor", "--json");
    const cJSON *backends = json_get(doctor, "backends");
    const cJSON *cuda = json_get(backends, "cuda");
    assert_true(cJSON_IsBool(json_get(cuda, "compiled")));
    assert_true(cJSON_IsNumber(json_get(cuda, "devices")));
    if (cJSON_IsFalse(json_get(cuda, "compiled"))) {
        assert_true(number(cuda, "devices") == 0);
    }
    assert_true(number(json_get(backends, "cpu"), "devices") == 1);
    const cJSON *library;
    int needed = 0;
    cJSON_ArrayForEach (library, json_get(doctor, "libraries")) {
        assert_true(cJSON_IsBool(json_get(library, "found")));
        if (cJSON_IsTrue(json_get(library, "needed"))) {
            assert_true(cJSON_IsTrue(json_get(library, "found")));
            needed++;
        }
    }
    assert_true(needed >= 5);
    cJSON_Delete(doctor);
}

static void the_lists_are_not_empty(void **state)
{
    (void)state;
    cJSON *models = RUN_JSON(0, "models", "--json");
    cJSON *data = RUN_JSON(0, "datasets", "--json");
    cJSON *runs = RUN_JSON(0, "runs", "--json");
    assert_true(cJSON_GetArraySize(models) >= 3);
    const cJSON *model;
    cJSON_ArrayForEach (model, models) {
        assert_true(number(model, "parameters") > 1000);
    }
    assert_true(cJSON_GetArraySize(data) >= 2);
    assert_int_equal(cJSON_GetArraySize(runs), 0);
    cJSON_Delete(models);
    cJSON_Delete(data);
    cJSON_Delete(runs);
}

static void inspect_tells_trained_from_masked(void **state)
{
    (void)state;
    char *path = program_file(
        "records.jsonl",
        "{\"instruction\":\"Name a colour.\",\"input\":\"\",\"output\":\"Blue is a colour.\"}\n"
        "{\"instruction\":\"Name an animal.\",\"input\":\"\",\"output\":\"A cow is an animal.\"}\n"
        "{\"instruction\":\"Name a river.\",\"input\":\"\",\"output\":\"The Rhine is a "
        "river.\"}\n");
    cJSON *found = RUN_JSON(0, "inspect", path, "--json", "data.sequence_length=64");
    assert_string_equal(json_get(found, "format")->valuestring, "alpaca");
    assert_true(number(found, "records") == 3);
    assert_true(number(found, "trained_tokens") > 0);
    assert_true(number(found, "trained_tokens") < number(found, "tokens"));
    cJSON_Delete(found);
    struct result text = RUN("inspect", path, "data.sequence_length=64");
    assert_int_equal(text.code, 0);
    /* The answer stands between brackets, the question does not. */
    const char *answer = strstr(text.output, "Blue is a colour.");
    assert_non_null(answer);
    while (answer > text.output && *answer != '[' && *answer != '\n') {
        answer--;
    }
    assert_true(*answer == '[');
    assert_null(strstr(text.output, "[Name a colour."));
    result_free(&text);
    free(path);
    REFUSES(3, "nothing.txt", "inspect", "/nonexistent/nothing.txt");
}

static int leave(void **state)
{
    (void)state;
    program_sandbox_remove();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_recipe_that_comes_along_can_be_planned),
        cmocka_unit_test(a_plan_that_does_not_fit_says_what_would),
        cmocka_unit_test(a_higher_rank_takes_more),
        cmocka_unit_test(doctor_finds_what_the_program_runs_on),
        cmocka_unit_test(the_lists_are_not_empty),
        cmocka_unit_test(inspect_tells_trained_from_masked),
    };
    return cmocka_run_group_tests(tests, NULL, leave);
}
