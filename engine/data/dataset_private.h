/* The inside of an opened data set, shared by the files of this room. */
#ifndef WINDROW_ENGINE_DATA_DATASET_PRIVATE_H
#define WINDROW_ENGINE_DATA_DATASET_PRIVATE_H

#include "engine/data/skips.h"
#include "engine/data/source.h"
#include "engine/data/store.h"
#include "engine/dataset.h"
#include "tokenizer/chat_template.h"

/* The rows of one split. */
struct split {
    const struct store *store;
    int64_t rows;
    int64_t first_window;   /* text: its first window in the store */
    struct packing packing; /* records */
};

struct dataset {
    struct dataset_facts facts;
    struct store store[2]; /* validation has its own only if it has its own files */
    struct split split[2];
    int64_t sequence;
    bool shuffle;
    uint64_t seed;
    int32_t padding; /* id of positions that hold nothing */
    char **notice;
    int notices;
    uint8_t *ones; /* mask of the longest document, for previews of text */
};

/* What reading needs beside the data set itself. */
struct reading {
    const struct dataset_options *options;
    const struct tokenizer *tokenizer;
    struct dataset *dataset;
    struct source_watch watch;
    enum data_format format;
    enum chat_format chat;
    struct skips skips;
    int64_t taken_bytes; /* of documents and records so far */
    int64_t records;     /* of the files being read, good and bad */
    int64_t cut_away;    /* of these, cut so short that nothing trained was left */
    char broken[1024];   /* about the first row that is no JSON, or empty */
};

/* Reads the files of a split into its store. */
int reading_split(struct reading *reading, const struct source_list *list, enum data_split which,
                  struct error *err);

#endif
