/* Files in a directory of their own, and a small tokenizer, for tests of data sets. */
#ifndef WINDROW_TESTS_ENGINE_DATA_CORPUS_H
#define WINDROW_TESTS_ENGINE_DATA_CORPUS_H

#include <stddef.h>

#include "engine/dataset.h"

struct corpus {
    char directory[64];
    struct tokenizer *tokenizer;
};

/* Group set-up and tear-down for cmocka; the corpus is *state. */
int corpus_set_up(void **state);
int corpus_tear_down(void **state);

/* Writes a file of the directory; its path, valid until the next call but seven. */
const char *corpus_write(const struct corpus *corpus, const char *name, const char *text);
const char *corpus_write_bytes(const struct corpus *corpus, const char *name, const void *bytes,
                               size_t size);
const char *corpus_path(const struct corpus *corpus, const char *name);

/* Options for a file: sequence length 16, not shuffled, packed. */
struct dataset_options corpus_options(const char *train);

/* Opens, or fails the test with the message. */
struct dataset *corpus_open(const struct corpus *corpus, const struct dataset_options *options);

/* Opening must fail with this code and a message that holds `words`. */
void corpus_refuse(const struct corpus *corpus, const struct dataset_options *options,
                   enum error_code code, const char *words);

#endif
