/* Recomputing changes no bit, takes the bytes and the FLOPs that its formulas say, and never makes
 * the last product of a block twice. */
#include <stdio.h>
#include <string.h>

#include "small.h"
#include "tests/llama.h"

enum { STEPS = 5, MICRO = 2 };

static const char *const policies[] = { "none", "norms", "ffn", "block" };
enum { POLICIES = sizeof policies / sizeof policies[0] };

/* With a vocabulary below the feed-forward's width the last block's values wait for its backward;
 * with a larger one they are made again. */
static struct model_config model(int64_t layers, int64_t vocabulary)
{
    return (struct model_config){ LLAMA_REST,
                                  .hidden_size = 32,
                                  .intermediate_size = 96,
                                  .layers = layers,
                                  .heads = 4,
                                  .kv_heads = 2,
                                  .head_size = 8,
                                  .vocabulary = vocabulary,
                                  .max_positions = 64,
                                  .initializer_range = 0.2 };
}

static void make_recipe(struct recipe *recipe, const char *policy, const char *const *words)
{
    struct error err = { 0 };
    char recompute[64];
    snprintf(recompute, sizeof recompute, "activation.recompute=%s", policy);
    const char *const base[] = { "model.init=random",  "batch.micro=2",
                                 "batch.accumulate=2", "data.sequence_length=24",
                                 "train.steps=20",     "train.clip=1",
                                 "optimizer.lr=0.003", "optimizer.weight_decay=0.01",
                                 "data.validation=",   recompute };
    recipe_init(recipe);
    for (size_t i = 0; i < sizeof base / sizeof base[0]; i++) {
        check(recipe_set(recipe, base[i], &err), &err);
    }
    for (; *words != NULL; words++) {
        check(recipe_set(recipe, *words, &err), &err);
    }
}

struct outcome {
    float loss[STEPS];
    float norm[STEPS];
    char gradients[DIGEST_TEXT_SIZE]; /* of the last step */
    char state[DIGEST_TEXT_SIZE];
    struct op_count count[OP_FAMILY_COUNT]; /* of the last step */
};

static void add_gradient(void *context, const char *name, struct tensor *gradient)
{
    digest_add(context, name, strlen(name));
    digest_add(context, gradient->data, tensor_bytes(gradient));
}

static void digest_gradients(struct trainer *trainer, char text[DIGEST_TEXT_SIZE])
{
    struct digest *digest = digest_begin();
    struct gradient_visitor visitor = { .visit = add_gradient, .context = digest };
    dense_each_gradient(&trainer->dense, &visitor);
    trainer->method.ops->each_gradient(&trainer->method, &visitor);
    digest_end(digest, text);
}

static void count_step(const struct backend *be, const struct op_count *before,
                       struct op_count *out)
{
    for (int f = 0; f < OP_FAMILY_COUNT; f++) {
        out[f].calls = be->count[f].calls - before[f].calls;
        out[f].flops = be->count[f].flops - before[f].flops;
    }
}

static void train(const struct model_config *config, const char *policy, const char *const *words,
                  struct outcome *out)
{
    struct error err = { 0 };
    struct dice dice = { 11 };
    struct recipe recipe;
    struct plan plan;
    struct batch batch[MICRO];
    struct op_count before[OP_FAMILY_COUNT];
    make_recipe(&recipe, policy, words);
    check(plan_make(&recipe, config, &plan, &err), &err);
    struct backend *be = small_backend();
    struct trainer *trainer = small_trainer(&recipe, config, &plan, be);
    for (int i = 0; i < MICRO; i++) {
        check(batch_init(&batch[i], 2, 24, &err), &err);
    }
    for (int i = 0; i < STEPS; i++) {
        struct step_result result;
        for (int j = 0; j < MICRO; j++) {
            small_batch(&dice, config->vocabulary, &batch[j]);
        }
        memcpy(before, be->count, sizeof before);
        check(trainer_step(trainer, i + 1, batch, MICRO, &result, &err), &err);
        assert_false(result.skipped);
        out->loss[i] = result.loss;
        out->norm[i] = result.grad_norm;
    }
    count_step(be, before, out->count);
    digest_gradients(trainer, out->gradients);
    small_digest(trainer, out->state);
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        assert_int_equal(memory_peak(trainer_memory(trainer), (enum memory_category)c),
                         plan.bytes[c]);
    }
    for (int i = 0; i < MICRO; i++) {
        batch_free(&batch[i]);
    }
    trainer_close(trainer);
    backend_close(be);
    recipe_free(&recipe);
}

/* T-bit: losses, norms, gradients, weights and states after five steps with accumulation. */
static void test_same_bits(void **state)
{
    (void)state;
    const char *const *variants[] = {
        WORDS("method.name=full"),
        WORDS("method.name=full", "precision.weights=bf16", "precision.rounding=stochastic",
              "optimizer.state=bf16"),
        WORDS("method.name=grass", "method.rank=12", "method.interval=3"),
        WORDS("method.name=grass", "method.rank=12", "method.interval=3", "method.side=in",
              "precision.weights=bf16", "precision.rounding=stochastic", "optimizer.state=bf16"),
    };
    const int64_t vocabularies[] = { 40, 300 };
    for (size_t v = 0; v < sizeof variants / sizeof variants[0]; v++) {
        for (int w = 0; w < 2; w++) {
            struct model_config config = model(3, vocabularies[w]);
            struct outcome kept;
            train(&config, "none", variants[v], &kept);
            for (int p = 1; p < POLICIES; p++) {
                struct outcome made;
                train(&config, policies[p], variants[v], &made);
                assert_memory_equal(kept.loss, made.loss, sizeof kept.loss);
                assert_memory_equal(kept.norm, made.norm, sizeof kept.norm);
                assert_string_equal(kept.gradients, made.gradients);
                assert_string_equal(kept.state, made.state);
            }
        }
    }
}

/* Products and FLOPs that recomputing adds to a step: none for the down projection. */
static void test_counts(void **state)
{
    (void)state;
    const double tokens = 2 * 24;
    const double d = 32, f = 96, dq = 32, dkv = 16;
    /* Causal triangle: 4 D FLOPs for each of S (S + 1) / 2 pairs, 4 heads, 2 rows. */
    const double attention = 4.0 * 8.0 * (24.0 * 25.0 / 2.0) * 4.0 * 2.0;
    const double products[POLICIES] = { 0.0, 0.0, 4.0 * d * f,
                                        4.0 * d * dq + 4.0 * d * dkv + 4.0 * d * f };
    const int64_t calls[POLICIES] = { 0, 0, 1, 3 };
    const int64_t layers = 4;
    const int64_t vocabularies[] = { 40, 300 };
    for (int w = 0; w < 2; w++) {
        struct model_config config = model(layers, vocabularies[w]);
        const int64_t again = (w == 0 ? layers - 1 : layers) * MICRO;
        struct outcome kept;
        train(&config, "none", WORDS("method.name=full"), &kept);
        for (int p = 1; p < POLICIES; p++) {
            struct outcome made;
            train(&config, policies[p], WORDS("method.name=full"), &made);
            assert_int_equal(made.count[OP_MATMUL].calls - kept.count[OP_MATMUL].calls,
                             again * calls[p]);
            assert_true(made.count[OP_MATMUL].flops - kept.count[OP_MATMUL].flops ==
                        (double)again * tokens * products[p]);
            assert_true(made.count[OP_ATTENTION].flops - kept.count[OP_ATTENTION].flops ==
                        (p == 3 ? (double)again * attention : 0.0));
        }
    }
}

static void plan_seven_billion(const char *policy, int64_t layers, struct plan *plan)
{
    struct model_config config;
    struct recipe recipe;
    struct error err = { 0 };
    check(config_read(SOURCE_ROOT "/presets/models/llama-7b.json", &config, &err), &err);
    config.layers = layers;
    make_recipe(&recipe, policy,
                WORDS("precision.weights=bf16", "optimizer.state=bf16", "batch.micro=1",
                      "data.sequence_length=2048", "method.rank=64", "train.sample_every=0",
                      "data.validation=0.1"));
    check(plan_make(&recipe, &config, plan, &err), &err);
    recipe_free(&recipe);
}

/* Bytes a token of a layer of a 7B model, by hand: bf16 with C = 4096, F = 11008, two fp32 numbers
 * a token and one for each of 32 heads. */
static void test_bytes(void **state)
{
    (void)state;
    const size_t bytes[POLICIES] = { 131720, 93320, 49288, 8328 };
    const size_t tokens = 2048;
    /* Ids, targets, positions, record starts; loss scale and answer; the table of rotations; the
     * output of the last block. */
    const size_t inputs = 4 * 4 * tokens + 2 * MEMORY_ALIGNMENT + tokens * 128 * 4;
    const size_t last = 2 * 4096 * tokens;
    for (int p = 0; p < POLICIES; p++) {
        struct plan plan;
        struct plan deep;
        plan_seven_billion(policies[p], 4, &plan);
        plan_seven_billion(policies[p], 32, &deep);
        assert_int_equal(plan.bytes[MEMORY_ACTIVATIONS], inputs + last + 4 * tokens * bytes[p]);
        assert_int_equal(deep.bytes[MEMORY_ACTIVATIONS], inputs + last + 32 * tokens * bytes[p]);
        /* What is made again is there for one block at a time. */
        assert_int_equal(plan.phase_bytes[PHASE_BACKWARD][MEMORY_WORKSPACE],
                         deep.phase_bytes[PHASE_BACKWARD][MEMORY_WORKSPACE]);
        /* An evaluation keeps nothing. */
        assert_int_equal(deep.phase_bytes[PHASE_EVALUATE][MEMORY_ACTIVATIONS], inputs);
    }
}

/* A backward takes one block's values and one gradient of each kind, and no more. */
static void test_workspace(void **state)
{
    (void)state;
    struct plan plan;
    const size_t tokens = 2048, d = 4096, f = 11008;
    plan_seven_billion("block", 8, &plan);
    /* Final norm's numbers, hidden, dx; q, k, v, a, m, gate, up; then dact and s. */
    size_t want = tokens * 4 + 2 * tokens * (2 * d + 5 * d + 2 * f + f + f);
    assert_int_equal(plan.phase_bytes[PHASE_FORWARD][MEMORY_WORKSPACE] <= want, 1);
    size_t most = plan.phase_bytes[PHASE_BACKWARD][MEMORY_WORKSPACE];
    /* Grass gathers a few columns of the gradient while all this is there. */
    assert_true(most >= want && most < want + want / 50);
}

/* Looking at the model keeps nothing for a backward, under every policy. */
static void test_looking_keeps_nothing(void **state)
{
    (void)state;
    static const char *const names[] = { "none", "norms", "ffn", "block" };
    size_t kept[4];
    for (int i = 0; i < 4; i++) {
        struct fixture f;
        char word[64];
        snprintf(word, sizeof word, "activation.recompute=%s", names[i]);
        fixture_open(&f, "untied",
                     WORDS("method.name=full", word, "data.validation=0.1", "train.eval_every=5"));
        kept[i] = f.plan.phase_bytes[PHASE_EVALUATE][MEMORY_ACTIVATIONS];
        double loss;
        int64_t tokens;
        struct error err = { 0 };
        size_t before = memory_live(trainer_memory(f.trainer), MEMORY_ACTIVATIONS);
        memory_reset_peak(trainer_memory(f.trainer));
        check(trainer_evaluate(f.trainer, &f.batch, &loss, &tokens, &err), &err);
        assert_int_equal(memory_peak(trainer_memory(f.trainer), MEMORY_ACTIVATIONS), before);
        assert_int_equal(kept[i], kept[0]);
        assert_true(kept[i] < f.plan.phase_bytes[PHASE_FORWARD][MEMORY_ACTIVATIONS]);
        fixture_close(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_workspace),
        cmocka_unit_test(test_looking_keeps_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
