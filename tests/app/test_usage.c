/* The command line itself: refusals name what is nearest, help knows every command. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "app/program.h"
#include "engine/base/json.h"

static void version_is_on_stdout(void **state)
{
    (void)state;
    struct result result = RUN("--version");
    assert_int_equal(result.code, 0);
    assert_string_equal(result.output, "windrow " WINDROW_VERSION "\n");
    assert_string_equal(result.error, "");
    result_free(&result);
}

static void unknown_words_name_the_nearest(void **state)
{
    (void)state;
    REFUSES(2, "Did you mean windrow train?", "trian");
    REFUSES(2, "windrow help", "xyzzyplugh");
    REFUSES(2, "there is no option \"--trian\"", "--trian");
    REFUSES(2, "Did you mean --resume?", "train", "--resum", "x");
    REFUSES(2, "Did you mean --json?", "doctor", "--jsn");
    REFUSES(2, "has no option -x", "doctor", "-x");
    REFUSES(2, "--json takes no value", "doctor", "--json=yes");
    REFUSES(2, "--limit needs a value", "plan", "stories", "--limit");
    REFUSES(2, "one word too many", "show", "a", "b");
    REFUSES(2, "windrow show RUN", "show");
    REFUSES(2, "allowed are auto, always and never", "doctor", "--color=blue");
    REFUSES(2, "allowed are auto, always and never", "--color", "blue", "doctor");
    REFUSES(2, "Did you mean windrow help train?", "help", "trian");
    REFUSES(2, "whole numbers", "generate", "x", "--prompt", "", "--max-tokens", "many");
    REFUSES(2, "numbers from 0", "generate", "x", "--prompt", "", "--temperature=-1");
    REFUSES(2, "needs --prompt", "generate", "x");
    REFUSES(2, "needs --to", "export", "x");
}

static void what_is_not_built_is_refused_by_name(void **state)
{
    (void)state;
    REFUSES(2, "windrow fork needs more", "fork");
}

static void plans_of_several_gpus_are_refused_in_sentences(void **state)
{
    (void)state;
    REFUSES(2, "add --gpus N", "plan", "stories", "--link", "nvlink");
    REFUSES(2, "nvlink, pcie5, pcie4 and bytes a second", "plan", "stories", "--gpus", "8",
            "--link", "warp");
    REFUSES(2, "25GB,20us", "plan", "stories", "--gpus", "8", "--link", "25GB,20");
    REFUSES(2, "whole numbers from 1 to 1024", "train", "stories", "--gpus", "0");
    REFUSES(2, "whole numbers from 1 to 1024", "plan", "stories", "--gpus", "0");
    REFUSES(2, "whole numbers from 1 to 1024", "plan", "stories", "--gpus", "2000");
    REFUSES(2, "--gpus plans for several", "plan", "stories", "--gpus", "2", "--measure");
    REFUSES(2, "add --limit", "plan", "stories", "--host", "1GiB");
    REFUSES(2, "--host", "plan", "stories", "--limit", "1GiB", "--host", "much");
}

static double number_at(const cJSON *item, const char *key)
{
    return json_get(item, key)->valuedouble;
}

/* What is printed fits together, and half the bytes a second are twice the seconds. */
static void several_gpus_are_planned(void **state)
{
    (void)state;
    cJSON *fast = RUN_JSON(0, "plan", "stories", "--gpus", "4", "--link", "2GB", "--json");
    cJSON *slow = RUN_JSON(0, "plan", "stories", "--gpus", "4", "--link=1e9,0us", "--json");
    cJSON *one = RUN_JSON(0, "plan", "stories", "--gpus=1", "--json");
    cJSON *none = RUN_JSON(0, "plan", "stories", "--json");
    const cJSON *a = json_get(fast, "gpus");
    const cJSON *b = json_get(slow, "gpus");
    const cJSON *grass = json_get(a, "recipe");
    const cJSON *full = json_get(a, "full");
    assert_null(json_get(none, "gpus"));
    assert_true(number_at(a, "count") == 4.0);
    assert_true(number_at(full, "step_payload_bytes") > number_at(grass, "step_payload_bytes"));
    assert_true(number_at(grass, "refresh_payload_bytes") > number_at(grass, "step_payload_bytes"));
    assert_true(number_at(json_get(b, "full"), "exchange_seconds") ==
                2.0 * number_at(full, "exchange_seconds"));
    assert_true(number_at(full, "step_seconds") == number_at(full, "compute_seconds") +
                                                       number_at(full, "exchange_seconds") -
                                                       number_at(full, "hidden_seconds"));
    assert_true(number_at(full, "backward_seconds") < number_at(full, "compute_seconds"));
    assert_true(number_at(grass, "hidden_seconds") == 0.0);
    assert_true(number_at(a, "speed_ratio") ==
                number_at(full, "step_seconds") / number_at(grass, "step_seconds"));
    assert_true(number_at(json_get(json_get(one, "gpus"), "full"), "exchange_seconds") == 0.0);
    cJSON *half = RUN_JSON(0, "plan", "stories", "--gpus", "4", "--json", "precision.exchange=bf16",
                           "precision.weights=fp32");
    cJSON *whole =
        RUN_JSON(0, "plan", "stories", "--gpus", "4", "--json", "precision.weights=fp32");
    const cJSON *in_half = json_get(half, "gpus");
    const cJSON *in_whole = json_get(whole, "gpus");
    assert_string_equal(json_get(in_half, "exchange")->valuestring, "bf16");
    assert_string_equal(json_get(in_whole, "exchange")->valuestring, "gradient");
    double ratio = number_at(json_get(in_half, "recipe"), "step_payload_bytes") /
                   number_at(json_get(in_whole, "recipe"), "step_payload_bytes");
    assert_true(fabs(ratio - 0.5) < 1e-3);
    cJSON_Delete(half);
    cJSON_Delete(whole);
    struct result text = RUN("plan", "stories", "--gpus", "4", "precision.exchange=bf16");
    assert_int_equal(text.code, 0);
    assert_non_null(strstr(text.output, "4 GPUS"));
    assert_non_null(strstr(text.output, "gradients are exchanged in bf16"));
    assert_non_null(strstr(text.output, "PCIe 4 x16 without peer access"));
    assert_non_null(strstr(text.output, "times the tokens/s of full training"));
    result_free(&text);
    cJSON_Delete(fast);
    cJSON_Delete(slow);
    cJSON_Delete(one);
    cJSON_Delete(none);
}

/* --limit with --gpus looks for what fits each, with the time of exchanging in every prediction. */
static void several_gpus_are_searched(void **state)
{
    (void)state;
    cJSON *near = RUN_JSON(0, "plan", "stories", "--gpus", "4", "--link", "nvlink", "--limit",
                           "1GiB", "--json");
    cJSON *far = RUN_JSON(0, "plan", "stories", "--gpus=4", "--link=1MB", "--limit=1GiB", "--json");
    cJSON *small = RUN_JSON(4, "plan", "stories", "--gpus=4", "--limit=24MiB", "--json");
    const cJSON *recipe = json_get(json_get(far, "gpus"), "recipe");
    assert_true(number_at(far, "predicted_step_seconds") == number_at(recipe, "step_seconds"));
    assert_true(number_at(far, "predicted_step_seconds") >
                10.0 * number_at(near, "predicted_step_seconds"));
    assert_true(number_at(json_get(far, "fastest"), "predicted_tokens_per_second") <
                number_at(json_get(near, "fastest"), "predicted_tokens_per_second"));
    assert_true(number_at(small, "total_bytes") > number_at(small, "limit_bytes"));
    /* Of devices that are not here: no less than was said, whatever this machine has. */
    cJSON *large = RUN_JSON(0, "plan", "stories", "--limit=4096GiB", "--json");
    assert_true(number_at(large, "limit_bytes") == 4096.0 * 0x1p30);
    cJSON_Delete(large);
    const cJSON *change = json_get(small, "changes")->child;
    assert_non_null(change);
    assert_true(number_at(change, "total_bytes") <= number_at(small, "limit_bytes"));
    struct result text = RUN("plan", "stories", "--gpus", "4", "--limit", "1GiB", "--host", "1GiB");
    assert_int_equal(text.code, 0);
    assert_non_null(strstr(text.output, "on each of 4 GPUs, exchanging included"));
    assert_non_null(strstr(text.output, "activation.offload"));
    result_free(&text);
    cJSON_Delete(near);
    cJSON_Delete(far);
    cJSON_Delete(small);
}

static void train_wants_either_a_recipe_or_a_run(void **state)
{
    (void)state;
    REFUSES(2, "needs a recipe", "train");
    REFUSES(2, "--resume", "train", "stories", "--resume", "x");
    REFUSES(2, "--resume RUN", "train", "stories", "--accept-change", "train.seed");
    REFUSES(2, "--run-dir", "train", "--resume", "x", "--run-dir", "y");
    REFUSES(2, "empty name", "train", "x", "--run-dir", "");
    REFUSES(2, "empty name", "fork", "x", "--run-dir", "");
    REFUSES(2, "stories", "train", "storeis");
    REFUSES(2, "method.rank", "train", "stories", "method.rnak=3");
    REFUSES(2, "method.rank", "train", "stories", "method.rank=0");
    REFUSES(2, "galore", "train", "stories", "method.name=galor");
}

static void words_without_data_stay_off_stdout(void **state)
{
    (void)state;
    REFUSES(2, "no-such-run", "show", "no-such-run");
    REFUSES(2, "no-such-run", "stop", "no-such-run");
    REFUSES(2, "cannot change while a run trains", "set", "no-such-run", "batch.micro=4");
    REFUSES(2, "needs a setting", "set", "no-such-run");
    REFUSES(2, "needs a terminal", "attach");
    REFUSES(2, "needs a terminal", "train", "stories", "--attach");
    REFUSES(2, "--older DAYS", "prune");
    REFUSES(2, "--older DAYS", "prune", "a-run", "--older", "3");
}

static void every_command_has_help(void **state)
{
    (void)state;
    cJSON *list = RUN_JSON(0, "help", "--json");
    const cJSON *item;
    int count = 0;
    cJSON_ArrayForEach (item, list) {
        const char *name = json_get(item, "name")->valuestring;
        struct result help = RUN("help", name);
        struct result option = RUN(name, "--help");
        assert_int_equal(help.code, 0);
        assert_int_equal(option.code, 0);
        assert_non_null(strstr(help.output, name));
        assert_non_null(strstr(help.output, json_get(item, "summary")->valuestring));
        assert_string_equal(help.output, option.output);
        assert_string_equal(help.error, "");
        result_free(&help);
        result_free(&option);
        count++;
    }
    assert_true(count > 20);
    cJSON_Delete(list);
}

static void help_recipe_is_the_table_of_keys(void **state)
{
    (void)state;
    cJSON *list = RUN_JSON(0, "help", "recipe", "--json");
    struct result text = RUN("help", "recipe");
    const cJSON *item;
    int live = 0;
    cJSON_ArrayForEach (item, list) {
        assert_non_null(strstr(text.output, json_get(item, "key")->valuestring));
        assert_true(cJSON_IsString(json_get(item, "range")));
        live += cJSON_IsTrue(json_get(item, "live")) ? 1 : 0;
    }
    assert_int_equal(text.code, 0);
    assert_true(cJSON_GetArraySize(list) > 50);
    assert_true(live >= 8);
    result_free(&text);
    cJSON_Delete(list);
}

static void color_is_a_choice(void **state)
{
    (void)state;
    struct result always = RUN("presets", "--color=always");
    struct result never = RUN("--color=never", "presets");
    setenv("NO_COLOR", "1", 1);
    struct result environment = RUN("presets");
    unsetenv("NO_COLOR");
    assert_non_null(strstr(always.output, "\033[1m"));
    assert_null(strchr(never.output, '\033'));
    assert_string_equal(environment.output, never.output);
    result_free(&always);
    result_free(&never);
    result_free(&environment);
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
        cmocka_unit_test(version_is_on_stdout),
        cmocka_unit_test(unknown_words_name_the_nearest),
        cmocka_unit_test(what_is_not_built_is_refused_by_name),
        cmocka_unit_test(plans_of_several_gpus_are_refused_in_sentences),
        cmocka_unit_test(several_gpus_are_planned),
        cmocka_unit_test(several_gpus_are_searched),
        cmocka_unit_test(train_wants_either_a_recipe_or_a_run),
        cmocka_unit_test(words_without_data_stay_off_stdout),
        cmocka_unit_test(every_command_has_help),
        cmocka_unit_test(help_recipe_is_the_table_of_keys),
        cmocka_unit_test(color_is_a_choice),
    };
    return cmocka_run_group_tests(tests, NULL, leave);
}
