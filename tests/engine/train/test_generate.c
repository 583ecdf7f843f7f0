/* Choosing tokens, and text without prompt or special tokens. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fixture.h"

static void test_choice(void **state)
{
    (void)state;
    const float logits[5] = { 1.0f, 3.0f, 3.0f, 2.0f, -1.0f };
    float work[5];
    struct generate_options options = { .temperature = 0.0, .top_p = 1.0, .seed = 7 };
    memcpy(work, logits, sizeof logits);
    assert_int_equal(generate_choose(work, 5, &options, 0), 1); /* ties to the lower id */
    options.temperature = 0.7;
    double weight[5];
    double total = 0.0;
    int count[5] = { 0 };
    for (int i = 0; i < 5; i++) {
        weight[i] = exp((double)logits[i] / 0.7);
        total += weight[i];
    }
    enum { DRAWS = 20000 };
    for (int d = 0; d < DRAWS; d++) {
        memcpy(work, logits, sizeof logits);
        count[generate_choose(work, 5, &options, (uint64_t)d)]++;
    }
    for (int i = 0; i < 5; i++) {
        double p = weight[i] / total;
        double z = ((double)count[i] - DRAWS * p) / sqrt(DRAWS * p * (1.0 - p) + 1e-9);
        assert_true(fabs(z) < 5.0);
    }
    options.top_p = 0.5; /* the two equal best hold 0.9 together, one alone 0.45 */
    memset(count, 0, sizeof count);
    for (int d = 0; d < 2000; d++) {
        memcpy(work, logits, sizeof logits);
        count[generate_choose(work, 5, &options, (uint64_t)d)]++;
    }
    assert_int_equal(count[1] + count[2], 2000);
    assert_true(count[1] > 800 && count[2] > 800);
}

struct stream {
    char text[4096];
    size_t size;
};

static void collect(void *context, const char *text, size_t size)
{
    struct stream *stream = context;
    memcpy(stream->text + stream->size, text, size);
    stream->size += size;
}

static struct tokenizer *make_tokenizer(void)
{
    static const char *const sentences[] = { "the cat sat on the mat and the dog ran",
                                             "a dog and a cat ran to the mat",
                                             "the mat sat and the cat sat" };
    char why[256];
    size_t size;
    void *bytes = tokenizer_train(sentences, 3, 280, &size, why, sizeof why);
    assert_non_null(bytes);
    struct tokenizer *tokenizer = tokenizer_open(bytes, size, why, sizeof why);
    assert_non_null(tokenizer);
    free(bytes);
    return tokenizer;
}

static void test_text(void **state)
{
    (void)state;
    struct error err = { 0 };
    struct recipe recipe;
    struct model_config config;
    char why[256];
    struct tokenizer *tokenizer = make_tokenizer();
    recipe_init(&recipe);
    check(recipe_set(&recipe, "model.init=random", &err), &err);
    check(recipe_set(&recipe, "batch.micro=1", &err), &err);
    check(recipe_set(&recipe, "data.sequence_length=8", &err), &err);
    check(config_read(TEST_DATA "/model/untied/config.json", &config, &err), &err);
    config.vocabulary = tokenizer_facts(tokenizer)->vocabulary;
    struct backend *be = backend_open("cpu", 0, why, sizeof why);
    struct trainer *trainer = inference_open(
        &(struct inference_options){
            .recipe = &recipe, .config = &config, .be = be, .positions = 64 },
        &err);
    check(trainer == NULL ? -1 : 0, &err);
    struct stream stream = { .size = 0 };
    struct generate_options options = { .prompt = "the cat",
                                        .max_tokens = 20,
                                        .temperature = 1.0,
                                        .top_p = 1.0,
                                        .seed = 3,
                                        .on_text = collect,
                                        .context = &stream };
    char *text = generate_text(trainer, tokenizer, &options, &err);
    check(text == NULL ? -1 : 0, &err);
    assert_true(stream.size >= strlen(text) && stream.size > 0);
    assert_memory_equal(text, stream.text, stream.size);
    assert_null(strstr(text, "<s>"));
    char *again = generate_text(trainer, tokenizer, &options, &err);
    assert_string_equal(text, again); /* the same seed, the same text */
    free(again);
    free(text);
    options.prompt = "";
    text = generate_text(trainer, tokenizer, &options, &err);
    check(text == NULL ? -1 : 0, &err);
    free(text);
    /* A prompt that fills all places is refused, and so is text that is not UTF-8. */
    char *prompt = calloc(1, 1000);
    memset(prompt, 'z', 400);
    options.prompt = prompt;
    assert_null(generate_text(trainer, tokenizer, &options, &err));
    struct token_list list = { 0 };
    char told[64];
    assert_int_equal(tokenizer_encode(tokenizer, prompt, strlen(prompt), &list, why, sizeof why),
                     0);
    snprintf(told, sizeof told, "%zu tokens leave no room in 64 positions", list.count + 1);
    token_list_free(&list);
    assert_non_null(strstr(err.message, told));
    options.prompt = "bad \xff";
    assert_null(generate_text(trainer, tokenizer, &options, &err));
    assert_int_equal(err.code, ERROR_USAGE);
    free(prompt);
    trainer_close(trainer);
    backend_close(be);
    tokenizer_close(tokenizer);
    recipe_free(&recipe);
}

/* Every place up to the last can be used. */
static void test_fills_all_positions(void **state)
{
    (void)state;
    struct fixture f;
    struct error err = { 0 };
    float logits[96];
    fixture_open(&f, "untied", WORDS("train.sample_every=1"));
    assert_int_equal(trainer_generate_begin(f.trainer, 17, &err), -1);
    check(trainer_generate_begin(f.trainer, 16, &err), &err);
    for (int i = 0; i < 16; i++) {
        check(trainer_generate_feed(f.trainer, i, logits, &err), &err);
    }
    assert_int_equal(trainer_generate_feed(f.trainer, 1, logits, &err), -1);
    trainer_generate_end(f.trainer);
    check(trainer_generate_begin(f.trainer, 4, &err), &err);
    assert_int_equal(trainer_generate_feed(f.trainer, 96, logits, &err), -1);
    assert_int_equal(trainer_generate_feed(f.trainer, -1, logits, &err), -1);
    trainer_generate_end(f.trainer);
    fixture_close(&f);
    /* Without memory planned for it, a sample is refused and the run goes on. */
    int64_t step = 0;
    fixture_open(&f, "untied", WORDS("train.sample_every=0"));
    assert_int_equal(trainer_generate_begin(f.trainer, 4, &err), -1);
    assert_false(fixture_step(&f, &step).skipped);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_fills_all_positions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
