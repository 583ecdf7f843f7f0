/* models, datasets and presets: what can be named on the command line. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "app/commands/command.h"
#include "app/commands/output.h"
#include "app/text.h"
#include "engine/base/file.h"
#include "engine/inspect.h"
#include "engine/recipe.h"

/* A row of the table and its JSON object, filled together. */
struct listing {
    struct table table;
    cJSON *json;
};

static void listing_open(struct listing *listing, const char *align, const char *const *head)
{
    table_open(&listing->table, align);
    table_add(&listing->table, head);
    listing->json = cJSON_CreateArray();
}

static void listing_print(struct listing *listing, bool json, const char *nothing)
{
    if (json) {
        output_json(listing->json);
        table_free(&listing->table);
        return;
    }
    if (listing->table.rows > 1) {
        table_print(&listing->table);
    } else {
        output_say("%s", nothing);
        table_free(&listing->table);
    }
    cJSON_Delete(listing->json);
}

static void add_model(struct listing *listing, const char *kind, const char *name, const char *path,
                      const char *note)
{
    struct model_config config;
    struct error ignored = { 0 };
    double parameters = -1;
    if (config_read(path, &config, &ignored) == 0) {
        parameters = (double)model_config_parameters(&config);
    }
    struct text_number count = text_count(parameters);
    table_add(&listing->table, (const char *[]){ name, kind, parameters < 0 ? "-" : count.text,
                                                 parameters < 0 ? ignored.message : note });
    cJSON *item = json_append_object(listing->json);
    json_add_text(item, "name", name);
    json_add_text(item, "kind", kind);
    json_add_text(item, "path", path);
    if (parameters >= 0) {
        json_add_number(item, "parameters", parameters);
        json_add_text(item, "intent", note);
    } else {
        json_add_text(item, "error", ignored.message);
    }
}

static int add_cached_models(struct listing *listing, struct error *err)
{
    char **names = NULL;
    size_t count = 0;
    if (hf_directory_list(&names, &count, err) == -1) {
        return -1;
    }
    for (size_t i = 0; i < count; i++) {
        char *notice = NULL;
        struct error ignored = { 0 };
        char *directory = hf_directory_resolve(names[i], &notice, &ignored);
        if (directory != NULL) {
            char *path = path_join(directory, "config.json");
            add_model(listing, "cache", names[i], path, notice == NULL ? "" : notice);
            free(path);
        }
        free(directory);
        free(notice);
        free(names[i]);
    }
    free(names);
    return 0;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

/* Model directories that come along. */
static void add_shipped_models(struct listing *listing)
{
    const char *root = preset_directory();
    char *folder = path_join(root == NULL ? "." : root, "checkpoints");
    struct dirent **entry = NULL;
    int count = scandir(folder, &entry, NULL, by_name);
    for (int i = 0; i < count; i++) {
        char *path = xasprintf("%s/%s/config.json", folder, entry[i]->d_name);
        if (entry[i]->d_name[0] != '.' && file_exists(path)) {
            add_model(listing, "trained", entry[i]->d_name, path, "comes with its weights");
        }
        free(path);
        free(entry[i]);
    }
    free(entry);
    free(folder);
}

int command_models(const struct arguments *arguments)
{
    struct error err = { 0 };
    struct preset_list presets = { 0 };
    struct listing listing;
    listing_open(&listing, "llrl", (const char *[]){ "MODEL", "kind", "parameters", "" });
    int code = 0;
    if (preset_list_read("models", &presets, &err) == -1) {
        output_error(&err);
        code = (int)err.code;
    }
    for (size_t i = 0; i < presets.count; i++) {
        add_model(&listing, "preset", presets.item[i].name, presets.item[i].path,
                  presets.item[i].intent);
    }
    preset_list_free(&presets);
    add_shipped_models(&listing);
    if (add_cached_models(&listing, &err) == -1) {
        code = output_error(&err);
    }
    listing_print(&listing, arguments->json, "no models found");
    return code;
}

static void add_dataset(struct listing *listing, const char *folder, const char *file)
{
    char *path = path_join(folder, file);
    struct stat found;
    if (stat(path, &found) == 0 && S_ISREG(found.st_mode)) {
        struct text_number bytes = text_bytes((double)found.st_size);
        table_add(&listing->table, (const char *[]){ file, bytes.text, path });
        cJSON *item = json_append_object(listing->json);
        json_add_text(item, "name", file);
        json_add_text(item, "path", path);
        json_add_number(item, "bytes", (double)found.st_size);
    }
    free(path);
}

int command_datasets(const struct arguments *arguments)
{
    struct error err = { 0 };
    const char *root = preset_directory();
    if (root == NULL) {
        fail(&err, ERROR_USAGE, "the folder of presets was not found");
        hint(&err, "Set WINDROW_PRESETS to it");
        return output_error(&err);
    }
    struct listing listing;
    listing_open(&listing, "lrl", (const char *[]){ "DATA SET", "bytes", "path" });
    char *folder = path_join(root, "data");
    struct dirent **entry = NULL;
    int count = scandir(folder, &entry, NULL, by_name);
    for (int i = 0; i < count; i++) {
        if (entry[i]->d_name[0] != '.') {
            add_dataset(&listing, folder, entry[i]->d_name);
        }
        free(entry[i]);
    }
    free(entry);
    free(folder);
    listing_print(&listing, arguments->json, "no data sets lie with the program");
    if (!arguments->json) {
        output_say("any text file, JSONL or JSON file of yours works too: data.train=PATH");
    }
    return 0;
}

int command_presets(const struct arguments *arguments)
{
    static const char *const kinds[][2] = { { "recipes", "recipe" },
                                            { "methods", "method" },
                                            { "cards", "card" } };
    struct error err = { 0 };
    struct listing listing;
    int code = 0;
    listing_open(&listing, "lll", (const char *[]){ "PRESET", "kind", "" });
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        struct preset_list presets = { 0 };
        if (preset_list_read(kinds[k][0], &presets, &err) == -1) {
            code = output_error(&err);
        }
        for (size_t i = 0; i < presets.count; i++) {
            const struct preset *preset = &presets.item[i];
            table_add(&listing.table,
                      (const char *[]){ preset->name, kinds[k][1], preset->intent });
            cJSON *item = json_append_object(listing.json);
            json_add_text(item, "name", preset->name);
            json_add_text(item, "kind", kinds[k][1]);
            json_add_text(item, "path", preset->path);
            json_add_text(item, "intent", preset->intent);
        }
        preset_list_free(&presets);
    }
    listing_print(&listing, arguments->json, "no presets found");
    return code;
}
