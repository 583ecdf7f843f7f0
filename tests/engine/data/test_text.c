/* Plain text: documents become one stream, the stream becomes windows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/base/xalloc.h"
#include "engine/data/corpus.h"

enum { S = 16 };

/* Ids of documents as the data set should have them. */
struct stream {
    int32_t id[4096];
    size_t count;
};

static void add_document(const struct corpus *corpus, struct stream *stream, const char *text)
{
    struct token_list list;
    char why[256];
    assert_int_equal(
        tokenizer_encode(corpus->tokenizer, text, strlen(text), &list, why, sizeof(why)), 0);
    stream->id[stream->count++] = 1;
    memcpy(stream->id + stream->count, list.id, list.count * sizeof(int32_t));
    stream->count += list.count;
    stream->id[stream->count++] = 2;
    token_list_free(&list);
}

/* Rows of a split are windows [first, first + rows) of the stream, again and again. */
static void assert_windows(const struct dataset *dataset, enum data_split split,
                           const struct stream *stream, int64_t first, int64_t rows)
{
    struct batch batch;
    struct error err = { 0 };
    assert_int_equal(dataset_facts(dataset)->rows[split], rows);
    assert_int_equal(dataset_facts(dataset)->tokens[split], rows * S);
    assert_int_equal(batch_init(&batch, 3, S, &err), 0);
    for (int64_t at = 0; at < 2 * rows + 3; at += 3) {
        dataset_fill(dataset, split, at, &batch);
        assert_int_equal(batch.trained_tokens, 3 * S);
        for (int64_t b = 0; b < 3; b++) {
            const int32_t *window = stream->id + (first + (at + b) % rows) * S;
            assert_memory_equal(batch.ids + b * S, window, S * sizeof(int32_t));
            assert_memory_equal(batch.targets + b * S, window + 1, S * sizeof(int32_t));
            for (int i = 0; i < S; i++) {
                assert_int_equal(batch.positions[b * S + i], i);
                assert_int_equal(batch.starts[b * S + i], 0);
                assert_true(batch.whole);
            }
        }
    }
    batch_free(&batch);
}

static const char *const documents[] = {
    "the cat sat on the mat\nand then on that one, who knows\n",
    "short",
    "the hat went there: 12, 13, 14\n\nthe cat and the hat \xE2\x82\xAC and the mat",
};

static void test_windows(void **state)
{
    const struct corpus *corpus = *state;
    struct stream stream = { .count = 0 };
    add_document(corpus, &stream, documents[0]);
    struct dataset_options options = corpus_options(corpus_write(corpus, "one.txt", documents[0]));
    struct dataset *dataset = corpus_open(corpus, &options);
    assert_windows(dataset, DATA_TRAIN, &stream, 0, ((int64_t)stream.count - 1) / S);
    assert_int_equal(dataset_facts(dataset)->documents, 1);
    assert_int_equal(dataset_facts(dataset)->format, DATA_TEXT);
    assert_string_equal(dataset_facts(dataset)->template_name, "");
    assert_int_equal(dataset_facts(dataset)->rows[DATA_VALIDATION], 0);
    assert_null(dataset_notice(dataset, 0));
    dataset_close(dataset);
}

/* One file with separators, a directory of files and JSON rows hold the same documents. */
static void test_same_documents(void **state)
{
    const struct corpus *corpus = *state;
    struct stream stream = { .count = 0 };
    const char *paths[3];
    for (int i = 0; i < 3; i++) {
        char name[32];
        add_document(corpus, &stream, documents[i]);
        snprintf(name, sizeof(name), "many/%d.txt", i);
        corpus_write(corpus, name, documents[i]);
    }
    corpus_write(corpus, "many/notes.log", "not data");
    paths[0] = corpus_path(corpus, "many");
    paths[1] =
        corpus_write(corpus, "separated.txt",
                     "the cat sat on the mat\nand then on that one, who knows\n"
                     "<|endoftext|>\n<|endoftext|>\n"
                     "short\n<|endoftext|>\n"
                     "the hat went there: 12, 13, 14\n\nthe cat and the hat \xE2\x82\xAC and "
                     "the mat");
    paths[2] =
        corpus_write(corpus, "text.jsonl",
                     "{\"text\":\"the cat sat on the mat\\nand then on that one, who "
                     "knows\\n\"}\n{\"text\":\"short\"}\n{\"text\":\"the hat went there: 12, "
                     "13, 14\\n\\nthe cat and the hat \xE2\x82\xAC and the mat\"}\n");
    struct stream separated = { .count = 0 };
    add_document(corpus, &separated, documents[0]);
    add_document(corpus, &separated, "short\n");
    add_document(corpus, &separated, documents[2]);
    for (int i = 0; i < 3; i++) {
        const struct stream *expected = i == 1 ? &separated : &stream;
        struct dataset_options options = corpus_options(paths[i]);
        struct dataset *dataset = corpus_open(corpus, &options);
        assert_windows(dataset, DATA_TRAIN, expected, 0, ((int64_t)expected->count - 1) / S);
        assert_int_equal(dataset_facts(dataset)->documents, 3);
        const int32_t *ids;
        const uint8_t *mask;
        size_t count;
        size_t total = 0;
        for (int64_t k = 0; dataset_preview(dataset, k, &ids, &mask, &count) == 0; k++) {
            assert_memory_equal(ids, expected->id + total, count * sizeof(int32_t));
            assert_int_equal(mask[count - 1], 1);
            total += count;
        }
        assert_int_equal(total, expected->count);
        dataset_close(dataset);
    }
}

static void test_validation(void **state)
{
    const struct corpus *corpus = *state;
    struct stream stream = { .count = 0 };
    struct stream other = { .count = 0 };
    char text[2000] = "";
    for (int i = 0; i < 30; i++) {
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "the cat sat on mat %d,\n", i);
    }
    add_document(corpus, &stream, text);
    add_document(corpus, &other, documents[2]);
    int64_t rows = ((int64_t)stream.count - 1) / S;
    assert_true(rows > 12);
    struct dataset_options options = corpus_options(corpus_write(corpus, "long/train.txt", text));
    options.validation = "0.25";
    options.shuffle = true;
    struct dataset *dataset = corpus_open(corpus, &options);
    int64_t held = (int64_t)(0.25 * (double)rows + 0.5);
    assert_int_equal(dataset_facts(dataset)->rows[DATA_TRAIN], rows - held);
    /* Validation is the end of the stream, and never shuffled. */
    assert_windows(dataset, DATA_VALIDATION, &stream, rows - held, held);
    dataset_close(dataset);

    options.validation = "0.0001";
    dataset = corpus_open(corpus, &options);
    assert_int_equal(dataset_facts(dataset)->rows[DATA_VALIDATION], 1);
    dataset_close(dataset);

    options.shuffle = false;
    options.validation = corpus_write(corpus, "long/valid.txt", documents[2]);
    dataset = corpus_open(corpus, &options);
    assert_windows(dataset, DATA_TRAIN, &stream, 0, rows);
    assert_windows(dataset, DATA_VALIDATION, &other, 0, ((int64_t)other.count - 1) / S);
    char digest[DIGEST_TEXT_SIZE];
    memcpy(digest, dataset_facts(dataset)->digest, sizeof(digest));
    dataset_close(dataset);

    /* A directory with train.txt and valid.txt is the same. */
    options.train = corpus_path(corpus, "long");
    options.validation = "";
    dataset = corpus_open(corpus, &options);
    assert_windows(dataset, DATA_TRAIN, &stream, 0, rows);
    assert_windows(dataset, DATA_VALIDATION, &other, 0, ((int64_t)other.count - 1) / S);
    assert_string_equal(dataset_facts(dataset)->digest, digest);
    dataset_close(dataset);
}

/* A preview reads the beginning alone: whole characters, and the counts say how much that was. */
static void test_beginning(void **state)
{
    const struct corpus *corpus = *state;
    struct error err = { 0 };
    struct buffer text = { 0 };
    while (text.size < (3 << 20)) {
        buffer_printf(&text, "the c\xc3\xa4t sat on the mat.\n%s",
                      text.size % 7 == 0 ? "<|endoftext|>\n" : "");
    }
    struct dataset_options options = corpus_options(corpus_write(corpus, "large.txt", text.text));
    for (options.limit_bytes = 1000; options.limit_bytes < 1010; options.limit_bytes++) {
        struct dataset *dataset = dataset_open(&options, corpus->tokenizer, NULL, &err);
        assert_non_null(dataset);
        const struct dataset_facts *facts = dataset_facts(dataset);
        assert_int_equal(facts->total_bytes, text.size);
        assert_true(facts->read_bytes < facts->total_bytes);
        assert_true(facts->documents >= 1 && facts->rows[DATA_TRAIN] > 0);
        dataset_close(dataset);
    }
    options.limit_bytes = 0;
    struct dataset *dataset = dataset_open(&options, corpus->tokenizer, NULL, &err);
    assert_int_equal(dataset_facts(dataset)->read_bytes, text.size);
    dataset_close(dataset);
    buffer_free(&text);
}

/* Each epoch has every row once, in its own order, however the rows are put into batches. */
static void test_shuffle(void **state)
{
    const struct corpus *corpus = *state;
    char text[4000] = "";
    for (int i = 0; i < 60; i++) {
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "mat %d, hat %d and cat %d.\n",
                 i, i * 31, i * i);
    }
    struct dataset_options options = corpus_options(corpus_write(corpus, "shuffled.txt", text));
    struct dataset *plain = corpus_open(corpus, &options);
    options.shuffle = true;
    struct dataset *dataset = corpus_open(corpus, &options);
    struct error err = { 0 };
    struct batch one;
    struct batch four;
    struct batch file;
    int64_t rows = dataset_facts(dataset)->rows[DATA_TRAIN];
    assert_true(rows > 20 && rows < 200);
    assert_int_equal(batch_init(&one, 1, S, &err), 0);
    assert_int_equal(batch_init(&four, 4, S, &err), 0);
    assert_int_equal(batch_init(&file, rows, S, &err), 0);
    dataset_fill(plain, DATA_TRAIN, 0, &file);
    int moved = 0;
    int seen[2][200] = { { 0 } };
    for (int64_t at = 0; at < 2 * rows; at++) {
        dataset_fill(dataset, DATA_TRAIN, at, &one);
        dataset_fill(dataset, DATA_TRAIN, at - at % 4, &four);
        assert_memory_equal(one.ids, four.ids + at % 4 * S, S * sizeof(int32_t));
        int64_t row = 0;
        while (row < rows && memcmp(one.ids, file.ids + row * S, S * sizeof(int32_t)) != 0) {
            row++;
        }
        assert_true(row < rows);
        assert_int_equal(seen[at / rows][row], 0);
        seen[at / rows][row] = 1;
        moved += row != at % rows;
    }
    assert_true(moved > rows);
    batch_free(&one);
    batch_free(&four);
    batch_free(&file);
    dataset_close(plain);
    dataset_close(dataset);
}

static void test_refusals(void **state)
{
    const struct corpus *corpus = *state;
    struct dataset_options options = corpus_options(corpus_path(corpus, "absent.txt"));
    corpus_refuse(corpus, &options, ERROR_DATA, "absent.txt");
    options.train = corpus_write(corpus, "latin.txt", "the cat\nsat on \xE4 mat\n");
    corpus_refuse(corpus, &options, ERROR_DATA, "latin.txt:2: invalid UTF-8");
    options.train = corpus_write_bytes(corpus, "nul.txt", "the\ncat\n\0\0", 10);
    corpus_refuse(corpus, &options, ERROR_DATA, "nul.txt:3: a NUL byte");
    options.train = corpus_write(corpus, "empty.txt", "");
    corpus_refuse(corpus, &options, ERROR_DATA, "no row");
    options.train = corpus_write(corpus, "bom.txt", "\xEF\xBB\xBF");
    corpus_refuse(corpus, &options, ERROR_DATA, "no row");
    options.train = corpus_write(corpus, "tiny.txt", "the cat");
    corpus_refuse(corpus, &options, ERROR_DATA, "no row of 16");
    options.train = corpus_write(corpus, "data.csv", "a,b");
    corpus_refuse(corpus, &options, ERROR_DATA, "data.csv");
    options.train = corpus_write(corpus, "data.jsonl.gz", "x");
    corpus_refuse(corpus, &options, ERROR_DATA, "compressed");
    options.train = corpus_write(corpus, "pointer.txt",
                                 "version https://git-lfs.github.com/spec/v1\n"
                                 "oid sha256:00\nsize 123456\n");
    corpus_refuse(corpus, &options, ERROR_DATA, "pointer.txt: a Git LFS pointer");
    corpus_write(corpus, "nothing/readme.log", "x");
    options.train = corpus_path(corpus, "nothing");
    corpus_refuse(corpus, &options, ERROR_DATA, "no data");
    options.train = corpus_write(corpus, "good.txt", documents[0]);
    options.validation = "1.5";
    corpus_refuse(corpus, &options, ERROR_USAGE, "1.5");
    options.validation = corpus_path(corpus, "absent.txt");
    corpus_refuse(corpus, &options, ERROR_DATA, "absent.txt");
    options.validation = "";
    options.format = DATA_ALPACA;
    corpus_refuse(corpus, &options, ERROR_DATA, "text file");
    options.format = DATA_AUTO;
    options.sequence_length = 0;
    corpus_refuse(corpus, &options, ERROR_USAGE, "sequence_length");
    options.sequence_length = INT64_MAX;
    corpus_refuse(corpus, &options, ERROR_DATA, "no row");
}

static void note_progress(void *context, int64_t done_bytes, int64_t total_bytes)
{
    int64_t *last = context;
    assert_true(done_bytes > last[0] && done_bytes <= total_bytes);
    last[0] = done_bytes;
    last[1] = total_bytes;
}

static void test_progress(void **state)
{
    const struct corpus *corpus = *state;
    int64_t last[2] = { 0, 0 };
    struct dataset_progress progress = { note_progress, last };
    struct dataset_options options = corpus_options(corpus_write(corpus, "p.txt", documents[0]));
    struct error err = { 0 };
    struct dataset *dataset = dataset_open(&options, corpus->tokenizer, &progress, &err);
    assert_non_null(dataset);
    assert_int_equal(last[0], strlen(documents[0]));
    assert_int_equal(last[1], strlen(documents[0]));
    dataset_close(dataset);
}

static void test_batches(void **state)
{
    (void)state;
    struct batch batch;
    struct error err = { 0 };
    assert_int_equal(batch_init(&batch, 0, 16, &err), -1);
    assert_int_equal(batch_init(&batch, 1, -1, &err), -1);
    assert_int_equal(batch_init(&batch, INT64_MAX, 2, &err), -1);
    assert_int_equal(err.code, ERROR_USAGE);
    batch_free(&batch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_windows),    cmocka_unit_test(test_same_documents),
        cmocka_unit_test(test_validation), cmocka_unit_test(test_beginning),
        cmocka_unit_test(test_shuffle),    cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_progress),   cmocka_unit_test(test_batches),
    };
    return cmocka_run_group_tests(tests, corpus_set_up, corpus_tear_down);
}
