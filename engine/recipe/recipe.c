/*
 * Recipes: defaults, single assignments, and the text of a whole one.
 *
 * Text format: a JSON object nested by the dots of the keys, {"method": {"name": "grass"}}; dotted
 * keys at the top, {"method.name": "grass"}, mean the same. Beside the keys of the table there are
 * "name", "intent" (a sentence) and "preset" (what to start from).
 */
#include "engine/recipe.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"
#include "engine/recipe/load.h"

static const char *const path_keys[] = { "model.path",
                                         "model.preset",
                                         "model.adapter",
                                         "tokenizer.path",
                                         "data.train",
                                         "data.validation",
                                         NULL };

void recipe_init(struct recipe *recipe)
{
    memset(recipe, 0, sizeof *recipe);
    recipe->name = xstrdup("");
    recipe->intent = xstrdup("");
    for (const struct field *field = recipe_fields; field->key; field++) {
        struct error err = { 0 };
        if (field_set(field, recipe, field->default_text, &err) != 0) {
            BUG("default of %s: %s", field->key, err.message);
        }
    }
}

void recipe_free(struct recipe *recipe)
{
    free(recipe->name);
    free(recipe->intent);
    for (const struct field *field = recipe_fields; field->key; field++) {
        field_release(field, recipe);
    }
    memset(recipe, 0, sizeof *recipe);
}

void recipe_copy(struct recipe *to, const struct recipe *from)
{
    recipe_free(to);
    *to = *from;
    to->name = xstrdup(from->name);
    to->intent = xstrdup(from->intent);
    for (const struct field *field = recipe_fields; field->key; field++) {
        if (field->type == FIELD_STRING) {
            char **place = (char **)(void *)((char *)to + field->offset);
            *place = xstrdup(*place);
        }
    }
}

/* ---- assignments ---------------------------------------------------------------------------- */

/* The part before the point that `name` may mean, xmalloc'd, or NULL. */
static char *nearest_section(const char *name)
{
    char *names[RECIPE_FIELD_LIMIT] = { NULL };
    size_t count = 0;
    for (const struct field *field = recipe_fields; field->key; field++) {
        const char *dot = strchr(field->key, '.');
        if (dot) {
            names[count++] = xstrndup(field->key, (size_t)(dot - field->key));
        }
    }
    const char *near = nearest_name(name, (const char *const *)names, count);
    char *copy = near ? xstrdup(near) : NULL;
    for (size_t i = 0; i < count; i++) {
        free(names[i]);
    }
    return copy;
}

int recipe_refuse_key(const char *key, struct error *err)
{
    const char *names[RECIPE_FIELD_LIMIT] = { NULL };
    size_t count = 0;
    for (const struct field *field = recipe_fields; field->key; field++) {
        names[count++] = field->key;
    }
    const char *near = nearest_name(key, names, count);
    for (size_t i = 0; i < count && !near; i++) {
        const char *last = strrchr(names[i], '.');
        if (last && strcmp(last + 1, key) == 0) {
            near = names[i];
        }
    }
    fail(err, ERROR_USAGE, "unknown key \"%s\"", text_show(key).text);
    char *section = near ? NULL : nearest_section(key);
    if (section) {
        hint(err, "did you mean the section %s? `windrow help recipe` lists all keys", section);
        free(section);
        return -1;
    }
    if (near) {
        return hint(err, "did you mean %s? `windrow help recipe` lists all keys", near);
    }
    return hint(err, "`windrow help recipe` lists all keys");
}

/* A path that exists is stored from the root, so that a run finds it from anywhere. NULL: as is. */
static char *absolute_path(const struct field *field, const char *text, const char *folder)
{
    bool is_path = false;
    for (size_t i = 0; path_keys[i]; i++) {
        is_path = is_path || strcmp(field->key, path_keys[i]) == 0;
    }
    if (!is_path || text[0] == '\0') {
        return NULL;
    }
    char *joined = folder && text[0] != '/' ? path_join(folder, text) : xstrdup(text);
    char resolved[PATH_MAX];
    char *found = realpath(joined, resolved) ? xstrdup(resolved) : NULL;
    free(joined);
    return found;
}

static void clear(struct recipe *recipe, const char *key, const char *text)
{
    struct error err = { 0 };
    if (field_set(recipe_field(key), recipe, text, &err) != 0) {
        BUG("%s", err.message);
    }
}

static void exclude(struct recipe *recipe, const char *key)
{
    if (strcmp(key, "model.path") == 0 && recipe->model_path[0] && recipe->model_preset[0]) {
        clear(recipe, "model.preset", "");
        clear(recipe, "tokenizer.vocab", "0");
        recipe->model_init = MODEL_PRETRAINED;
    } else if (strcmp(key, "model.preset") == 0 && recipe->model_preset[0]) {
        clear(recipe, "model.path", "");
        recipe->model_init = MODEL_RANDOM;
    } else if (strcmp(key, "tokenizer.path") == 0 && recipe->tokenizer_path[0]) {
        recipe->tokenizer_vocab = 0;
    } else if (strcmp(key, "tokenizer.vocab") == 0 && recipe->tokenizer_vocab > 0) {
        clear(recipe, "tokenizer.path", "");
    } else if (strcmp(key, "train.steps") == 0 && recipe->train_steps > 0) {
        recipe->train_epochs = 0.0;
    } else if (strcmp(key, "train.epochs") == 0 && recipe->train_epochs > 0.0) {
        recipe->train_steps = 0;
    }
}

int recipe_assign(struct recipe *recipe, const struct field *field, const char *text,
                  const char *folder, struct error *err)
{
    if (field->type == FIELD_STRING && !text_is_utf8(text, strlen(text), NULL)) {
        return fail(err, ERROR_USAGE, "%s is not valid UTF-8: %s", field->key,
                    text_show(text).text);
    }
    char *path = field->type == FIELD_STRING ? absolute_path(field, text, folder) : NULL;
    int result = field_set(field, recipe, path ? path : text, err);
    free(path);
    if (result == 0) {
        exclude(recipe, field->key);
    }
    return result;
}

int recipe_set(struct recipe *recipe, const char *assignment, struct error *err)
{
    const char *equals = strchr(assignment, '=');
    if (!equals || equals == assignment) {
        fail(err, ERROR_USAGE, "\"%s\" is not of the form key=value", text_show(assignment).text);
        return hint(err, "for example method.rank=64");
    }
    char *key = xstrndup(assignment, (size_t)(equals - assignment));
    const struct field *field = recipe_field(key);
    int result =
        field ? recipe_assign(recipe, field, equals + 1, NULL, err) : recipe_refuse_key(key, err);
    free(key);
    return result;
}

/* ---- text ----------------------------------------------------------------------------------- */

cJSON *recipe_value(const struct field *field, const struct recipe *recipe)
{
    char *text = field_text(field, recipe);
    cJSON *value = NULL;
    double number = 0.0;
    switch (field->type) {
    case FIELD_BOOL:
        value = cJSON_CreateBool(strcmp(text, "true") == 0);
        break;
    case FIELD_INTEGER:
    case FIELD_NUMBER:
        if (!text_to_double(text, &number)) {
            BUG("%s is written %s", field->key, text);
        }
        value = cJSON_CreateNumber(number);
        break;
    case FIELD_CHOICE:
    case FIELD_STRING:
    case FIELD_BYTES:
        value = cJSON_CreateString(text);
        break;
    }
    free(text);
    return value;
}

char *recipe_json(const struct recipe *recipe)
{
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "name", recipe->name);
    cJSON_AddStringToObject(root, "intent", recipe->intent);
    for (const struct field *field = recipe_fields; field->key; field++) {
        const char *dot = strchr(field->key, '.');
        cJSON *owner = root;
        if (dot) {
            char *section = xstrndup(field->key, (size_t)(dot - field->key));
            owner = cJSON_GetObjectItemCaseSensitive(root, section);
            if (!owner) {
                owner = cJSON_AddObjectToObject(root, section);
            }
            free(section);
        }
        cJSON_AddItemToObject(owner, dot ? dot + 1 : field->key, recipe_value(field, recipe));
    }
    char *text = json_print_pretty(root);
    cJSON_Delete(root);
    return text;
}
