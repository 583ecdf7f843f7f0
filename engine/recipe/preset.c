/*
 * Presets: JSON files in folders by kind, found beside the program and, of the user's own making,
 * in $XDG_CONFIG_HOME/windrow/presets (~/.config/windrow/presets). The user's come first.
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"
#include "engine/recipe/load.h"

/* Writes the folder of the running program, without a slash at the end; false if it is unknown. */
static bool program_folder(char *out, size_t size)
{
    ssize_t length = readlink("/proc/self/exe", out, size - 1);
    if (length <= 0 || (size_t)length >= size - 1) {
        return false;
    }
    out[length] = '\0';
    char *slash = strrchr(out, '/');
    if (!slash) {
        return false;
    }
    *slash = '\0';
    return true;
}

const char *preset_directory(void)
{
    static _Thread_local char found[PATH_MAX];
    static const char *const places[] = { "presets", "../presets", "../share/windrow/presets" };
    const char *given = getenv("WINDROW_PRESETS");
    if (given && given[0]) {
        snprintf(found, sizeof found, "%s", given);
        return file_is_directory(found) ? found : NULL;
    }
    char folder[PATH_MAX];
    if (!program_folder(folder, sizeof folder)) {
        return NULL;
    }
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        char *path = path_join(folder, places[i]);
        bool good = file_is_directory(path) && realpath(path, found);
        free(path);
        if (good) {
            return found;
        }
    }
    return NULL;
}

char *preset_user_directory(void)
{
    const char *config = getenv("XDG_CONFIG_HOME");
    const char *home = getenv("HOME");
    if (config && config[0] == '/') {
        return path_join(config, "windrow/presets");
    }
    return home && home[0] ? path_join(home, ".config/windrow/presets") : NULL;
}

static char *path_under(const char *root, const char *kind, const char *name)
{
    if (!root || strchr(name, '/') || name[0] == '.' || name[0] == '\0') {
        return NULL;
    }
    size_t size = strlen(name);
    bool suffixed = size > 5 && strcmp(name + size - 5, ".json") == 0;
    char *path = xasprintf("%s/%s/%s%s", root, kind, name, suffixed ? "" : ".json");
    if (!file_exists(path) || file_is_directory(path)) {
        free(path);
        return NULL;
    }
    return path;
}

char *preset_path(const char *kind, const char *name)
{
    char *own = preset_user_directory();
    char *path = own ? path_under(own, kind, name) : NULL;
    free(own);
    return path ? path : path_under(preset_directory(), kind, name);
}

static int compare_presets(const void *a, const void *b)
{
    return strcmp(((const struct preset *)a)->name, ((const struct preset *)b)->name);
}

static void add_preset(struct preset_list *out, const char *folder, const char *file, bool own)
{
    for (size_t i = 0; i < out->count; i++) {
        size_t size = strlen(out->item[i].name);
        if (strncmp(out->item[i].name, file, size) == 0 && strcmp(file + size, ".json") == 0) {
            return; /* the user's own is there already */
        }
    }
    struct preset preset = { .name = xstrndup(file, strlen(file) - 5),
                             .path = path_join(folder, file),
                             .own = own };
    struct error ignored = { 0 };
    cJSON *root = json_read(preset.path, &ignored);
    const cJSON *intent = json_get(root, "intent");
    preset.intent = xstrdup(cJSON_IsString(intent) ? intent->valuestring : "");
    cJSON_Delete(root);
    out->item = xrealloc(out->item, (out->count + 1) * sizeof *out->item);
    out->item[out->count++] = preset;
}

/* Adds the presets of one folder; -1 with errno if it cannot be listed. */
static int list_folder(const char *folder, bool own, struct preset_list *out)
{
    DIR *directory = opendir(folder);
    if (!directory) {
        return -1;
    }
    const struct dirent *entry;
    while ((entry = readdir(directory))) {
        size_t size = strlen(entry->d_name);
        if (size > 5 && entry->d_name[0] != '.' && strcmp(entry->d_name + size - 5, ".json") == 0) {
            add_preset(out, folder, entry->d_name, own);
        }
    }
    closedir(directory);
    return 0;
}

int preset_list_read(const char *kind, struct preset_list *out, struct error *err)
{
    *out = (struct preset_list){ 0 };
    const char *root = preset_directory();
    if (!root) {
        fail(err, ERROR_USAGE, "the folder of presets was not found");
        return hint(err, "set WINDROW_PRESETS to it");
    }
    char *user = preset_user_directory();
    char *own = user ? path_join(user, kind) : NULL;
    if (own) {
        (void)list_folder(own, true, out); /* most have none */
    }
    free(own);
    free(user);
    char *folder = path_join(root, kind);
    int result = list_folder(folder, false, out);
    if (result != 0) {
        fail(err, ERROR_USAGE, "cannot list %s: %s", text_show(folder).text, strerror(errno));
        preset_list_free(out);
    } else if (out->count > 1) {
        qsort(out->item, out->count, sizeof *out->item, compare_presets);
    }
    free(folder);
    return result;
}

void preset_list_free(struct preset_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->item[i].name);
        free(list->item[i].path);
        free(list->item[i].intent);
    }
    free(list->item);
    *list = (struct preset_list){ 0 };
}
