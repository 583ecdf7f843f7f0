/* Records: templates, masks, packing, and what becomes of bad ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/data/corpus.h"
#include "tokenizer/chat_encode.h"

/* What one question and answer should become. */
static struct chat_tokens expected(const struct corpus *corpus, enum chat_format format,
                                   const char *question, const char *answer)
{
    const struct chat_message messages[] = {
        { .role = CHAT_USER, .text = question, .size = strlen(question) },
        { .role = CHAT_ASSISTANT, .trained = true, .text = answer, .size = strlen(answer) },
    };
    struct chat_segments segments;
    struct chat_tokens tokens;
    char why[256];
    assert_int_equal(chat_format_render(format, messages, 2, false, &segments), 0);
    assert_int_equal(chat_encode(corpus->tokenizer, &segments, &tokens, why, sizeof(why)), 0);
    chat_segments_free(&segments);
    return tokens;
}

/* A batch of one row holds this record at `place`. */
static int64_t assert_record(const struct batch *batch, int64_t place,
                             const struct chat_tokens *tokens)
{
    int64_t count = (int64_t)tokens->count;
    int64_t trained = 0;
    assert_true(place + count <= batch->sequence);
    assert_false(batch->whole);
    for (int64_t i = 0; i < count; i++) {
        int64_t at = place + i;
        bool learns = i + 1 < count && tokens->trained[i + 1] != 0;
        assert_int_equal(batch->ids[at], tokens->id[i]);
        assert_int_equal(batch->positions[at], i);
        assert_int_equal(batch->starts[at], place);
        assert_int_equal(batch->targets[at], learns ? tokens->id[i + 1] : -1);
        trained += learns;
    }
    return trained;
}

static void assert_padding(const struct batch *batch, int64_t from)
{
    for (int64_t at = from; at < batch->sequence; at++) {
        assert_int_equal(batch->ids[at], 2); /* EOS: the tokenizer has no piece for padding */
        assert_int_equal(batch->targets[at], -1);
        assert_int_equal(batch->starts[at], from);
    }
}

static const char *const pairs[][2] = {
    { "the cat", "sat on the mat, then on that hat: 12 13 14, who knows" },
    { "the hat on that mat, and then", "on" },
    { "on", "that" },
    { "12", "13" },
};
static const char completions[] = "{\"prompt\":\"the cat\",\"completion\":\"sat on the mat, then "
                                  "on that hat: 12 13 14, who knows\"}\n"
                                  "{\"prompt\":\"the hat on that mat, and then\","
                                  "\"completion\":\"on\"}\n"
                                  "{\"prompt\":\"on\",\"completion\":\"that\"}\n"
                                  "{\"prompt\":\"12\",\"completion\":\"13\"}\n";

static void test_packing(void **state)
{
    const struct corpus *corpus = *state;
    struct chat_tokens tokens[4];
    for (int i = 0; i < 4; i++) {
        tokens[i] = expected(corpus, CHAT_PLAIN, pairs[i][0], pairs[i][1]);
    }
    struct dataset_options options =
        corpus_options(corpus_write(corpus, "pairs.jsonl", completions));
    /* Records 0 and 2 fill the first row to the end; 1 and 3 go into the second. */
    options.sequence_length = (int64_t)(tokens[0].count + tokens[2].count);
    assert_true((int64_t)(tokens[1].count + tokens[3].count) <= options.sequence_length);
    assert_true((int64_t)(tokens[0].count + tokens[1].count) > options.sequence_length);
    struct dataset *dataset = corpus_open(corpus, &options);
    const struct dataset_facts *facts = dataset_facts(dataset);
    assert_int_equal(facts->format, DATA_COMPLETION);
    assert_string_equal(facts->template_name, "plain");
    assert_int_equal(facts->rows[DATA_TRAIN], 2);
    assert_int_equal(facts->documents, 4);
    struct batch batch;
    struct error err = { 0 };
    assert_int_equal(batch_init(&batch, 1, options.sequence_length, &err), 0);
    int64_t trained = 0;
    for (int row = 0; row < 2; row++) {
        dataset_fill(dataset, DATA_TRAIN, row, &batch);
        int64_t place = (int64_t)tokens[row].count;
        int64_t here =
            assert_record(&batch, 0, &tokens[row]) + assert_record(&batch, place, &tokens[row + 2]);
        assert_padding(&batch, place + (int64_t)tokens[row + 2].count);
        assert_int_equal(batch.trained_tokens, here);
        trained += here;
    }
    assert_int_equal(facts->trained_tokens[DATA_TRAIN], trained);
    assert_int_equal(facts->tokens[DATA_TRAIN],
                     tokens[0].count + tokens[1].count + tokens[2].count + tokens[3].count);
    dataset_close(dataset);

    options.pack = false;
    dataset = corpus_open(corpus, &options);
    assert_int_equal(dataset_facts(dataset)->rows[DATA_TRAIN], 4);
    for (int row = 0; row < 4; row++) {
        dataset_fill(dataset, DATA_TRAIN, row, &batch);
        assert_int_equal(assert_record(&batch, 0, &tokens[row]), batch.trained_tokens);
        assert_padding(&batch, (int64_t)tokens[row].count);
        chat_tokens_free(&tokens[row]);
    }
    dataset_close(dataset);
    batch_free(&batch);
}

static void test_train_on_prompt(void **state)
{
    const struct corpus *corpus = *state;
    struct dataset_options options =
        corpus_options(corpus_write(corpus, "pairs.jsonl", completions));
    options.sequence_length = 64;
    options.train_on_prompt = true;
    struct dataset *dataset = corpus_open(corpus, &options);
    const struct dataset_facts *facts = dataset_facts(dataset);
    assert_int_equal(facts->trained_tokens[DATA_TRAIN], facts->tokens[DATA_TRAIN] - 4);
    dataset_close(dataset);
}

static size_t prompt_size(const struct chat_tokens *tokens)
{
    size_t size = 0;
    while (tokens->trained[size] == 0) {
        size++;
    }
    return size;
}

static void test_cutting(void **state)
{
    const struct corpus *corpus = *state;
    struct chat_tokens tokens[4];
    struct dataset_options options =
        corpus_options(corpus_write(corpus, "pairs.jsonl", completions));
    for (int i = 0; i < 4; i++) {
        tokens[i] = expected(corpus, CHAT_PLAIN, pairs[i][0], pairs[i][1]);
    }
    /* The first record keeps one token of its answer; the second, longer one keeps none. */
    size_t sequence = prompt_size(&tokens[0]) + 1;
    int cut = 0;
    for (int i = 0; i < 4; i++) {
        assert_true((prompt_size(&tokens[i]) < sequence) == (i != 1));
        cut += i != 1 && tokens[i].count > sequence;
    }
    assert_true(cut >= 1);
    options.sequence_length = (int64_t)sequence;
    struct dataset *dataset = corpus_open(corpus, &options);
    const struct dataset_facts *facts = dataset_facts(dataset);
    assert_int_equal(facts->cut, cut);
    assert_int_equal(facts->skipped, 1);
    assert_int_equal(facts->documents, 3);
    assert_non_null(strstr(dataset_notice(dataset, 0), "1 record skipped: nothing of the answer"));
    assert_non_null(strstr(dataset_notice(dataset, 0), "pairs.jsonl:2"));
    assert_non_null(strstr(dataset_notice(dataset, 1), "cut at the end"));
    const int32_t *ids;
    const uint8_t *mask;
    size_t count;
    assert_int_equal(dataset_preview(dataset, 0, &ids, &mask, &count), 0);
    assert_int_equal(count, sequence);
    assert_memory_equal(ids, tokens[0].id, count * sizeof(int32_t));
    assert_memory_equal(mask, tokens[0].trained, count);
    assert_int_equal(dataset_preview(dataset, 3, &ids, &mask, &count), -1);
    dataset_close(dataset);
    options.sequence_length = 3;
    corpus_refuse(corpus, &options, ERROR_DATA, "nothing of the answer");
    for (int i = 0; i < 4; i++) {
        chat_tokens_free(&tokens[i]);
    }
}

static void assert_template(const struct corpus *corpus, const struct dataset_options *options,
                            const char *name, bool notice)
{
    struct dataset *dataset = corpus_open(corpus, options);
    assert_string_equal(dataset_facts(dataset)->template_name, name);
    assert_true((dataset_notice(dataset, 0) != NULL) == notice);
    dataset_close(dataset);
}

static void test_templates(void **state)
{
    const struct corpus *corpus = *state;
    struct dataset_options options = corpus_options(
        corpus_write(corpus, "a.jsonl", "{\"instruction\":\"the cat\",\"output\":\"sat\"}\n"));
    options.sequence_length = 400;
    assert_template(corpus, &options, "alpaca", false);
    options.chat_template = "{{ '<|im_start|>' + role }}";
    assert_template(corpus, &options, "chatml", false);
    options.chat_template = "{{ something else }}";
    assert_template(corpus, &options, "alpaca", true);
    options.template_name = "zephyr";
    assert_template(corpus, &options, "zephyr", false);
    options.template_name = "";
    options.chat_template = "";
    options.train = corpus_write(corpus, "p.jsonl", completions);
    assert_template(corpus, &options, "plain", false);
    options.template_name = "zepyhr";
    corpus_refuse(corpus, &options, ERROR_USAGE, "zepyhr");
    options.template_name = "none";
    corpus_refuse(corpus, &options, ERROR_USAGE, "none");
}

/* `good` rows, and after them the `bad` one so many times. */
static const char *write_rows(const struct corpus *corpus, int good, const char *bad, int times)
{
    char *text = malloc((size_t)(good + times) * 64 + 1);
    assert_non_null(text);
    size_t used = 0;
    for (int i = 0; i < good; i++) {
        used += (size_t)snprintf(text + used, 64,
                                 "{\"prompt\":\"cat %d\",\"completion\":\"hat\"}\n", i);
    }
    for (int i = 0; i < times; i++) {
        used += (size_t)snprintf(text + used, 64, "%s\n", bad);
    }
    const char *path = corpus_write_bytes(corpus, "rows.jsonl", text, used);
    free(text);
    return path;
}

static void test_skipping(void **state)
{
    const struct corpus *corpus = *state;
    struct dataset_options options =
        corpus_options(write_rows(corpus, 198, "{\"prompt\":\"cat", 2));
    options.sequence_length = 64;
    struct dataset *dataset = corpus_open(corpus, &options);
    assert_int_equal(dataset_facts(dataset)->skipped, 2);
    assert_int_equal(dataset_facts(dataset)->documents, 198);
    assert_string_equal(
        dataset_notice(dataset, 0),
        "2 records skipped: not valid JSON (first: rows.jsonl:199, rows.jsonl:200)");
    assert_non_null(strstr(dataset_notice(dataset, 1), "line 199"));
    assert_null(dataset_notice(dataset, 2));
    assert_null(dataset_notice(dataset, -1));
    dataset_close(dataset);

    options.train = write_rows(corpus, 196, "{\"prompt\":\"cat", 3);
    corpus_refuse(corpus, &options, ERROR_DATA, "3 of 199 records cannot be used");
    corpus_refuse(corpus, &options, ERROR_DATA, "rows.jsonl:197");

    /* Who names the format takes what fits it. */
    options.train = write_rows(corpus, 100, "{\"prompt\":\"cat\"}", 60);
    corpus_refuse(corpus, &options, ERROR_DATA, "60 of 160");
    options.format = DATA_COMPLETION;
    dataset = corpus_open(corpus, &options);
    assert_int_equal(dataset_facts(dataset)->skipped, 60);
    assert_non_null(strstr(dataset_notice(dataset, 0), "60 records skipped: no fields"));
    assert_non_null(strstr(dataset_notice(dataset, 0), "rows.jsonl:120"));
    assert_null(strstr(dataset_notice(dataset, 0), "rows.jsonl:121"));
    dataset_close(dataset);
    options.format = DATA_ALPACA;
    corpus_refuse(corpus, &options, ERROR_DATA, "160 of 160");
}

static void test_validation(void **state)
{
    const struct corpus *corpus = *state;
    struct dataset_options options = corpus_options(write_rows(corpus, 50, "", 0));
    options.sequence_length = 64;
    options.pack = false;
    options.validation = "0.1";
    struct dataset *dataset = corpus_open(corpus, &options);
    assert_int_equal(dataset_facts(dataset)->rows[DATA_TRAIN], 45);
    assert_int_equal(dataset_facts(dataset)->rows[DATA_VALIDATION], 5);
    struct chat_tokens tokens = expected(corpus, CHAT_PLAIN, "cat 45", "hat");
    struct batch batch;
    struct error err = { 0 };
    assert_int_equal(batch_init(&batch, 1, 64, &err), 0);
    dataset_fill(dataset, DATA_VALIDATION, 0, &batch);
    assert_record(&batch, 0, &tokens);
    chat_tokens_free(&tokens);
    dataset_close(dataset);

    corpus_write(corpus, "both/train.jsonl", completions);
    corpus_write(corpus, "both/valid.jsonl", "{\"question\":\"the cat\",\"answer\":\"sat\"}\n");
    options.train = corpus_path(corpus, "both");
    options.validation = "";
    dataset = corpus_open(corpus, &options);
    assert_int_equal(dataset_facts(dataset)->rows[DATA_TRAIN], 4);
    assert_int_equal(dataset_facts(dataset)->rows[DATA_VALIDATION], 1);
    tokens = expected(corpus, CHAT_PLAIN, "the cat", "sat");
    dataset_fill(dataset, DATA_VALIDATION, 7, &batch);
    assert_record(&batch, 0, &tokens);
    chat_tokens_free(&tokens);
    batch_free(&batch);
    dataset_close(dataset);

    options.validation = corpus_write(corpus, "v.txt", "the cat sat on the mat");
    corpus_refuse(corpus, &options, ERROR_DATA, "plain text");
    options.train = corpus_write(corpus, "one.jsonl", "{\"prompt\":\"a\",\"completion\":\"b\"}\n");
    options.validation = "0.5";
    corpus_refuse(corpus, &options, ERROR_DATA, "only one record");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_packing),  cmocka_unit_test(test_train_on_prompt),
        cmocka_unit_test(test_cutting),  cmocka_unit_test(test_templates),
        cmocka_unit_test(test_skipping), cmocka_unit_test(test_validation),
    };
    return cmocka_run_group_tests(tests, corpus_set_up, corpus_tear_down);
}
