/*
 * What leads from one recipe to another: as words of a command line, or as a preset file. Keys that
 * exclude each other clear one another when they are set, so the differences are found by laying
 * them over a copy one by one: what is implied by then is not said.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"
#include "engine/recipe/load.h"

enum { NAME_LIMIT = 64, PASSES = 3 };

/* Lays the keys that differ over `from`, which ends up equal to `to`; tells each by its row. */
static void lay_differences(struct recipe *from, const struct recipe *to,
                            void (*tell)(void *context, const struct field *field), void *context)
{
    for (int pass = 0; pass < PASSES; pass++) {
        for (const struct field *field = recipe_fields; field->key; field++) {
            struct error ignored = { 0 };
            char *is = field_text(field, from);
            char *wanted = field_text(field, to);
            if (strcmp(is, wanted) != 0 &&
                recipe_assign(from, field, wanted, NULL, &ignored) == 0) {
                tell(context, field);
            }
            free(is);
            free(wanted);
        }
    }
}

struct told {
    bool row[RECIPE_FIELD_LIMIT];
};

static void mark(void *context, const struct field *field)
{
    struct told *told = context;
    told->row[field - recipe_fields] = true;
}

static bool is_plain(const char *text)
{
    for (; *text; text++) {
        if (!isalnum((unsigned char)*text) && !strchr("_-./,:=+@%", *text)) {
            return false;
        }
    }
    return true;
}

/* In single quotes, where a shell would take the word apart. */
static void append_word(struct buffer *out, const char *key, const char *value)
{
    buffer_printf(out, "%s%s=", out->size ? " " : "", key);
    if (is_plain(value)) {
        buffer_printf(out, "%s", value);
        return;
    }
    buffer_printf(out, "'");
    for (; *value; value++) {
        if (*value == '\'') {
            buffer_printf(out, "'\\''");
        } else {
            buffer_append(out, value, 1);
        }
    }
    buffer_printf(out, "'");
}

char *recipe_words(const struct recipe *recipe, const struct recipe *base)
{
    struct told told = { { false } };
    struct recipe from = { 0 };
    struct buffer out = { 0 };
    recipe_copy(&from, base);
    lay_differences(&from, recipe, mark, &told);
    recipe_free(&from);
    for (size_t row = 0; recipe_fields[row].key; row++) {
        if (told.row[row]) {
            char *value = field_text(&recipe_fields[row], recipe);
            append_word(&out, recipe_fields[row].key, value);
            free(value);
        }
    }
    return out.text ? out.text : xstrdup("");
}

/* The preset as text (xmalloc'd). */
static char *preset_text(const struct recipe *recipe, const char *intent)
{
    struct told told = { { false } };
    struct recipe from = { 0 };
    recipe_init(&from);
    lay_differences(&from, recipe, mark, &told);
    recipe_free(&from);
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "intent", intent);
    for (size_t row = 0; recipe_fields[row].key; row++) {
        const struct field *field = &recipe_fields[row];
        const char *dot = strchr(field->key, '.');
        cJSON *owner = root;
        if (!told.row[row]) {
            continue;
        }
        if (dot) {
            char *section = xstrndup(field->key, (size_t)(dot - field->key));
            owner = cJSON_GetObjectItemCaseSensitive(root, section);
            owner = owner ? owner : cJSON_AddObjectToObject(root, section);
            free(section);
        }
        cJSON_AddItemToObject(owner, dot ? dot + 1 : field->key, recipe_value(field, recipe));
    }
    char *text = json_print_pretty(root);
    cJSON_Delete(root);
    return text;
}

static int check_name(const char *name, struct error *err)
{
    size_t size = strlen(name);
    bool good = size > 0 && size <= NAME_LIMIT && name[0] != '.' && name[0] != '-';
    for (const char *c = name; *c; c++) {
        good = good && (isalnum((unsigned char)*c) || strchr("._-", *c));
    }
    if (!good) {
        fail(err, ERROR_USAGE, "\"%s\" cannot be the name of a preset", text_show(name).text);
        return hint(err, "letters, digits, '.', '_' and '-', at most %d", NAME_LIMIT);
    }
    struct preset_list list = { 0 };
    struct error ignored = { 0 };
    bool taken = false;
    static const char *const kinds[] = { "recipes", "methods" };
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        if (preset_list_read(kinds[k], &list, &ignored) == 0) {
            for (size_t i = 0; i < list.count; i++) {
                taken |= !list.item[i].own && strcmp(list.item[i].name, name) == 0;
            }
            preset_list_free(&list);
        }
    }
    if (taken) {
        fail(err, ERROR_USAGE, "\"%s\" is a preset that comes along", name);
        return hint(err, "choose another name");
    }
    return 0;
}

char *preset_save(const struct recipe *recipe, const char *name, const char *intent,
                  struct error *err)
{
    if (check_name(name, err) != 0) {
        return NULL;
    }
    char *root = preset_user_directory();
    if (!root) {
        fail(err, ERROR_USAGE, "there is no folder for your presets: HOME is not set");
        hint(err, "set XDG_CONFIG_HOME to a directory");
        return NULL;
    }
    char *folder = path_join(root, "recipes");
    char *path = xasprintf("%s/%s.json", folder, name);
    char *text = preset_text(recipe, intent);
    if (file_make_directories(folder, err) != 0 ||
        file_replace(path, text, strlen(text), err) != 0) {
        free(path);
        path = NULL;
    }
    free(text);
    free(folder);
    free(root);
    return path;
}
