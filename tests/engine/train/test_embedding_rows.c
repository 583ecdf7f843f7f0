/*
 * The embedding's gradient by rows: where it is dense training to the bit, what waits where it is
 * not, and that it goes on where it stopped.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "saved_states.h"
#include "small.h"
#include "tests/llama.h"

static const char embedding[] = "model.embed_tokens.weight";
static const char embedding_m[] = "optimizer/model.embed_tokens.weight/m";
static const char embedding_v[] = "optimizer/model.embed_tokens.weight/v";
static const char embedding_age[] = "optimizer/model.embed_tokens.weight/age";

/* ---- every row in every step ----------------------------------------------------------------- */

/* 70 words in 90 tokens, and 70 times 64 moments: enough for eight bits. */
static const struct model_config config = { LLAMA_REST,
                                            .hidden_size = 64,
                                            .intermediate_size = 40,
                                            .layers = 1,
                                            .heads = 2,
                                            .kv_heads = 1,
                                            .head_size = 8,
                                            .vocabulary = 70,
                                            .max_positions = 64,
                                            .initializer_range = 0.05 };

static struct trainer *open_words(struct backend *be, const char *const *words, const char *last)
{
    struct error err = { 0 };
    struct recipe recipe;
    struct plan plan;
    const char *const base[] = { "model.init=random",       "batch.micro=3",
                                 "data.sequence_length=30", "batch.accumulate=2",
                                 "train.steps=20",          "optimizer.lr=0.003",
                                 "train.clip=0.5",          last };
    recipe_init(&recipe);
    for (size_t i = 0; i < sizeof base / sizeof base[0]; i++) {
        check(recipe_set(&recipe, base[i], &err), &err);
    }
    for (; *words != NULL; words++) {
        check(recipe_set(&recipe, *words, &err), &err);
    }
    check(plan_make(&recipe, &config, &plan, &err), &err);
    struct trainer *trainer = small_trainer(&recipe, &config, &plan, be);
    recipe_free(&recipe);
    return trainer;
}

static void check_limit(const char *const *words)
{
    struct error err = { 0 };
    struct dice dice = { 11 };
    struct batch batch[2];
    struct backend *be = small_backend();
    struct trainer *dense = open_words(be, words, "method.embedding=dense");
    struct trainer *rows = open_words(be, words, "method.embedding=rows");
    for (int k = 0; k < 2; k++) {
        check(batch_init(&batch[k], 3, 30, &err), &err);
    }
    for (int i = 0; i < 6; i++) {
        struct step_result a;
        struct step_result b;
        for (int k = 0; k < 2; k++) {
            small_batch(&dice, config.vocabulary, &batch[k]);
        }
        for (int t = 0; t < 70; t++) { /* the first micro-batch alone would not do */
            batch[t % 2].ids[t] = t;
        }
        check(trainer_step(dense, i + 1, batch, 2, &a, &err), &err);
        check(trainer_step(rows, i + 1, batch, 2, &b, &err), &err);
        assert_true(a.loss == b.loss && a.grad_norm == b.grad_norm && !b.skipped);
    }
    check_same_states(dense, rows, embedding_age); /* one, or one a row */
    batch_free(&batch[0]);
    batch_free(&batch[1]);
    trainer_close(dense);
    trainer_close(rows);
    backend_close(be);
}

static void test_limit(void **state)
{
    (void)state;
    check_limit(WORDS("method.name=full", "optimizer.weight_decay=0.1"));
    check_limit(WORDS("method.name=grass", "method.rank=8", "optimizer.state=bf16",
                      "precision.weights=bf16", "precision.rounding=stochastic"));
    check_limit(WORDS("method.name=full", "optimizer.state=int8"));
    check_limit(WORDS("method.name=galore", "method.rank=8", "optimizer.name=sgd"));
}

/* ---- rows that do not occur ------------------------------------------------------------------ */

static bool occurs(const struct batch *batch, int64_t word)
{
    for (int64_t t = 0; t < batch->rows * batch->sequence; t++) {
        if (batch->ids[t] == word) {
            return true;
        }
    }
    return false;
}

static bool same_row(const float *a, const float *b, int64_t row, int64_t columns)
{
    return memcmp(a + row * columns, b + row * columns, (size_t)columns * sizeof *a) == 0;
}

/* Rows that occur move as under a dense gradient (from moments of 0), the others wait: weight,
 * moments and age. */
static void test_lazy(void **state)
{
    (void)state;
    struct fixture dense;
    struct fixture rows;
    struct state_entry e;
    int64_t steps[2] = { 0 };
    const char *const words[] = { "method.name=full", "train.clip=0", "optimizer.weight_decay=0.1",
                                  "method.embedding=rows", NULL };
    fixture_open(&dense, "untied",
                 WORDS("method.name=full", "train.clip=0", "optimizer.weight_decay=0.1"));
    fixture_open(&rows, "untied", words);
    float *old = fixture_state(&rows, embedding, &e);
    int64_t v = e.dim[0];
    int64_t c = e.dim[1];
    struct step_result a = fixture_step(&dense, &steps[0]);
    struct step_result b = fixture_step(&rows, &steps[1]);
    assert_true(a.loss == b.loss && fabsf(a.grad_norm / b.grad_norm - 1.0f) < 1e-6f);
    float *expected = fixture_state(&dense, embedding, &e);
    float *found = fixture_state(&rows, embedding, &e);
    float *m = fixture_state(&rows, embedding_m, &e);
    int32_t *age = fixture_state(&rows, embedding_age, &e);
    assert_int_equal(e.dim[0], v);
    int64_t waiting = 0;
    int64_t word = 0;
    for (int64_t i = 0; i < v; i++) {
        bool there = occurs(&rows.batch, i);
        waiting += !there;
        word = there ? i : word;
        assert_true(same_row(found, there ? expected : old, i, c));
        assert_int_equal(age[i], there);
        assert_true(there || (m[i * c] == 0.0f && !same_row(expected, old, i, c)));
    }
    assert_true(waiting > 0 && waiting < v);

    for (int64_t t = 0; t < rows.batch.rows * rows.batch.sequence; t++) {
        rows.batch.ids[t] =
            rows.batch.ids[t] == word ? (int32_t)((word + 1) % v) : rows.batch.ids[t];
    }
    fixture_step(&rows, &steps[1]);
    float *later = fixture_state(&rows, embedding, &e);
    float *m_later = fixture_state(&rows, embedding_m, &e);
    int32_t *age_later = fixture_state(&rows, embedding_age, &e);
    assert_true(same_row(later, found, word, c) && same_row(m_later, m, word, c));
    assert_int_equal(age_later[word], 1);
    assert_int_equal(age_later[(word + 1) % v], age[(word + 1) % v] + 1);
    void *all[] = { old, expected, found, m, age, later, m_later, age_later };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        free(all[i]);
    }
    fixture_close(&dense);
    fixture_close(&rows);
}

static void look_for_embedding(void *context, const char *parameter, struct tensor *gradient)
{
    int64_t *rows = context;
    if (strcmp(parameter, embedding) == 0) {
        *rows = gradient->dim[0];
    }
}

/* A step of 48 tokens keeps 48 of 96 rows; frozen, it keeps none and says nothing. */
static void test_memory(void **state)
{
    (void)state;
    struct fixture dense;
    struct fixture rows;
    int64_t count[2] = { -1, -1 };
    int64_t step = 0;
    fixture_open(&dense, "untied", WORDS("method.name=grass", "method.rank=8"));
    fixture_open(&rows, "untied",
                 WORDS("method.name=grass", "method.rank=8", "method.embedding=rows"));
    struct gradient_visitor a = { .visit = look_for_embedding, .context = &count[0] };
    struct gradient_visitor b = { .visit = look_for_embedding, .context = &count[1] };
    dense_each_gradient(&dense.trainer->dense, &a);
    dense_each_gradient(&rows.trainer->dense, &b);
    assert_int_equal(count[0], 96);
    assert_int_equal(count[1], 48);
    size_t saved = dense.plan.bytes[MEMORY_GRADIENTS] - rows.plan.bytes[MEMORY_GRADIENTS];
    size_t ids = 3 * 48 * sizeof(int32_t) + 3 * (size_t)MEMORY_ALIGNMENT;
    assert_true(saved + ids >= 48 * 32 * sizeof(float) && saved <= 48 * 32 * sizeof(float));
    fixture_close(&dense);
    fixture_close(&rows);
    fixture_open(&rows, "untied",
                 WORDS("method.name=grass", "method.rank=8", "method.embedding=rows",
                       "method.frozen=embed_tokens"));
    count[1] = -1;
    dense_each_gradient(&rows.trainer->dense, &b);
    assert_int_equal(count[1], -1);
    assert_false(fixture_step(&rows, &step).skipped);
    fixture_close(&rows);
}

static void test_skipped(void **state)
{
    (void)state;
    struct fixture f;
    char before[DIGEST_TEXT_SIZE];
    char after[DIGEST_TEXT_SIZE];
    int64_t step = 0;
    fixture_open(&f, "untied", WORDS("method.name=full", "method.embedding=rows"));
    fixture_step(&f, &step);
    float *weight = f.trainer->model.final_norm->value.data;
    weight[3] = INFINITY;
    fixture_digest(&f, before);
    assert_true(fixture_step(&f, &step).skipped);
    fixture_digest(&f, after);
    assert_string_equal(before, after);
    fixture_close(&f);
}

/* ---- going on -------------------------------------------------------------------------------- */

static void check_resumed_and_changed(const char *const *words)
{
    struct fixture f;
    struct error err = { 0 };
    int64_t step = 7;
    check_resume(words, 7, 3, &f);
    /* A live change lays everything out anew. */
    check(recipe_set(&f.recipe, "method.rank=3", &err), &err);
    check(plan_make(&f.recipe, &f.config, &f.plan, &err), &err);
    float *v = fixture_state(&f, embedding_v, &(struct state_entry){ 0 });
    check(trainer_apply(f.trainer, &f.recipe, f.plan.bytes, &err), &err);
    float *kept = fixture_state(&f, embedding_v, &(struct state_entry){ 0 });
    assert_memory_equal(v, kept, 96 * 8);
    assert_false(fixture_step(&f, &step).skipped);
    free(v);
    free(kept);
    fixture_close(&f);
}

static void test_resume(void **state)
{
    (void)state;
    check_resumed_and_changed(
        WORDS("method.name=grass", "method.rank=8", "method.interval=4", "method.embedding=rows"));
    check_resumed_and_changed(WORDS("method.name=grass", "method.rank=8", "method.interval=4",
                                    "method.embedding=rows", "precision.weights=bf16",
                                    "precision.rounding=stochastic", "optimizer.state=bf16"));
}

static void test_refused(void **state)
{
    (void)state;
    struct error err = { 0 };
    struct fixture f;
    fixture_open(&f, "tied", WORDS("method.name=full"));
    check(recipe_set(&f.recipe, "method.embedding=rows", &err), &err);
    assert_int_equal(plan_make(&f.recipe, &f.config, &f.plan, &err), -1);
    assert_non_null(strstr(err.message, "its head is its embedding"));
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_limit),  cmocka_unit_test(test_lazy),
        cmocka_unit_test(test_memory), cmocka_unit_test(test_skipped),
        cmocka_unit_test(test_resume), cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
