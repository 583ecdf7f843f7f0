/* The weights of a model directory, in one file or in shards with an index:
 *     {"metadata": {...}, "weight_map": {"tensor name": "file name", ...}}
 * Each tensor of the map must lie in its file; a name in two files is refused. */
#include "engine/model/weights.h"

#include <stdlib.h>
#include <string.h>

#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/model/adapter.h"

enum { SHARDS_MAX = 4096 };

struct weights_source {
    char *directory;
    struct safetensors **file;
    size_t file_count;
    struct weights_tensor *tensor;
    size_t count;
    struct weights_tensor *by_name;
};

/* Old files carry the table of rotary frequencies, which is computed here. */
static bool is_ignored(const char *name)
{
    static const char end[] = "rotary_emb.inv_freq";
    size_t size = strlen(name);
    return size >= sizeof end - 1 && strcmp(name + size - (sizeof end - 1), end) == 0;
}

static int add_file(struct weights_source *source, const char *name, struct error *err)
{
    char *path = path_join(source->directory, name);
    struct safetensors *file = safetensors_open(path, err);
    free(path);
    if (!file) {
        return -1;
    }
    source->file = xrealloc(source->file, (source->file_count + 1) * sizeof *source->file);
    source->file[source->file_count++] = file;
    return 0;
}

/* A shard must be a plain name: it cannot lead out of the directory. */
static bool is_plain_name(const char *name)
{
    size_t size = strlen(name);
    for (size_t i = 0; i < size; i++) {
        if (name[i] == '/' || name[i] == '\\' || name[i] == ':' || (unsigned char)name[i] < 0x20 ||
            name[i] == 0x7f) {
            return false;
        }
    }
    return size > 0 && size < 256 && name[0] != '.';
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Opens the files that the map names, sorted, each once. */
static int add_shards(struct weights_source *source, const char *path, const cJSON *map,
                      struct error *err)
{
    const cJSON *item;
    size_t count = 0;
    if (!cJSON_IsObject(map) || !map->child) {
        return fail(err, ERROR_DATA, "%s: \"weight_map\" must map tensor names to file names",
                    text_show(path).text);
    }
    cJSON_ArrayForEach (item, map) {
        if (!cJSON_IsString(item) || !is_plain_name(item->valuestring)) {
            return fail(err, ERROR_DATA,
                        "%s: \"weight_map\": tensor \"%s\" must name a file of this directory "
                        "(a plain name without slashes), found \"%s\"",
                        text_show(path).text, text_show(item->string).text,
                        cJSON_IsString(item) ? text_show(item->valuestring).text : "no text");
        }
        count++;
    }
    const char **names = malloc(count * sizeof *names);
    if (!names) {
        return fail(err, ERROR_RUNTIME, "%s: out of memory", text_show(path).text);
    }
    count = 0;
    cJSON_ArrayForEach (item, map) {
        names[count++] = item->valuestring;
    }
    qsort(names, count, sizeof *names, compare_texts);
    int result = 0;
    for (size_t i = 0; i < count && result == 0; i++) {
        if (i > 0 && strcmp(names[i - 1], names[i]) == 0) {
            continue;
        }
        result = source->file_count < SHARDS_MAX ? add_file(source, names[i], err)
                                                 : fail(err, ERROR_DATA, "%s: more than %d files",
                                                        text_show(path).text, SHARDS_MAX);
    }
    free(names);
    return result;
}

static int compare_tensors(const void *a, const void *b)
{
    const struct weights_tensor *x = a;
    const struct weights_tensor *y = b;
    return strcmp(x->tensor->name, y->tensor->name);
}

/* Lists the tensors of all files, and sorts them by name. */
static int list_tensors(struct weights_source *source, struct error *err)
{
    size_t capacity = 1;
    for (size_t i = 0; i < source->file_count; i++) {
        capacity += source->file[i]->count;
    }
    source->tensor = calloc(capacity, sizeof *source->tensor);
    source->by_name = calloc(capacity, sizeof *source->by_name);
    if (!source->tensor || !source->by_name) {
        return fail(err, ERROR_RUNTIME, "%s: out of memory", text_show(source->directory).text);
    }
    for (size_t i = 0; i < source->file_count; i++) {
        const struct safetensors *file = source->file[i];
        for (size_t k = 0; k < file->count; k++) {
            if (!is_ignored(file->tensor[k].name)) {
                source->tensor[source->count++] =
                    (struct weights_tensor){ .file = file, .tensor = &file->tensor[k] };
            }
        }
    }
    if (source->count > 0) {
        memcpy(source->by_name, source->tensor, source->count * sizeof *source->tensor);
    }
    qsort(source->by_name, source->count, sizeof *source->by_name, compare_tensors);
    for (size_t i = 1; i < source->count; i++) {
        const struct weights_tensor *a = &source->by_name[i - 1];
        const struct weights_tensor *b = &source->by_name[i];
        if (strcmp(a->tensor->name, b->tensor->name) == 0) {
            return fail(err, ERROR_DATA, "tensor \"%s\" lies in two files, %s and %s",
                        text_show(a->tensor->name).text, text_show(a->file->path).text,
                        text_show(b->file->path).text);
        }
    }
    return 0;
}

/* Each tensor of the map lies where the map says. */
static int check_map(const struct weights_source *source, const char *path, const cJSON *map,
                     struct error *err)
{
    const cJSON *item;
    cJSON_ArrayForEach (item, map) {
        struct weights_tensor found;
        if (is_ignored(item->string)) {
            continue;
        }
        if (!weights_find(source, item->string, &found) ||
            strcmp(path_base(found.file->path), item->valuestring) != 0) {
            return fail(err, ERROR_DATA,
                        "%s: \"weight_map\": tensor \"%s\" does not lie in %s as it says",
                        text_show(path).text, text_show(item->string).text,
                        text_show(item->valuestring).text);
        }
    }
    return 0;
}

static int open_index(struct weights_source *source, const char *path, struct error *err)
{
    cJSON *index = json_read(path, err);
    if (!index) {
        return -1;
    }
    const cJSON *map = json_get(index, "weight_map");
    int result = add_shards(source, path, map, err);
    if (result == 0) {
        result = list_tensors(source, err);
    }
    if (result == 0) {
        result = check_map(source, path, map, err);
    }
    cJSON_Delete(index);
    return result;
}

static bool holds(const char *directory, const char *name)
{
    char *path = path_join(directory, name);
    bool there = file_exists(path);
    free(path);
    return there;
}

static int refuse_directory(const char *directory, struct error *err)
{
    if (!file_is_directory(directory)) {
        return fail(err, ERROR_DATA, "%s is not a directory", text_show(directory).text);
    }
    fail(err, ERROR_DATA, "%s holds no model.safetensors and no model.safetensors.index.json",
         text_show(directory).text);
    if (holds(directory, "pytorch_model.bin") || holds(directory, "pytorch_model.bin.index.json")) {
        hint(err, "it holds pytorch_model.bin: convert it to safetensors, pickles can run code and "
                  "are not read");
    }
    return -1;
}

struct weights_source *weights_open(const char *directory, struct error *err)
{
    struct weights_source *source = xcalloc(1, sizeof *source);
    source->directory = xstrdup(directory);
    int result;
    if (holds(directory, "model.safetensors")) {
        result = add_file(source, "model.safetensors", err);
        if (result == 0) {
            result = list_tensors(source, err);
        }
    } else if (holds(directory, "model.safetensors.index.json")) {
        char *path = path_join(directory, "model.safetensors.index.json");
        result = open_index(source, path, err);
        free(path);
    } else {
        result = refuse_directory(directory, err);
    }
    if (result != 0) {
        weights_close(source);
        return NULL;
    }
    return source;
}

void weights_close(struct weights_source *source)
{
    if (!source) {
        return;
    }
    for (size_t i = 0; i < source->file_count; i++) {
        safetensors_close(source->file[i]);
    }
    free(source->file);
    free(source->tensor);
    free(source->by_name);
    free(source->directory);
    free(source);
}

void weights_lay_adapter(struct weights_source *source, const struct adapter *adapter)
{
    for (size_t i = 0; i < source->count; i++) {
        source->tensor[i].adapter = adapter;
        source->by_name[i].adapter = adapter;
    }
}

size_t weights_count(const struct weights_source *source)
{
    return source->count;
}

struct weights_tensor weights_get(const struct weights_source *source, size_t index)
{
    return source->tensor[index];
}

size_t weights_file_count(const struct weights_source *source)
{
    return source->file_count;
}

bool weights_find(const struct weights_source *source, const char *name, struct weights_tensor *out)
{
    size_t low = 0;
    size_t high = source->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(source->by_name[middle].tensor->name, name);
        if (order == 0) {
            *out = source->by_name[middle];
            return true;
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return false;
}

int weights_read_range(const struct weights_tensor *tensor, int64_t first, int64_t count, void *out,
                       enum dtype want, struct error *err)
{
    const char *name = tensor->tensor->name;
    if (!tensor->adapter || !adapter_find(tensor->adapter, name)) {
        return safetensors_read_range(tensor->file, tensor->tensor, first, count, out, want, err);
    }
    float *wide = malloc((size_t)count * sizeof *wide + 1);
    if (!wide) {
        return fail(err, ERROR_RUNTIME, "out of memory for %lld values of %s", (long long)count,
                    text_show(name).text);
    }
    int result =
        safetensors_read_range(tensor->file, tensor->tensor, first, count, wide, DTYPE_F32, err);
    if (result == 0) {
        adapter_merge(tensor->adapter, name, first, count, wide);
    }
    for (int64_t i = 0; result == 0 && i < count; i++) {
        if (want == DTYPE_F32) {
            ((float *)out)[i] = wide[i];
        } else {
            ((uint16_t *)out)[i] = bf16_from_float(wide[i]);
        }
    }
    free(wide);
    return result;
}

/* "(512, 64)" into `out`; dimensions beyond those kept show as "...". */
static void print_shape(char *out, size_t size, int rank, const int64_t *dim)
{
    size_t used = (size_t)snprintf(out, size, "(");
    int shown = rank < SAFETENSORS_RANK_MAX ? rank : SAFETENSORS_RANK_MAX;
    for (int i = 0; i < shown && used < size; i++) {
        used +=
            (size_t)snprintf(out + used, size - used, "%s%lld", i ? ", " : "", (long long)dim[i]);
    }
    if (used < size) {
        snprintf(out + used, size - used, "%s", rank > shown ? ", ...)" : ")");
    }
}

int weights_require(const struct weights_source *source, const char *name, int rank,
                    const int64_t *dim, struct weights_tensor *out, struct error *err)
{
    struct weights_tensor found;
    if (!weights_find(source, name, &found)) {
        fail(err, ERROR_DATA, "%s: tensor \"%s\" is missing", text_show(source->directory).text,
             text_show(name).text);
        return hint(err, "its config.json describes another model than its weights");
    }
    bool same = found.tensor->rank == rank;
    for (int i = 0; same && i < rank; i++) {
        same = found.tensor->dim[i] == dim[i];
    }
    if (!same) {
        char have[128];
        char need[128];
        print_shape(have, sizeof have, found.tensor->rank, found.tensor->dim);
        print_shape(need, sizeof need, rank, dim);
        fail(err, ERROR_DATA, "%s: tensor \"%s\" has the shape %s, config.json asks for %s",
             text_show(found.file->path).text, text_show(name).text, have, need);
        return hint(err, "its config.json describes another model than its weights");
    }
    *out = found;
    return 0;
}

int weights_read(const struct weights_source *source, const char *name, void *out, enum dtype want,
                 struct error *err)
{
    struct weights_tensor found;
    if (!weights_find(source, name, &found)) {
        return fail(err, ERROR_DATA, "%s: tensor \"%s\" is missing",
                    text_show(source->directory).text, text_show(name).text);
    }
    return weights_read_range(&found, 0, found.tensor->elements, out, want, err);
}
