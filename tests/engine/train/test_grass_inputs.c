/*
 * Only the selected columns of inputs kept: the same bits as with whole inputs, less memory, what
 * is refused.
 */
#include <stdio.h>
#include <string.h>

#include "saved_states.h"

/* `steps` steps of one or two micro-batches; a digest of everything, and the last loss. */
static void digest_after(const char *const *words, const char *inputs, int64_t micro,
                         char text[DIGEST_TEXT_SIZE])
{
    struct error err = { 0 };
    struct fixture f;
    const char *all[16];
    int count = 0;
    for (; words[count] != NULL; count++) {
        all[count] = words[count];
    }
    all[count] = inputs;
    all[count + 1] = NULL;
    fixture_open(&f, "untied", all);
    for (int64_t step = 1; step <= 10; step++) {
        struct step_result result;
        struct batch twice[2] = { f.batch, f.batch };
        check(trainer_step(f.trainer, step, twice, micro, &result, &err), &err);
        assert_false(result.skipped);
    }
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        size_t peak = memory_peak(trainer_memory(f.trainer), (enum memory_category)c);
        assert_true(peak <= f.plan.bytes[c]);
    }
    fixture_digest(&f, text);
    fixture_close(&f);
}

static void check_same(const char *const *words)
{
    for (int64_t micro = 1; micro <= 2; micro++) {
        char whole[DIGEST_TEXT_SIZE];
        char columns[DIGEST_TEXT_SIZE];
        digest_after(words, "method.inputs=whole", micro, whole);
        digest_after(words, "method.inputs=columns", micro, columns);
        assert_string_equal(whole, columns);
    }
}

/* Refreshes, moves of the other columns and plain steps among the ten. At rank 16 the layers with
 * several matrices keep whole inputs. */
static void test_same_bits(void **state)
{
    (void)state;
    check_same(WORDS("method.name=grass", "method.rank=4", "method.interval=4", "method.side=in"));
    check_same(WORDS("method.name=grass", "method.rank=16", "method.interval=4", "method.side=in",
                     "batch.accumulate=2"));
    check_same(WORDS("method.name=grass", "method.rank=6", "method.interval=4", "method.side=in",
                     "method.unselected_every=3", "precision.weights=bf16",
                     "precision.rounding=stochastic", "optimizer.state=bf16"));
    check_same(WORDS("method.name=grass", "method.rank=6", "method.interval=4", "method.side=in",
                     "method.sketch=5", "method.head=rows",
                     "method.targets=q_proj,down_proj,up_proj", "method.selection=norm",
                     "method.unbiased=true"));
}

/* Of n1, n2 and the SwiGLU's output, 32, 32 and 44 elements a token, 12, 8 and r F / C are kept:
 * where the last block waits in the workspace, in the other block only. */
static void test_memory(void **state)
{
    (void)state;
    struct fixture whole;
    struct fixture columns;
    int64_t step = 0;
    fixture_open(&whole, "untied", WORDS("method.name=grass", "method.rank=4", "method.side=in"));
    fixture_open(
        &columns, "untied",
        WORDS("method.name=grass", "method.rank=4", "method.side=in", "method.inputs=columns"));
    const struct model_config *c = &whole.config;
    int64_t f = c->intermediate_size;
    int64_t tokens = whole.batch.rows * whole.batch.sequence;
    int64_t fewer = (32 - 12) + (32 - 8) + (f - (4 * f * 2 + 32) / 64);
    size_t block = (size_t)(fewer * tokens) * sizeof(float);
    size_t saved = whole.plan.bytes[MEMORY_ACTIVATIONS] - columns.plan.bytes[MEMORY_ACTIVATIONS];
    size_t slack = 6 * (size_t)MEMORY_ALIGNMENT;
    assert_int_equal(c->layers, 2);
    assert_true(saved + slack >= block && saved <= 2 * block + slack);
    for (int i = 0; i < 3; i++) {
        fixture_step(&columns, &step);
    }
    assert_int_equal(memory_peak(trainer_memory(columns.trainer), MEMORY_ACTIVATIONS),
                     columns.plan.bytes[MEMORY_ACTIVATIONS]);
    fixture_close(&whole);
    fixture_close(&columns);
}

static void test_resume(void **state)
{
    (void)state;
    struct fixture whole;
    struct fixture second;
    struct error err = { 0 };
    char expected[DIGEST_TEXT_SIZE];
    char found[DIGEST_TEXT_SIZE];
    const char *const words[] = { "method.name=grass", "method.rank=4",         "method.interval=4",
                                  "method.side=in",    "method.inputs=columns", NULL };
    int64_t a = 0;
    fixture_open(&whole, "untied", words);
    fixture_open(&second, "untied", words);
    for (int i = 0; i < 3; i++) {
        fixture_step(&whole, &a);
    }
    states_copy(second.trainer, whole.trainer, &err);
    int64_t b = a;
    for (int i = 0; i < 4; i++) {
        fixture_step(&whole, &a);
        fixture_step(&second, &b);
    }
    fixture_digest(&whole, expected);
    fixture_digest(&second, found);
    assert_string_equal(found, expected);
    /* Other ranks want fewer activations, and more. */
    static const char *const ranks[] = { "method.rank=3", "method.rank=4", "method.rank=32" };
    for (int i = 0; i < 3; i++) {
        check(recipe_set(&second.recipe, ranks[i], &err), &err);
        check(plan_make(&second.recipe, &second.config, &second.plan, &err), &err);
        check(trainer_apply(second.trainer, &second.recipe, second.plan.bytes, &err), &err);
        assert_false(fixture_step(&second, &b).skipped);
        assert_false(fixture_step(&second, &b).skipped);
        for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
            assert_int_equal(memory_peak(second.trainer->memory, (enum memory_category)c),
                             second.plan.bytes[c]);
        }
    }
    fixture_close(&whole);
    fixture_close(&second);
}

static void refuse(const char *word, const char *part)
{
    struct error err = { 0 };
    struct recipe recipe;
    const char *const base[] = {
        "model.preset=llama-micro", "model.init=random", "train.steps=1",         "data.train=x",
        "method.name=grass",        "method.side=in",    "method.inputs=columns", word
    };
    recipe_init(&recipe);
    for (size_t i = 0; i < sizeof base / sizeof base[0]; i++) {
        check(recipe_set(&recipe, base[i], &err), &err);
    }
    assert_int_equal(recipe_check(&recipe, &err), -1);
    if (strstr(err.message, part) == NULL) {
        fail_msg("%s: %s", word, err.message);
    }
    recipe_free(&recipe);
}

static void test_refused(void **state)
{
    (void)state;
    refuse("method.side=out", "only with method.side=in");
    refuse("method.side=short", "only with method.side=in");
    refuse("activation.sample=crs", "both replace");
    refuse("activation.recompute=norms", "nothing to thin out");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
