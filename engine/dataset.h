/*
 * A data set: files turned into rows of token ids with a loss mask, in an order that is a pure
 * function of (seed, epoch, index).
 *
 * A row holds S = sequence_length positions. Plain text: the documents make one stream of ids
 * (BOS, ids, EOS each), cut into windows of S + 1 tokens with stride S; a remainder is dropped.
 * Records (instructions, chats): each is rendered through a template; with `pack`, several share a
 * row, do not see each other, and restart their positions; without, one record fills a row and the
 * rest is padding.
 *
 * An opened data set is immutable and holds its ids in host memory.
 */
#ifndef WINDROW_ENGINE_DATASET_H
#define WINDROW_ENGINE_DATASET_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/digest.h"
#include "engine/base/error.h"
#include "tokenizer/tokenizer.h"

enum data_format {
    DATA_AUTO,
    DATA_TEXT,
    DATA_ALPACA,
    DATA_MESSAGES,
    DATA_SHAREGPT,
    DATA_COMPLETION,
};
/* "auto", "text", "alpaca", "messages", "sharegpt", "completion", NULL. */
extern const char *const data_format_names[];

struct dataset_options {
    const char *train;      /* a file or a directory */
    const char *validation; /* "", a path, or a fraction of the rows ("0.05") */
    enum data_format format;
    const char *template_name; /* "auto" or the name of a template */
    const char *chat_template; /* text of the tokenizer's own chat template, or NULL */
    int64_t sequence_length;
    bool shuffle;
    bool pack;
    bool train_on_prompt;
    uint64_t seed;
    int64_t limit_bytes; /* 0: all is read; else reading stops soon after so many, for previews */
};

enum data_split { DATA_TRAIN, DATA_VALIDATION };

struct dataset;

/* What came out of the files, for screens and messages. */
struct dataset_facts {
    enum data_format format;       /* never DATA_AUTO */
    const char *template_name;     /* in use; "" for text */
    int64_t documents;             /* or records read */
    int64_t skipped;               /* records left out, with reasons in the notices */
    int64_t cut;                   /* records longer than a row, cut at the end */
    int64_t rows[2];               /* by split */
    int64_t tokens[2];             /* without padding, by split */
    int64_t trained_tokens[2];     /* that carry loss, by split */
    int64_t read_bytes;            /* less than total_bytes only with limit_bytes */
    int64_t total_bytes;           /* of the files */
    char digest[DIGEST_TEXT_SIZE]; /* of the files' bytes */
};

/* Reads, tokenizes, splits. NULL with an error naming file and line. The data set must have at
 * least one training row. `tokenizer` must outlive it. Progress, if `on_progress` is not NULL, is
 * told as bytes done of bytes in all. */
struct dataset_progress {
    void (*on_progress)(void *context, int64_t done_bytes, int64_t total_bytes);
    void *context;
};
struct dataset *dataset_open(const struct dataset_options *options,
                             const struct tokenizer *tokenizer,
                             const struct dataset_progress *progress, struct error *err);
void dataset_close(struct dataset *dataset);

const struct dataset_facts *dataset_facts(const struct dataset *dataset);

/* Notices: "3 records skipped: no field 'output' (first: data.jsonl:17)". NULL past the last. */
const char *dataset_notice(const struct dataset *dataset, int index);

/* B rows of S positions each, row-major, filled by dataset_fill; made once, reused. */
struct batch {
    int64_t rows;           /* B */
    int64_t sequence;       /* S */
    int32_t *ids;           /* (B, S) */
    int32_t *targets;       /* (B, S): the next token, or -1 where nothing is trained */
    int32_t *positions;     /* (B, S): restart with each record */
    int32_t *starts;        /* (B, S): first position in the row that this one may attend to */
    int64_t trained_tokens; /* targets that are not -1 */
    bool whole;             /* all rows are one run of text each: starts are 0 and can be skipped */
};
int batch_init(struct batch *batch, int64_t rows, int64_t sequence, struct error *err);
void batch_free(struct batch *batch);

/* Fills the batch with rows first .. first + B - 1 of the endless sequence of rows: position p is
 * row p mod n of epoch p / n, in that epoch's order (shuffled by seed and epoch; in file order if
 * not `shuffle`, and always for validation). */
void dataset_fill(const struct dataset *dataset, enum data_split split, int64_t first,
                  struct batch *batch);

/* What a row looks like before it is cut into rows, for previews: record `index` as ids and a mask
 * (1: trained), both of `count`, owned by the data set; -1 if there is none. */
int dataset_preview(const struct dataset *dataset, int64_t index, const int32_t **ids,
                    const uint8_t **mask, size_t *count);

#endif
