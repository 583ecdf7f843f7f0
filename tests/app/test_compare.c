/* windrow compare: methods trained side by side, and finished runs; windrow snapshot of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "app/program.h"
#include "app/tiny.h"
#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/base/xalloc.h"

static double number(const cJSON *object, const char *key)
{
    const cJSON *value = json_get(object, key);
    assert_true(cJSON_IsNumber(value));
    return value->valuedouble;
}

static const cJSON *run_at(const cJSON *root, int index)
{
    const cJSON *run = cJSON_GetArrayItem(json_get(root, "runs"), index);
    assert_non_null(run);
    return run;
}

/* The last loss that the run's own events tell. */
static double last_loss(const char *folder)
{
    char *path = path_join(folder, "events.jsonl");
    struct error err = { 0 };
    size_t size = 0;
    char *text = file_read_all(path, 1 << 24, &size, &err);
    assert_non_null(text);
    const char *found = NULL;
    for (const char *at = text; (at = strstr(at, "{\"event\":\"step\"")) != NULL; at++) {
        found = at;
    }
    assert_non_null(found);
    double loss = strtod(strstr(found, "\"loss\":") + 7, NULL);
    free(text);
    free(path);
    return loss;
}

static void methods_train_side_by_side(void **state)
{
    (void)state;
    char *recipe = tiny_recipe(8);
    char *to = path_join(program_sandbox(), "contest");
    cJSON *root = RUN_JSON(0, "compare", recipe, "--methods", "full,grass:method.rank=8",
                           "train.eval_every=8", "--to", to, "--json");
    assert_int_equal(cJSON_GetArraySize(json_get(root, "runs")), 2);
    const cJSON *full = run_at(root, 0);
    const cJSON *grass = run_at(root, 1);
    assert_string_equal(json_get(full, "run")->valuestring, "full");
    assert_string_equal(json_get(grass, "run")->valuestring, "grass:method.rank=8");
    assert_int_equal((int)number(full, "steps"), 8);
    assert_int_equal((int)number(grass, "steps"), 8);

    /* The same start on the same data. */
    const cJSON *first = cJSON_GetArrayItem(json_get(full, "curve"), 0);
    const cJSON *other = cJSON_GetArrayItem(json_get(grass, "curve"), 0);
    assert_true(number(first, "loss") == number(other, "loss"));
    assert_true(number(first, "tokens") == number(other, "tokens"));
    assert_true(number(full, "weights_bytes") == number(grass, "weights_bytes"));
    assert_true(number(full, "optimizer_bytes") > number(grass, "optimizer_bytes"));
    assert_true(number(full, "trained_parameters") >= number(grass, "trained_parameters"));

    /* Eight equal steps: the last tenth of the tokens is the last step. */
    char *folder = path_join(to, "full");
    assert_true((float)number(full, "loss_equal_tokens") == (float)last_loss(folder));
    const cJSON *settings = json_get(grass, "settings");
    assert_string_equal(json_get(settings, "method.name")->valuestring, "grass");
    assert_string_equal(json_get(settings, "method.rank")->valuestring, "8");
    cJSON_Delete(root);
    free(folder);
    free(to);
    free(recipe);
}

static char *contest_folder(const char *name)
{
    char *to = path_join(program_sandbox(), "contest");
    char *path = path_join(to, name);
    free(to);
    return path;
}

static void finished_runs_are_not_trained_again(void **state)
{
    (void)state;
    char *recipe = tiny_recipe(8);
    char *to = path_join(program_sandbox(), "contest");
    struct result result = RUN("compare", recipe, "--methods", "full,grass:method.rank=8",
                               "train.eval_every=8", "--to", to);
    assert_int_equal(result.code, 0);
    assert_non_null(strstr(result.error, "full: finished before"));
    assert_null(strstr(result.error, "loss"));
    assert_non_null(strstr(result.output, "loss over tokens"));
    assert_non_null(strstr(result.output, "against a full"));
    assert_non_null(strstr(result.output, "settings that differ"));
    result_free(&result);
    /* Another recipe in the same folder is refused, and what lies there stays. */
    result = RUN("compare", recipe, "--methods", "full", "train.eval_every=8", "batch.micro=2",
                 "--to", to);
    assert_int_equal(result.code, 2);
    assert_non_null(strstr(result.error, "batch.micro is 4 there, 2 here"));
    result_free(&result);
    free(to);
    free(recipe);
}

static void runs_that_exist_compare_in_every_format(void **state)
{
    (void)state;
    char *full = contest_folder("full");
    char *grass = contest_folder("grass-method.rank-8");
    struct result result = RUN("compare", full, grass, "--format", "csv");
    assert_int_equal(result.code, 0);
    assert_true(strncmp(result.output, "run,loss_equal_tokens,", 22) == 0);
    assert_non_null(strstr(result.output, "\n\"full\","));
    result_free(&result);
    result = RUN("compare", full, grass, "--format", "markdown");
    assert_non_null(strstr(result.output, "| full |"));
    result_free(&result);
    result = RUN("compare", full, grass, "--by", "time");
    assert_non_null(strstr(result.output, "loss over seconds of training"));
    result_free(&result);
    free(full);
    free(grass);
}

static void a_screen_is_written_for_documents(void **state)
{
    (void)state;
    char *grass = contest_folder("grass-method.rank-8");
    struct result result =
        RUN("snapshot", grass, "--screen", "layers", "--size", "100x24", "--glyphs", "ascii");
    assert_int_equal(result.code, 0);
    assert_non_null(strstr(result.output, "captured energy"));
    assert_non_null(strstr(result.output, "DONE 8/8"));
    int lines = 0;
    for (const char *c = result.output; *c != '\0'; c++) {
        assert_true(*c == '\n' || (*c >= ' ' && *c < 127));
        lines += *c == '\n' ? 1 : 0;
    }
    assert_int_equal(lines, 24);
    result_free(&result);
    result = RUN("snapshot", grass, "--step", "5", "--size", "80x24");
    assert_non_null(strstr(result.output, "5/8"));
    result_free(&result);
    result = RUN("snapshot", grass, "--format", "svg");
    assert_true(strncmp(result.output, "<svg ", 5) == 0);
    assert_non_null(strstr(result.output, "</svg>"));
    result_free(&result);
    REFUSES(2, "--size wants columns x lines", "snapshot", grass, "--size", "big");
    REFUSES(2, "--screen must be one of", "snapshot", grass, "--screen", "sky");
    free(grass);
}

static void wrong_words_are_refused(void **state)
{
    (void)state;
    char *recipe = tiny_recipe(8);
    char *full = contest_folder("full");
    REFUSES(2, "no method preset \"nothing\"", "compare", recipe, "--methods", "full,nothing");
    REFUSES(2, "named twice", "compare", recipe, "--methods", "full,full");
    REFUSES(2, "method.rank", "compare", recipe, "--methods", "grass:method.rank=none");
    REFUSES(2, "wants one recipe", "compare", recipe, recipe, "--methods", "full");
    REFUSES(2, "finished runs are compared as they are", "compare", full, full, "train.steps=3");
    REFUSES(2, "--format must be one of", "compare", full, full, "--format", "pdf");
    REFUSES(2, "--by must be one of", "compare", full, full, "--by", "weight");
    free(full);
    free(recipe);
}

static int clean(void **state)
{
    (void)state;
    program_sandbox_remove();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(methods_train_side_by_side),
        cmocka_unit_test(finished_runs_are_not_trained_again),
        cmocka_unit_test(runs_that_exist_compare_in_every_format),
        cmocka_unit_test(a_screen_is_written_for_documents),
        cmocka_unit_test(wrong_words_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, clean);
}
