/*
 * Writes a Hugging Face directory:
 *     config.json              keys of transformers 4
 *     model.safetensors        one file, metadata {"format": "pt"}
 *     generation_config.json   if the source has it
 *     tokenizer.model, tokenizer.json, ...   the source's, byte for byte
 */
#include "engine/model/export.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/model/adapter.h"

enum { CHUNK = 1 << 20 };

/* The first belongs to the model, the others to the tokenizer. */
static const char *const copied_files[] = {
    "generation_config.json",
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
};
enum { COPIED_FILES = sizeof copied_files / sizeof copied_files[0] };

static int write_json(const char *directory, const char *name, cJSON *json, struct error *err)
{
    char *path = path_join(directory, name);
    char *text = json_print_pretty(json);
    struct buffer line = { 0 };
    buffer_printf(&line, "%s\n", text);
    int result = file_replace(path, line.text, line.size, err);
    buffer_free(&line);
    free(text);
    free(path);
    cJSON_Delete(json);
    return result;
}

static int write_entry(const struct model_export *args, size_t index, void *chunk,
                       struct safetensors_writer *writer, struct error *err)
{
    const struct safetensors_entry *entry = &args->entry[index];
    int64_t width = (int64_t)dtype_size(entry->dtype);
    int64_t elements = safetensors_entry_bytes(entry) / width;
    for (int64_t first = 0; first < elements;) {
        int64_t count = elements - first < CHUNK / width ? elements - first : CHUNK / width;
        if (args->read(args->context, index, first, count, chunk, err) != 0 ||
            safetensors_writer_write(writer, chunk, (size_t)(count * width), err) != 0) {
            return -1;
        }
        first += count;
    }
    return 0;
}

static int write_weights(const struct model_export *args, const char *directory, struct error *err)
{
    char *path = path_join(directory, args->adapter ? ADAPTER_WEIGHTS : "model.safetensors");
    struct safetensors_writer *writer =
        safetensors_writer_begin(path, args->entry, args->entry_count, err);
    free(path);
    if (!writer) {
        return -1;
    }
    void *chunk = xmalloc(CHUNK);
    int result = 0;
    for (size_t i = 0; i < args->entry_count && result == 0; i++) {
        result = write_entry(args, i, chunk, writer, err);
    }
    free(chunk);
    if (result != 0) {
        safetensors_writer_abort(writer);
        return -1;
    }
    return safetensors_writer_finish(writer, NULL, NULL, err);
}

/* Copies what the source has of the list. `tokenizer` is set if one of the files that make a
 * tokenizer was among them. */
static int copy_files(const struct model_export *args, const char *directory, bool *tokenizer,
                      struct error *err)
{
    const char *model = args->source_directory ? args->source_directory : "";
    const char *of_tokenizer = args->tokenizer_directory ? args->tokenizer_directory : model;
    int result = 0;
    for (size_t i = 0; i < COPIED_FILES && result == 0; i++) {
        const char *source = i == 0 ? model : of_tokenizer;
        if (source[0] == '\0') {
            continue;
        }
        char *from = path_join(source, copied_files[i]);
        char *to = path_join(directory, copied_files[i]);
        if (file_exists(from)) {
            result = file_copy(from, to, err);
            *tokenizer = *tokenizer || strcmp(copied_files[i], "tokenizer.model") == 0 ||
                         strcmp(copied_files[i], "tokenizer.json") == 0 ||
                         strcmp(copied_files[i], "vocab.json") == 0;
        }
        free(from);
        free(to);
    }
    return result;
}

static void add_piece(cJSON *json, const char *key, const char *piece)
{
    if (piece) {
        cJSON_AddStringToObject(json, key, piece);
    }
}

cJSON *model_export_tokenizer_config(const struct model_export *args)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddBoolToObject(json, "add_bos_token", args->bos_piece != NULL);
    cJSON_AddFalseToObject(json, "add_eos_token");
    add_piece(json, "bos_token", args->bos_piece);
    add_piece(json, "eos_token", args->eos_piece);
    cJSON_AddTrueToObject(json, "legacy");
    cJSON_AddNumberToObject(json, "model_max_length", (double)args->config->max_positions);
    cJSON_AddStringToObject(json, "tokenizer_class", "LlamaTokenizer");
    add_piece(json, "unk_token", args->unk_piece);
    return json;
}

static int write_tokenizer(const struct model_export *args, const char *directory,
                           struct error *err)
{
    char *path = path_join(directory, "tokenizer.model");
    int result = file_replace(path, args->tokenizer_bytes, args->tokenizer_size, err);
    free(path);
    return result != 0 ? -1
                       : write_json(directory, "tokenizer_config.json",
                                    model_export_tokenizer_config(args), err);
}

static int write_all(const struct model_export *args, const char *directory, struct error *err)
{
    bool tokenizer = false;
    enum dtype dtype = args->entry_count > 0 ? args->entry[0].dtype : DTYPE_F32;
    if (args->adapter) {
        cJSON *config = cJSON_Duplicate(args->adapter, true);
        return write_json(directory, ADAPTER_CONFIG, config, err) != 0 ||
                       write_weights(args, directory, err) != 0
                   ? -1
                   : file_sync_directory(directory, err);
    }
    if (write_json(directory, "config.json", config_to_json(args->config, dtype), err) != 0 ||
        copy_files(args, directory, &tokenizer, err) != 0) {
        return -1;
    }
    if (!tokenizer && args->tokenizer_bytes && write_tokenizer(args, directory, err) != 0) {
        return -1;
    }
    if (write_weights(args, directory, err) != 0) {
        return -1;
    }
    return file_sync_directory(directory, err);
}

/* The target must not exist, or be an empty directory. */
static int check_target(const char *target, struct error *err)
{
    if (!file_exists(target)) {
        return 0;
    }
    DIR *directory = opendir(target);
    if (!directory) {
        return fail(err, ERROR_USAGE, "cannot export to %s: %s", text_show(target).text,
                    strerror(errno));
    }
    const struct dirent *entry;
    int inside = 0;
    while ((entry = readdir(directory))) {
        inside += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    }
    closedir(directory);
    if (inside > 0) {
        fail(err, ERROR_USAGE, "cannot export to %s: it exists and is not empty",
             text_show(target).text);
        return hint(err, "name a directory that does not exist yet");
    }
    return 0;
}

static int check_space(const struct model_export *args, const char *target, struct error *err)
{
    enum { SPARE = 64 << 20 };
    int64_t need = safetensors_file_bytes(args->entry, args->entry_count) + SPARE;
    int64_t have = file_free_bytes(target);
    if (have < 0 || have >= need) {
        return 0;
    }
    fail(err, ERROR_RUNTIME, "exporting to %s takes %lld bytes, its disk has %lld free",
         text_show(target).text, (long long)need, (long long)have);
    return hint(err, "free space, or export to another disk");
}

/* A new directory beside the target (xmalloc'd name). */
static char *make_beside(const char *target, struct error *err)
{
    for (int attempt = 0; attempt < 100; attempt++) {
        char *path = xasprintf("%s.tmp-%ld-%d", target, (long)getpid(), attempt);
        if (file_ops()->mkdir(path, 0700) == 0) {
            return path;
        }
        int number = errno;
        free(path);
        if (number != EEXIST) {
            fail(err, ERROR_RUNTIME, "cannot make a directory beside %s: %s",
                 text_show(target).text, strerror(number));
            return NULL;
        }
    }
    fail(err, ERROR_RUNTIME, "cannot make a directory beside %s: 100 names are taken",
         text_show(target).text);
    return NULL;
}

/* Gives the finished directory its name, durably. */
static int publish(const char *made, const char *target, const char *parent, struct error *err)
{
    if (file_ops()->rename(made, target) != 0) {
        return fail(err, ERROR_RUNTIME, "cannot rename %s to %s: %s", text_show(made).text,
                    text_show(target).text, strerror(errno));
    }
    return file_sync_directory(parent, err);
}

int model_export(const struct model_export *args, struct error *err)
{
    char *target = xstrdup(args->target);
    for (size_t size = strlen(target); size > 1 && target[size - 1] == '/'; size--) {
        target[size - 1] = '\0';
    }
    const char *base = path_base(target);
    char *parent = base == target ? xstrdup(".") : xstrndup(target, (size_t)(base - target));
    char *made = NULL;
    int result = -1;
    if (base[0] == '\0' || strcmp(base, ".") == 0 || strcmp(base, "..") == 0) {
        fail(err, ERROR_USAGE, "cannot export to \"%s\": name a new directory",
             text_show(args->target).text);
    } else if (check_target(target, err) == 0 && check_space(args, target, err) == 0 &&
               file_make_directories(parent, err) == 0 && (made = make_beside(target, err))) {
        result = write_all(args, made, err);
        if (result == 0) {
            result = publish(made, target, parent, err);
        }
        if (result != 0) {
            struct error ignored; /* the first error is the one that matters */
            file_remove_tree(made, &ignored);
        }
    }
    free(made);
    free(parent);
    free(target);
    return result;
}
