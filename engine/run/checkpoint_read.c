/* Finding, checking and opening checkpoints; format and protocol are in the header. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/base/digest.h"
#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"
#include "engine/run/checkpoint.h"

/* "self": "0123456789abcdef0123456789abcdef"}\n */
enum { SELF_SIZE = 8 + 1 + (DIGEST_TEXT_SIZE - 1) + 3, MANIFEST_LIMIT = 1 << 20 };

static const char *const tensor_files[] = { CHECKPOINT_WEIGHTS, CHECKPOINT_STATE };

/* "step-000100" and nothing else: 100. */
static bool parse_step(const char *name, int64_t *step)
{
    size_t digits = strlen(name) > 5 ? strspn(name + 5, "0123456789") : 0;
    return strncmp(name, "step-", 5) == 0 && digits >= 6 && digits <= 15 &&
           name[5 + digits] == '\0' && (digits == 6 || name[5] != '0') &&
           text_to_integer(name + 5, step);
}

static int compare_steps(const void *a, const void *b)
{
    int64_t left = ((const struct checkpoint_name *)a)->step;
    int64_t right = ((const struct checkpoint_name *)b)->step;
    return left < right ? 1 : left > right ? -1 : 0;
}

static bool is_own_directory(const char *path)
{
    struct stat facts;
    return lstat(path, &facts) == 0 && S_ISDIR(facts.st_mode);
}

int checkpoint_list_read(const char *run, struct checkpoint_list *out, struct error *err)
{
    *out = (struct checkpoint_list){ 0 };
    char *folder = path_join(run, "checkpoints");
    DIR *directory = opendir(folder);
    if (!directory && errno != ENOENT) {
        fail(err, ERROR_RUNTIME, "cannot list %s: %s", text_show(folder).text, strerror(errno));
        free(folder);
        return -1;
    }
    size_t capacity = 0;
    const struct dirent *entry;
    int64_t step = 0;
    while (directory && (entry = readdir(directory))) {
        if (!parse_step(entry->d_name, &step)) {
            continue;
        }
        char *path = path_join(folder, entry->d_name);
        if (!is_own_directory(path)) {
            free(path);
            continue;
        }
        if (out->count == capacity) {
            capacity = capacity ? 2 * capacity : 16;
            out->item = xrealloc(out->item, capacity * sizeof *out->item);
        }
        out->item[out->count++] = (struct checkpoint_name){ step, path };
    }
    if (directory) {
        closedir(directory);
    }
    if (out->count > 1) {
        qsort(out->item, out->count, sizeof *out->item, compare_steps);
    }
    free(folder);
    return 0;
}

void checkpoint_list_free(struct checkpoint_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->item[i].path);
    }
    free(list->item);
    *list = (struct checkpoint_list){ 0 };
}

/* ---- the manifest --------------------------------------------------------------------------- */

/* The manifest ends in its own digest. */
static int check_self(const char *text, size_t size, struct error *err)
{
    char digest[DIGEST_TEXT_SIZE];
    char tail[SELF_SIZE + 1];
    if (size < SELF_SIZE) {
        return fail(err, ERROR_DATA, "manifest.json is cut off");
    }
    digest_of(text, size - SELF_SIZE, digest);
    snprintf(tail, sizeof tail, "\"self\": \"%s\"}\n", digest);
    if (memcmp(text + size - SELF_SIZE, tail, SELF_SIZE) != 0) {
        return fail(err, ERROR_DATA, "manifest.json does not match its own checksum");
    }
    return 0;
}

static cJSON *read_manifest(const char *path, int64_t *step, struct error *err)
{
    char *name = path_join(path, "manifest.json");
    size_t size = 0;
    char *text = file_read_all(name, MANIFEST_LIMIT, &size, err);
    cJSON *root = NULL;
    if (text && check_self(text, size, err) == 0) {
        root = json_parse(text, size, name, 1, err);
    }
    free(text);
    const char *format = NULL;
    int64_t version = 0;
    struct json_range range = { 0, 1LL << 53, 0, true };
    if (root && (json_string(root, "format", "", &format, name, err) != 0 ||
                 json_integer(root, "version", range, &version, name, err) != 0 ||
                 json_integer(root, "step", range, step, name, err) != 0 ||
                 strcmp(format, "windrow-checkpoint") != 0 || version != 1 ||
                 !cJSON_IsArray(json_get(root, "files")))) {
        if (err->message[0] == '\0') {
            fail(err, ERROR_DATA, "manifest.json has another format or version (%lld)",
                 (long long)version);
        }
        cJSON_Delete(root);
        root = NULL;
    }
    free(name);
    return root;
}

static int check_file(const char *folder, const cJSON *item, bool deep, struct error *err)
{
    const cJSON *name = json_get(item, "name");
    const cJSON *bytes = json_get(item, "bytes");
    const cJSON *digest = json_get(item, "digest");
    if (!cJSON_IsString(name) || !cJSON_IsNumber(bytes) || !cJSON_IsString(digest) ||
        name->valuestring[0] == '\0' || name->valuestring[0] == '.' ||
        strchr(name->valuestring, '/')) {
        return fail(err, ERROR_DATA, "manifest.json names a file wrongly");
    }
    char *path = path_join(folder, name->valuestring);
    char found[DIGEST_TEXT_SIZE] = "";
    struct stat facts;
    int result = 0;
    if (lstat(path, &facts) != 0 || !S_ISREG(facts.st_mode)) {
        result = fail(err, ERROR_DATA, "%s is missing", name->valuestring);
    } else if ((double)facts.st_size != bytes->valuedouble) {
        result = fail(err, ERROR_DATA, "%s has %lld bytes, %.0f were written", name->valuestring,
                      (long long)facts.st_size, bytes->valuedouble);
    } else if (deep) {
        result = digest_of_file(path, found, err);
        if (result == 0 && strcmp(found, digest->valuestring) != 0) {
            result = fail(err, ERROR_DATA, "%s does not match its checksum", name->valuestring);
        }
    }
    free(path);
    return result;
}

/* `step` may be NULL. */
static int verify(const char *path, bool deep, int64_t *step, struct error *err)
{
    int64_t named = 0;
    int64_t written = 0;
    int result = 0;
    cJSON *manifest = read_manifest(path, &written, err);
    if (!manifest) {
        return -1;
    }
    if (parse_step(path_base(path), &named) && named != written) {
        result = fail(err, ERROR_DATA, "the manifest is that of step %lld", (long long)written);
    }
    bool has_state = false;
    const cJSON *item;
    cJSON_ArrayForEach (item, json_get(manifest, "files")) {
        if (result == 0) {
            result = check_file(path, item, deep, err);
        }
        const cJSON *name = json_get(item, "name");
        has_state =
            has_state || (cJSON_IsString(name) && strcmp(name->valuestring, "state.json") == 0);
    }
    if (result == 0 && !has_state) {
        result = fail(err, ERROR_DATA, "state.json is missing");
    }
    if (result == 0 && step) {
        *step = written;
    }
    cJSON_Delete(manifest);
    return result;
}

int checkpoint_verify(const char *path, bool deep, struct error *err)
{
    struct error why = { 0 };
    if (verify(path, deep, NULL, &why) != 0) {
        *err = why;
        return fail_within(err, "%s", text_show(path).text);
    }
    return 0;
}

/* ---- opening -------------------------------------------------------------------------------- */

int checkpoint_open(const char *path, struct checkpoint *out, struct error *err)
{
    struct error why = { 0 };
    *out = (struct checkpoint){ 0 };
    if (verify(path, true, &out->step, &why) != 0) {
        *err = why;
        return fail_within(err, "%s", text_show(path).text);
    }
    char *name = path_join(path, "state.json");
    out->state = json_read(name, err);
    free(name);
    int result = out->state ? 0 : -1;
    for (int i = 0; i < 2 && result == 0; i++) {
        name = path_join(path, tensor_files[i]);
        if (file_exists(name)) {
            out->file[i] = safetensors_open(name, err);
            result = out->file[i] ? 0 : -1;
        }
        free(name);
    }
    out->path = xstrdup(path);
    if (result != 0) {
        checkpoint_close(out);
    }
    return result;
}

void checkpoint_close(struct checkpoint *checkpoint)
{
    for (int i = 0; i < 2; i++) {
        if (checkpoint->file[i]) {
            safetensors_close(checkpoint->file[i]);
        }
    }
    cJSON_Delete(checkpoint->state);
    free(checkpoint->path);
    *checkpoint = (struct checkpoint){ 0 };
}

const struct safetensors_tensor *checkpoint_find(const struct checkpoint *checkpoint,
                                                 const char *name, const struct safetensors **file)
{
    for (int i = 0; i < 2; i++) {
        const struct safetensors_tensor *found =
            checkpoint->file[i] ? safetensors_find(checkpoint->file[i], name) : NULL;
        if (found) {
            *file = checkpoint->file[i];
            return found;
        }
    }
    return NULL;
}
