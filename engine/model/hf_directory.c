/* Finding models in directories and in the Hugging Face cache. */
#include "engine/model/hf_directory.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/base/file.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"

/* An environment variable that is set and not empty. */
static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value && value[0] ? value : NULL;
}

char *hf_directory_cache(void)
{
    const char *value = variable("HF_HUB_CACHE");
    value = value ? value : variable("HUGGINGFACE_HUB_CACHE");
    if (value) {
        return xstrdup(value);
    }
    if ((value = variable("HF_HOME"))) {
        return path_join(value, "hub");
    }
    if ((value = variable("XDG_CACHE_HOME"))) {
        return path_join(value, "huggingface/hub");
    }
    value = variable("HOME");
    return value ? path_join(value, ".cache/huggingface/hub") : NULL;
}

static bool has_config(const char *directory)
{
    char *path = path_join(directory, "config.json");
    bool there = file_exists(path);
    free(path);
    return there;
}

/* Letters, digits, '-', '_' and '.', not starting with '.': what names and revisions are made of.
 * Anything else could lead out of the cache. */
static bool is_plain(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                    c == '-' || c == '_' || c == '.';
        if (!good) {
            return false;
        }
    }
    return size > 0 && size < 128 && text[0] != '.';
}

/* ORG/NAME or NAME, with @REVISION or without. `folder` becomes models--ORG--NAME. */
static bool split_name(const char *name, char **folder, char **revision)
{
    const char *at = strchr(name, '@');
    size_t size = at ? (size_t)(at - name) : strlen(name);
    const char *slash = memchr(name, '/', size);
    size_t first = slash ? (size_t)(slash - name) : size;
    if (!is_plain(name, first) || (slash && !is_plain(slash + 1, size - first - 1)) ||
        (at && !is_plain(at + 1, strlen(at + 1)))) {
        return false;
    }
    *folder = slash ? xasprintf("models--%.*s--%.*s", (int)first, name, (int)(size - first - 1),
                                slash + 1)
                    : xasprintf("models--%.*s", (int)size, name);
    *revision = at ? xstrdup(at + 1) : NULL;
    return true;
}

/* The snapshot that refs/REVISION names, or snapshots/REVISION itself; NULL if it is not there. */
static char *find_revision(const char *model, const char *revision)
{
    char *ref = xasprintf("%s/refs/%s", model, revision);
    struct error ignored;
    size_t size = 0;
    char *commit = file_exists(ref) ? file_read_all(ref, 200, &size, &ignored) : NULL;
    free(ref);
    const char *name = revision;
    if (commit) {
        commit[strcspn(commit, " \t\r\n")] = '\0';
        name = commit;
    }
    char *path = is_plain(name, strlen(name)) ? xasprintf("%s/snapshots/%s", model, name) : NULL;
    free(commit);
    if (path && !has_config(path)) {
        free(path);
        path = NULL;
    }
    return path;
}

/* The newest snapshot that has a config.json; NULL if there is none. */
static char *find_newest(const char *model)
{
    char *snapshots = path_join(model, "snapshots");
    DIR *directory = opendir(snapshots);
    char *best = NULL;
    struct timespec best_time = { 0 };
    const struct dirent *entry;
    while (directory && (entry = readdir(directory))) {
        struct stat facts;
        char *path = path_join(snapshots, entry->d_name);
        bool newer = entry->d_name[0] != '.' && has_config(path) && stat(path, &facts) == 0 &&
                     (!best || facts.st_mtim.tv_sec > best_time.tv_sec ||
                      (facts.st_mtim.tv_sec == best_time.tv_sec &&
                       facts.st_mtim.tv_nsec > best_time.tv_nsec));
        if (newer) {
            free(best);
            best = path;
            best_time = facts.st_mtim;
        } else {
            free(path);
        }
    }
    if (directory) {
        closedir(directory);
    }
    free(snapshots);
    return best;
}

/* Looks into the cache. */
static char *resolve_in_cache(const char *name, char **notice, struct error *err)
{
    char *folder = NULL;
    char *revision = NULL;
    char *cache = hf_directory_cache();
    char *found = NULL;
    if (!cache || !split_name(name, &folder, &revision)) {
        fail(err, ERROR_DATA, "%s is neither a directory nor a name ORG/NAME",
             text_show(name).text);
    } else {
        char *model = path_join(cache, folder);
        found = find_revision(model, revision ? revision : "main");
        if (!found && !revision && (found = find_newest(model)) && notice) {
            *notice =
                xasprintf("%s: the cache does not say which snapshot is main; the newest one, "
                          "%s, is used",
                          text_show(name).text, text_show(path_base(found)).text);
        }
        if (!found && file_is_directory(model)) {
            fail(err, ERROR_DATA, "%s: %s%s has no snapshot with a config.json in %s",
                 text_show(name).text, revision ? "revision " : "the model",
                 revision ? text_show(revision).text : "", text_show(model).text);
            hint(err, "fetch it again: huggingface-cli download %s", text_show(name).text);
        } else if (!found) {
            fail(err, ERROR_DATA, "%s is not a directory, and there is no %s in the cache %s",
                 text_show(name).text, text_show(folder).text, text_show(cache).text);
            hint(err, "give a directory, or fetch it: huggingface-cli download %s",
                 text_show(name).text);
        }
        free(model);
    }
    free(folder);
    free(revision);
    free(cache);
    return found;
}

char *hf_directory_resolve(const char *name, char **notice, struct error *err)
{
    if (notice) {
        *notice = NULL;
    }
    if (name[0] == '\0') {
        fail(err, ERROR_DATA, "the name of the model is empty");
        return NULL;
    }
    if (file_is_directory(name)) {
        if (has_config(name)) {
            return xstrdup(name);
        }
        fail(err, ERROR_DATA, "the directory %s holds no config.json", text_show(name).text);
        hint(err, "a model is a directory with config.json, model.safetensors and a tokenizer");
        return NULL;
    }
    if (file_exists(name)) {
        fail(err, ERROR_DATA, "%s is a file, a model is a directory with a config.json",
             text_show(name).text);
        return NULL;
    }
    return resolve_in_cache(name, notice, err);
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* "models--ORG--NAME" to "ORG/NAME" (xmalloc'd), or NULL. */
static char *name_of_folder(const char *folder)
{
    static const char start[] = "models--";
    if (strncmp(folder, start, sizeof start - 1) != 0) {
        return NULL;
    }
    const char *rest = folder + sizeof start - 1;
    const char *split = strstr(rest, "--");
    return split ? xasprintf("%.*s/%s", (int)(split - rest), rest, split + 2) : xstrdup(rest);
}

int hf_directory_list(char ***names, size_t *count, struct error *err)
{
    char *cache = hf_directory_cache();
    DIR *directory = cache ? opendir(cache) : NULL;
    const struct dirent *entry;
    *names = NULL;
    *count = 0;
    (void)err; /* an unreadable cache is an empty one */
    while (directory && (entry = readdir(directory))) {
        char *name = name_of_folder(entry->d_name);
        struct error ignored;
        char *path = name ? resolve_in_cache(name, NULL, &ignored) : NULL;
        if (path) {
            *names = xrealloc(*names, (*count + 1) * sizeof **names);
            (*names)[(*count)++] = name;
        } else {
            free(name);
        }
        free(path);
    }
    if (directory) {
        closedir(directory);
    }
    if (*count > 1) {
        qsort(*names, *count, sizeof **names, compare_texts);
    }
    free(cache);
    return 0;
}
