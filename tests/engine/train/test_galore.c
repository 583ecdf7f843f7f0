/* What GaLore promises of a whole model: cost, memory, the clock of refreshes, whole skips,
 * resuming and live changes to the bit, and the values of an independent computation. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/xalloc.h"
#include "engine/method/galore_parts.h"
#include "fixture.h"
#include "kernels/backend_ops.h"
#include "kernels/ops.h"

static const struct galore *galore_of(const struct fixture *f)
{
    return f->trainer->method.state;
}

/* A backend table that looks at every product that sums over tokens. */
struct spy {
    struct backend_ops ops;
    const struct backend_ops *real;
    int64_t tokens, vocabulary;
    int64_t largest; /* elements of the largest within a block */
};
static struct spy spy;

static void spy_matmul(struct backend *be, const struct matmul *args)
{
    bool sums = args->transpose_a && args->a->dim[0] == spy.tokens;
    if (sums && args->c->dim[0] != spy.vocabulary) {
        int64_t count = tensor_count(args->c);
        spy.largest = count > spy.largest ? count : spy.largest;
    }
    spy.real->matmul(be, args);
}

static void spy_install(struct fixture *f)
{
    spy = (struct spy){ .real = f->be->ops,
                        .tokens = f->batch.rows * f->batch.sequence,
                        .vocabulary = f->config.vocabulary };
    spy.ops = *f->be->ops;
    spy.ops.matmul = spy_matmul;
    f->be->ops = &spy.ops;
}

/* Of each matrix: 4 m n T forward and backward, 2 r (m + n) T for the projected gradient, 2 m n r
 * to take the step back; 6 V C T for the head. */
static double plain_flops(const struct fixture *f)
{
    double tokens = (double)(f->batch.rows * f->batch.sequence);
    double flops = 6.0 * (double)(f->config.vocabulary * f->config.hidden_size) * tokens;
    for (int64_t i = 0; i < galore_of(f)->part_count; i++) {
        const struct galore_part *part = &galore_of(f)->part[i];
        double m = (double)part->part->parameter->dim[0];
        double n = (double)part->part->parameter->dim[1];
        double r = (double)part->rank;
        flops += 4.0 * m * n * tokens + 2.0 * r * (m + n) * tokens + 2.0 * m * n * r;
    }
    return flops;
}

/* No product has the size of a weight gradient, at a refresh neither. */
static void test_cost(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, "untied", WORDS("method.name=galore", "method.rank=8", "method.interval=3"));
    spy_install(&f);
    int64_t step = 0;
    for (int i = 0; i < 7; i++) {
        backend_clear_counts(f.be);
        struct step_result result = fixture_step(&f, &step);
        assert_int_equal(result.refreshed, step % 3 == 1);
        double flops = f.be->count[OP_MATMUL].flops;
        assert_true(result.refreshed ? flops > plain_flops(&f) : flops == plain_flops(&f));
        /* 16 probes of the largest side; the smallest matrix has 16 * 32 elements, the others 32 *
         * 32 and more. */
        assert_int_equal(spy.largest, result.refreshed ? 88 * GALORE_PROBES : 88 * 8);
        spy.largest = 0;
    }
    fixture_close(&f);
}

/* In bytes: gradients (larger side, r), states twice that and (smaller side, r). */
static void test_bytes(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, "untied", WORDS("method.name=galore", "method.rank=8"));
    size_t gradients = 0;
    size_t states = 0;
    for (int64_t i = 0; i < galore_of(&f)->part_count; i++) {
        const struct parameter *p = galore_of(&f)->part[i].part->parameter;
        size_t large = (size_t)(p->dim[0] > p->dim[1] ? p->dim[0] : p->dim[1]);
        size_t small = (size_t)(p->dim[0] > p->dim[1] ? p->dim[1] : p->dim[0]);
        gradients += large * 8 * 4; /* multiples of 256 all */
        states += (2 * large + small) * 8 * 4 + 256;
    }
    struct parameter *p;
    for (int64_t i = 0; (p = model_dense_parameter(&f.trainer->model, i)) != NULL; i++) {
        size_t bytes = ((size_t)parameter_count(p) * 4 + 255) / 256 * 256;
        gradients += bytes;
        states += 2 * bytes + 256;
    }
    assert_int_equal(memory_live(trainer_memory(f.trainer), MEMORY_GRADIENTS), gradients);
    assert_int_equal(memory_live(trainer_memory(f.trainer), MEMORY_OPTIMIZER), states);
    fixture_close(&f);
}

/* Optimizer bytes with moments and bases in bf16 and AdamW on the rest, derived from the shapes: r
 * (small + 2 large) of the seven matrices of a block. */
static void check_planned(const char *name, int64_t rank, double gigabytes)
{
    struct error err = { 0 };
    struct model_config config;
    struct recipe recipe;
    struct plan plan;
    char word[64];
    char *path = xasprintf("%s/presets/models/%s.json", SOURCE_ROOT, name);
    check(config_read(path, &config, &err), &err);
    free(path);
    recipe_init(&recipe);
    snprintf(word, sizeof word, "method.rank=%lld", (long long)rank);
    const char *words[] = { "method.name=galore",
                            word,
                            "precision.weights=bf16",
                            "optimizer.state=bf16",
                            "batch.micro=1",
                            "data.sequence_length=64",
                            "train.steps=10",
                            "train.sample_every=0",
                            "method.projection=subspace",
                            NULL };
    lay_words(&recipe, words);
    check(plan_make(&recipe, &config, &plan, &err), &err);
    double d = (double)config.hidden_size;
    double kv = (double)(config.kv_heads * config.head_size);
    double f = (double)config.intermediate_size;
    double r = (double)rank;
    double block = r * (2.0 * 3.0 * d + 2.0 * (kv + 2.0 * d) + 3.0 * (d + 2.0 * f));
    double rest = (config.tied ? 1.0 : 2.0) * (double)config.vocabulary * d +
                  (2.0 * (double)config.layers + 1.0) * d;
    double want = 2.0 * ((double)config.layers * block + 2.0 * rest);
    double got = (double)plan.bytes[MEMORY_OPTIMIZER];
    if (fabs(got - want) > 1e-3 * want ||
        (gigabytes > 0.0 && fabs(got * 1e-9 - gigabytes) > 6e-3)) {
        fail_msg("%s: %.0f bytes planned, %.0f expected, %.3f GB published", name, got, want,
                 gigabytes);
    }
    recipe_free(&recipe);
}

static void test_planned_bytes(void **state)
{
    (void)state;
    check_planned("llama-60m", 128, 0.164);
    check_planned("llama-130m", 256, 0.343);
    check_planned("llama-350m", 256, 0.653);
    check_planned("llama-1b", 512, 2.085);
    check_planned("llama-7b", 1024, 9.405);
}

static void test_golden(void **state)
{
    (void)state;
    static const char *const scale[] = { "method.scale=1", "method.scale=1", "method.scale=0.25" };
    static const char *const names[] = { "keep", "rotate", "reset" };
    struct error err = { 0 };
    char *path = xasprintf("%s/model/galore.json", TEST_DATA);
    cJSON *golden = json_read(path, &err);
    check(golden == NULL ? -1 : 0, &err);
    free(path);
    if (!op_eigenvectors_built()) {
        cJSON_Delete(golden);
        skip();
    }
    for (int c = 0; c < 3; c++) {
        struct fixture f;
        int64_t step = 0;
        char moments[64];
        snprintf(moments, sizeof moments, "method.moments=%s", names[c]);
        fixture_open(&f, "untied",
                     WORDS("method.name=galore", "method.rank=8", "method.interval=5",
                           "method.projection=svd", moments, scale[c]));
        const cJSON *want = json_get(golden, names[c]);
        const cJSON *loss = json_get(want, "losses")->child;
        const cJSON *norm = json_get(want, "grad_norms")->child;
        for (; loss != NULL; loss = loss->next, norm = norm->next) {
            struct step_result result = fixture_step(&f, &step);
            assert_true(fabs((double)result.loss - loss->valuedouble) < 1e-4);
            assert_true(fabs((double)result.grad_norm - norm->valuedouble) <
                        1e-3 * norm->valuedouble);
        }
        assert_int_equal(step, 20);
        const cJSON *final;
        cJSON_ArrayForEach (final, json_get(want, "final")) {
            struct state_entry entry;
            float *values = fixture_state(&f, final->string, &entry);
            int64_t count = entry.dim[0] * entry.dim[1];
            const cJSON *item;
            int64_t k = 0;
            cJSON_ArrayForEach (item, json_get(final, "sample")) {
                assert_true(fabs((double)values[k * count / 8] - item->valuedouble) < 5e-4);
                k++;
            }
            free(values);
        }
        fixture_close(&f);
    }
    cJSON_Delete(golden);
}

/* The gradient kept is the full gradient in the basis, in fp32 and in bf16. */
static void check_fused(const char *precision, double bound)
{
    struct fixture full;
    struct fixture f;
    int64_t full_step = 0;
    int64_t step = 0;
    fixture_open(&full, "untied", WORDS(precision));
    fixture_open(&f, "untied", WORDS("method.name=galore", "method.rank=8", precision));
    fixture_step(&full, &full_step);
    fixture_step(&f, &step);
    for (int64_t i = 0; i < galore_of(&f)->part_count; i++) {
        const struct galore_part *part = &galore_of(&f)->part[i];
        int64_t m = part->part->rows;
        int64_t n = part->linear->weight.dim[1];
        double difference = 0.0;
        double norm = 0.0;
        /* The state of full's rule after one step is 0.1 times its gradient. */
        char name[STATE_NAME_SIZE];
        struct state_entry entry;
        snprintf(name, sizeof name, "optimizer/%s/m", part->part->parameter->name);
        float *g = fixture_state(&full, name, &entry);
        for (int64_t l = 0; l < part->large; l++) {
            for (int64_t r = 0; r < part->rank; r++) {
                double sum = 0.0;
                for (int64_t s = 0; s < part->small; s++) {
                    int64_t at = part->right ? l * n + s : s * n + l;
                    float q = part->basis.dtype == DTYPE_F32
                                  ? ((const float *)part->basis.data)[s * part->rank + r]
                                  : bf16_to_float(
                                        ((const uint16_t *)part->basis.data)[s * part->rank + r]);
                    sum += 10.0 * (double)g[at] * (double)q;
                }
                const struct tensor *kept = &part->gradient;
                int64_t at = l * part->rank + r;
                double value = kept->dtype == DTYPE_F32
                                   ? (double)((const float *)kept->data)[at]
                                   : (double)bf16_to_float(((const uint16_t *)kept->data)[at]);
                difference += (value - sum) * (value - sum);
                norm += sum * sum;
            }
        }
        assert_int_equal(entry.dim[0], m);
        assert_true(sqrt(difference) < bound * sqrt(norm));
        free(g);
    }
    fixture_close(&full);
    fixture_close(&f);
}

static void test_fused(void **state)
{
    (void)state;
    check_fused("precision.weights=fp32", 1e-5);
    check_fused("precision.weights=bf16", 1e-2);
}

/* Orthonormal in fp32, nearly so in bf16, and close to what the exact decomposition captures. */
static void test_bases(void **state)
{
    (void)state;
    static const char *const precisions[] = { "precision.weights=fp32", "precision.weights=bf16" };
    for (int p = 0; p < 2; p++) {
        struct fixture f;
        int64_t step = 0;
        fixture_open(&f, "untied", WORDS("method.name=galore", "method.rank=8", precisions[p]));
        fixture_step(&f, &step);
        for (int64_t i = 0; i < galore_of(&f)->part_count; i++) {
            const struct tensor *q = &galore_of(&f)->part[i].basis;
            for (int64_t a = 0; a < 8; a++) {
                for (int64_t b = 0; b < 8; b++) {
                    double sum = a == b ? -1.0 : 0.0;
                    for (int64_t t = 0; t < q->dim[0]; t++) {
                        float x = p == 0 ? ((const float *)q->data)[t * 8 + a]
                                         : bf16_to_float(((const uint16_t *)q->data)[t * 8 + a]);
                        float y = p == 0 ? ((const float *)q->data)[t * 8 + b]
                                         : bf16_to_float(((const uint16_t *)q->data)[t * 8 + b]);
                        sum += (double)x * (double)y;
                    }
                    assert_true(fabs(sum) < (p == 0 ? 1e-5 : 5e-2));
                }
            }
        }
        struct selection_report report;
        assert_int_equal(trainer_selection_count(f.trainer), 14);
        assert_int_equal(trainer_selection(f.trainer, 5, &report), 0);
        assert_true(report.captured_energy > 0.4 && report.captured_energy <= 1.0);
        assert_int_equal(report.selected, 8);
        assert_true(isnan(report.overlap) && isnan(report.entropy) && isnan(report.coverage));
        fixture_close(&f);
    }
}

/* Bases stay to the bit between refreshes; staggered, each layer has a step of its own. */
static void test_clock(void **state)
{
    (void)state;
    for (int stagger = 0; stagger < 2; stagger++) {
        struct fixture f;
        int64_t step = 0;
        int changes[14] = { 0 };
        float *before[14] = { NULL };
        fixture_open(&f, "untied",
                     WORDS("method.name=galore", "method.rank=4", "method.interval=8",
                           stagger ? "method.stagger=true" : "method.stagger=false"));
        for (int i = 0; i < 17; i++) {
            struct step_result result = fixture_step(&f, &step);
            int changed = 0;
            for (int64_t p = 0; p < 14; p++) {
                const struct galore_part *part = &galore_of(&f)->part[p];
                size_t bytes = tensor_bytes(&part->basis);
                bool other = before[p] == NULL || memcmp(before[p], part->basis.data, bytes) != 0;
                before[p] = xrealloc(before[p], bytes);
                memcpy(before[p], part->basis.data, bytes);
                changed += other;
                changes[p] += other;
                assert_int_equal(other, part->refreshed == step);
            }
            assert_int_equal(result.refreshed, changed > 0);
            assert_int_equal(trainer_selection_count(f.trainer) == changed, result.refreshed);
            if (stagger && step > 1) {
                assert_true(changed <= 3); /* one layer: q, k and v at most */
            } else {
                assert_int_equal(changed, step % 8 == 1 ? 14 : 0);
            }
        }
        for (int64_t p = 0; p < 14; p++) {
            assert_true(changes[p] >= 3); /* 1, 9, 17, or its own two and the first */
            free(before[p]);
        }
        fixture_close(&f);
    }
}

/* A weight that is not finite: nothing may change, at the first step, at a refresh and between. */
static void check_skips(const char *moments, const char *stagger)
{
    struct fixture f;
    fixture_open(
        &f, "untied",
        WORDS("method.name=galore", "method.rank=6", "method.interval=3", moments, stagger));
    int64_t step = 0;
    float *weight = f.trainer->model.final_norm->value.data;
    float good = weight[3];
    for (int i = 0; i < 9; i++) {
        if (i % 2 == 0) {
            char before[DIGEST_TEXT_SIZE];
            char after[DIGEST_TEXT_SIZE];
            weight[3] = i % 4 == 0 ? INFINITY : NAN;
            fixture_digest(&f, before);
            struct step_result result = fixture_step(&f, &step);
            assert_true(result.skipped);
            assert_false(result.refreshed);
            fixture_digest(&f, after);
            assert_string_equal(before, after);
            weight[3] = good;
        } else {
            assert_false(fixture_step(&f, &step).skipped);
            good = weight[3];
        }
    }
    const char *bad = NULL;
    assert_true(trainer_state_finite(f.trainer, &bad));
    fixture_close(&f);
}

static void test_skip_is_whole(void **state)
{
    (void)state;
    check_skips("method.moments=rotate", "method.stagger=false");
    check_skips("method.moments=rotate", "method.stagger=true");
    check_skips("method.moments=reset", "method.stagger=false");
    check_skips("method.moments=keep", "method.stagger=true");
}

/* ---- behaviour --------------------------------------------------------------------------------
 */

/* Norms of zero make every gradient of the blocks zero: finite orthonormal bases all the same. */
static void test_no_gradient(void **state)
{
    (void)state;
    struct fixture f;
    int64_t step = 0;
    fixture_open(
        &f, "untied",
        WORDS("method.name=galore", "method.rank=1000", "method.interval=1", "train.clip=1"));
    memset(f.trainer->model.final_norm->value.data, 0,
           tensor_bytes(&f.trainer->model.final_norm->value));
    for (int i = 0; i < 2; i++) {
        assert_false(fixture_step(&f, &step).skipped);
        const char *bad = NULL;
        assert_true(trainer_state_finite(f.trainer, &bad));
    }
    const struct galore_part *part = &galore_of(&f)->part[0];
    assert_int_equal(part->rank, 32);
    double square = 0.0;
    for (int64_t i = 0; i < 32 * 32; i++) {
        double q = (double)((const float *)part->basis.data)[i];
        square += q * q;
    }
    assert_true(fabs(square - 32.0) < 1e-3);
    fixture_close(&f);
}

static void run_digest(const char *const *words, int threads, char text[DIGEST_TEXT_SIZE])
{
    struct fixture f;
    int64_t step = 0;
    omp_set_num_threads(threads);
    fixture_open(&f, "untied", words);
    for (int i = 0; i < 6; i++) {
        fixture_step(&f, &step);
    }
    fixture_digest(&f, text);
    fixture_close(&f);
}

static void test_same_bits(void **state)
{
    (void)state;
    int threads = omp_get_max_threads();
    for (int i = 0; i < 4; i++) {
        const char *projection = i % 2 && op_eigenvectors_built() ? "method.projection=svd"
                                                                  : "method.projection=subspace";
        const char *const *words =
            WORDS("method.name=galore", "method.rank=7", "method.interval=2", projection,
                  i < 2 ? "precision.weights=fp32" : "precision.weights=bf16",
                  i < 2 ? "optimizer.state=fp32" : "optimizer.state=bf16",
                  "precision.rounding=stochastic", "method.stagger=true");
        char first[DIGEST_TEXT_SIZE];
        char again[DIGEST_TEXT_SIZE];
        run_digest(words, 1, first);
        for (int t = 1; t <= 3; t++) {
            run_digest(words, t, again);
            assert_string_equal(first, again);
        }
    }
    omp_set_num_threads(threads);
}

/* The loss of a repeated batch falls under every choice. */
static void test_all_learn(void **state)
{
    (void)state;
    static const char *const moments[] = { "keep", "rotate", "reset" };
    for (int i = 0; i < 12; i++) {
        struct fixture f;
        int64_t step = 0;
        char word[64];
        snprintf(word, sizeof word, "method.moments=%s", moments[i % 3]);
        fixture_open(&f, "untied",
                     WORDS("method.name=galore", "method.rank=8", "method.interval=6", word,
                           "optimizer.lr=0.002",
                           i / 3 % 2 ? "method.stagger=true" : "method.stagger=false",
                           i / 6 ? "precision.weights=bf16" : "precision.weights=fp32",
                           "precision.rounding=stochastic", "method.refresh_warmup=2"));
        float first = fixture_step(&f, &step).loss;
        float last = first;
        for (int s = 0; s < 20; s++) {
            last = fixture_step(&f, &step).loss;
        }
        assert_true(last < first - 0.5f);
        fixture_close(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cost),          cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_planned_bytes), cmocka_unit_test(test_golden),
        cmocka_unit_test(test_fused),         cmocka_unit_test(test_bases),
        cmocka_unit_test(test_clock),         cmocka_unit_test(test_skip_is_whole),
        cmocka_unit_test(test_no_gradient),   cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_all_learn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
