/* The command line itself: refusals name what is nearest, help knows every command. */
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
    REFUSES(2, "--gpus 2", "train", "stories", "--gpus", "2");
    REFUSES(2, "--gpus", "plan", "stories", "--gpus", "8", "--link", "nvlink");
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
        cmocka_unit_test(train_wants_either_a_recipe_or_a_run),
        cmocka_unit_test(words_without_data_stay_off_stdout),
        cmocka_unit_test(every_command_has_help),
        cmocka_unit_test(help_recipe_is_the_table_of_keys),
        cmocka_unit_test(color_is_a_choice),
    };
    return cmocka_run_group_tests(tests, NULL, leave);
}
