/* What Grass promises: cost, memory, its exact limit, whole skips, the same bits. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/method/grass_parts.h"
#include "fixture.h"
#include "kernels/backend_ops.h"
#include "kernels/ops.h"

/* A backend table that looks at every weight-gradient product: those that sum over tokens. */
struct spy {
    struct backend_ops ops;
    const struct backend_ops *real;
    int64_t largest;    /* elements of the largest such product within a block */
    int64_t vocabulary; /* the head's own product is not one of a block */
    int64_t gathers;
};
static struct spy spy;

static void spy_matmul(struct backend *be, const struct matmul *args)
{
    if (args->transpose_a && args->c->dim[0] != spy.vocabulary) {
        int64_t count = tensor_count(args->c);
        spy.largest = count > spy.largest ? count : spy.largest;
    }
    spy.real->matmul(be, args);
}

static void spy_gather(struct backend *be, struct tensor *y, const struct tensor *x,
                       const struct tensor *index, enum side side)
{
    spy.gathers++;
    spy.real->gather(be, y, x, index, side);
}

static void spy_install(struct fixture *f)
{
    spy.real = f->be->ops;
    spy.ops = *f->be->ops;
    spy.ops.matmul = spy_matmul;
    spy.ops.gather = spy_gather;
    spy.gathers = 0;
    spy.vocabulary = f->config.vocabulary;
    spy.largest = 0;
    f->be->ops = &spy.ops;
}

/* FLOPs of all products of a step: 4 m n T + 2 r n T for each matrix (for `in`: 2 m r T), and
 * 6 V C T for the head, which trains in full. */
static double expected_flops(const struct fixture *f, bool refresh)
{
    const struct grass *grass = f->trainer->method.state;
    double tokens = (double)(f->batch.rows * f->batch.sequence);
    double flops = 6.0 * (double)(f->config.vocabulary * f->config.hidden_size) * tokens;
    for (int64_t i = 0; i < grass->part_count; i++) {
        const struct grass_part *part = &grass->part[i];
        double m = (double)part->part->parameter->dim[0];
        double n = (double)part->part->parameter->dim[1];
        double r = (double)part->count;
        double kept = part->side == SIDE_ROWS ? r * n : m * r;
        flops += 4.0 * m * n * tokens + 2.0 * (refresh ? m * n : kept) * tokens;
    }
    return flops;
}

static void check_cost(const char *side)
{
    struct fixture f;
    char word[64];
    snprintf(word, sizeof word, "method.side=%s", side);
    fixture_open(&f, "untied",
                 WORDS("method.name=grass", "method.rank=8", "method.interval=3", word));
    spy_install(&f);
    int64_t step = 0;
    int64_t smallest = 16 * 32; /* k_proj: the smallest matrix */
    for (int i = 0; i < 7; i++) {
        backend_clear_counts(f.be);
        spy.largest = 0;
        struct step_result result = fixture_step(&f, &step);
        assert_int_equal(result.refreshed, step % 3 == 1);
        double flops = f.be->count[OP_MATMUL].flops;
        assert_true(flops == expected_flops(&f, result.refreshed));
        if (result.refreshed) {
            assert_int_equal(spy.largest, 88 * 32); /* one matrix at a time */
        } else {
            /* r n of the largest layer; packed gate and up share one product. */
            assert_true(spy.largest <= 2 * 22 * 32);
            assert_true(spy.largest >= smallest / 4);
        }
    }
    /* What waits between micro-batches is r n elements a matrix, nothing of m n. */
    const struct grass *grass = f.trainer->method.state;
    for (int64_t i = 0; i < grass->part_count; i++) {
        const struct parameter *p = grass->part[i].part->parameter;
        assert_true(tensor_count(&grass->part[i].gradient) * 3 < p->dim[0] * p->dim[1]);
    }
    fixture_close(&f);
}

static void test_cost(void **state)
{
    (void)state;
    check_cost("out");
    check_cost("in");
}

/* In bytes: gradients are r n elements a matrix and the dense parameters, to the byte. */
static void test_gradient_bytes(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, "untied", WORDS("method.name=grass", "method.rank=8"));
    const struct grass *grass = f.trainer->method.state;
    size_t bytes = 0;
    for (int64_t g = 0; g < grass->group_count; g++) {
        bytes += (tensor_bytes(&grass->group[g].gradient) + 255) / 256 * 256;
    }
    struct parameter *p;
    for (int64_t i = 0; (p = model_dense_parameter(&f.trainer->model, i)) != NULL; i++) {
        bytes += ((size_t)parameter_count(p) * 4 + 255) / 256 * 256;
    }
    assert_int_equal(memory_live(trainer_memory(f.trainer), MEMORY_GRADIENTS), bytes);
    fixture_close(&f);
}

/* All rows, no further refresh, scale 1: full AdamW. */
static void test_all_rows_is_full(void **state)
{
    (void)state;
    static const char *const sides[] = { "method.side=out", "method.side=in", "method.side=short" };
    for (size_t i = 0; i < 3; i++) {
        struct fixture full;
        struct fixture grass;
        int64_t full_step = 0;
        int64_t grass_step = 0;
        fixture_open(&full, "untied", WORDS("train.clip=1"));
        fixture_open(&grass, "untied",
                     WORDS("train.clip=1", "method.name=grass", "method.rank=32",
                           "method.interval=1000", sides[i]));
        for (int s = 0; s < 12; s++) {
            struct step_result a = fixture_step(&full, &full_step);
            struct step_result b = fixture_step(&grass, &grass_step);
            assert_true(fabsf(a.loss - b.loss) < 2e-6f);
            assert_true(fabsf(a.grad_norm - b.grad_norm) < 2e-5f * a.grad_norm);
        }
        const char *names[] = { "model.layers.0.self_attn.k_proj.weight",
                                "model.layers.1.mlp.down_proj.weight", "lm_head.weight" };
        for (size_t n = 0; n < 3; n++) {
            struct state_entry entry;
            float *a = fixture_state(&full, names[n], &entry);
            float *b = fixture_state(&grass, names[n], &entry);
            for (int64_t e = 0; e < entry.dim[0] * entry.dim[1]; e++) {
                assert_true(fabsf(a[e] - b[e]) < 3e-6f);
            }
            free(a);
            free(b);
        }
        fixture_close(&full);
        fixture_close(&grass);
    }
}

/* Accumulating the same rows in three micro-batches gives the step of one. */
static void test_accumulation(void **state)
{
    (void)state;
    struct error err = { 0 };
    struct fixture whole;
    struct fixture parts;
    int64_t step = 0;
    fixture_open(&whole, "untied", WORDS("method.name=full"));
    fixture_open(&parts, "untied",
                 WORDS("method.name=full", "batch.micro=1", "batch.accumulate=3"));
    struct batch micro[3];
    for (int i = 0; i < 3; i++) {
        check(batch_init(&micro[i], 1, 16, &err), &err);
        memcpy(micro[i].ids, parts.batch.ids + 16 * i, 64);
        memcpy(micro[i].targets, parts.batch.targets + 16 * i, 64);
        memcpy(micro[i].positions, parts.batch.positions + 16 * i, 64);
        for (int t = 0; t < 16; t++) {
            micro[i].trained_tokens += micro[i].targets[t] >= 0;
        }
    }
    for (int s = 0; s < 5; s++) {
        struct step_result a = fixture_step(&whole, &step);
        struct step_result b;
        check(trainer_step(parts.trainer, step, micro, 3, &b, &err), &err);
        assert_int_equal(a.tokens, b.tokens);
        assert_true(fabsf(a.loss - b.loss) < 2e-6f);
        assert_true(fabsf(a.grad_norm - b.grad_norm) < 1e-5f * a.grad_norm);
    }
    for (int i = 0; i < 3; i++) {
        batch_free(&micro[i]);
    }
    fixture_close(&whole);
    fixture_close(&parts);
}

/* A weight that is not finite makes loss and gradient so: nothing may change, at a refresh too. */
static void test_skip_is_whole(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, "untied", WORDS("method.name=grass", "method.rank=8", "method.interval=4"));
    int64_t step = 0;
    for (int i = 0; i < 6; i++) {
        fixture_step(&f, &step);
    }
    float *weight = f.trainer->model.final_norm->value.data;
    float good = weight[3];
    for (int i = 0; i < 4; i++) { /* steps 7 .. 10, a refresh (9) among them */
        char before[DIGEST_TEXT_SIZE];
        char after[DIGEST_TEXT_SIZE];
        weight[3] = i % 2 == 0 ? INFINITY : NAN;
        fixture_digest(&f, before);
        struct step_result result = fixture_step(&f, &step);
        assert_true(result.skipped);
        assert_false(result.refreshed);
        assert_non_null(result.reason);
        fixture_digest(&f, after);
        assert_string_equal(before, after);
    }
    weight[3] = good;
    struct step_result result = fixture_step(&f, &step);
    assert_false(result.skipped);
    assert_true(result.refreshed); /* the refresh that was due at 9 */
    const char *bad = NULL;
    assert_true(trainer_state_finite(f.trainer, &bad));
    weight[3] = NAN;
    assert_false(trainer_state_finite(f.trainer, &bad));
    assert_string_equal(bad, "model.norm.weight");
    fixture_close(&f);
}

/* Columns of dy are captured where dy is produced: between refreshes nothing is gathered, and the
 * bits are those of gathering. */
static void check_captured(const char *const *words)
{
    struct fixture captured;
    struct fixture gathered;
    int64_t captured_step = 0;
    int64_t gathered_step = 0;
    fixture_open(&gathered, "untied", words);
    gathered.trainer->hooks.columns = NULL;
    fixture_open(&captured, "untied", words);
    spy_install(&captured);
    for (int i = 0; i < 8; i++) {
        spy.gathers = 0;
        struct step_result a = fixture_step(&captured, &captured_step);
        assert_true((spy.gathers > 0) == a.refreshed);
        struct step_result b = fixture_step(&gathered, &gathered_step);
        assert_memory_equal(&a.loss, &b.loss, sizeof a.loss);
        assert_int_equal(a.refreshed, b.refreshed);
    }
    char a[DIGEST_TEXT_SIZE];
    char b[DIGEST_TEXT_SIZE];
    fixture_digest(&captured, a);
    fixture_digest(&gathered, b);
    assert_string_equal(a, b);
    fixture_close(&captured);
    fixture_close(&gathered);
}

static void test_captured_columns(void **state)
{
    (void)state;
    check_captured(WORDS("method.name=grass", "method.rank=8", "method.interval=3"));
    check_captured(WORDS("method.name=grass", "method.rank=12", "method.interval=4",
                         "precision.weights=bf16", "activation.recompute=block"));
    /* A layer that trains only some of its parts, one block that does not train at all. */
    check_captured(WORDS("method.name=grass", "method.rank=5", "method.interval=3",
                         "method.targets=k_proj,v_proj,layers.1.*.down_proj,up_proj"));
}

static void run_digest(const char *const *words, char text[DIGEST_TEXT_SIZE])
{
    struct fixture f;
    int64_t step = 0;
    fixture_open(&f, "untied", words);
    for (int i = 0; i < 8; i++) {
        fixture_step(&f, &step);
    }
    fixture_digest(&f, text);
    fixture_close(&f);
}

static void test_same_bits(void **state)
{
    (void)state;
    const char *const *variants[] = {
        WORDS("method.name=full"),
        WORDS("method.name=grass", "method.rank=8", "method.interval=3", "method.selection=norm",
              "method.unbiased=true"),
        WORDS("method.name=grass", "method.rank=8", "method.interval=3", "method.selection=uniform",
              "method.replacement=true", "method.unbiased=true", "precision.weights=bf16",
              "precision.rounding=stochastic", "optimizer.state=bf16"),
    };
    for (size_t v = 0; v < 3; v++) {
        char first[DIGEST_TEXT_SIZE];
        run_digest(variants[v], first);
        for (int i = 0; i < 9; i++) {
            char again[DIGEST_TEXT_SIZE];
            run_digest(variants[v], again);
            assert_string_equal(first, again);
        }
    }
}

/* Sampled selections, with and without replacement, all train: the loss of a repeated batch falls.
 */
static void test_every_selection_learns(void **state)
{
    (void)state;
    static const char *const rules[] = { "top", "norm", "norm2", "uniform" };
    for (int i = 0; i < 16; i++) {
        char rule[64];
        snprintf(rule, sizeof rule, "method.selection=%s", rules[i % 4]);
        const char *replacement = i & 4 ? "method.replacement=true" : "method.replacement=false";
        const char *unbiased = i & 8 ? "method.unbiased=true" : "method.unbiased=false";
        struct fixture f;
        int64_t step = 0;
        if (i % 4 == 0 && (i & 12) != 0) {
            continue; /* top takes neither */
        }
        fixture_open(&f, "untied",
                     WORDS("method.name=grass", "method.rank=8", "method.interval=5", rule,
                           replacement, unbiased));
        float first = fixture_step(&f, &step).loss;
        float last = first;
        for (int s = 0; s < 20; s++) {
            last = fixture_step(&f, &step).loss;
        }
        assert_true(last < first - 0.1f);
        struct selection_report report;
        assert_int_equal(trainer_selection_count(f.trainer), 14);
        assert_int_equal(trainer_selection(f.trainer, 0, &report), 0);
        assert_true(report.selected >= 1 && report.selected <= 8);
        assert_true(report.captured_energy > 0.0 && report.captured_energy <= 1.0);
        assert_true(report.coverage > 0.0 && report.coverage <= 1.0);
        assert_true(report.entropy > 0.0 && report.entropy <= log(32.0) + 1e-9);
        assert_int_equal(trainer_selection(f.trainer, 14, &report), -1);
        fixture_close(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cost),
        cmocka_unit_test(test_gradient_bytes),
        cmocka_unit_test(test_all_rows_is_full),
        cmocka_unit_test(test_accumulation),
        cmocka_unit_test(test_skip_is_whole),
        cmocka_unit_test(test_captured_columns),
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_every_selection_learns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
