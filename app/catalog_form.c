/* The catalog's settings: what was typed, all of them for the form, and saving them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/catalog.h"
#include "app/text.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"

/* ---- what was typed ---------------------------------------------------------------------------
 */

int catalog_override(struct catalog *catalog, const char *word, struct error *err)
{
    struct recipe recipe;
    recipe_init(&recipe);
    recipe_copy(&recipe, &catalog->base);
    int result = recipe_set(&recipe, word, err);
    recipe_free(&recipe);
    if (result != 0) {
        return -1;
    }
    size_t key = strcspn(word, "=") + 1;
    for (int i = 0; i < catalog->override_count; i++) {
        if (strncmp(catalog->override[i], word, key) == 0) {
            free(catalog->override[i]);
            catalog->override[i] = xstrdup(word);
            return 0;
        }
    }
    if (catalog->override_count == (int)(sizeof(catalog->override) / sizeof(char *))) {
        return fail(err, ERROR_USAGE, "so many settings belong in a recipe file");
    }
    catalog->override[catalog->override_count++] = xstrdup(word);
    return 0;
}

void catalog_show(const struct catalog *catalog, struct launcher *launcher)
{
    for (int i = 0; i < LAUNCHER_LISTS; i++) {
        struct launcher_list *to = &launcher->list[i];
        const struct catalog_list *from = &catalog->list[i];
        for (int k = 0; k < to->count; k++) {
            free(to->item[k].name);
            free(to->item[k].note);
            free(to->item[k].about);
        }
        to->count = from->count;
        to->item = xrealloc(to->item, (size_t)(from->count + 1) * sizeof(to->item[0]));
        for (int k = 0; k < from->count; k++) {
            to->item[k].name = xstrdup(from->entry[k].name);
            to->item[k].note = xstrdup(from->entry[k].note);
            to->item[k].about = xstrdup(from->entry[k].about);
            to->item[k].model = from->entry[k].model;
            to->item[k].data = from->entry[k].data;
        }
    }
    launcher->overrides[0] = '\0';
    for (int i = 0; i < catalog->override_count; i++) {
        size_t used = strlen(launcher->overrides);
        snprintf(launcher->overrides + used, sizeof(launcher->overrides) - used, "%s%s",
                 used ? " " : "", catalog->override[i]);
    }
}

int catalog_override_all(struct catalog *catalog, const char *words, struct error *err)
{
    char *copy = xstrdup(words);
    char *rest = NULL;
    int result = 0;
    for (char *word = strtok_r(copy, " ", &rest); word && result == 0;
         word = strtok_r(NULL, " ", &rest)) {
        result = catalog_override(catalog, word, err);
    }
    free(copy);
    return result;
}

void catalog_reset(struct catalog *catalog, const char *key)
{
    int kept = 0;
    size_t size = key ? strlen(key) : 0;
    for (int i = 0; i < catalog->override_count; i++) {
        char *word = catalog->override[i];
        if (!key || (strncmp(word, key, size) == 0 && word[size] == '=')) {
            free(word);
        } else {
            catalog->override[kept++] = word;
        }
    }
    catalog->override_count = kept;
}

/* ---- the form ---------------------------------------------------------------------------------
 */

/* Notes which values a layer changed. */
static void note_changes(struct form_facts *out, const struct recipe *recipe,
                         enum form_source source)
{
    for (int i = 0; i < out->count; i++) {
        struct form_row *row = &out->row[i];
        char *text = field_text(row->field, recipe);
        if (strcmp(text, row->value) != 0) {
            row->source = source;
        }
        free(row->value);
        row->value = text;
    }
}

/* What was typed is the user's also where it says what was there before. */
static void note_typed(const struct catalog *catalog, struct form_facts *out)
{
    for (int i = 0; i < out->count; i++) {
        size_t size = strlen(out->row[i].field->key);
        for (int k = 0; k < catalog->override_count; k++) {
            const char *word = catalog->override[k];
            if (strncmp(word, out->row[i].field->key, size) == 0 && word[size] == '=') {
                out->row[i].source = FORM_YOU;
            }
        }
    }
}

static char *command_of(const struct catalog *catalog, const int choice[LAUNCHER_LISTS],
                        const struct recipe *recipe)
{
    const struct catalog_list *list = &catalog->list[LAUNCHER_METHOD];
    int at = choice[LAUNCHER_METHOD];
    struct error ignored = { 0 };
    struct recipe from;
    recipe_init(&from);
    bool whole = at < list->count && list->entry[at].whole &&
                 recipe_load(&from, list->entry[at].preset, &ignored) == 0;
    if (!whole) {
        recipe_copy(&from, &catalog->base);
    }
    char *words = recipe_words(recipe, &from);
    char *command =
        xasprintf("windrow train %s%s%s", whole ? list->entry[at].name : catalog->base_name,
                  words[0] ? " " : "", words);
    free(words);
    recipe_free(&from);
    return command;
}

void catalog_form(const struct catalog *catalog, const int choice[LAUNCHER_LISTS],
                  struct form_facts *out)
{
    static const enum form_source sources[] = {
        [LAYER_BASE] = FORM_RECIPE, [LAYER_RECIPE] = FORM_RECIPE, [LAYER_MODEL] = FORM_MODEL,
        [LAYER_DATA] = FORM_DATA,   [LAYER_METHOD] = FORM_PRESET, [LAYER_YOU] = FORM_YOU,
    };
    struct recipe recipe;
    recipe_init(&recipe);
    memset(out, 0, sizeof(*out));
    for (const struct field *field = recipe_fields; field->key; field++) {
        out->count++;
    }
    out->row = xcalloc((size_t)out->count, sizeof(out->row[0]));
    for (int i = 0; i < out->count; i++) {
        out->row[i].field = &recipe_fields[i];
        out->row[i].value = field_text(&recipe_fields[i], &recipe);
    }
    for (int layer = LAYER_BASE; layer <= LAYER_YOU; layer++) {
        struct error ignored = { 0 };
        if (catalog_lay(catalog, choice, (enum catalog_layer)layer, &recipe, &ignored) != 0) {
            continue;
        }
        note_changes(out, &recipe, sources[layer]);
    }
    /* A value may be the default again, whoever has set it last. */
    for (int i = 0; i < out->count; i++) {
        const char *fallback = out->row[i].field->default_text;
        if (fallback && strcmp(fallback, out->row[i].value) == 0) {
            out->row[i].source = FORM_DEFAULT;
        }
    }
    note_typed(catalog, out);
    out->command = command_of(catalog, choice, &recipe);
    recipe_free(&recipe);
}

int catalog_save(struct catalog *catalog, const int choice[LAUNCHER_LISTS], const char *words,
                 struct error *err)
{
    struct recipe recipe;
    recipe_init(&recipe);
    words += strspn(words, " ");
    size_t size = strcspn(words, " ");
    char *name = xstrndup(words, size);
    const char *intent = words + size + strspn(words + size, " ");
    char *path = NULL;
    int place = -1;
    if (catalog_recipe(catalog, choice, &recipe, err) == 0) {
        path = preset_save(&recipe, name, intent[0] ? intent : "A preset of your own.", err);
    }
    if (path) {
        struct preset preset = { .name = name, .path = path, .own = true };
        place = catalog_add_recipe(catalog, &preset);
        catalog_reset(catalog, NULL);
    }
    free(path);
    free(name);
    recipe_free(&recipe);
    return place;
}
