/* Files of a data set: which they are, and their bytes. */
#include "engine/data/source.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/base/file.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text);
    size_t end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

static int refuse_kind(const char *path, struct error *err)
{
    static const struct {
        const char *ending;
        const char *what;
        const char *help;
    } kinds[] = {
        { ".gz", "compressed", "unpack it: gunzip -k" },
        { ".zst", "compressed", "unpack it: zstd -d" },
        { ".xz", "compressed", "unpack it: xz -dk" },
        { ".bz2", "compressed", "unpack it: bunzip2 -k" },
        { ".zip", "an archive", "unpack it: unzip" },
        { ".parquet", "in Parquet format",
          "write it as JSON lines, for example with pandas: "
          "read_parquet(path).to_json('data.jsonl', orient='records', lines=True)" },
        { ".arrow", "in Arrow format", "write it as JSON lines" },
        { ".csv", "a table", "write it as JSON lines, one object a row" },
        { ".tsv", "a table", "write it as JSON lines, one object a row" },
    };
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (ends_with(path, kinds[i].ending)) {
            fail(err, ERROR_DATA, "%s: is %s; .jsonl, .json, .txt and .md can be read",
                 text_show(path).text, kinds[i].what);
            return hint(err, "%s", kinds[i].help);
        }
    }
    return 0;
}

/* Of a file without a known ending: does it start like JSON? */
static int starts_like_json(const char *path, bool *json, struct error *err)
{
    struct source source = { .fd = -1 };
    int result = source_open(&source, path, NULL, err);
    *json = false;
    while (result == 0) {
        int more = source_fill(&source, err);
        if (more <= 0) {
            result = more;
            break;
        }
        char c = source.block[source.used++];
        if (c != ' ' && c != '\n' && c != '\r' && c != '\t') {
            *json = c == '{' || c == '[';
            break;
        }
    }
    source_close(&source);
    return result;
}

static int add_file(struct source_list *list, char *path, struct error *err)
{
    int64_t size;
    bool records = ends_with(path, ".jsonl") || ends_with(path, ".json");
    int fd = refuse_kind(path, err) == 0 ? file_open_read(path, &size, err) : -1;
    if (fd < 0) {
        free(path);
        return -1;
    }
    file_ops()->close(fd);
    if (!records && !ends_with(path, ".txt") && !ends_with(path, ".md") &&
        starts_like_json(path, &records, err) != 0) {
        free(path);
        return -1;
    }
    list->path = xrealloc(list->path, (list->count + 1) * sizeof(*list->path));
    list->path[list->count++] = path;
    list->records = records;
    list->size_bytes += size;
    return 0;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* All *.txt of a directory, sorted by name. */
static int add_texts(struct source_list *list, const char *path, struct error *err)
{
    DIR *directory = opendir(path);
    if (directory == NULL) {
        return fail(err, ERROR_DATA, "%s: %s", text_show(path).text, strerror(errno));
    }
    char **name = NULL;
    size_t count = 0;
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        if (ends_with(entry->d_name, ".txt") && entry->d_name[0] != '.') {
            name = xrealloc(name, (count + 1) * sizeof(*name));
            name[count++] = xstrdup(entry->d_name);
        }
    }
    closedir(directory);
    if (count > 0) {
        qsort(name, count, sizeof(*name), compare_names);
    }
    int result = 0;
    for (size_t i = 0; i < count; i++) {
        if (result == 0) {
            result = add_file(list, path_join(path, name[i]), err);
        }
        free(name[i]);
    }
    free(name);
    if (result == 0 && count == 0) {
        fail(err, ERROR_DATA, "%s: the directory has no data that can be read",
             text_show(path).text);
        return hint(err, "put train.jsonl (and valid.jsonl) or *.txt files there, or name a file");
    }
    return result;
}

static int open_directory(const char *path, struct source_list *train,
                          struct source_list *validation, struct error *err)
{
    static const char *const endings[] = { ".jsonl", ".json", ".txt" };
    for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++) {
        char *name = xasprintf("train%s", endings[i]);
        char *file = path_join(path, name);
        free(name);
        if (!file_exists(file)) {
            free(file);
            continue;
        }
        if (add_file(train, file, err) != 0) {
            return -1;
        }
        name = xasprintf("valid%s", endings[i]);
        file = path_join(path, name);
        free(name);
        if (validation != NULL && file_exists(file)) {
            return add_file(validation, file, err);
        }
        free(file);
        return 0;
    }
    return add_texts(train, path, err);
}

int source_list_open(const char *path, struct source_list *train, struct source_list *validation,
                     struct error *err)
{
    *train = (struct source_list){ 0 };
    if (validation != NULL) {
        *validation = (struct source_list){ 0 };
    }
    int result = file_is_directory(path) ? open_directory(path, train, validation, err)
                                         : add_file(train, xstrdup(path), err);
    if (result != 0) {
        source_list_free(train);
        if (validation != NULL) {
            source_list_free(validation);
        }
    }
    return result;
}

void source_list_free(struct source_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->path[i]);
    }
    free(list->path);
    *list = (struct source_list){ 0 };
}

/* A pointer left by a clone without the large files is text, but never the text that is meant. */
static int refuse_pointer(const struct source *source, struct error *err)
{
    static const char start[] = "version https://git-lfs";
    if (source->have < sizeof start - 1 || memcmp(source->block, start, sizeof start - 1) != 0) {
        return 0;
    }
    fail(err, ERROR_DATA, "%s: a Git LFS pointer, not the file itself",
         text_show(source->path).text);
    return hint(err, "fetch the file: git lfs pull");
}

int source_open(struct source *source, const char *path, struct source_watch *watch,
                struct error *err)
{
    *source = (struct source){ .path = path, .fd = -1, .line = 1, .watch = watch };
    source->fd = file_open_read(path, &source->size, err);
    if (source->fd < 0) {
        return -1;
    }
    source->block = malloc(SOURCE_BLOCK_BYTES);
    if (source->block == NULL) {
        return fail(err, ERROR_RUNTIME, "%s: no memory to read it", text_show(path).text);
    }
    if (source_fill(source, err) < 0) {
        return -1;
    }
    if (source->have >= 3 && memcmp(source->block, "\xEF\xBB\xBF", 3) == 0) {
        source->used = 3;
    }
    return refuse_pointer(source, err);
}

void source_close(struct source *source)
{
    if (source->fd >= 0) {
        file_ops()->close(source->fd);
    }
    free(source->block);
    *source = (struct source){ .fd = -1 };
}

/* A whole block of NULs is a hole, as a copy that was cut off leaves it, and never text. Found here
 * it costs one block, not the whole file. */
static int refuse_hole(const struct source *source, struct error *err)
{
    const char *block = source->block;
    if (source->have < SOURCE_BLOCK_BYTES || block[0] != '\0' ||
        memcmp(block, block + 1, source->have - 1) != 0) {
        return 0;
    }
    fail(err, ERROR_DATA, "%s: holds nothing but NUL bytes from byte %lld on for %zu bytes",
         text_show(source->path).text, (long long)(source->offset - (int64_t)source->have),
         source->have);
    return hint(err, "the file seems to be cut off or damaged: write or fetch it again");
}

int source_fill(struct source *source, struct error *err)
{
    if (source->used < source->have) {
        return 1;
    }
    int64_t left = source->size - source->offset;
    if (left <= 0) {
        return 0;
    }
    size_t size = left < SOURCE_BLOCK_BYTES ? (size_t)left : SOURCE_BLOCK_BYTES;
    if (file_read_at(source->fd, source->path, source->block, size, source->offset, err) != 0) {
        return -1;
    }
    source->offset += (int64_t)size;
    source->have = size;
    source->used = 0;
    if (refuse_hole(source, err) != 0) {
        return -1;
    }
    struct source_watch *watch = source->watch;
    if (watch != NULL) {
        watch->done_bytes += (int64_t)size;
        if (watch->digest != NULL) {
            digest_add(watch->digest, source->block, size);
        }
        if (watch->progress != NULL && watch->progress->on_progress != NULL) {
            watch->progress->on_progress(watch->progress->context, watch->done_bytes,
                                         watch->total_bytes);
        }
    }
    return 1;
}
