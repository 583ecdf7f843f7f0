/*
 * Files to ids: text as documents, JSON rows as documents or through a template as records.
 *
 * A bad record is left out and counted; a bad text file is an error. If more than one record in a
 * hundred is bad, the format was likely misunderstood: that is an error too, unless the format was
 * given by name.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/base/xalloc.h"
#include "engine/data/dataset_private.h"
#include "engine/data/records.h"
#include "engine/data/rows.h"
#include "tokenizer/chat_encode.h"

/* One document: BOS, its ids, EOS, as far as the tokenizer has them. */
static int add_document(struct reading *r, struct store *store, const char *text, size_t size,
                        char *why, size_t why_size, struct error *err)
{
    const struct tokenizer_facts *facts = tokenizer_facts(r->tokenizer);
    struct token_list list;
    if (tokenizer_encode(r->tokenizer, text, size, &list, why, why_size) != 0) {
        return 1;
    }
    int32_t *id = realloc(list.id, (list.count + 2) * sizeof(*id));
    if (id == NULL) {
        token_list_free(&list);
        return fail(err, ERROR_RUNTIME, "no memory for a document of %zu tokens", list.count);
    }
    list.id = id;
    if (facts->bos >= 0) {
        memmove(id + 1, id, list.count * sizeof(*id));
        id[0] = facts->bos;
        list.count++;
    }
    if (facts->eos >= 0) {
        id[list.count++] = facts->eos;
    }
    int result = store_add(store, id, NULL, list.count, err);
    token_list_free(&list);
    return result;
}

static int64_t line_of_offset(const struct row *row, size_t offset)
{
    int64_t line = row->line;
    for (size_t i = 0; i < offset; i++) {
        line += row->text[i] == '\n';
    }
    return line;
}

static int check_text(const char *path, const struct row *row, struct error *err)
{
    size_t bad;
    if (!text_is_utf8(row->text, row->size, &bad)) {
        fail(err, ERROR_DATA, "%s:%lld: invalid UTF-8 (byte 0x%02x)", text_show(path).text,
             (long long)line_of_offset(row, bad), (unsigned)(unsigned char)row->text[bad]);
        return hint(err, "convert the file to UTF-8, for example: iconv -f latin1 -t utf-8");
    }
    const char *nul = memchr(row->text, '\0', row->size);
    if (nul != NULL) {
        fail(err, ERROR_DATA, "%s:%lld: a NUL byte: this is no text file", text_show(path).text,
             (long long)line_of_offset(row, (size_t)(nul - row->text)));
        return hint(err, "name a file of text, or one of JSON lines that ends in .jsonl");
    }
    return 0;
}

/* Whether a preview has seen enough. */
static bool limit_reached(const struct reading *r)
{
    return r->options->limit_bytes > 0 && r->taken_bytes >= r->options->limit_bytes;
}

/* A preview takes no more than the beginning of a document, up to a whole character. */
static void limit_document(struct reading *r, struct row *row)
{
    int64_t limit = r->options->limit_bytes;
    if (limit > 0 && (int64_t)row->size > limit) {
        row->size = (size_t)limit;
        while (row->size > 0 && ((unsigned char)row->text[row->size] & 0xc0) == 0x80) {
            row->size--;
        }
    }
    r->taken_bytes += (int64_t)row->size;
}

static int read_text_file(struct reading *r, const char *path, struct store *store,
                          struct error *err)
{
    struct rows rows = { .source = { .fd = -1 } };
    int result = rows_open(&rows, path, &r->watch, err);
    while (result == 0 && !limit_reached(r)) {
        struct row row;
        char why[256];
        int got = rows_next_document(&rows, &row, err);
        if (got <= 0) {
            result = got;
            break;
        }
        limit_document(r, &row);
        result = check_text(path, &row, err);
        if (result == 0) {
            result = add_document(r, store, row.text, row.size, why, sizeof(why), err);
        }
        if (result > 0) {
            result = fail(err, ERROR_DATA, "%s:%lld: %s", text_show(path).text, (long long)row.line,
                          why);
        }
        r->dataset->facts.documents++;
    }
    rows_close(&rows);
    return result;
}

/* Cuts a record at the length of a row. Whether anything trained is left: a target is a token after
 * the first. */
static bool cut_record(struct reading *r, struct chat_tokens *tokens)
{
    size_t sequence = (size_t)r->options->sequence_length;
    bool cut = tokens->count > sequence;
    tokens->count = cut ? sequence : tokens->count;
    for (size_t i = 1; i < tokens->count; i++) {
        if (tokens->trained[i] != 0) {
            r->dataset->facts.cut += cut;
            return true;
        }
    }
    r->cut_away++;
    return false;
}

static int add_conversation(struct reading *r, struct store *store,
                            const struct conversation *conversation,
                            char reason[RECORDS_REASON_SIZE], struct error *err)
{
    struct chat_segments segments;
    struct chat_tokens tokens;
    char why[RECORDS_REASON_SIZE - 40];
    if (chat_format_render(r->chat, conversation->message, conversation->count, false, &segments) !=
        0) {
        return fail(err, ERROR_RUNTIME, "no memory for a record");
    }
    int result = chat_encode(r->tokenizer, &segments, &tokens, why, sizeof(why));
    chat_segments_free(&segments);
    if (result != 0) {
        snprintf(reason, RECORDS_REASON_SIZE, "%s", why);
        return 1;
    }
    if (r->options->train_on_prompt) {
        memset(tokens.trained, 1, tokens.count);
    }
    if (!cut_record(r, &tokens)) {
        snprintf(reason, RECORDS_REASON_SIZE,
                 "nothing of the answer is left within sequence_length %lld",
                 (long long)r->options->sequence_length);
        result = 1;
    } else {
        result = store_add(store, tokens.id, tokens.trained, tokens.count, err);
    }
    chat_tokens_free(&tokens);
    return result;
}

/* 0, 1 if the row was left out (with a reason), -1 on failure. */
static int add_row(struct reading *r, struct store *store, const char *path, const struct row *row,
                   struct conversation *conversation, char reason[RECORDS_REASON_SIZE],
                   struct error *err)
{
    struct error broken = { 0 };
    if (row->too_long) {
        snprintf(reason, RECORDS_REASON_SIZE, "larger than %d MiB", ROWS_LIMIT_BYTES >> 20);
        return 1;
    }
    cJSON *value = json_parse(row->text, row->size, path_base(path), row->line, &broken);
    if (value == NULL) {
        bool memory = broken.code == ERROR_RUNTIME;
        *err = memory ? broken : *err;
        snprintf(reason, RECORDS_REASON_SIZE, "not valid JSON");
        if (r->broken[0] == '\0') {
            snprintf(r->broken, sizeof(r->broken), "%s", broken.message);
        }
        return memory ? -1 : 1;
    }
    int result = 1;
    if (records_read(value, r->format, conversation, reason) == 0) {
        result = r->format == DATA_TEXT
                     ? add_document(r, store, conversation->text, strlen(conversation->text),
                                    reason, RECORDS_REASON_SIZE, err)
                     : add_conversation(r, store, conversation, reason, err);
    }
    cJSON_Delete(value);
    return result;
}

static int read_records_file(struct reading *r, const char *path, struct store *store,
                             struct error *err)
{
    struct rows rows = { .source = { .fd = -1 } };
    struct conversation conversation = { 0 };
    int result = rows_open(&rows, path, &r->watch, err);
    while (result == 0 && !limit_reached(r)) {
        struct row row;
        char reason[RECORDS_REASON_SIZE] = "";
        result = rows_next_json(&rows, &row, err);
        if (result <= 0) {
            break;
        }
        r->records++;
        r->taken_bytes += (int64_t)row.size;
        result = add_row(r, store, path, &row, &conversation, reason, err);
        if (result == 0) {
            r->dataset->facts.documents++;
        } else if (result > 0) {
            skips_add(&r->skips, reason, path, row.line);
            result = 0;
        }
    }
    conversation_free(&conversation);
    rows_close(&rows);
    return result;
}

static int too_many_skipped(const struct reading *r, const char *path, struct error *err)
{
    char *first = skips_sentence(&r->skips, 0);
    fail(err, ERROR_DATA, "%s: %lld of %lld records cannot be used; %s%s%s", text_show(path).text,
         (long long)r->skips.total, (long long)r->records, first, r->broken[0] != '\0' ? "; " : "",
         r->broken);
    free(first);
    if (r->cut_away == r->records) {
        return hint(err, "raise data.sequence_length");
    }
    if (r->skips.total == r->records) {
        return hint(err, "see what is on those lines, or choose another data.format");
    }
    return hint(err,
                "at most 1 in 100 is left out without being asked; correct them, or set "
                "data.format=%s to leave out whatever does not fit it",
                data_format_names[r->format]);
}

static void add_notice(struct dataset *dataset, char *sentence)
{
    dataset->notice =
        xrealloc(dataset->notice, (size_t)(dataset->notices + 1) * sizeof(*dataset->notice));
    dataset->notice[dataset->notices++] = sentence;
}

int reading_split(struct reading *r, const struct source_list *list, enum data_split which,
                  struct error *err)
{
    struct store *store = &r->dataset->store[which];
    r->records = 0;
    r->cut_away = 0;
    r->broken[0] = '\0';
    r->skips = (struct skips){ 0 };
    int result = 0;
    for (size_t i = 0; i < list->count && result == 0 && !limit_reached(r); i++) {
        result = list->records ? read_records_file(r, list->path[i], store, err)
                               : read_text_file(r, list->path[i], store, err);
    }
    int64_t skipped = r->skips.total;
    int64_t bad = skipped - r->cut_away;
    bool given = r->options->format != DATA_AUTO;
    if (result == 0 && skipped > 0 &&
        (skipped == r->records || (!given && bad * 100 > r->records))) {
        result = too_many_skipped(r, list->path[0], err);
    }
    r->dataset->facts.skipped += skipped;
    for (int i = 0; i < r->skips.count; i++) {
        add_notice(r->dataset, skips_sentence(&r->skips, i));
    }
    if (r->broken[0] != '\0') {
        add_notice(r->dataset, xstrdup(r->broken));
    }
    skips_free(&r->skips);
    return result;
}
