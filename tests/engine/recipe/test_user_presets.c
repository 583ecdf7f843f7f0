/* Presets of the user's own making: saved, found, listed; and recipes told as differences. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/file.h"
#include "engine/base/xalloc.h"
#include "engine/recipe.h"

static char home[] = "/tmp/windrow-presets-XXXXXX";

static int open_home(void **state)
{
    (void)state;
    return mkdtemp(home) == NULL || setenv("XDG_CONFIG_HOME", home, 1) != 0 ||
           setenv("WINDROW_PRESETS", SOURCE_ROOT "/presets", 1) != 0;
}

static int close_home(void **state)
{
    (void)state;
    struct error err = { 0 };
    return file_remove_tree(home, &err);
}

static void find(struct recipe *recipe, const char *name)
{
    struct error err = { 0 };
    recipe_init(recipe);
    if (recipe_find(recipe, name, &err) != 0) {
        fail_msg("%s: %s (%s)", name, err.message, err.hint);
    }
}

static void set(struct recipe *recipe, const char *word)
{
    struct error err = { 0 };
    if (recipe_set(recipe, word, &err) != 0) {
        fail_msg("%s: %s", word, err.message);
    }
}

/* Every setting is the same; the name and the intent may differ. */
static void assert_same(const struct recipe *a, const struct recipe *b)
{
    for (const struct field *field = recipe_fields; field->key; field++) {
        char *left = field_text(field, a);
        char *right = field_text(field, b);
        if (strcmp(left, right) != 0) {
            fail_msg("%s: %s and %s", field->key, left, right);
        }
        free(left);
        free(right);
    }
}

static void test_saved(void **state)
{
    (void)state;
    struct error err = { 0 };
    struct recipe mine;
    struct recipe again;
    find(&mine, "stories");
    set(&mine, "method.rank=17");
    set(&mine, "train.epochs=2.5");
    set(&mine, "train.sample_prompt=it's a \"test\" \xe2\x82\xac");
    char *path = preset_save(&mine, "evening", "What I try in the evening.", &err);
    assert_non_null(path);
    assert_true(strncmp(path, home, strlen(home)) == 0);
    find(&again, "evening");
    assert_same(&mine, &again);
    assert_string_equal(again.name, "evening");
    assert_string_equal(again.intent, "What I try in the evening.");
    size_t size = 0;
    char *text = file_read_all(path, 1 << 16, &size, &err);
    assert_non_null(text);
    assert_null(strstr(text, "\"beta1\"")); /* defaults are left out */
    struct preset_list list = { 0 };
    assert_int_equal(preset_list_read("recipes", &list, &err), 0);
    int own = 0;
    for (size_t i = 0; i < list.count; i++) {
        own += list.item[i].own;
        assert_true(list.item[i].own == (strcmp(list.item[i].name, "evening") == 0));
    }
    assert_int_equal(own, 1);
    preset_list_free(&list);
    free(text);
    free(path);
    recipe_free(&mine);
    recipe_free(&again);
}

static void test_names(void **state)
{
    (void)state;
    static const char *const bad[] = { "",      ".hidden",   "a/b",     "../up",
                                       "-dash", "two words", "stories", "grass" };
    struct recipe recipe;
    recipe_init(&recipe);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct error err = { 0 };
        assert_null(preset_save(&recipe, bad[i], "", &err));
        assert_int_equal(err.code, ERROR_USAGE);
        assert_true(err.message[0] && err.hint[0]);
    }
    recipe_free(&recipe);
}

/* A file of the user's that has the name of one that comes along stands before it, once. */
static void test_before(void **state)
{
    (void)state;
    static const char text[] = "{\"intent\":\"Mine.\",\"method\":{\"name\":\"full\"}}";
    struct error err = { 0 };
    char *folder = xasprintf("%s/windrow/presets/methods", home);
    char *path = path_join(folder, "grass.json");
    assert_int_equal(file_make_directories(folder, &err), 0);
    assert_int_equal(file_replace(path, text, sizeof text - 1, &err), 0);
    struct recipe recipe;
    find(&recipe, "grass");
    assert_string_equal(recipe.method_name, "full");
    struct preset_list list = { 0 };
    assert_int_equal(preset_list_read("methods", &list, &err), 0);
    int seen = 0;
    for (size_t i = 0; i < list.count; i++) {
        seen += strcmp(list.item[i].name, "grass") == 0;
    }
    assert_int_equal(seen, 1);
    preset_list_free(&list);
    recipe_free(&recipe);
    assert_int_equal(file_ops()->unlink(path), 0);
    free(path);
    free(folder);
}

/* Takes words apart as a shell would, and sets them. */
static void set_words(struct recipe *recipe, const char *words)
{
    struct buffer word = { 0 };
    bool quoted = false;
    for (const char *c = words;; c++) {
        if (*c == '\'') {
            quoted = !quoted;
        } else if (*c == '\\' && !quoted) {
            buffer_append(&word, ++c, 1);
        } else if (*c == '\0' || (*c == ' ' && !quoted)) {
            if (word.size > 0) {
                set(recipe, word.text);
            }
            word.size = 0;
            if (*c == '\0') {
                break;
            }
        } else {
            buffer_append(&word, c, 1);
        }
    }
    buffer_free(&word);
}

/* The words lead from one recipe to the other, whatever excludes what. */
static void test_words(void **state)
{
    (void)state;
    static const char *const names[] = { "stories", "stories-full", "instruct", "lora",
                                         "grass",   "galore",       "rad" };
    enum { COUNT = sizeof names / sizeof names[0] };
    for (int a = 0; a < COUNT; a++) {
        for (int b = 0; b < COUNT; b++) {
            struct recipe from;
            struct recipe to;
            find(&from, names[a]);
            find(&to, names[b]);
            char *words = recipe_words(&to, &from);
            assert_true((words[0] == '\0') == (a == b));
            set_words(&from, words);
            assert_same(&from, &to);
            free(words);
            recipe_free(&from);
            recipe_free(&to);
        }
    }
    struct recipe from;
    struct recipe to;
    recipe_init(&from);
    recipe_init(&to);
    set(&to, "train.sample_prompt=Tom's cat");
    char *words = recipe_words(&to, &from);
    assert_string_equal(words, "train.sample_prompt='Tom'\\''s cat'");
    free(words);
    recipe_free(&from);
    recipe_free(&to);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_saved), cmocka_unit_test(test_names),
                                        cmocka_unit_test(test_before),
                                        cmocka_unit_test(test_words) };
    return cmocka_run_group_tests(tests, open_home, close_home);
}
