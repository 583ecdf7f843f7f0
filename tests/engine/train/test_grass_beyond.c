/*
 * Grass beyond its paper: norms from a sketch, rows that are not selected moving without a state,
 * energy against rank. What each computes, where it equals plain Grass, and that it goes on where
 * it stopped.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/method/grass_parts.h"
#include "fixture.h"
#include "kernels/backend_ops.h"
#include "saved_states.h"

/* ---- the sketch ------------------------------------------------------------------------------ */

/* A backend table that looks at every product that sums over tokens. */
struct spy {
    struct backend_ops ops;
    const struct backend_ops *real;
    int64_t largest;
    int64_t vocabulary; /* the head trains in full */
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

static void spy_install(struct fixture *f)
{
    spy.real = f->be->ops;
    spy.ops = *f->be->ops;
    spy.ops.matmul = spy_matmul;
    spy.vocabulary = f->config.vocabulary;
    f->be->ops = &spy.ops;
}

/* At a refresh with a sketch of s columns: 4 m n T and the compressed gradient as in any step, and
 * 2 s T (m + n) for the sketch. Nothing of m n elements, ever. */
static void check_sketch_cost(const char *side)
{
    struct fixture f;
    char word[64];
    snprintf(word, sizeof word, "method.side=%s", side);
    fixture_open(
        &f, "untied",
        WORDS("method.name=grass", "method.rank=4", "method.interval=3", "method.sketch=5", word));
    spy_install(&f);
    int64_t step = 0;
    for (int i = 0; i < 7; i++) {
        backend_clear_counts(f.be);
        spy.largest = 0;
        struct step_result result = fixture_step(&f, &step);
        const struct grass *grass = f.trainer->method.state;
        double tokens = (double)(f.batch.rows * f.batch.sequence);
        double flops = 6.0 * (double)(f.config.vocabulary * f.config.hidden_size) * tokens;
        for (int64_t p = 0; p < grass->part_count; p++) {
            const struct grass_part *part = &grass->part[p];
            double m = (double)part->part->parameter->dim[0];
            double n = (double)part->part->parameter->dim[1];
            double r = (double)part->count;
            flops += 4.0 * m * n * tokens;
            flops += 2.0 * (part->side == SIDE_ROWS ? r * n : m * r) * tokens;
            flops += result.refreshed ? 2.0 * 5.0 * (m + n) * tokens : 0.0;
        }
        assert_int_equal(result.refreshed, step % 3 == 1);
        assert_true(f.be->count[OP_MATMUL].flops == flops);
        /* gate and up share one product of 2 * 11 rows; 88 * 5 elements of the sketch are less. */
        assert_true(spy.largest <= 2 * 11 * 32);
    }
    fixture_close(&f);
}

static void test_sketch_cost(void **state)
{
    (void)state;
    check_sketch_cost("out");
    check_sketch_cost("in");
}

/* Squared norms from s columns: right on average, with a relative error of sqrt(2 / s); and the
 * rows chosen by them hold nearly what the best ones hold. */
static void check_sketch_error(const char *side, int64_t columns)
{
    struct fixture exact;
    struct fixture sketched;
    char word[64];
    char width[64];
    int64_t a = 0;
    int64_t b = 0;
    snprintf(word, sizeof word, "method.side=%s", side);
    snprintf(width, sizeof width, "method.sketch=%lld", (long long)columns);
    fixture_open(&exact, "untied", WORDS("method.name=grass", "method.rank=8", word));
    fixture_open(&sketched, "untied", WORDS("method.name=grass", "method.rank=8", word, width));
    fixture_step(&exact, &a);
    fixture_step(&sketched, &b);
    const struct grass *x = exact.trainer->method.state;
    const struct grass *s = sketched.trainer->method.state;
    double squares = 0.0;
    double sum = 0.0;
    double count = 0.0;
    double held = 0.0;
    double best = 0.0;
    for (int64_t p = 0; p < x->part_count; p++) {
        const struct grass_part *part = &x->part[p];
        double total = 0.0;
        for (int64_t i = 0; i < part->candidates; i++) {
            double truth = (double)part->norms[i];
            double error = truth > 0.0 ? (double)s->part[p].norms[i] / truth - 1.0 : 0.0;
            squares += error * error;
            sum += error;
            count += 1.0;
            total += truth;
        }
        for (int64_t j = 0; j < part->count; j++) {
            held += (double)part->norms[s->part[p].chosen[j]] / total;
            best += (double)part->norms[part->chosen[j]] / total;
        }
    }
    double expected = 2.0 / (double)columns;
    assert_true(fabs(sum / count) < 0.08);
    assert_true(squares / count > 0.4 * expected && squares / count < 1.5 * expected);
    assert_true(held > 0.93 * best && held <= best + 1e-6);
    fixture_close(&exact);
    fixture_close(&sketched);
}

static void test_sketch_error(void **state)
{
    (void)state;
    check_sketch_error("out", 64);
    check_sketch_error("in", 64);
    check_sketch_error("out", 256);
}

/* ---- rows that are not selected -------------------------------------------------------------- */

struct gradients {
    const char *name;
    float *data;
};

static void take_gradient(void *context, const char *name, struct tensor *gradient)
{
    struct gradients *wanted = context;
    if (strcmp(name, wanted->name) == 0) {
        size_t bytes = tensor_bytes(gradient);
        wanted->data = malloc(bytes);
        memcpy(wanted->data, gradient->data, bytes);
    }
}

static const struct grass_part *part_named(const struct fixture *f, const char *name)
{
    const struct grass *grass = f->trainer->method.state;
    for (int64_t i = 0; i < grass->part_count; i++) {
        if (strcmp(grass->part[i].part->parameter->name, name) == 0) {
            return &grass->part[i];
        }
    }
    return NULL;
}

static bool is_chosen(const struct grass_part *part, int64_t line)
{
    for (int64_t j = 0; j < part->count; j++) {
        if (part->chosen[j] == line) {
            return true;
        }
    }
    return false;
}

/* One step, every row: the selected ones as plain Grass moves them, to the bit; the others by
 * lr (scale g / rms(g) + decay w), g taken from full training on the same weights. */
static void check_formula(const char *side, const char *name)
{
    struct fixture full;
    struct fixture plain;
    struct fixture moving;
    struct state_entry entry;
    char word[64];
    int64_t steps[3] = { 0 };
    snprintf(word, sizeof word, "method.side=%s", side);
    fixture_open(&full, "untied", WORDS("method.name=full"));
    fixture_open(&plain, "untied", WORDS("method.name=grass", "method.rank=8", word));
    fixture_open(&moving, "untied",
                 WORDS("method.name=grass", "method.rank=8", word, "method.unselected_every=1",
                       "method.unselected_scale=0.5"));
    float *old = fixture_state(&plain, name, &entry);
    fixture_step(&full, &steps[0]);
    fixture_step(&plain, &steps[1]);
    fixture_step(&moving, &steps[2]);
    struct gradients g = { .name = name };
    struct gradient_visitor visitor = { .visit = take_gradient, .context = &g };
    full.trainer->method.ops->each_gradient(&full.trainer->method, &visitor);
    float *expected = fixture_state(&plain, name, &entry);
    float *found = fixture_state(&moving, name, &entry);
    const struct grass_part *part = part_named(&moving, name);
    bool rows = part->side == SIDE_ROWS;
    int64_t m = entry.dim[0];
    int64_t n = entry.dim[1];
    for (int64_t line = 0; line < (rows ? m : n); line++) {
        int64_t length = rows ? n : m;
        double square = 0.0;
        for (int64_t i = 0; i < length; i++) {
            double value = (double)g.data[rows ? line * n + i : i * n + line];
            square += value * value;
        }
        double rms = sqrt(square / (double)length);
        for (int64_t i = 0; i < length; i++) {
            int64_t at = rows ? line * n + i : i * n + line;
            double w = (double)old[at];
            double moved = w - 0.001 * (0.5 * (double)g.data[at] / rms + 0.01 * w);
            if (is_chosen(part, line)) {
                assert_true(found[at] == expected[at]);
            } else {
                assert_true(expected[at] == old[at]);
                assert_true(fabs((double)found[at] - moved) < 1e-7);
            }
        }
    }
    free(old);
    free(expected);
    free(found);
    free(g.data);
    fixture_close(&full);
    fixture_close(&plain);
    fixture_close(&moving);
}

static void test_formula(void **state)
{
    (void)state;
    check_formula("out", "model.layers.0.self_attn.k_proj.weight");
    check_formula("out", "model.layers.1.mlp.down_proj.weight");
    check_formula("in", "model.layers.1.mlp.up_proj.weight");
}

static void digest_after(const char *const *words, int steps, char text[DIGEST_TEXT_SIZE])
{
    struct fixture f;
    int64_t step = 0;
    fixture_open(&f, "untied", words);
    for (int i = 0; i < steps; i++) {
        fixture_step(&f, &step);
    }
    fixture_digest(&f, text);
    fixture_close(&f);
}

/* Where it must be plain Grass, bit for bit: all rows selected; a scale of 0 without decay. */
static void test_limits(void **state)
{
    (void)state;
    char plain[DIGEST_TEXT_SIZE];
    char moving[DIGEST_TEXT_SIZE];
    digest_after(WORDS("method.name=grass", "method.rank=32", "method.interval=4"), 6, plain);
    digest_after(WORDS("method.name=grass", "method.rank=32", "method.interval=4",
                       "method.unselected_every=1"),
                 6, moving);
    assert_string_equal(plain, moving);
    digest_after(WORDS("method.name=grass", "method.rank=8", "method.interval=4",
                       "optimizer.weight_decay=0"),
                 6, plain);
    digest_after(WORDS("method.name=grass", "method.rank=8", "method.interval=4",
                       "optimizer.weight_decay=0", "method.unselected_every=1",
                       "method.unselected_scale=0"),
                 6, moving);
    assert_string_equal(plain, moving);
    /* Weights change within the backward: what is computed again there still sees the old ones. */
    digest_after(WORDS("method.name=grass", "method.rank=8", "method.interval=4",
                       "method.unselected_every=1"),
                 6, plain);
    digest_after(WORDS("method.name=grass", "method.rank=8", "method.interval=4",
                       "method.unselected_every=1", "activation.recompute=block"),
                 6, moving);
    assert_string_equal(plain, moving);
}

/* Every third step: rows outside of the selection move at steps 1, 4, 7 and in no other. */
static void test_when(void **state)
{
    (void)state;
    struct fixture f;
    struct state_entry entry;
    const char *name = "model.layers.0.self_attn.o_proj.weight";
    int64_t step = 0;
    fixture_open(&f, "untied",
                 WORDS("method.name=grass", "method.rank=8", "method.interval=100",
                       "method.unselected_every=3"));
    for (int i = 0; i < 8; i++) {
        float *before = fixture_state(&f, name, &entry);
        fixture_step(&f, &step);
        float *after = fixture_state(&f, name, &entry);
        const struct grass_part *part = part_named(&f, name);
        bool moved = false;
        for (int64_t e = 0; e < entry.dim[0] * entry.dim[1]; e++) {
            moved = moved || (!is_chosen(part, e / entry.dim[1]) && before[e] != after[e]);
        }
        assert_int_equal(moved, step % 3 == 1);
        free(before);
        free(after);
    }
    fixture_close(&f);
}

/* A step that is skipped moves nothing: not if the loss is not finite, nor if an earlier
 * micro-batch spoilt the gradient. */
static void test_skip_is_whole(void **state)
{
    (void)state;
    struct error err = { 0 };
    struct fixture f;
    fixture_open(&f, "untied",
                 WORDS("method.name=grass", "method.rank=8", "method.interval=4",
                       "method.unselected_every=1"));
    int64_t step = 0;
    for (int i = 0; i < 3; i++) {
        fixture_step(&f, &step);
    }
    float *weight = f.trainer->model.final_norm->value.data;
    float good = weight[3];
    for (int i = 0; i < 4; i++) { /* a refresh (5) among them */
        char before[DIGEST_TEXT_SIZE];
        char after[DIGEST_TEXT_SIZE];
        struct step_result result;
        weight[3] = i % 2 == 0 ? INFINITY : NAN;
        fixture_digest(&f, before);
        struct batch twice[2] = { f.batch, f.batch };
        check(trainer_step(f.trainer, ++step, twice, 1 + i / 2, &result, &err), &err);
        assert_true(result.skipped);
        fixture_digest(&f, after);
        assert_string_equal(before, after);
    }
    weight[3] = good;
    assert_false(fixture_step(&f, &step).skipped);
    fixture_close(&f);
}

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

/* It is there to learn more with the same states. */
static void test_learns_more(void **state)
{
    (void)state;
    float plain = loss_after(WORDS("method.name=grass", "method.rank=2", "optimizer.lr=0.003"), 30);
    float fourth = loss_after(WORDS("method.name=grass", "method.rank=2", "optimizer.lr=0.003",
                                    "method.unselected_every=4"),
                              30);
    float each = loss_after(WORDS("method.name=grass", "method.rank=2", "optimizer.lr=0.003",
                                  "method.unselected_every=1"),
                            30);
    print_message("loss after 30 steps: %.3f, every fourth step %.3f, every step %.3f\n",
                  (double)plain, (double)fourth, (double)each);
    assert_true(fourth < plain);
    assert_true(each < fourth);
}

/* ---- all of them ----------------------------------------------------------------------------- */

static void test_resume(void **state)
{
    (void)state;
    check_resume(WORDS("method.name=grass", "method.rank=8", "method.interval=4",
                       "method.sketch=16", "method.unselected_every=3"),
                 13, 6, NULL);
    check_resume(WORDS("method.name=grass", "method.rank=8", "method.interval=4",
                       "method.side=short", "method.unselected_every=2", "method.sketch=3",
                       "precision.weights=bf16", "precision.rounding=stochastic",
                       "optimizer.state=int8"),
                 13, 6, NULL);
}

static void test_curve(void **state)
{
    (void)state;
    struct fixture f;
    int64_t step = 0;
    fixture_open(&f, "untied", WORDS("method.name=grass", "method.rank=8"));
    fixture_step(&f, &step);
    for (int64_t i = 0; i < trainer_selection_count(f.trainer); i++) {
        struct selection_report report;
        assert_int_equal(trainer_selection(f.trainer, i, &report), 0);
        assert_true(fabs(report.curve[SELECTION_CURVE - 1] - 1.0) < 1e-12);
        for (int c = 1; c < SELECTION_CURVE; c++) {
            assert_true(report.curve[c] >= report.curve[c - 1]);
        }
        /* Eight of 32 rows, a quarter of every matrix, and the best of them. */
        assert_true(fabs(report.curve[4] - report.captured_energy) < 1e-6);
    }
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sketch_cost), cmocka_unit_test(test_sketch_error),
        cmocka_unit_test(test_formula),     cmocka_unit_test(test_limits),
        cmocka_unit_test(test_when),        cmocka_unit_test(test_skip_is_whole),
        cmocka_unit_test(test_learns_more), cmocka_unit_test(test_resume),
        cmocka_unit_test(test_curve),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
