/* Set-up of the data tests. */
#include "engine/data/corpus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/base/file.h"
#include "engine/base/xalloc.h"

static struct tokenizer *train_tokenizer(void)
{
    enum { COUNT = 30 };
    char text[COUNT][128];
    const char *sentences[COUNT];
    char why[256] = "";
    for (int i = 0; i < COUNT; i++) {
        snprintf(text[i], sizeof(text[i]),
                 "the cat and the hat sat on mat %d, then on that one: %d. Who knows what went?", i,
                 i * 7);
        sentences[i] = text[i];
    }
    size_t size;
    void *bytes = tokenizer_train(sentences, COUNT, 310, &size, why, sizeof(why));
    if (bytes == NULL) {
        fail_msg("training: %s", why);
    }
    struct tokenizer *tokenizer = tokenizer_open(bytes, size, why, sizeof(why));
    free(bytes);
    assert_non_null(tokenizer);
    return tokenizer;
}

int corpus_set_up(void **state)
{
    struct corpus *corpus = xcalloc(1, sizeof(*corpus));
    snprintf(corpus->directory, sizeof(corpus->directory), "/tmp/windrow-data-XXXXXX");
    if (mkdtemp(corpus->directory) == NULL) {
        return -1;
    }
    corpus->tokenizer = train_tokenizer();
    *state = corpus;
    return 0;
}

int corpus_tear_down(void **state)
{
    struct corpus *corpus = *state;
    struct error err = { 0 };
    int result = file_remove_tree(corpus->directory, &err);
    tokenizer_close(corpus->tokenizer);
    free(corpus);
    return result;
}

const char *corpus_path(const struct corpus *corpus, const char *name)
{
    static char paths[8][256];
    static int next;
    char *path = paths[next];
    next = (next + 1) % 8;
    snprintf(path, sizeof(paths[0]), "%s/%s", corpus->directory, name);
    return path;
}

const char *corpus_write_bytes(const struct corpus *corpus, const char *name, const void *bytes,
                               size_t size)
{
    const char *path = corpus_path(corpus, name);
    const char *slash = strrchr(name, '/');
    if (slash != NULL) {
        struct error err = { 0 };
        char *folder = xstrndup(path, (size_t)(strrchr(path, '/') - path));
        assert_int_equal(file_make_directories(folder, &err), 0);
        free(folder);
    }
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
    return path;
}

const char *corpus_write(const struct corpus *corpus, const char *name, const char *text)
{
    return corpus_write_bytes(corpus, name, text, strlen(text));
}

struct dataset_options corpus_options(const char *train)
{
    return (struct dataset_options){ .train = train,
                                     .validation = "",
                                     .template_name = "auto",
                                     .sequence_length = 16,
                                     .pack = true,
                                     .seed = 5 };
}

struct dataset *corpus_open(const struct corpus *corpus, const struct dataset_options *options)
{
    struct error err = { 0 };
    struct dataset *dataset = dataset_open(options, corpus->tokenizer, NULL, &err);
    if (dataset == NULL) {
        fail_msg("opening: %s", err.message);
    }
    return dataset;
}

void corpus_refuse(const struct corpus *corpus, const struct dataset_options *options,
                   enum error_code code, const char *words)
{
    struct error err = { 0 };
    struct dataset *dataset = dataset_open(options, corpus->tokenizer, NULL, &err);
    assert_null(dataset);
    if (strstr(err.message, words) == NULL) {
        fail_msg("'%s' does not say '%s'", err.message, words);
    }
    assert_int_equal(err.code, code);
    if (code == ERROR_USAGE) {
        assert_true(err.hint[0] != '\0');
    }
}
