/*
 * Update rules and formats of their states in whole training steps: eight-bit states, gradient
 * descent, trajectory-regularised Adam. What they cost, and that they go on where they stopped.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "saved_states.h"

/* ---- saving and restoring -------------------------------------------------------------------- */

/* Steps 1 .. 13 in one go, and stopped after 6: the same bytes. */
static void test_resume(void **state)
{
    (void)state;
    check_resume(WORDS("method.name=full", "optimizer.state=int8"), 13, 6, NULL);
    check_resume(
        WORDS("method.name=grass", "method.rank=24", "method.interval=4", "optimizer.state=int8"),
        13, 6, NULL);
    check_resume(WORDS("method.name=grass", "method.rank=24", "method.interval=4",
                       "optimizer.state=int8", "method.side=in", "precision.weights=bf16",
                       "precision.rounding=stochastic"),
                 13, 6, NULL);
    check_resume(WORDS("method.name=full", "optimizer.name=sgd"), 13, 6, NULL);
    check_resume(
        WORDS("method.name=grass", "method.rank=8", "method.interval=4", "optimizer.name=sgd"), 13,
        6, NULL);
    /* Six steps end within a loop of four, and of ten. */
    check_resume(WORDS("method.name=full", "optimizer.name=tradam", "optimizer.anchor_interval=4"),
                 13, 6, NULL);
    check_resume(WORDS("method.name=full", "optimizer.name=tradam", "optimizer.anchor_step=full",
                       "precision.weights=bf16", "optimizer.state=bf16"),
                 13, 6, NULL);
}

/* ---- bytes ----------------------------------------------------------------------------------- */

static size_t rounded(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

static size_t optimizer_bytes(const char *const *words)
{
    struct fixture f;
    fixture_open(&f, "untied", words);
    size_t bytes = f.plan.bytes[MEMORY_OPTIMIZER];
    int64_t step = 0;
    fixture_step(&f, &step);
    assert_int_equal(memory_peak(trainer_memory(f.trainer), MEMORY_OPTIMIZER), bytes);
    fixture_close(&f);
    return bytes;
}

/* The model's one matrix of 4096 elements or more is gate and up (176, 32) of two layers: its
 * moments take a byte, and 4 for each row of 32. Everything else stays as it was. */
static void test_bytes(void **state)
{
    (void)state;
    size_t fp32 = optimizer_bytes(WORDS("method.name=full"));
    size_t int8 = optimizer_bytes(WORDS("method.name=full", "optimizer.state=int8"));
    size_t count = 176 * 32;
    assert_int_equal(fp32 - int8,
                     4 * rounded(4 * count) - 4 * rounded(count) - 4 * rounded(4 * 176));
    size_t sgd = optimizer_bytes(WORDS("method.name=full", "optimizer.name=sgd"));
    size_t tradam = optimizer_bytes(WORDS("method.name=full", "optimizer.name=tradam"));
    /* A third of what the moments and the anchor take is the anchor; sgd keeps ages only. */
    assert_int_equal(2 * (tradam - fp32), fp32 - sgd);
    assert_true(sgd < fp32 / 20);
    size_t half = optimizer_bytes(
        WORDS("method.name=full", "optimizer.name=tradam", "precision.weights=bf16"));
    assert_true(half < tradam);
}

/* Norms and small matrices: fp32. The large one: bytes, with a magnitude for every row. */
static void test_formats(void **state)
{
    (void)state;
    struct fixture f;
    struct state_entry entry;
    int64_t step = 0;
    fixture_open(&f, "untied", WORDS("method.name=full", "optimizer.state=int8"));
    fixture_step(&f, &step);
    free(fixture_state(&f, "optimizer/model.norm.weight/m", &entry));
    assert_int_equal(entry.dtype, DTYPE_F32);
    free(fixture_state(&f, "optimizer/model.layers.0.self_attn.q_proj.weight/v", &entry));
    assert_int_equal(entry.dtype, DTYPE_F32);
    free(fixture_state(&f, "optimizer/model.layers.0.mlp.up_proj.weight/v", &entry));
    assert_int_equal(entry.dtype, DTYPE_U8);
    assert_int_equal(entry.dim[0], 88);
    float *absmax =
        fixture_state(&f, "optimizer/model.layers.0.mlp.up_proj.weight/v_absmax", &entry);
    assert_int_equal(entry.dtype, DTYPE_F32);
    assert_int_equal(entry.dim[0], 88);
    assert_int_equal(entry.dim[1], 1);
    for (int i = 0; i < 88; i++) {
        assert_true(absmax[i] > 0.0f);
    }
    free(absmax);
    fixture_close(&f);
}

/* ---- training -------------------------------------------------------------------------------- */

static float loss_after(const char *const *words, int steps)
{
    struct fixture f;
    int64_t step = 0;
    float loss = 0.0f;
    fixture_open(&f, "untied", words);
    for (int i = 0; i < steps; i++) {
        loss = fixture_step(&f, &step).loss;
    }
    fixture_close(&f);
    return loss;
}

static void test_losses(void **state)
{
    (void)state;
    float start = loss_after(WORDS("method.name=full"), 1);
    float fp32 = loss_after(WORDS("method.name=full", "optimizer.lr=0.003"), 40);
    float int8 =
        loss_after(WORDS("method.name=full", "optimizer.lr=0.003", "optimizer.state=int8"), 40);
    assert_true(fabsf(int8 - fp32) < 0.02f * start);
    assert_true(fp32 < start - 1.0f);
    float sgd = loss_after(WORDS("method.name=full", "optimizer.name=sgd", "optimizer.lr=0.5"), 40);
    assert_true(sgd < start - 0.3f);
    float tradam =
        loss_after(WORDS("method.name=full", "optimizer.name=tradam", "optimizer.lr=0.003"), 40);
    assert_true(tradam < start - 0.3f);
    assert_true(tradam > fp32); /* the mean of the harmonic rate is 0.29 of it */
}

static void run_digest(const char *const *words, char text[DIGEST_TEXT_SIZE])
{
    struct fixture f;
    int64_t step = 0;
    fixture_open(&f, "untied", words);
    for (int i = 0; i < 8; i++) {
        fixture_step(&f, &step);
    }
    /* The weights only: the states of the two rules have other names. */
    struct digest *digest = digest_begin();
    int64_t count = trainer_state_count(f.trainer);
    for (int64_t i = 0; i < count; i++) {
        struct state_entry entry;
        struct error err;
        trainer_state_entry(f.trainer, i, &entry);
        if (entry.weight) {
            size_t bytes = (size_t)(entry.dim[0] * entry.dim[1]) * dtype_size(entry.dtype);
            void *host = malloc(bytes);
            check(trainer_state_read(f.trainer, i, 0, entry.dim[0] * entry.dim[1], host, &err),
                  &err);
            digest_add(digest, host, bytes);
            free(host);
        }
    }
    digest_end(digest, text);
    fixture_close(&f);
}

/* Loops of one step are AdamW, bit for bit, clipping and bf16 included. */
static void test_tradam_of_one_step_is_adamw(void **state)
{
    (void)state;
    char adamw[DIGEST_TEXT_SIZE];
    char tradam[DIGEST_TEXT_SIZE];
    run_digest(WORDS("method.name=full", "train.clip=0.5", "optimizer.weight_decay=0.1",
                     "precision.weights=bf16", "precision.rounding=stochastic"),
               adamw);
    run_digest(WORDS("method.name=full", "train.clip=0.5", "optimizer.weight_decay=0.1",
                     "precision.weights=bf16", "precision.rounding=stochastic",
                     "optimizer.name=tradam", "optimizer.anchor_interval=1",
                     "optimizer.anchor_weight=3"),
               tradam);
    assert_string_equal(tradam, adamw);
}

/* Replicas fed the same data stay the same bytes for 100 steps of random rounding; another seed
 * does not. */
static void test_replicas(void **state)
{
    (void)state;
    const char *const *words = WORDS("method.name=full", "precision.weights=bf16",
                                     "precision.rounding=stochastic", "optimizer.state=bf16");
    const char *const *other =
        WORDS("method.name=full", "precision.weights=bf16", "precision.rounding=stochastic",
              "optimizer.state=bf16", "train.seed=2");
    struct fixture f[3];
    int64_t step[3] = { 0 };
    for (int i = 0; i < 3; i++) {
        fixture_open(&f[i], "untied", i < 2 ? words : other);
        for (int s = 0; s < (i < 2 ? 100 : 10); s++) {
            fixture_step(&f[i], &step[i]);
        }
    }
    char text[3][DIGEST_TEXT_SIZE];
    for (int i = 0; i < 3; i++) {
        fixture_digest(&f[i], text[i]);
        fixture_close(&f[i]);
    }
    assert_string_equal(text[0], text[1]);
    assert_string_not_equal(text[0], text[2]);
}

/* A gradient that is not finite is reported, never hidden in a byte. */
static void test_skip(void **state)
{
    (void)state;
    static const char *const rules[] = { "optimizer.name=adamw", "optimizer.name=sgd",
                                         "optimizer.name=tradam" };
    for (int i = 0; i < 3; i++) {
        struct fixture f;
        int64_t step = 0;
        char before[DIGEST_TEXT_SIZE];
        char after[DIGEST_TEXT_SIZE];
        fixture_open(&f, "untied",
                     WORDS("method.name=full", rules[i],
                           i == 0 ? "optimizer.state=int8" : "optimizer.state=fp32"));
        fixture_step(&f, &step);
        ((float *)f.trainer->model.final_norm->value.data)[3] = NAN;
        fixture_digest(&f, before);
        struct step_result result = fixture_step(&f, &step);
        assert_true(result.skipped);
        fixture_digest(&f, after);
        assert_string_equal(before, after);
        fixture_close(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_losses),
        cmocka_unit_test(test_tradam_of_one_step_is_adamw),
        cmocka_unit_test(test_replicas),
        cmocka_unit_test(test_skip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
