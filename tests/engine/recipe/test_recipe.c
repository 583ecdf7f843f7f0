/* Recipes: the table of settings, words, files, presets, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/base/xalloc.h"
#include "engine/recipe.h"

/* A fresh folder with presets/{methods,models,recipes}, which $WINDROW_PRESETS names. */
struct place {
    char path[64];
};

static int make_place(void **state)
{
    struct place *place = xcalloc(1, sizeof *place);
    struct error err = { 0 };
    snprintf(place->path, sizeof place->path, "/tmp/windrow-recipe-XXXXXX");
    assert_non_null(mkdtemp(place->path));
    static const char *const kinds[] = { "methods", "models", "recipes" };
    for (size_t i = 0; i < 3; i++) {
        char *folder = xasprintf("%s/presets/%s", place->path, kinds[i]);
        assert_int_equal(file_make_directories(folder, &err), 0);
        free(folder);
    }
    char *presets = path_join(place->path, "presets");
    setenv("WINDROW_PRESETS", presets, 1);
    free(presets);
    *state = place;
    return 0;
}

static int remove_place(void **state)
{
    struct place *place = *state;
    struct error err = { 0 };
    assert_int_equal(file_remove_tree(place->path, &err), 0);
    free(place);
    unsetenv("WINDROW_PRESETS");
    return 0;
}

static char *put(const struct place *place, const char *name, const char *text)
{
    struct error err = { 0 };
    char *path = path_join(place->path, name);
    assert_int_equal(file_replace(path, text, strlen(text), &err), 0);
    return path;
}

/* Loads `text` over the defaults and expects a refusal whose message and hint hold the parts. */
static void refuse_file(const struct place *place, const char *text, const char *part,
                        const char *hinted)
{
    struct recipe recipe;
    struct error err = { 0 };
    char *path = put(place, "refused.json", text);
    recipe_init(&recipe);
    assert_int_equal(recipe_load(&recipe, path, &err), -1);
    assert_int_equal(err.code, ERROR_USAGE);
    if (!strstr(err.message, part) || !strstr(err.message, "refused.json") ||
        !strstr(err.hint, hinted)) {
        fail_msg("\"%s\" (%s) for %s", err.message, err.hint, text);
    }
    char *defaults_changed = recipe_json(&recipe);
    struct recipe fresh;
    recipe_init(&fresh);
    char *defaults = recipe_json(&fresh);
    assert_string_equal(defaults_changed, defaults);
    free(defaults_changed);
    free(defaults);
    recipe_free(&fresh);
    recipe_free(&recipe);
    free(path);
}

static void set(struct recipe *recipe, const char *word)
{
    struct error err = { 0 };
    if (recipe_set(recipe, word, &err) != 0) {
        fail_msg("%s: %s", word, err.message);
    }
}

static void refuse_word(const char *word, const char *part, const char *hinted)
{
    struct recipe recipe;
    struct error err = { 0 };
    recipe_init(&recipe);
    assert_int_equal(recipe_set(&recipe, word, &err), -1);
    assert_int_equal(err.code, ERROR_USAGE);
    if (!strstr(err.message, part) || !strstr(err.hint, hinted)) {
        fail_msg("\"%s\" (%s) for %s", err.message, err.hint, word);
    }
    recipe_free(&recipe);
}

/* ---- the table ------------------------------------------------------------------------------ */

static void every_field_is_whole(void **state)
{
    (void)state;
    struct recipe recipe;
    recipe_init(&recipe);
    size_t count = 0;
    for (const struct field *field = recipe_fields; field->key; field++, count++) {
        assert_non_null(field->help);
        assert_non_null(field->unit);
        size_t size = strlen(field->help);
        assert_true(size > 10 && field->help[size - 1] == '.');
        assert_ptr_equal(recipe_field(field->key), field);
        char *text = field_text(field, &recipe);
        assert_string_equal(text, field->default_text);
        free(text);
        for (const struct field *other = recipe_fields; other < field; other++) {
            assert_string_not_equal(field->key, other->key);
            assert_int_not_equal(field->offset, other->offset);
        }
    }
    assert_true(count > 55);
    recipe_free(&recipe);
}

static void only_these_are_live(void **state)
{
    (void)state;
    static const char *const live[] = {
        "method.rank",        "method.interval",        "method.selection", "method.scale",
        "optimizer.lr",       "optimizer.weight_decay", "train.clip",       "train.eval_every",
        "train.sample_every", "train.save_every",
    };
    size_t count = 0;
    for (const struct field *field = recipe_fields; field->key; field++) {
        count += field->live ? 1 : 0;
    }
    assert_int_equal(count, sizeof live / sizeof live[0]);
    for (size_t i = 0; i < count; i++) {
        assert_true(recipe_field(live[i])->live);
    }
}

/* A value of the field that is not its default, as text. */
static char *other_value(const struct field *field)
{
    switch (field->type) {
    case FIELD_INTEGER:
        return xasprintf("%.0f", strcmp(field->default_text, "3") == 0 ? 4.0 : 3.0);
    case FIELD_NUMBER:
        return xstrdup("0.25");
    case FIELD_BOOL:
        return xstrdup(strcmp(field->default_text, "true") == 0 ? "false" : "true");
    case FIELD_CHOICE:
        return xstrdup(field->choices[strcmp(field->default_text, field->choices[0]) == 0]);
    case FIELD_STRING:
        return xstrdup("some words");
    case FIELD_BYTES:
        return xstrdup("24GiB");
    }
    return NULL;
}

static void every_field_can_be_set_and_read_back(void **state)
{
    struct place *place = *state;
    for (const struct field *field = recipe_fields; field->key; field++) {
        struct recipe recipe;
        struct recipe again;
        struct error err = { 0 };
        recipe_init(&recipe);
        recipe_init(&again);
        char *value = other_value(field);
        char *word = xasprintf("%s=%s", field->key, value);
        set(&recipe, word);
        char *text = field_text(field, &recipe);
        assert_string_equal(text, value);
        char *json = recipe_json(&recipe);
        char *path = put(place, "one.json", json);
        assert_int_equal(recipe_load(&again, path, &err), 0);
        char *back = field_text(field, &again);
        assert_string_equal(back, value);
        char *json_again = recipe_json(&again);
        assert_string_equal(json, json_again);
        free(json_again);
        free(back);
        free(path);
        free(json);
        free(text);
        free(word);
        free(value);
        recipe_free(&again);
        recipe_free(&recipe);
    }
}

static void ranges_are_kept(void **state)
{
    (void)state;
    for (const struct field *field = recipe_fields; field->key; field++) {
        struct recipe recipe;
        recipe_init(&recipe);
        bool number = field->type == FIELD_INTEGER || field->type == FIELD_NUMBER;
        if (number) {
            struct error err = { 0 };
            char *low = xasprintf("%s=%.17g", field->key, field->minimum - 1.0);
            char *high = xasprintf("%s=%.17g", field->key, field->maximum * 2.0 + 1.0);
            assert_int_equal(recipe_set(&recipe, low, &err), -1);
            assert_int_equal(recipe_set(&recipe, high, &err), -1);
            assert_non_null(strstr(err.message, field->key));
            free(low);
            free(high);
        }
        if (field->type != FIELD_STRING) {
            struct error err = { 0 };
            char *word = xasprintf("%s=nonsense", field->key);
            assert_int_equal(recipe_set(&recipe, word, &err), -1);
            char *text = field_text(field, &recipe);
            assert_string_equal(text, field->default_text);
            free(text);
            free(word);
        }
        recipe_free(&recipe);
    }
}

/* ---- words ---------------------------------------------------------------------------------- */

static void unknown_keys_name_the_nearest(void **state)
{
    (void)state;
    refuse_word("method.rnak=8", "method.rnak", "method.rank");
    refuse_word("optimiser.lr=1", "optimiser.lr", "optimizer.lr");
    refuse_word("rank=8", "rank", "method.rank");
    refuse_word("xyzzy-plugh=8", "xyzzy-plugh", "help recipe");
    refuse_word("method.rank", "key=value", "method.rank=64");
    refuse_word("=5", "key=value", "");
    refuse_word("method.rank=", "method.rank", "");
    refuse_word("method.rank=12.5", "12.5", "");
    refuse_word("method.selection=tpo", "tpo", "top");
    refuse_word("train.sample_prompt=\xff\xfe", "UTF-8", "");
}

static void the_later_of_two_that_exclude_each_other_wins(void **state)
{
    (void)state;
    struct recipe recipe;
    recipe_init(&recipe);
    set(&recipe, "train.steps=5");
    assert_true(recipe.train_epochs == 0.0);
    set(&recipe, "train.epochs=2");
    assert_int_equal(recipe.train_steps, 0);
    set(&recipe, "train.steps=0");
    assert_true(recipe.train_epochs == 2.0);
    set(&recipe, "model.preset=tiny");
    assert_int_equal(recipe.model_init, MODEL_RANDOM);
    set(&recipe, "tokenizer.vocab=300");
    set(&recipe, "model.path=/nowhere/model");
    assert_string_equal(recipe.model_preset, "");
    assert_int_equal(recipe.model_init, MODEL_PRETRAINED);
    assert_int_equal(recipe.tokenizer_vocab, 0);
    set(&recipe, "model.init=random");
    set(&recipe, "model.path=/nowhere/other");
    assert_int_equal(recipe.model_init, MODEL_RANDOM);
    set(&recipe, "tokenizer.path=x");
    set(&recipe, "tokenizer.vocab=300");
    assert_string_equal(recipe.tokenizer_path, "");
    recipe_free(&recipe);
}

/* ---- files ---------------------------------------------------------------------------------- */

static void a_file_is_laid_over(void **state)
{
    struct place *place = *state;
    struct recipe recipe;
    struct error err = { 0 };
    recipe_init(&recipe);
    char *data = put(place, "words.txt", "some text");
    char *path = put(place, "mine.json",
                     "{\"intent\": \"To try.\", \"model\": {\"preset\": \"tiny\"},"
                     " \"method.rank\": 64, \"data\": {\"train\": \"words.txt\","
                     " \"validation\": 0.125}, \"train\": {\"steps\": 12},"
                     " \"memory\": {\"limit\": \"2GiB\"}, \"optimizer\": {\"lr\": 1e-3}}");
    assert_int_equal(recipe_load(&recipe, path, &err), 0);
    assert_string_equal(recipe.name, "mine");
    assert_string_equal(recipe.intent, "To try.");
    assert_int_equal(recipe.method_rank, 64);
    assert_int_equal(recipe.train_steps, 12);
    assert_true(recipe.train_epochs == 0.0);
    assert_true(recipe.memory_limit == 2147483648LL);
    assert_true(recipe.optimizer_lr == 1e-3);
    assert_string_equal(recipe.data_validation, "0.125");
    char real[4096];
    assert_non_null(realpath(data, real));
    assert_string_equal(recipe.data_train, real);
    struct recipe copy;
    recipe_init(&copy);
    recipe_copy(&copy, &recipe);
    char *a = recipe_json(&recipe);
    char *b = recipe_json(&copy);
    assert_string_equal(a, b);
    free(a);
    free(b);
    recipe_free(&copy);
    recipe_free(&recipe);
    free(path);
    free(data);
}

static void files_are_strict(void **state)
{
    struct place *place = *state;
    refuse_file(place, "{\"method\": {\"rnak\": 8}}", "method.rnak", "method.rank");
    refuse_file(place, "{\"metod\": {\"rank\": 8}}", "metod", "");
    refuse_file(place, "{\"method\": 8}", "object", "");
    refuse_file(place, "{\"method\": {\"rank\": \"8\"}}", "the text \"8\"", "");
    refuse_file(place, "{\"method\": {\"rank\": 8.5}}", "8.5", "");
    refuse_file(place, "{\"method\": {\"rank\": {}}}", "method.rank", "");
    refuse_file(place, "{\"method\": {\"rank\": null}}", "method.rank", "");
    refuse_file(place, "{\"method\": {\"carry\": 1}}", "method.carry", "");
    refuse_file(place, "{\"method\": {\"rank\": 8}, \"method.rank\": 9}", "twice", "");
    refuse_file(place, "{\"method\": {\"rank\": 8, \"rank\": 9}}", "twice", "");
    refuse_file(place, "{\"train\": {\"steps\": 8, \"epochs\": 1}}", "both given", "one");
    refuse_file(place, "{\"preset\": \"absent\"}", "absent", "presets");
    refuse_file(place, "{\"intent\": 5}", "intent", "");
    refuse_file(place, "[]", "object", "");
    refuse_file(place, "{\"method\": {}", "", "");
    refuse_file(place, "{\"methd\": {\"rank\": 3}}", "methd", "method");
    refuse_file(place, "{\"method\": {\"rnk\": 3}}", "method.rnk", "method.rank");
    refuse_file(place, "", "", "");
}

static void presets_are_found_and_stacked(void **state)
{
    struct place *place = *state;
    struct recipe recipe;
    struct error err = { 0 };
    free(put(place, "presets/methods/few.json",
             "{\"intent\": \"Few rows.\", \"method\": {\"name\": \"grass\", \"rank\": 4}}"));
    free(put(place, "presets/recipes/small.json",
             "{\"intent\": \"Small.\", \"preset\": \"few\", \"method\": {\"interval\": 7}}"));
    free(put(place, "presets/recipes/circle.json", "{\"preset\": \"circle\"}"));
    recipe_init(&recipe);
    assert_int_equal(recipe_find(&recipe, "small", &err), 0);
    assert_int_equal(recipe.method_rank, 4);
    assert_int_equal(recipe.method_interval, 7);
    assert_string_equal(recipe.name, "small");
    assert_string_equal(recipe.intent, "Small.");
    assert_int_equal(recipe_find(&recipe, "few", &err), 0);
    assert_int_equal(recipe_find(&recipe, "circle", &err), -1);
    const char *once = strstr(err.message, "circle.json");
    assert_non_null(once);
    assert_null(strstr(once + 1, "circle.json"));
    assert_non_null(strstr(once, "in a circle"));
    assert_int_equal(recipe_find(&recipe, "smal", &err), -1);
    assert_non_null(strstr(err.hint, "small"));
    assert_int_equal(recipe_find(&recipe, "../methods/few", &err), -1);
    assert_int_equal(recipe_find(&recipe, "", &err), -1);
    struct preset_list list;
    assert_int_equal(preset_list_read("recipes", &list, &err), 0);
    assert_int_equal(list.count, 2);
    assert_string_equal(list.item[0].name, "circle");
    assert_string_equal(list.item[1].intent, "Small.");
    preset_list_free(&list);
    assert_int_equal(preset_list_read("absent", &list, &err), -1);
    recipe_free(&recipe);
}

/* ---- what cannot be ------------------------------------------------------------------------- */

static void check(const char *const *words, const char *part)
{
    struct recipe recipe;
    struct error err = { 0 };
    recipe_init(&recipe);
    set(&recipe, "model.preset=tiny");
    for (size_t i = 0; words[i]; i++) {
        set(&recipe, words[i]);
    }
    int result = recipe_check(&recipe, &err);
    if (part) {
        assert_int_equal(result, -1);
        assert_int_equal(err.code, ERROR_USAGE);
        if (!strstr(err.message, part)) {
            fail_msg("\"%s\" does not hold %s", err.message, part);
        }
    } else if (result != 0) {
        fail_msg("refused: %s", err.message);
    }
    recipe_free(&recipe);
}

static void what_is_not_there_is_refused_by_name(void **state)
{
    (void)state;
    check((const char *[]){ NULL }, NULL);
    check((const char *[]){ "method.name=full", "device=cpu", NULL }, NULL);
    check((const char *[]){ "method.name=galore", NULL }, NULL);
    check((const char *[]){ "method.name=galore", "optimizer.name=tradam", NULL },
          "full gradient before it is compressed");
    check((const char *[]){ "method.name=galor", NULL }, "available: full, grass, galore");
    check((const char *[]){ "method.name=gras", NULL }, "unknown");
    check((const char *[]){ "optimizer.name=sgd", NULL }, NULL);
    check((const char *[]){ "optimizer.name=sdg", NULL }, "adamw, sgd, tradam");
    check((const char *[]){ "optimizer.state=int8", NULL }, NULL);
    check((const char *[]){ "optimizer.name=tradam", NULL },
          "full gradient before it is compressed");
    check((const char *[]){ "optimizer.name=tradam", "method.name=full", NULL }, NULL);
    check((const char *[]){ "optimizer.name=tradam", "method.name=full", "optimizer.state=int8",
                            NULL },
          "as large as the weights");
    check((const char *[]){ "activation.recompute=block", NULL }, NULL);
    check((const char *[]){ "activation.recompute=blocks", NULL }, "none, norms, ffn, block");
    check((const char *[]){ "activation.sample=rad", NULL }, NULL);
    check((const char *[]){ "activation.sample=radd", NULL }, "none, wta-crs, crs, rad");
    check((const char *[]){ "activation.sample=rad", "activation.recompute=norms", NULL },
          "only add noise");
    check((const char *[]){ "activation.sample=crs", "activation.recompute=norms", NULL }, NULL);
    check((const char *[]){ "activation.sample=crs", "activation.keep=0", NULL },
          "nothing to keep");
    check((const char *[]){ "kernel.attention=cudnn", NULL }, "needs device=cuda");
    check((const char *[]){ "kernel.attention=cudnn", "device=cuda", NULL }, "deterministic");
    check((const char *[]){ "kernel.attention=cudnn", "device=cuda", "train.deterministic=false",
                            NULL },
          "precision.weights=fp32");
    check((const char *[]){ "kernel.attention=cudnn", "device=cuda", "train.deterministic=false",
                            "precision.weights=bf16", "data.sequence_length=100", NULL },
          "multiple of 128");
    check((const char *[]){ "kernel.attention=own", NULL }, NULL);
    check((const char *[]){ "method.targets=", NULL }, "method.targets");
    check((const char *[]){ "train.epochs=0", NULL }, "nothing to do");
    check((const char *[]){ "method.exact_rows=true", NULL }, "precision.weights=fp32");
    check((const char *[]){ "method.exact_rows=true", "precision.weights=bf16", NULL }, NULL);
    check((const char *[]){ "method.exact_rows=true", "method.name=full", NULL },
          "method.exact_rows");
    check((const char *[]){ "method.unbiased=true", NULL }, "method.unbiased");
    check((const char *[]){ "method.replacement=true", NULL }, "method.replacement");
    check((const char *[]){ "method.unbiased=true", "method.selection=norm", NULL }, NULL);
    check((const char *[]){ "device=tpu", NULL }, "cuda:N");
    check((const char *[]){ "device=cuda:x", NULL }, "cuda:N");
    check((const char *[]){ "device=cuda:1000", NULL }, "device=cuda:1000");
    check((const char *[]){ "data.validation=1.5", NULL }, "fraction");
    check((const char *[]){ "model.init=pretrained", NULL }, "model.init");
    check((const char *[]){ "model.preset=", NULL }, "model.path");
    check((const char *[]){ "batch.micro=65536", "data.sequence_length=65536", NULL },
          "batch.micro");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_field_is_whole),
        cmocka_unit_test(only_these_are_live),
        cmocka_unit_test_setup_teardown(every_field_can_be_set_and_read_back, make_place,
                                        remove_place),
        cmocka_unit_test(ranges_are_kept),
        cmocka_unit_test(unknown_keys_name_the_nearest),
        cmocka_unit_test(the_later_of_two_that_exclude_each_other_wins),
        cmocka_unit_test_setup_teardown(a_file_is_laid_over, make_place, remove_place),
        cmocka_unit_test_setup_teardown(files_are_strict, make_place, remove_place),
        cmocka_unit_test_setup_teardown(presets_are_found_and_stacked, make_place, remove_place),
        cmocka_unit_test(what_is_not_there_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
