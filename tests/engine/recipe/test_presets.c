/* The presets that come with the program: each loads, says its intent, and names what exists. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/base/xalloc.h"
#include "engine/model/config.h"
#include "engine/recipe.h"

static int use_presets(void **state)
{
    (void)state;
    return setenv("WINDROW_PRESETS", SOURCE_ROOT "/presets", 1);
}

static void list_presets(const char *kind, struct preset_list *list)
{
    struct error err = { 0 };
    assert_int_equal(preset_list_read(kind, list, &err), 0);
    assert_true(list->count > 0);
    for (size_t i = 0; i < list->count; i++) {
        size_t size = strlen(list->item[i].intent);
        assert_true(size > 20);
        assert_int_equal(list->item[i].intent[size - 1], '.');
    }
}

static void find(struct recipe *recipe, const char *name)
{
    struct error err = { 0 };
    recipe_init(recipe);
    if (recipe_find(recipe, name, &err) != 0) {
        fail_msg("%s: %s (%s)", name, err.message, err.hint);
    }
}

static void check(struct recipe *recipe)
{
    struct error err = { 0 };
    assert_int_equal(recipe_set(recipe, "device=cpu", &err), 0);
    if (recipe_check(recipe, &err) != 0) {
        fail_msg("%s: %s (%s)", recipe->name, err.message, err.hint);
    }
}

static void methods_fit_any_model(void **state)
{
    (void)state;
    struct preset_list list;
    list_presets("methods", &list);
    for (size_t i = 0; i < list.count; i++) {
        struct recipe recipe;
        struct error err = { 0 };
        find(&recipe, list.item[i].name);
        assert_string_equal(recipe.name, list.item[i].name);
        assert_string_equal(recipe.model_path, "");
        assert_string_equal(recipe.model_preset, "");
        assert_string_equal(recipe.data_train, "");
        assert_int_equal(recipe_set(&recipe, "model.preset=llama-micro", &err), 0);
        check(&recipe);
        recipe_free(&recipe);
    }
    preset_list_free(&list);
}

static void recipes_name_files_that_exist(void **state)
{
    (void)state;
    struct preset_list list;
    list_presets("recipes", &list);
    for (size_t i = 0; i < list.count; i++) {
        struct recipe recipe;
        find(&recipe, list.item[i].name);
        check(&recipe);
        assert_true(file_exists(recipe.data_train));
        if (recipe.model_path[0]) {
            assert_true(file_is_directory(recipe.model_path));
        } else {
            assert_true(recipe.model_preset[0] != '\0');
            assert_true(file_exists(recipe.tokenizer_path));
        }
        recipe_free(&recipe);
    }
    preset_list_free(&list);
}

/* Each is a recipe that lacks only its data. */
static void cards_name_a_model_and_a_limit(void **state)
{
    (void)state;
    struct preset_list list;
    list_presets("cards", &list);
    assert_true(list.count >= 16);
    for (size_t i = 0; i < list.count; i++) {
        struct recipe recipe;
        find(&recipe, list.item[i].name);
        assert_string_equal(recipe.name, list.item[i].name);
        assert_true(recipe.model_preset[0] != '\0');
        assert_string_equal(recipe.data_train, "");
        assert_true(recipe.memory_limit > 0);
        check(&recipe);
        recipe_free(&recipe);
    }
    preset_list_free(&list);
}

static void models_have_their_published_sizes(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int64_t parameters;
    } known[] = {
        { "llama-7b", 6738415616 },
        { "llama-13b", 13015864320 },
        { "llama-33b", 32528943616 },
    };
    struct preset_list list;
    list_presets("models", &list);
    size_t seen = 0;
    for (size_t i = 0; i < list.count; i++) {
        struct model_config config;
        struct error err = { 0 };
        if (config_read(list.item[i].path, &config, &err) != 0) {
            fail_msg("%s: %s", list.item[i].name, err.message);
        }
        for (size_t k = 0; k < sizeof known / sizeof known[0]; k++) {
            if (strcmp(list.item[i].name, known[k].name) == 0) {
                assert_int_equal(model_config_parameters(&config), known[k].parameters);
                seen++;
            }
        }
    }
    assert_int_equal(seen, sizeof known / sizeof known[0]);
    preset_list_free(&list);
}

/* The default's text as the data room will read it: whole documents of a story's length. */
static void the_stories_are_whole(void **state)
{
    (void)state;
    static const char separator[] = "\n<|endoftext|>\n";
    struct error err = { 0 };
    size_t size = 0;
    char *text = file_read_all(SOURCE_ROOT "/presets/data/stories.txt", 4 << 20, &size, &err);
    assert_non_null(text);
    size_t stories = 0;
    for (const char *at = text; *at;) {
        const char *end = strstr(at, separator);
        size_t length = end ? (size_t)(end - at) : strlen(at);
        assert_in_range(length, 300, 900);
        stories++;
        at = end ? end + strlen(separator) : at + length;
    }
    assert_true(stories > 3000);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(methods_fit_any_model),
        cmocka_unit_test(recipes_name_files_that_exist),
        cmocka_unit_test(cards_name_a_model_and_a_limit),
        cmocka_unit_test(models_have_their_published_sizes),
        cmocka_unit_test(the_stories_are_whole),
    };
    return cmocka_run_group_tests(tests, use_presets, NULL);
}
