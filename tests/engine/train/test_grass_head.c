/*
 * The head of an untied model, trained by a choice of its rows: its cost, its exact limit, that
 * chunks of tokens add up, whole skips, and that it goes on where it stopped.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/method/grass_parts.h"
#include "saved_states.h"
#include "small.h"
#include "tests/llama.h"

static const char head[] = "lm_head.weight";

static const struct grass_part *head_part(struct trainer *trainer)
{
    const struct grass *grass = trainer->method.state;
    return &grass->part[grass->part_count - 1];
}

static bool is_chosen(const struct grass_part *part, int64_t row)
{
    for (int64_t j = 0; j < part->count; j++) {
        if (part->chosen[j] == row) {
            return true;
        }
    }
    return false;
}

/* ---- cost ------------------------------------------------------------------------------------ */

/* The head's gradient has r rows: 4 V C T FLOPs and 2 r C T, at a refresh 2 V C T in its place. */
static void test_cost(void **state)
{
    (void)state;
    struct fixture full;
    struct fixture rows;
    int64_t a = 0;
    int64_t b = 0;
    fixture_open(&full, "untied", WORDS("method.name=grass", "method.rank=8", "method.interval=3"));
    fixture_open(
        &rows, "untied",
        WORDS("method.name=grass", "method.rank=8", "method.interval=3", "method.head=rows"));
    const struct grass_part *part = head_part(rows.trainer);
    assert_string_equal(part->part->parameter->name, head);
    assert_int_equal(part->count, 24); /* 8 of 32, so 24 of 96 */
    assert_int_equal(part->gradient.dim[0], 24);
    double tokens = (double)(rows.batch.rows * rows.batch.sequence);
    for (int i = 0; i < 7; i++) {
        backend_clear_counts(full.be);
        backend_clear_counts(rows.be);
        fixture_step(&full, &a);
        struct step_result result = fixture_step(&rows, &b);
        double saved = full.be->count[OP_MATMUL].flops - rows.be->count[OP_MATMUL].flops;
        assert_true(saved == (result.refreshed ? 0.0 : 2.0 * (96.0 - 24.0) * 32.0 * tokens));
    }
    size_t grown = full.plan.bytes[MEMORY_GRADIENTS] - rows.plan.bytes[MEMORY_GRADIENTS];
    assert_int_equal(grown, (96 - 24) * 32 * sizeof(float));
    fixture_close(&full);
    fixture_close(&rows);
}

/* ---- limits ---------------------------------------------------------------------------------- */

static void check_near(struct fixture *a, struct fixture *b, const char *name, float bound)
{
    struct state_entry entry;
    float *x = fixture_state(a, name, &entry);
    float *y = fixture_state(b, name, &entry);
    for (int64_t e = 0; e < entry.dim[0] * entry.dim[1]; e++) {
        assert_true(fabsf(x[e] - y[e]) <= bound);
    }
    free(x);
    free(y);
}

/* All rows: AdamW of the whole head. The first step, whose gradient is the same whatever became of
 * the blocks, to the bit. */
static void test_all_rows_is_full(void **state)
{
    (void)state;
    static const char *const sides[] = { "method.side=out", "method.side=in", "method.side=short" };
    for (size_t i = 0; i < 3; i++) {
        struct fixture full;
        struct fixture rows;
        int64_t a = 0;
        int64_t b = 0;
        fixture_open(&full, "untied", WORDS("method.name=full", "train.clip=0"));
        fixture_open(&rows, "untied",
                     WORDS("method.name=grass", "method.rank=32", "method.interval=1000",
                           "method.head=rows", "train.clip=0", sides[i]));
        fixture_step(&full, &a);
        fixture_step(&rows, &b);
        check_near(&full, &rows, head, 0.0f);
        for (int s = 0; s < 11; s++) {
            struct step_result x = fixture_step(&full, &a);
            struct step_result y = fixture_step(&rows, &b);
            assert_true(fabsf(x.loss - y.loss) < 2e-6f);
            assert_true(fabsf(x.grad_norm - y.grad_norm) < 2e-5f * x.grad_norm);
        }
        check_near(&full, &rows, head, 3e-6f);
        check_near(&full, &rows, "model.layers.1.mlp.down_proj.weight", 3e-6f);
        fixture_close(&full);
        fixture_close(&rows);
    }
}

/* Rows that are not selected stay, or move by their normalised gradient where they are told to. */
static void take_head_gradient(void *context, const char *parameter, struct tensor *gradient)
{
    const float **out = context;
    if (strcmp(parameter, head) == 0) {
        *out = gradient->data;
    }
}

static void check_rows(const char *every, double factor)
{
    struct fixture full;
    struct fixture rows;
    struct state_entry e;
    const float *g = NULL;
    int64_t a = 0;
    int64_t b = 0;
    fixture_open(&full, "untied", WORDS("method.name=full", "train.clip=0"));
    fixture_open(&rows, "untied",
                 WORDS("method.name=grass", "method.rank=8", "method.head=rows", "train.clip=0",
                       "method.sketch=4", every));
    float *old = fixture_state(&rows, head, &e);
    fixture_step(&full, &a);
    fixture_step(&rows, &b);
    float *expected = fixture_state(&full, head, &e);
    float *found = fixture_state(&rows, head, &e);
    struct gradient_visitor visitor = { .visit = take_head_gradient, .context = &g };
    dense_each_gradient(&full.trainer->dense, &visitor);
    const struct grass_part *part = head_part(rows.trainer);
    for (int64_t i = 0; i < e.dim[0]; i++) {
        double square = 0.0;
        for (int64_t k = 0; k < e.dim[1]; k++) {
            square += (double)g[i * e.dim[1] + k] * (double)g[i * e.dim[1] + k];
        }
        double rms = sqrt(square / (double)e.dim[1]);
        for (int64_t k = 0; k < e.dim[1]; k++) {
            int64_t at = i * e.dim[1] + k;
            double w = (double)old[at];
            double moved = w - factor * ((double)g[at] / rms + 0.01 * w);
            if (is_chosen(part, i)) {
                assert_true(found[at] == expected[at]);
            } else {
                assert_true(fabs((double)found[at] - moved) < 1e-7);
            }
        }
    }
    free(old);
    free(expected);
    free(found);
    fixture_close(&full);
    fixture_close(&rows);
}

static void test_rows(void **state)
{
    (void)state;
    check_rows("method.unselected_every=0", 0.0);
    check_rows("method.unselected_every=1", 0.001);
}

/* ---- chunks ---------------------------------------------------------------------------------- */

/* So many words that the logits of 20 tokens come in two chunks. */
static const struct model_config wide = {
    LLAMA_REST,          .hidden_size = 2,        .intermediate_size = 3, .layers = 1,
    .heads = 1,          .kv_heads = 1,           .head_size = 2,         .vocabulary = 300000,
    .max_positions = 32, .initializer_range = 0.3
};

static struct trainer *open_wide(struct backend *be, const char *const *words)
{
    struct error err = { 0 };
    struct recipe recipe;
    struct plan plan;
    const char *const base[] = { "model.init=random",       "batch.micro=1",
                                 "data.sequence_length=20", "train.steps=20",
                                 "optimizer.lr=0.01",       "train.clip=0" };
    recipe_init(&recipe);
    for (size_t i = 0; i < sizeof base / sizeof base[0]; i++) {
        check(recipe_set(&recipe, base[i], &err), &err);
    }
    for (; *words != NULL; words++) {
        check(recipe_set(&recipe, *words, &err), &err);
    }
    check(plan_make(&recipe, &wide, &plan, &err), &err);
    struct trainer *trainer = small_trainer(&recipe, &wide, &plan, be);
    recipe_free(&recipe);
    return trainer;
}

/* A refresh, then a plain step: both sum the chunks that full training sums. */
static void check_chunks(const char *side)
{
    struct error err = { 0 };
    struct dice dice = { 5 };
    struct batch batch;
    struct backend *be = small_backend();
    struct trainer *full = open_wide(be, WORDS("method.name=full"));
    struct trainer *rows =
        open_wide(be, WORDS("method.name=grass", "method.rank=2", "method.head=rows", side));
    check(batch_init(&batch, 1, 20, &err), &err);
    for (int i = 0; i < 2; i++) {
        struct step_result a;
        struct step_result b;
        small_batch(&dice, wide.vocabulary, &batch);
        check(trainer_step(full, i + 1, &batch, 1, &a, &err), &err);
        check(trainer_step(rows, i + 1, &batch, 1, &b, &err), &err);
        assert_true(a.loss == b.loss && b.refreshed == (i == 0));
        const float *x = full->model.head->value.data;
        const float *y = rows->model.head->value.data;
        assert_memory_equal(x, y, tensor_bytes(&full->model.head->value));
    }
    batch_free(&batch);
    trainer_close(full);
    trainer_close(rows);
    backend_close(be);
}

static void test_chunks(void **state)
{
    (void)state;
    check_chunks("method.side=out");
    check_chunks("method.side=in");
}

/* ---- skips, going on ------------------------------------------------------------------------- */

static void test_skip_is_whole(void **state)
{
    (void)state;
    struct fixture f;
    int64_t step = 0;
    fixture_open(&f, "untied",
                 WORDS("method.name=grass", "method.rank=8", "method.interval=2",
                       "method.head=rows", "method.unselected_every=1"));
    fixture_step(&f, &step);
    float *weight = f.trainer->model.final_norm->value.data;
    float good = weight[3];
    for (int i = 0; i < 2; i++) {
        char before[DIGEST_TEXT_SIZE];
        char after[DIGEST_TEXT_SIZE];
        weight[3] = INFINITY;
        fixture_digest(&f, before);
        assert_true(fixture_step(&f, &step).skipped);
        fixture_digest(&f, after);
        assert_string_equal(before, after);
    }
    weight[3] = good;
    assert_false(fixture_step(&f, &step).skipped);
    fixture_close(&f);
}

static void check_resumed_and_changed(const char *const *words)
{
    struct fixture f;
    struct error err = { 0 };
    int64_t step = 9;
    check_resume(words, 9, 4, &f);
    /* Another rank, while it trains. */
    check(recipe_set(&f.recipe, "method.rank=16", &err), &err);
    check(plan_make(&f.recipe, &f.config, &f.plan, &err), &err);
    check(trainer_apply(f.trainer, &f.recipe, f.plan.bytes, &err), &err);
    assert_true(fixture_step(&f, &step).refreshed);
    assert_int_equal(head_part(f.trainer)->count, 48);
    fixture_close(&f);
}

static void test_resume(void **state)
{
    (void)state;
    check_resumed_and_changed(WORDS("method.name=grass", "method.rank=8", "method.interval=4",
                                    "method.head=rows", "method.embedding=rows"));
    check_resumed_and_changed(WORDS("method.name=grass", "method.rank=8", "method.interval=4",
                                    "method.head=rows", "method.unselected_every=2",
                                    "precision.weights=bf16", "precision.rounding=stochastic",
                                    "optimizer.state=int8"));
}

static void test_refused(void **state)
{
    (void)state;
    struct error err = { 0 };
    struct fixture f;
    int64_t step = 0;
    fixture_open(&f, "tied", WORDS("method.name=grass", "method.rank=8"));
    check(recipe_set(&f.recipe, "method.head=rows", &err), &err);
    assert_int_equal(plan_make(&f.recipe, &f.config, &f.plan, &err), -1);
    assert_non_null(strstr(err.message, "its head is its embedding"));
    fixture_close(&f);
    fixture_open(
        &f, "untied",
        WORDS("method.name=grass", "method.rank=8", "method.head=rows", "method.frozen=lm_head"));
    assert_string_not_equal(head_part(f.trainer)->part->parameter->name, head);
    assert_false(fixture_step(&f, &step).skipped);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cost),    cmocka_unit_test(test_all_rows_is_full),
        cmocka_unit_test(test_rows),    cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_resume),  cmocka_unit_test(test_skip_is_whole),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
