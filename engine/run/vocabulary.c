/* Gathers lines of text for the training of a tokenizer. */
#include "engine/run/vocabulary.h"

#include <stdlib.h>
#include <string.h>

#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"
#include "engine/data/rows.h"
#include "engine/data/source.h"
#include "tokenizer/tokenizer.h"

enum { GATHER_BYTES = 32 << 20, LINE_BYTES = 4000 };

struct lines {
    char **text;
    size_t count;
    size_t capacity;
    size_t bytes;
};

static void add_line(struct lines *lines, const char *text, size_t size)
{
    if (size == 0 || lines->bytes >= GATHER_BYTES || memchr(text, '\0', size) ||
        !text_is_utf8(text, size, NULL)) {
        return;
    }
    if (lines->count == lines->capacity) {
        lines->capacity = lines->capacity ? 2 * lines->capacity : 1024;
        lines->text = xrealloc(lines->text, lines->capacity * sizeof *lines->text);
    }
    lines->text[lines->count++] = xstrndup(text, size);
    lines->bytes += size;
}

/* The trainer takes lines of limited length: longer ones are cut at a blank. */
static void add_text(struct lines *lines, const char *text, size_t size)
{
    const char *end = text + size;
    while (text < end) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        stop = stop ? stop : end;
        if (stop - text > LINE_BYTES) {
            const char *blank = memrchr(text, ' ', LINE_BYTES);
            stop = blank && blank > text ? blank : stop;
        }
        add_line(lines, text, (size_t)(stop - text));
        text = stop < end ? stop + 1 : end;
    }
}

/* Every text in a record, whatever its keys are called. */
static void add_texts(struct lines *lines, const cJSON *value)
{
    const cJSON *child;
    if (cJSON_IsString(value)) {
        add_text(lines, value->valuestring, strlen(value->valuestring));
    }
    cJSON_ArrayForEach (child, value) {
        add_texts(lines, child);
    }
}

static int gather_file(struct lines *lines, const char *path, bool records, struct error *err)
{
    struct rows rows = { .source = { .fd = -1 } };
    struct row row;
    int more = rows_open(&rows, path, NULL, err) == 0 ? 1 : -1;
    while (more == 1 && lines->bytes < GATHER_BYTES) {
        more = records ? rows_next_json(&rows, &row, err) : rows_next_document(&rows, &row, err);
        if (more != 1 || row.too_long) {
            continue;
        }
        if (!records) {
            add_text(lines, row.text, row.size);
            continue;
        }
        struct error ignored = { 0 }; /* a broken record is told when the data are opened */
        cJSON *value = json_parse(row.text, row.size, path, row.line, &ignored);
        add_texts(lines, value);
        cJSON_Delete(value);
    }
    rows_close(&rows);
    return more == -1 ? -1 : 0;
}

static int gather(struct lines *lines, const char *data, struct error *err)
{
    struct source_list train = { 0 };
    char *path = material_data_path(data);
    int result = source_list_open(path, &train, NULL, err);
    for (size_t i = 0; result == 0 && i < train.count; i++) {
        result = gather_file(lines, train.path[i], train.records, err);
    }
    source_list_free(&train);
    free(path);
    return result;
}

void *vocabulary_train(const struct recipe *recipe, size_t *size, struct error *err)
{
    struct lines lines = { 0 };
    void *bytes = NULL;
    if (!recipe->data_train[0]) {
        fail(err, ERROR_USAGE, "tokenizer.vocab=%lld needs data.train to train a tokenizer on",
             (long long)recipe->tokenizer_vocab);
    } else if (gather(&lines, recipe->data_train, err) == 0) {
        char why[512] = "";
        bytes = tokenizer_train((const char *const *)lines.text, lines.count,
                                (int32_t)recipe->tokenizer_vocab, size, why, sizeof why);
        if (!bytes) {
            /* The tokenizer tells its errors in words alone. */
            bool memory = strncmp(why, "out of memory", 13) == 0;
            fail(err, memory ? ERROR_RUNTIME : ERROR_DATA, "tokenizer.vocab=%lld: %s",
                 (long long)recipe->tokenizer_vocab, why);
        }
    }
    for (size_t i = 0; i < lines.count; i++) {
        free(lines.text[i]);
    }
    free(lines.text);
    return bytes;
}
