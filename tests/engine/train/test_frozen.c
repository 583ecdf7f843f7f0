/* Frozen parameters: they stay, they cost nothing, and the others train as if nothing were frozen.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/model/pattern.h"
#include "fixture.h"

/* Whether a parameter moves in the first step of both runs alike. */
static void compare_weights(struct fixture *whole, struct fixture *part, struct fixture *start)
{
    int frozen = 0;
    for (int64_t i = 0; i < whole->trainer->model.parameter_count; i++) {
        const struct parameter *p = &part->trainer->model.parameter[i];
        struct state_entry entry;
        float *a = fixture_state(whole, p->name, &entry);
        float *b = fixture_state(part, p->name, &entry);
        float *c = fixture_state(start, p->name, &entry);
        size_t bytes = (size_t)parameter_count(p) * sizeof(float);
        assert_memory_equal(b, p->frozen ? c : a, bytes);
        assert_int_not_equal(memcmp(a, c, bytes), 0); /* it would have moved */
        frozen += p->frozen;
        free(a);
        free(b);
        free(c);
    }
    assert_true(frozen > 0);
}

/* No state of any kind carries the name of a frozen parameter. */
static void check_states(struct fixture *f)
{
    int64_t count = trainer_state_count(f->trainer);
    for (int64_t i = 0; i < count; i++) {
        struct state_entry entry;
        trainer_state_entry(f->trainer, i, &entry);
        for (int64_t k = 0; !entry.weight && k < f->trainer->model.parameter_count; k++) {
            const struct parameter *p = &f->trainer->model.parameter[k];
            if (p->frozen && strstr(entry.name, p->name)) {
                fail_msg("frozen, but there is %s", entry.name);
            }
        }
    }
}

static void check_choice(const char *method, const char *setting, int64_t trained)
{
    struct fixture whole;
    struct fixture part;
    struct fixture start;
    int64_t steps[2] = { 0, 0 };
    const char *words[] = { method, "method.rank=32", "optimizer.lr=0.01", NULL, NULL };
    fixture_open(&whole, "untied", words);
    fixture_open(&start, "untied", words);
    words[3] = setting;
    fixture_open(&part, "untied", words);
    assert_int_equal(trainer_trained_count(part.trainer), trained);
    assert_int_equal(part.plan.trained, trained);
    fixture_step(&whole, &steps[0]);
    fixture_step(&part, &steps[1]);
    compare_weights(&whole, &part, &start);
    check_states(&part);
    assert_true(part.plan.total_bytes < whole.plan.total_bytes);
    assert_true(part.plan.step_flops <= whole.plan.step_flops);
    fixture_step(&part, &steps[1]); /* the plan holds a step with refresh and one without */
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        assert_int_equal(memory_peak(trainer_memory(part.trainer), (enum memory_category)c),
                         part.plan.bytes[c]);
    }
    fixture_close(&whole);
    fixture_close(&part);
    fixture_close(&start);
}

/* Sizes of the model: C = 32, F = 88, V = 96, 2 layers, k and v 16 rows. */
enum {
    ATTENTION = 2 * 32 * 32 + 2 * 16 * 32,
    BLOCK = ATTENTION + 3 * 88 * 32 + 2 * 32,
    ALL = 2 * 96 * 32 + 2 * BLOCK + 32,
};

static void test_frozen_parameters(void **state)
{
    (void)state;
    static const char *const methods[] = { "method.name=full", "method.name=grass" };
    for (size_t i = 0; i < 2; i++) {
        const char *m = methods[i];
        check_choice(m, "method.frozen=embed_tokens", ALL - 96 * 32);
        check_choice(m, "method.frozen=lm_head", ALL - 96 * 32);
        check_choice(m, "method.frozen=norm,*_layernorm", ALL - 5 * 32);
        check_choice(m, "method.frozen=k_proj", ALL - 2 * 16 * 32);
        check_choice(m, "method.frozen=layers.0.*", ALL - BLOCK);
        check_choice(m, "method.frozen=embed_tokens,layers.0", ALL - BLOCK - 96 * 32);
        check_choice(m, "method.frozen=layers.0-1,embed_tokens", 96 * 32 + 32);
        check_choice(m, "method.targets=q_proj,v_proj",
                     ALL - 2 * (BLOCK - 2 * 32 - 32 * 32 - 16 * 32));
        check_choice(m, "method.targets=up_proj", ALL - 2 * (ATTENTION + 2 * 88 * 32));
    }
}

/* Where nothing trains below, there is no backward and nothing is kept for one. */
static void test_lower_blocks_cost_nothing(void **state)
{
    (void)state;
    struct fixture all;
    struct fixture upper;
    fixture_open(&all, "untied", WORDS("method.name=full"));
    fixture_open(&upper, "untied",
                 WORDS("method.name=full", "method.frozen=embed_tokens,layers.0"));
    double tokens = 3 * 16;
    double matrices = BLOCK - 2 * 32;
    int64_t step = 0;
    backend_clear_counts(upper.be);
    fixture_step(&upper, &step);
    double flops = upper.be->count[OP_MATMUL].flops;
    double head = 6.0 * 96 * 32 * tokens;
    assert_true(flops == (2.0 + 6.0) * matrices * tokens + head);
    assert_int_equal(upper.trainer->model.first_trained, 1);
    assert_true(upper.plan.bytes[MEMORY_ACTIVATIONS] < all.plan.bytes[MEMORY_ACTIVATIONS] * 6 / 10);
    fixture_close(&all);
    fixture_close(&upper);
}

/* The forward is the same, kept or not. */
static void test_same_loss(void **state)
{
    (void)state;
    struct fixture all;
    struct fixture upper;
    int64_t steps[2] = { 0, 0 };
    fixture_open(&all, "untied", WORDS("method.name=full"));
    fixture_open(&upper, "untied", WORDS("method.frozen=embed_tokens,layers.0"));
    float a = fixture_step(&all, &steps[0]).loss;
    float b = fixture_step(&upper, &steps[1]).loss;
    assert_memory_equal(&a, &b, sizeof a);
    fixture_close(&all);
    fixture_close(&upper);
}

static void refuse(const char *word, const char *message, const char *hint)
{
    struct error err = { 0 };
    struct recipe recipe;
    struct model_config config;
    struct plan plan;
    recipe_init(&recipe);
    check(config_read(TEST_DATA "/model/untied/config.json", &config, &err), &err);
    check(recipe_set(&recipe, "method.rank=8", &err), &err);
    check(recipe_set(&recipe, word, &err), &err);
    assert_int_equal(plan_make(&recipe, &config, &plan, &err), -1);
    if (!strstr(err.message, message) || !strstr(err.hint, hint)) {
        fail_msg("%s: %s (%s)", word, err.message, err.hint);
    }
    assert_int_equal(err.code, ERROR_USAGE);
    recipe_free(&recipe);
}

static void test_refusals(void **state)
{
    (void)state;
    refuse("method.frozen=emb_tokens", "method.frozen: \"emb_tokens\" fits no parameter",
           "did you mean embed_tokens?");
    refuse("method.targets=q_porj", "method.targets: \"q_porj\" fits no matrix",
           "did you mean q_proj?");
    refuse("method.targets=norm", "fits no matrix", "");
    refuse("method.frozen=layers.2-5", "of this model of 2 blocks", "layers.0-1");
    refuse("method.frozen=q_proj,,v_proj", "\"\" fits no parameter", "patterns are such as");
    refuse("method.frozen=all", "leave nothing to train", "name fewer");
    refuse("method.frozen=q_proj=3", "numbers do not belong", "");
    refuse("method.rank_pattern=q_proj", "must be followed by '='", "q_proj=16");
    refuse("method.rank_pattern=q_proj=2.5", "whole number", "");
    refuse("method.rank_pattern=q_proj=0", "whole number", "");
    refuse("method.alpha_pattern=q_proj=-1", "number above 0", "");
}

/* Blocks that take turns in the same places must keep the same values; whole lower blocks may be
 * frozen, which keep none. */
static void test_offloading_wants_blocks_alike(void **state)
{
    (void)state;
    static const char *const words[] = { "method.targets=layers.0.*.down_proj",
                                         "method.frozen=layers.4.mlp",
                                         "method.frozen=layers.2.self_attn.k_proj",
                                         "method.targets=q_proj,v_proj",
                                         "method.frozen=embed_tokens,layers.0" };
    for (int i = 0; i < 5; i++) {
        struct fixture f;
        struct plan plan;
        struct error err = { 0 };
        fixture_open(&f, "untied", WORDS("method.name=grass", "method.rank=8"));
        f.config.layers = 6;
        check(recipe_set(&f.recipe, words[i], &err), &err);
        check(plan_make(&f.recipe, &f.config, &plan, &err), &err);
        check(recipe_set(&f.recipe, "activation.offload=host", &err), &err);
        assert_int_equal(plan_make(&f.recipe, &f.config, &plan, &err), i < 3 ? -1 : 0);
        if (i < 3) {
            assert_int_equal(err.code, ERROR_USAGE);
            assert_non_null(strstr(err.message, "train alike"));
            assert_non_null(strstr(err.hint, "numbers of layers"));
        }
        fixture_close(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frozen_parameters),
        cmocka_unit_test(test_lower_blocks_cost_nothing),
        cmocka_unit_test(test_same_loss),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_offloading_wants_blocks_alike),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
