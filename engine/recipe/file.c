/* Recipe files: a JSON object laid over a recipe, after the preset it names. */
#include <stdlib.h>
#include <string.h>

#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"
#include "engine/recipe/load.h"

enum { PRESET_DEPTH_LIMIT = 8 };

/* The values of one file by row of the table. */
struct found {
    const cJSON *value[RECIPE_FIELD_LIMIT];
    const char *path;
};

static int refuse_type(const struct field *field, const cJSON *value, struct error *err)
{
    char *range = field_range(field);
    char *text = json_print(value);
    fail(err, ERROR_USAGE, "%s must be %s, found %s%s", field->key, range,
         cJSON_IsString(value) ? "the text " : "", text_show(text).text);
    free(range);
    free(text);
    return -1;
}

/* Text of a value as after key=, if its type suits the field. xmalloc'd, or NULL. */
static char *value_text(const struct field *field, const cJSON *value)
{
    bool number = field->type == FIELD_INTEGER || field->type == FIELD_NUMBER ||
                  field->type == FIELD_BYTES ||
                  strcmp(field->key, "data.validation") == 0; /* a fraction */
    if (cJSON_IsString(value) && field->type != FIELD_INTEGER && field->type != FIELD_NUMBER &&
        field->type != FIELD_BOOL) {
        return xstrdup(value->valuestring);
    }
    if (cJSON_IsBool(value) && field->type == FIELD_BOOL) {
        return xstrdup(cJSON_IsTrue(value) ? "true" : "false");
    }
    return cJSON_IsNumber(value) && number ? json_print(value) : NULL;
}

/* Files the value of the dotted key under its row. */
static int collect_value(struct found *found, const char *key, const cJSON *value,
                         struct error *err)
{
    const struct field *field = recipe_field(key);
    if (!field) {
        return recipe_refuse_key(key, err);
    }
    ptrdiff_t row = field - recipe_fields;
    if (found->value[row]) {
        return fail(err, ERROR_USAGE, "%s is given twice", key);
    }
    found->value[row] = value;
    return 0;
}

static int collect_section(struct found *found, const cJSON *section, struct error *err)
{
    const cJSON *child;
    cJSON_ArrayForEach (child, section) {
        char *key = xasprintf("%s.%s", section->string, child->string);
        int result = collect_value(found, key, child, err);
        free(key);
        if (result != 0) {
            return -1;
        }
    }
    return 0;
}

static bool is_section(const char *name)
{
    size_t size = strlen(name);
    for (const struct field *field = recipe_fields; field->key; field++) {
        if (strncmp(field->key, name, size) == 0 && field->key[size] == '.') {
            return true;
        }
    }
    return false;
}

static int collect(struct found *found, const cJSON *root, struct error *err)
{
    const cJSON *child;
    cJSON_ArrayForEach (child, root) {
        int result = 0;
        if (is_section(child->string)) {
            result =
                cJSON_IsObject(child)
                    ? collect_section(found, child, err)
                    : fail(err, ERROR_USAGE, "\"%s\" must be an object of settings", child->string);
        } else if (strcmp(child->string, "name") == 0 || strcmp(child->string, "intent") == 0 ||
                   strcmp(child->string, "preset") == 0) {
            result = cJSON_IsString(child)
                         ? 0
                         : fail(err, ERROR_USAGE, "\"%s\" must be a text", child->string);
        } else {
            result = collect_value(found, child->string, child, err);
        }
        if (result != 0) {
            return -1;
        }
    }
    return 0;
}

/* One file must not give both of two keys that exclude each other. */
static int check_pairs(const struct found *found, struct error *err)
{
    static const char *const pairs[][2] = {
        { "model.path", "model.preset" },
        { "tokenizer.path", "tokenizer.vocab" },
        { "train.steps", "train.epochs" },
    };
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        int given = 0;
        for (int side = 0; side < 2; side++) {
            const cJSON *value = found->value[recipe_field(pairs[i][side]) - recipe_fields];
            bool empty = !value || (cJSON_IsString(value) && value->valuestring[0] == '\0') ||
                         (cJSON_IsNumber(value) && value->valuedouble <= 0.0);
            given += empty ? 0 : 1;
        }
        if (given == 2) {
            fail(err, ERROR_USAGE, "%s and %s are both given", pairs[i][0], pairs[i][1]);
            return hint(err, "keep one of them");
        }
    }
    return 0;
}

static int assign_found(struct recipe *recipe, const struct found *found, const char *folder,
                        struct error *err)
{
    for (size_t row = 0; recipe_fields[row].key; row++) {
        const cJSON *value = found->value[row];
        if (!value) {
            continue;
        }
        char *text = value_text(&recipe_fields[row], value);
        if (!text) {
            return refuse_type(&recipe_fields[row], value, err);
        }
        int result = recipe_assign(recipe, &recipe_fields[row], text, folder, err);
        free(text);
        if (result != 0) {
            return -1;
        }
    }
    return 0;
}

static void set_string(char **place, const cJSON *root, const char *key, const char *fallback)
{
    const cJSON *value = json_get(root, key);
    const char *text = value ? value->valuestring : fallback;
    if (text) {
        char *copy = xstrdup(text);
        free(*place);
        *place = copy;
    }
}

static char *folder_of(const char *path)
{
    const char *base = path_base(path);
    return base == path ? xstrdup(".") : xstrndup(path, (size_t)(base - path));
}

/* "a/b/tiny.json" -> "tiny" */
static char *stem_of(const char *path)
{
    const char *base = path_base(path);
    size_t size = strlen(base);
    if (size > 5 && strcmp(base + size - 5, ".json") == 0) {
        size -= 5;
    }
    return xstrndup(base, size);
}

static int load(struct recipe *recipe, const char *path, int depth, struct error *err);

static int load_preset(struct recipe *recipe, const char *name, const char *folder, int depth,
                       struct error *err)
{
    char *path = preset_path("methods", name);
    if (!path) {
        path = preset_path("recipes", name);
    }
    if (!path) {
        path = preset_path("cards", name);
    }
    if (!path) {
        path = path_join(folder, name);
        if (!file_exists(path)) {
            free(path);
            fail(err, ERROR_USAGE, "there is no preset \"%s\"", text_show(name).text);
            return hint(err, "`windrow presets` lists them");
        }
    }
    int result = depth < PRESET_DEPTH_LIMIT
                     ? load(recipe, path, depth + 1, err)
                     : fail(err, ERROR_USAGE, "presets name each other in a circle");
    free(path);
    return result;
}

/* Puts the file before the message, once even where presets name each other in a circle. */
static void refuse_within(const char *path, struct error *err)
{
    char *prefix = xasprintf("%s: ", text_show(path).text);
    if (!strstr(err->message, prefix)) {
        fail_within(err, "%s", text_show(path).text);
    }
    free(prefix);
}

/* Lays a parsed file over the recipe. */
static int lay_over(struct recipe *recipe, const cJSON *root, const char *path, int depth,
                    struct error *err)
{
    struct found found = { .path = path };
    char *folder = folder_of(path);
    char *stem = stem_of(path);
    int result = cJSON_IsObject(root) ? collect(&found, root, err)
                                      : fail(err, ERROR_USAGE, "a recipe is a JSON object");
    if (result == 0) {
        result = check_pairs(&found, err);
    }
    const cJSON *preset = result == 0 ? json_get(root, "preset") : NULL;
    if (preset && preset->valuestring[0]) {
        result = load_preset(recipe, preset->valuestring, folder, depth, err);
    }
    if (result == 0) {
        result = assign_found(recipe, &found, folder, err);
    }
    if (result == 0) {
        set_string(&recipe->name, root, "name", stem);
        set_string(&recipe->intent, root, "intent", NULL);
    } else {
        refuse_within(path, err);
    }
    free(stem);
    free(folder);
    return result;
}

static int load(struct recipe *recipe, const char *path, int depth, struct error *err)
{
    cJSON *root = json_read(path, err);
    if (!root) {
        err->code = ERROR_USAGE;
        return -1;
    }
    int result = lay_over(recipe, root, path, depth, err);
    cJSON_Delete(root);
    return result;
}

int recipe_load(struct recipe *recipe, const char *path, struct error *err)
{
    struct recipe made = { 0 };
    recipe_copy(&made, recipe); /* a file that is refused changes nothing */
    if (load(&made, path, 0, err) != 0) {
        recipe_free(&made);
        return -1;
    }
    recipe_free(recipe);
    *recipe = made;
    return 0;
}

int recipe_parse(struct recipe *recipe, const cJSON *root, const char *path, struct error *err)
{
    return lay_over(recipe, root, path, 0, err);
}

static int refuse_name(const char *name, struct error *err)
{
    fail(err, ERROR_USAGE, "there is no recipe \"%s\": neither a file nor a preset",
         text_show(name).text);
    struct preset_list list = { 0 };
    struct error ignored = { 0 };
    if (preset_list_read("recipes", &list, &ignored) == 0 && list.count > 0) {
        const char **names = xcalloc(list.count, sizeof *names);
        struct buffer all = { 0 };
        for (size_t i = 0; i < list.count; i++) {
            names[i] = list.item[i].name;
            buffer_printf(&all, "%s%s", i ? ", " : "", names[i]);
        }
        const char *near = nearest_name(name, names, list.count);
        if (near) {
            hint(err, "did you mean %s?", near);
        } else {
            hint(err, "presets: %s", all.text);
        }
        buffer_free(&all);
        free(names);
    }
    preset_list_free(&list);
    return -1;
}

int recipe_find(struct recipe *recipe, const char *name, struct error *err)
{
    if (name[0] == '\0') {
        return fail(err, ERROR_USAGE, "the name of the recipe is empty");
    }
    bool path_like =
        strchr(name, '/') || (strlen(name) > 5 && strcmp(name + strlen(name) - 5, ".json") == 0);
    if (path_like || (file_exists(name) && !file_is_directory(name))) {
        return recipe_load(recipe, name, err);
    }
    char *path = preset_path("recipes", name);
    if (!path) {
        path = preset_path("methods", name);
    }
    if (!path) {
        path = preset_path("cards", name);
    }
    if (!path) {
        return refuse_name(name, err);
    }
    int result = recipe_load(recipe, path, err);
    free(path);
    return result;
}
