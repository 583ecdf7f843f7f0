/* What the launcher offers. */
#include "app/catalog.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/text.h"
#include "engine/base/file.h"
#include "engine/base/xalloc.h"
#include "engine/inspect.h"

static void entry_free(struct catalog_entry *entry)
{
    free(entry->name);
    free(entry->note);
    free(entry->identity);
    free(entry->about);
    free(entry->preset);
    for (int i = 0; i < CATALOG_WORDS; i++) {
        free(entry->word[i]);
    }
}

/* A new entry, or NULL if one with this identity is there. */
static struct catalog_entry *entry_new(struct catalog_list *list, const char *identity,
                                       const char *name, const char *note)
{
    for (int i = 0; i < list->count; i++) {
        if (strcmp(list->entry[i].identity, identity) == 0) {
            return NULL;
        }
    }
    list->entry = xrealloc(list->entry, (size_t)(list->count + 1) * sizeof(list->entry[0]));
    struct catalog_entry *entry = &list->entry[list->count++];
    memset(entry, 0, sizeof(*entry));
    entry->name = xstrdup(name);
    entry->note = xstrdup(note);
    entry->identity = xstrdup(identity);
    entry->about = xstrdup("");
    entry->model = entry->data = -1;
    return entry;
}

static void entry_about(struct catalog_entry *entry, const char *text)
{
    if (entry) {
        free(entry->about);
        entry->about = xstrdup(text);
    }
}

static int entry_place(const struct catalog_list *list, const char *identity)
{
    for (int i = 0; identity[0] && i < list->count; i++) {
        if (strcmp(list->entry[i].identity, identity) == 0) {
            return i;
        }
    }
    return -1;
}

/* The file name without its extension. */
static char *stem(const char *path)
{
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/') {
        length--;
    }
    char *whole = xstrndup(path, length);
    char *name = xstrdup(path_base(whole));
    char *dot = strrchr(name, '.');
    if (dot && dot != name && !file_is_directory(path)) {
        *dot = '\0';
    }
    free(whole);
    return name;
}

/* ---- models ------------------------------------------------------------------------------------
 */

static void model_words_preset(const struct catalog *catalog, struct catalog_entry *entry,
                               const char *preset)
{
    int at = 0;
    entry->word[at++] = xasprintf("model.path=");
    entry->word[at++] = xasprintf("model.preset=%s", preset);
    entry->word[at++] = xasprintf("model.init=random");
    if (catalog->base.tokenizer_path[0] == '\0' && catalog->base.tokenizer_vocab == 0) {
        entry->word[at++] = xasprintf("tokenizer.vocab=1024");
    } else {
        entry->word[at++] = xasprintf("tokenizer.path=%s", catalog->base.tokenizer_path);
        entry->word[at++] =
            xasprintf("tokenizer.vocab=%lld", (long long)catalog->base.tokenizer_vocab);
    }
}

static void model_words_path(struct catalog_entry *entry, const char *path)
{
    entry->word[0] = xasprintf("model.preset=");
    entry->word[1] = xasprintf("model.path=%s", path);
    entry->word[2] = xasprintf("model.init=pretrained");
    entry->word[3] = xasprintf("tokenizer.path=");
    entry->word[4] = xasprintf("tokenizer.vocab=0");
}

static void add_model_of(struct catalog *catalog, const struct recipe *recipe)
{
    struct catalog_list *list = &catalog->list[LAUNCHER_MODEL];
    if (recipe->model_preset[0]) {
        struct catalog_entry *entry =
            entry_new(list, recipe->model_preset, recipe->model_preset, "random");
        if (entry) {
            model_words_preset(catalog, entry, recipe->model_preset);
        }
    } else if (recipe->model_path[0]) {
        char *name = stem(recipe->model_path);
        struct catalog_entry *entry = entry_new(list, recipe->model_path, name, "trained");
        entry_about(entry, recipe->model_path);
        if (entry) {
            model_words_path(entry, recipe->model_path);
        }
        free(name);
    }
}

/* Models that other programs have downloaded: models--OWNER--NAME. */
static void add_cached_models(struct catalog *catalog)
{
    const char *home = getenv("HOME");
    const char *cache = getenv("HF_HOME");
    char *path = cache  ? path_join(cache, "hub")
                 : home ? path_join(home, ".cache/huggingface/hub")
                        : NULL;
    DIR *directory = path ? opendir(path) : NULL;
    struct dirent *item;
    while (directory && (item = readdir(directory)) != NULL) {
        if (strncmp(item->d_name, "models--", 8) != 0) {
            continue;
        }
        char *name = xstrdup(item->d_name + 8);
        char *dashes = strstr(name, "--");
        if (dashes) {
            *dashes = '/';
            memmove(dashes + 1, dashes + 2, strlen(dashes + 2) + 1);
        }
        struct recipe recipe;
        struct error err = { 0 };
        recipe_init(&recipe);
        if (material_model(&recipe, name, &err) == 0 && recipe.model_path[0]) {
            add_model_of(catalog, &recipe);
        }
        recipe_free(&recipe);
        free(name);
    }
    if (directory) {
        closedir(directory);
    }
    free(path);
}

/* ---- data --------------------------------------------------------------------------------------
 */

/* "key=value" of the recipe as it is. */
static char *word_of(const struct recipe *recipe, const char *key)
{
    char *text = field_text(recipe_field(key), recipe);
    char *word = xasprintf("%s=%s", key, text);
    free(text);
    return word;
}

static void add_data_of(struct catalog *catalog, const struct recipe *recipe)
{
    static const char *const keys[] = { "data.train", "data.validation", "data.format",
                                        "data.template", "data.sequence_length" };
    if (recipe->data_train[0] == '\0') {
        return;
    }
    char *name = stem(recipe->data_train);
    struct catalog_entry *entry = entry_new(&catalog->list[LAUNCHER_DATA], recipe->data_train, name,
                                            data_format_names[recipe->data_format]);
    entry_about(entry, recipe->data_train);
    for (size_t i = 0; entry && i < sizeof(keys) / sizeof(keys[0]); i++) {
        entry->word[i] = word_of(recipe, keys[i]);
    }
    free(name);
}

/* ---- all ---------------------------------------------------------------------------------------
 */

/* The model and the data of a recipe, and with `entries` the recipe itself. */
static void add_recipes(struct catalog *catalog, bool entries)
{
    struct preset_list presets = { 0 };
    struct error err = { 0 };
    if (preset_list_read("recipes", &presets, &err) != 0) {
        return;
    }
    for (size_t i = 0; i < presets.count; i++) {
        struct recipe recipe;
        recipe_init(&recipe);
        if (entries && strcmp(presets.item[i].name, catalog->base.name) != 0) {
            catalog_add_recipe(catalog, &presets.item[i]);
        } else if (recipe_load(&recipe, presets.item[i].path, &err) == 0) {
            add_model_of(catalog, &recipe);
            add_data_of(catalog, &recipe);
        }
        recipe_free(&recipe);
    }
    preset_list_free(&presets);
}

int catalog_add_recipe(struct catalog *catalog, const struct preset *preset)
{
    struct catalog_list *list = &catalog->list[LAUNCHER_METHOD];
    struct error ignored = { 0 };
    struct recipe recipe;
    recipe_init(&recipe);
    int place = -1;
    if (recipe_load(&recipe, preset->path, &ignored) == 0) {
        entry_new(list, preset->path, preset->name, preset->own ? "yours" : "recipe");
        place = entry_place(list, preset->path);
        struct catalog_entry *entry = &list->entry[place];
        add_model_of(catalog, &recipe);
        add_data_of(catalog, &recipe);
        bool random = recipe.model_preset[0] != '\0';
        entry->model = entry_place(&catalog->list[LAUNCHER_MODEL],
                                   random ? recipe.model_preset : recipe.model_path);
        entry->data = entry_place(&catalog->list[LAUNCHER_DATA], recipe.data_train);
        entry->whole = true;
        entry_about(entry, recipe.intent);
        free(entry->preset);
        entry->preset = xstrdup(preset->path);
    }
    recipe_free(&recipe);
    return place;
}

static void add_presets(struct catalog *catalog)
{
    struct preset_list presets = { 0 };
    struct error err = { 0 };
    if (preset_list_read("models", &presets, &err) == 0) {
        for (size_t i = 0; i < presets.count; i++) {
            struct catalog_entry *entry =
                entry_new(&catalog->list[LAUNCHER_MODEL], presets.item[i].name,
                          presets.item[i].name, "random");
            if (entry) {
                model_words_preset(catalog, entry, presets.item[i].name);
            }
        }
        preset_list_free(&presets);
    }
    if (preset_list_read("methods", &presets, &err) == 0) {
        for (size_t i = 0; i < presets.count; i++) {
            struct catalog_list *list = &catalog->list[LAUNCHER_METHOD];
            struct catalog_entry *entry =
                entry_new(list, presets.item[i].name, presets.item[i].name, "");
            if (!entry) {
                continue;
            }
            entry_about(entry, presets.item[i].intent);
            if (strcmp(presets.item[i].name, catalog->base.method_name) == 0) {
                catalog->first_method = list->count - 1;
            } else {
                entry->preset = xstrdup(presets.item[i].path);
            }
        }
        preset_list_free(&presets);
    }
}

int catalog_open(struct catalog *catalog, const char *name, struct error *err)
{
    memset(catalog, 0, sizeof(*catalog));
    recipe_init(&catalog->base);
    catalog->base_name = xstrdup(name);
    if (recipe_find(&catalog->base, name, err) != 0) {
        catalog_close(catalog);
        return -1;
    }
    add_model_of(catalog, &catalog->base);
    add_data_of(catalog, &catalog->base);
    add_recipes(catalog, false);
    add_presets(catalog);
    add_cached_models(catalog);
    add_recipes(catalog, true);
    if (catalog->list[LAUNCHER_METHOD].count == 0) {
        entry_new(&catalog->list[LAUNCHER_METHOD], "", catalog->base.method_name, "");
    }
    return 0;
}

void catalog_close(struct catalog *catalog)
{
    for (int i = 0; i < LAUNCHER_LISTS; i++) {
        for (int k = 0; k < catalog->list[i].count; k++) {
            entry_free(&catalog->list[i].entry[k]);
        }
        free(catalog->list[i].entry);
    }
    for (int i = 0; i < catalog->override_count; i++) {
        free(catalog->override[i]);
    }
    recipe_free(&catalog->base);
    free(catalog->base_name);
    memset(catalog, 0, sizeof(*catalog));
}

static int apply_words(const struct catalog_entry *entry, struct recipe *recipe, struct error *err)
{
    for (int i = 0; i < CATALOG_WORDS && entry->word[i]; i++) {
        if (recipe_set(recipe, entry->word[i], err) != 0) {
            return -1;
        }
    }
    return 0;
}

static int apply_method(const struct catalog_entry *entry, struct recipe *recipe, struct error *err)
{
    char *name = xstrdup(recipe->name);
    int64_t rank = recipe->method_rank;
    int64_t interval = recipe->method_interval;
    int result = recipe_load(recipe, entry->preset, err);
    if (result == 0) {
        /* A preset is for models of any size; how many rows suit this one the base recipe knows. */
        recipe->method_rank = recipe->method_rank < rank ? recipe->method_rank : rank;
        recipe->method_interval = interval;
        free(recipe->name);
        recipe->name = xstrdup(name);
    }
    free(name);
    return result;
}

static const struct catalog_entry *entry_of(const struct catalog *catalog,
                                            const int choice[LAUNCHER_LISTS], int list)
{
    bool there = choice[list] >= 0 && choice[list] < catalog->list[list].count;
    return there ? &catalog->list[list].entry[choice[list]] : NULL;
}

int catalog_lay(const struct catalog *catalog, const int choice[LAUNCHER_LISTS],
                enum catalog_layer layer, struct recipe *recipe, struct error *err)
{
    const struct catalog_entry *preset = entry_of(catalog, choice, LAUNCHER_METHOD);
    bool whole = preset && preset->whole;
    int list = layer == LAYER_DATA ? LAUNCHER_DATA : LAUNCHER_MODEL;
    /* Where the entries are those of the recipe below, it has said all there is to say. */
    int own = !whole ? 0 : layer == LAYER_DATA ? preset->data : preset->model;
    const struct catalog_entry *entry = entry_of(catalog, choice, list);
    switch (layer) {
    case LAYER_BASE:
        recipe_copy(recipe, &catalog->base);
        return 0;
    case LAYER_RECIPE:
        if (whole) {
            recipe_free(recipe);
            recipe_init(recipe);
            return recipe_load(recipe, preset->preset, err);
        }
        return 0;
    case LAYER_MODEL:
    case LAYER_DATA:
        return entry && choice[list] != own ? apply_words(entry, recipe, err) : 0;
    case LAYER_METHOD:
        return preset && !whole && preset->preset ? apply_method(preset, recipe, err) : 0;
    case LAYER_YOU:
        for (int i = 0; i < catalog->override_count; i++) {
            if (recipe_set(recipe, catalog->override[i], err) != 0) {
                return -1;
            }
        }
        return 0;
    }
    return 0;
}

int catalog_recipe(const struct catalog *catalog, const int choice[LAUNCHER_LISTS],
                   struct recipe *recipe, struct error *err)
{
    for (int layer = LAYER_BASE; layer <= LAYER_YOU; layer++) {
        if (catalog_lay(catalog, choice, (enum catalog_layer)layer, recipe, err) != 0) {
            return -1;
        }
    }
    return recipe_check(recipe, err);
}

int catalog_add(struct catalog *catalog, int list, const char *path, struct error *err)
{
    char *absolute = realpath(path, NULL);
    const char *used = absolute ? absolute : path;
    int result = -1;
    struct recipe recipe;
    recipe_init(&recipe);
    char *name = stem(used);
    struct catalog_entry *entry = NULL;
    if (list == LAUNCHER_MODEL) {
        if (material_model(&recipe, used, err) == 0) {
            int before = catalog->list[list].count;
            add_model_of(catalog, &recipe);
            result = catalog->list[list].count > before ? before : -1;
        }
    } else if (!absolute) {
        fail(err, ERROR_USAGE, "%.300s cannot be found", path);
    } else if (list == LAUNCHER_DATA) {
        entry = entry_new(&catalog->list[list], used, name, "auto");
        if (entry) {
            entry->word[0] = xasprintf("data.train=%s", used);
            entry->word[1] = xasprintf("data.format=auto");
        }
    } else if (list == LAUNCHER_METHOD && recipe_load(&recipe, used, err) == 0) {
        entry = entry_new(&catalog->list[list], used, name, "");
        if (entry) {
            entry->preset = xstrdup(used);
        }
    }
    if (entry) {
        result = catalog->list[list].count - 1;
    } else if (result < 0 && err->code == ERROR_NONE) {
        fail(err, ERROR_USAGE, "%.300s is in the list already", path);
    }
    free(name);
    free(absolute);
    recipe_free(&recipe);
    return result;
}
