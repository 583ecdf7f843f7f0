/*
 * A data set from end to end: which files, which format and template, reading, splitting, counting.
 *
 * A fraction for validation takes the last rows of text (windows) and the last records of others:
 * fraction * count rounded half up, at least one, and never all.
 */
#include "engine/dataset.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/text.h"
#include "engine/base/xalloc.h"
#include "engine/data/dataset_private.h"
#include "engine/data/records.h"

const char *const data_format_names[] = { "auto",     "text",       "alpaca", "messages",
                                          "sharegpt", "completion", NULL };

static void add_notice(struct dataset *dataset, char *sentence)
{
    dataset->notice =
        xrealloc(dataset->notice, (size_t)(dataset->notices + 1) * sizeof(*dataset->notice));
    dataset->notice[dataset->notices++] = sentence;
}

/* The format of the files, by their names, their content, and what was asked for. */
static int choose_format(struct reading *r, const struct source_list *list, struct error *err)
{
    enum data_format asked = r->options->format;
    if (!list->records) {
        if (asked != DATA_AUTO && asked != DATA_TEXT) {
            fail(err, ERROR_DATA, "%s: data.format is %s, but this is a text file",
                 text_show(list->path[0]).text, data_format_names[asked]);
            return hint(err, "set data.format=text, or name a .jsonl or .json file");
        }
        r->format = DATA_TEXT;
        return 0;
    }
    r->format = asked;
    return asked != DATA_AUTO ? 0 : records_detect(list->path[0], &r->format, err);
}

static int choose_template(struct reading *r, struct error *err)
{
    const char *name = r->options->template_name;
    bool automatic = name == NULL || name[0] == '\0' || strcmp(name, "auto") == 0;
    const char *own = r->options->chat_template;
    if (!automatic) {
        r->chat = chat_format_find(name);
        if (r->chat == CHAT_NONE) {
            fail(err, ERROR_USAGE, "data.template: no template is called '%s'",
                 text_show(name).text);
            return hint(err, "known: auto, chatml, llama2, llama3, mistral-v1, mistral-v3, gemma, "
                             "zephyr, phi3, vicuna, alpaca, plain, raw");
        }
    }
    if (r->format == DATA_TEXT) {
        return 0;
    }
    if (automatic) {
        r->chat = chat_template_recognise(own);
        if (r->chat == CHAT_NONE) {
            r->chat = r->format == DATA_ALPACA ? CHAT_ALPACA : CHAT_PLAIN;
        }
        if (own != NULL && own[0] != '\0' && chat_template_recognise(own) == CHAT_NONE) {
            add_notice(r->dataset,
                       xasprintf("the tokenizer's chat template is not one that is known; '%s' "
                                 "is used (data.template chooses another)",
                                 chat_format_names[r->chat]));
        }
    }
    r->dataset->facts.template_name = chat_format_names[r->chat];
    return 0;
}

/* Windows of S + 1 tokens with stride S. */
static int64_t window_count(const struct store *store, int64_t sequence)
{
    return store->count > 0 ? ((int64_t)store->count - 1) / sequence : 0;
}

static int64_t held_out(double fraction, int64_t count)
{
    int64_t held = (int64_t)floor(fraction * (double)count + 0.5);
    held = held < 1 ? 1 : held;
    return held > count - 1 ? count - 1 : held;
}

static void count_text(const struct dataset *dataset, const struct split *split, int64_t *tokens,
                       int64_t *trained)
{
    *tokens = split->rows * dataset->sequence;
    *trained = *tokens;
}

static void count_records(const struct split *split, int64_t *tokens, int64_t *trained)
{
    const struct store *store = split->store;
    size_t items = split->packing.first[split->packing.rows];
    for (size_t k = 0; k < items; k++) {
        size_t item = split->packing.item[k];
        size_t start = store_start(store, item);
        *tokens += (int64_t)(store->end[item] - start);
        for (size_t i = start + 1; i < store->end[item]; i++) {
            *trained += store->trained[i];
        }
    }
}

/* Rows of a split out of items (records) or windows [from, to) of a store. */
static int make_split(struct reading *r, enum data_split which, const struct store *store,
                      int64_t from, int64_t to, struct error *err)
{
    struct dataset *dataset = r->dataset;
    struct split *split = &dataset->split[which];
    struct dataset_facts *facts = &dataset->facts;
    split->store = store;
    if (r->format == DATA_TEXT) {
        split->first_window = from;
        split->rows = to - from;
        count_text(dataset, split, &facts->tokens[which], &facts->trained_tokens[which]);
    } else {
        if (packing_make(&split->packing, store, (size_t)from, (size_t)to, dataset->sequence,
                         !r->options->pack, err) != 0) {
            return -1;
        }
        split->rows = (int64_t)split->packing.rows;
        count_records(split, &facts->tokens[which], &facts->trained_tokens[which]);
    }
    facts->rows[which] = split->rows;
    return 0;
}

static int64_t unit_count(const struct reading *r, const struct store *store)
{
    return r->format == DATA_TEXT ? window_count(store, r->dataset->sequence)
                                  : (int64_t)store->items;
}

static int too_small(const struct reading *r, const char *path, const struct store *store,
                     struct error *err)
{
    fail(err, ERROR_DATA, "%s: %zu tokens make no row of %lld tokens", text_show(path).text,
         store->count, (long long)r->dataset->sequence);
    return hint(err, "use more text, or a data.sequence_length of at most %lld",
                (long long)(store->count > 1 ? store->count - 1 : 0));
}

static int read_validation(struct reading *r, const struct source_list *list, struct error *err)
{
    struct store *store = &r->dataset->store[DATA_VALIDATION];
    if (list->records && r->format != DATA_TEXT) {
        enum data_format format;
        if (r->options->format == DATA_AUTO) {
            if (records_detect(list->path[0], &format, err) != 0) {
                return -1;
            }
            r->format = format == DATA_TEXT ? r->format : format;
        }
    } else if (!list->records && r->format != DATA_TEXT) {
        fail(err, ERROR_DATA, "%s: validation data of plain text with training data of records",
             text_show(list->path[0]).text);
        return hint(err, "both must be text, or both records");
    }
    if (reading_split(r, list, DATA_VALIDATION, err) != 0) {
        return -1;
    }
    int64_t units = unit_count(r, store);
    if (units == 0) {
        return too_small(r, list->path[0], store, err);
    }
    return make_split(r, DATA_VALIDATION, store, 0, units, err);
}

/* Reads the training files and divides them if a fraction was asked for. */
static int read_training(struct reading *r, const struct source_list *list, double fraction,
                         struct error *err)
{
    struct store *store = &r->dataset->store[DATA_TRAIN];
    if (reading_split(r, list, DATA_TRAIN, err) != 0) {
        return -1;
    }
    int64_t units = unit_count(r, store);
    if (units == 0) {
        return too_small(r, list->path[0], store, err);
    }
    int64_t train = units;
    if (fraction > 0.0) {
        if (units < 2) {
            fail(err, ERROR_DATA, "%s: data.validation is %g, but there is only one %s",
                 text_show(list->path[0]).text, fraction,
                 r->format == DATA_TEXT ? "row" : "record");
            return hint(err, "use more data, a smaller data.sequence_length, or no validation");
        }
        train -= held_out(fraction, units);
        if (make_split(r, DATA_VALIDATION, store, train, units, err) != 0) {
            return -1;
        }
    }
    return make_split(r, DATA_TRAIN, store, 0, train, err);
}

/* The validation setting: nothing, a fraction, or files. */
static int choose_validation(const struct reading *r, struct source_list *list, double *fraction,
                             struct error *err)
{
    const char *text = r->options->validation;
    *fraction = 0.0;
    if (text == NULL || text[0] == '\0') {
        return 0;
    }
    source_list_free(list);
    if (text_to_double(text, fraction)) {
        if (*fraction >= 0.0 && *fraction < 1.0) {
            return 0;
        }
        fail(err, ERROR_USAGE,
             "data.validation: %s is no fraction of the rows (above 0 and below "
             "1 allowed)",
             text_show(text).text);
        return hint(err, "for example data.validation=0.05; or name a file");
    }
    return source_list_open(text, list, NULL, err);
}

static int read_all(struct reading *r, const struct source_list *train,
                    const struct source_list *validation, double fraction, struct error *err)
{
    r->watch.total_bytes = train->size_bytes + validation->size_bytes;
    if (choose_format(r, train, err) != 0 || choose_template(r, err) != 0) {
        return -1;
    }
    r->dataset->facts.format = r->format;
    r->dataset->facts.total_bytes = r->watch.total_bytes;
    if (read_training(r, train, fraction, err) != 0) {
        return -1;
    }
    if (validation->count > 0 && read_validation(r, validation, err) != 0) {
        return -1;
    }
    if (r->dataset->facts.cut > 0) {
        add_notice(r->dataset,
                   xasprintf("%lld records are longer than data.sequence_length %lld "
                             "and were cut at the end",
                             (long long)r->dataset->facts.cut, (long long)r->dataset->sequence));
    }
    return 0;
}

/* Previews of text show a mask of ones as long as the longest document. */
static int make_ones(struct dataset *dataset, struct error *err)
{
    const struct store *store = &dataset->store[DATA_TRAIN];
    size_t longest = 1;
    for (size_t i = 0; i < store->items; i++) {
        size_t size = store->end[i] - store_start(store, i);
        longest = size > longest ? size : longest;
    }
    dataset->ones = malloc(longest);
    if (dataset->ones == NULL) {
        return fail(err, ERROR_RUNTIME, "no memory for a document of %zu tokens", longest);
    }
    memset(dataset->ones, 1, longest);
    return 0;
}

static struct dataset *new_dataset(const struct dataset_options *options,
                                   const struct tokenizer_facts *facts)
{
    struct dataset *dataset = xcalloc(1, sizeof(*dataset));
    dataset->facts.template_name = "";
    dataset->sequence = options->sequence_length;
    dataset->shuffle = options->shuffle;
    dataset->seed = options->seed;
    dataset->padding = facts->pad >= 0 ? facts->pad : facts->eos >= 0 ? facts->eos : 0;
    return dataset;
}

struct dataset *dataset_open(const struct dataset_options *options,
                             const struct tokenizer *tokenizer,
                             const struct dataset_progress *progress, struct error *err)
{
    if (options->sequence_length < 2) {
        fail(err, ERROR_USAGE, "data.sequence_length: %lld found, at least 2 allowed",
             (long long)options->sequence_length);
        hint(err, "for example data.sequence_length=512");
        return NULL;
    }
    struct source_list train = { 0 };
    struct source_list validation = { 0 };
    if (source_list_open(options->train, &train, &validation, err) != 0) {
        return NULL;
    }
    struct reading r = { .options = options, .tokenizer = tokenizer };
    r.dataset = new_dataset(options, tokenizer_facts(tokenizer));
    r.watch.progress = progress;
    r.watch.digest = digest_begin();
    double fraction;
    int result = choose_validation(&r, &validation, &fraction, err);
    if (result == 0) {
        result = read_all(&r, &train, &validation, fraction, err);
    }
    if (result == 0 && r.format == DATA_TEXT) {
        result = make_ones(r.dataset, err);
    }
    digest_end(r.watch.digest, r.dataset->facts.digest);
    bool cut = options->limit_bytes > 0 && r.taken_bytes >= options->limit_bytes;
    r.dataset->facts.read_bytes = cut ? r.taken_bytes : r.dataset->facts.total_bytes;
    source_list_free(&train);
    source_list_free(&validation);
    if (result != 0) {
        dataset_close(r.dataset);
        return NULL;
    }
    return r.dataset;
}

void dataset_close(struct dataset *dataset)
{
    if (dataset == NULL) {
        return;
    }
    for (int i = 0; i < 2; i++) {
        store_free(&dataset->store[i]);
        packing_free(&dataset->split[i].packing);
    }
    for (int i = 0; i < dataset->notices; i++) {
        free(dataset->notice[i]);
    }
    free(dataset->notice);
    free(dataset->ones);
    free(dataset);
}

const struct dataset_facts *dataset_facts(const struct dataset *dataset)
{
    return &dataset->facts;
}

const char *dataset_notice(const struct dataset *dataset, int index)
{
    return index >= 0 && index < dataset->notices ? dataset->notice[index] : NULL;
}

int dataset_preview(const struct dataset *dataset, int64_t index, const int32_t **ids,
                    const uint8_t **mask, size_t *count)
{
    const struct store *store = &dataset->store[DATA_TRAIN];
    if (index < 0 || index >= (int64_t)store->items) {
        return -1;
    }
    size_t start = store_start(store, (size_t)index);
    *ids = store->id + start;
    *mask = store->trained != NULL ? store->trained + start : dataset->ones;
    *count = store->end[index] - start;
    return 0;
}
