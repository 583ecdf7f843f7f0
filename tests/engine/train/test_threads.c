/* Whole runs give the same bits with one thread and with two: losses, weights, states. */
#include <omp.h>
#include <stdio.h>
#include <string.h>

#include "small.h"
#include "tests/llama.h"

enum { STEPS = 20, ROWS = 3, LENGTH = 70 };

/* Large enough that every operation of a step is shared among threads. */
static const struct model_config config = { LLAMA_REST,
                                            .hidden_size = 64,
                                            .intermediate_size = 160,
                                            .layers = 2,
                                            .heads = 4,
                                            .kv_heads = 2,
                                            .head_size = 16,
                                            .vocabulary = 300,
                                            .max_positions = 128,
                                            .initializer_range = 0.05 };

struct outcome {
    float loss[STEPS];
    float norm[STEPS];
    char digest[DIGEST_TEXT_SIZE];
};

static void make_recipe(struct recipe *recipe, const char *const *words)
{
    struct error err = { 0 };
    const char *const base[] = {
        "model.init=random",          "batch.micro=3",  "data.sequence_length=70",
        "batch.accumulate=2",         "train.steps=20", "optimizer.lr=0.003",
        "optimizer.weight_decay=0.01"
    };
    recipe_init(recipe);
    for (size_t i = 0; i < sizeof base / sizeof base[0]; i++) {
        check(recipe_set(recipe, base[i], &err), &err);
    }
    for (; *words != NULL; words++) {
        check(recipe_set(recipe, *words, &err), &err);
    }
}

static void run(const char *const *words, int threads, struct outcome *out)
{
    struct error err = { 0 };
    struct dice dice = { 7 };
    struct recipe recipe;
    struct plan plan;
    struct batch batch[2];
    omp_set_num_threads(threads);
    make_recipe(&recipe, words);
    check(plan_make(&recipe, &config, &plan, &err), &err);
    struct backend *be = small_backend();
    struct trainer *trainer = small_trainer(&recipe, &config, &plan, be);
    check(batch_init(&batch[0], ROWS, LENGTH, &err), &err);
    check(batch_init(&batch[1], ROWS, LENGTH, &err), &err);
    for (int i = 0; i < STEPS; i++) {
        struct step_result result;
        small_batch(&dice, config.vocabulary, &batch[0]);
        small_batch(&dice, config.vocabulary, &batch[1]);
        check(trainer_step(trainer, i + 1, batch, 2, &result, &err), &err);
        assert_false(result.skipped);
        out->loss[i] = result.loss;
        out->norm[i] = result.grad_norm;
    }
    small_digest(trainer, out->digest);
    batch_free(&batch[0]);
    batch_free(&batch[1]);
    trainer_close(trainer);
    backend_close(be);
    recipe_free(&recipe);
}

static void test_same_bits(void **state)
{
    (void)state;
    const char *const *variants[] = {
        WORDS("method.name=full"),
        WORDS("method.name=full", "precision.weights=bf16", "precision.rounding=stochastic",
              "optimizer.state=bf16"),
        WORDS("method.name=grass", "method.rank=24", "method.interval=4"),
        WORDS("method.name=grass", "method.rank=24", "method.interval=4", "method.selection=norm",
              "method.unbiased=true", "method.side=in", "precision.weights=bf16",
              "optimizer.state=bf16", "activation.recompute=block"),
        WORDS("method.name=full", "activation.sample=wta-crs", "activation.keep=0.3"),
        WORDS("method.name=full", "method.embedding=rows", "optimizer.state=int8"),
    };
    int before = omp_get_max_threads();
    for (size_t v = 0; v < sizeof variants / sizeof variants[0]; v++) {
        struct outcome one;
        run(variants[v], 1, &one);
        struct outcome two;
        run(variants[v], 2, &two);
        assert_memory_equal(one.loss, two.loss, sizeof one.loss);
        assert_memory_equal(one.norm, two.norm, sizeof one.norm);
        assert_string_equal(one.digest, two.digest);
    }
    omp_set_num_threads(before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
