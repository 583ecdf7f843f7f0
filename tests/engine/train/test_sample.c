/* Sampled inputs of linear layers: the expected gradient is the true one, all of it is exact,
 * recomputing draws the same sample, and a resumed run goes on with the same draws. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/activation/store.h"
#include "engine/base/xalloc.h"
#include "small.h"
#include "tests/llama.h"

enum { ROWS = 2, LENGTH = 12, PAIRS = 16, MICRO = 2 };

static const struct model_config config = {
    LLAMA_REST,          .hidden_size = 16,       .intermediate_size = 40, .layers = 5,
    .heads = 2,          .kv_heads = 1,           .head_size = 8,          .vocabulary = 30,
    .max_positions = 32, .initializer_range = 0.3
};

struct run {
    struct recipe recipe;
    struct plan plan;
    struct backend *be;
    struct trainer *trainer;
    struct store *store; /* for activation.offload */
    struct batch batch[MICRO];
    struct dice dice;
};

static void run_open(struct run *r, const char *const *words)
{
    struct error err = { 0 };
    const char *const base[] = { "model.init=random",      "batch.micro=2",
                                 "batch.accumulate=2",     "data.sequence_length=12",
                                 "train.steps=9000",       "train.clip=0",
                                 "schedule.name=constant", "optimizer.lr=0.01",
                                 "data.validation=",       NULL };
    *r = (struct run){ .dice = { 5 } };
    recipe_init(&r->recipe);
    lay_words(&r->recipe, base);
    lay_words(&r->recipe, words);
    check(plan_make(&r->recipe, &config, &r->plan, &err), &err);
    r->be = small_backend();
    if (r->plan.offload_spans > 0) {
        r->store = store_open(&(struct store_options){ .kind = STORE_HOST,
                                                       .be = r->be,
                                                       .span_bytes = r->plan.offload_span_bytes,
                                                       .spans = r->plan.offload_spans },
                              &err);
        assert_non_null(r->store);
    }
    r->trainer = trainer_open(&(struct trainer_options){ .recipe = &r->recipe,
                                                         .config = &config,
                                                         .be = r->be,
                                                         .capacity = r->plan.bytes,
                                                         .store = r->store },
                              &err);
    check(r->trainer == NULL ? -1 : 0, &err);
    for (int i = 0; i < MICRO; i++) {
        check(batch_init(&r->batch[i], ROWS, LENGTH, &err), &err);
    }
}

static void run_draw_batches(struct run *r)
{
    for (int i = 0; i < MICRO; i++) {
        small_batch(&r->dice, config.vocabulary, &r->batch[i]);
    }
}

static void run_step(struct run *r, int64_t step)
{
    struct error err = { 0 };
    struct step_result result;
    check(trainer_step(r->trainer, step, r->batch, MICRO, &result, &err), &err);
    assert_false(result.skipped);
}

static void run_close(struct run *r)
{
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        assert_int_equal(memory_peak(trainer_memory(r->trainer), (enum memory_category)c),
                         r->plan.bytes[c]);
    }
    for (int i = 0; i < MICRO; i++) {
        batch_free(&r->batch[i]);
    }
    trainer_close(r->trainer);
    if (r->store != NULL) {
        store_close(r->store);
    }
    backend_close(r->be);
    recipe_free(&r->recipe);
}

static void train(const char *const *words, int64_t steps, char digest[DIGEST_TEXT_SIZE])
{
    struct run r;
    run_open(&r, words);
    for (int64_t step = 1; step <= steps; step++) {
        run_draw_batches(&r);
        run_step(&r, step);
    }
    small_digest(r.trainer, digest);
    run_close(&r);
}

static const char *const samplers[] = { "crs", "wta-crs", "rad" };

static void test_all_is_exact(void **state)
{
    (void)state;
    char exact[DIGEST_TEXT_SIZE];
    char some[DIGEST_TEXT_SIZE];
    train(WORDS("method.name=full"), 3, exact);
    for (int s = 0; s < 3; s++) {
        char word[64];
        char digest[DIGEST_TEXT_SIZE];
        snprintf(word, sizeof word, "activation.sample=%s", samplers[s]);
        train(WORDS("method.name=full", word, "activation.keep=1"), 3, digest);
        assert_string_equal(digest, exact);
        train(WORDS("method.name=full", word, "activation.keep=0.99"), 3, some);
        assert_string_not_equal(some, exact);
    }
}

/* A sample that was kept is the one that is drawn of what is made again. */
static void test_recomputed(void **state)
{
    (void)state;
    const char *const methods[] = { "method.name=full", "method.name=grass" };
    const char *const policies[] = { "norms", "ffn", "block" };
    for (int s = 0; s < 2; s++) {
        for (int m = 0; m < 2; m++) {
            char word[64];
            char kept[DIGEST_TEXT_SIZE];
            snprintf(word, sizeof word, "activation.sample=%s", samplers[s]);
            train(WORDS(word, methods[m], "method.rank=6", "precision.weights=bf16"), 4, kept);
            for (int p = 0; p < 3; p++) {
                char recompute[64];
                char made[DIGEST_TEXT_SIZE];
                snprintf(recompute, sizeof recompute, "activation.recompute=%s", policies[p]);
                train(WORDS(word, methods[m], "method.rank=6", "precision.weights=bf16", recompute),
                      4, made);
                assert_string_equal(made, kept);
            }
            char moved[DIGEST_TEXT_SIZE];
            train(WORDS(word, methods[m], "method.rank=6", "precision.weights=bf16",
                        "activation.offload=host"),
                  4, moved);
            assert_string_equal(moved, kept);
        }
    }
}

/* ---- the expected gradient ------------------------------------------------------------------- */

struct sums {
    double value[64][PAIRS];
    double mean[64][PAIRS];
    double square[64][PAIRS];
    int64_t matrices;
    int64_t draws;
};

/* a^T G b for fixed vectors of signs. */
static void project(void *context, const char *name, struct tensor *gradient)
{
    (void)name;
    struct sums *sums = context;
    const float *g = gradient->data;
    for (int p = 0; p < PAIRS; p++) {
        struct dice dice = { (uint64_t)(p + 1) << 32 };
        double signs[64];
        double total = 0.0;
        for (int64_t j = 0; j < gradient->dim[1]; j++) {
            signs[j] = dice_roll(&dice, 2) == 0 ? -1.0 : 1.0;
        }
        for (int64_t i = 0; i < gradient->dim[0]; i++) {
            double row = 0.0;
            for (int64_t j = 0; j < gradient->dim[1]; j++) {
                row += signs[j] * (double)g[i * gradient->dim[1] + j];
            }
            total += dice_roll(&dice, 2) == 0 ? -row : row;
        }
        sums->value[sums->matrices][p] = total;
    }
    sums->matrices++;
}

static void take_gradient(struct run *r, struct sums *sums)
{
    struct gradient_visitor visitor = { .visit = project, .context = sums };
    sums->matrices = 0;
    r->trainer->method.ops->each_gradient(&r->trainer->method, &visitor);
    sums->draws++;
    for (int64_t m = 0; m < sums->matrices; m++) {
        for (int p = 0; p < PAIRS; p++) {
            double d = sums->value[m][p] - sums->mean[m][p];
            sums->mean[m][p] += d / (double)sums->draws;
            sums->square[m][p] += d * (sums->value[m][p] - sums->mean[m][p]);
        }
    }
}

/* The largest |z| of mean = exact * factor over matrices and pairs. */
static double worst(const struct sums *sums, const struct sums *exact, double factor)
{
    double most = 0.0;
    for (int64_t m = 0; m < sums->matrices; m++) {
        for (int p = 0; p < PAIRS; p++) {
            double want = factor * exact->value[m][p];
            double n = (double)sums->draws;
            double deviation = sqrt(sums->square[m][p] / (n - 1.0) / n);
            double off = fabs(sums->mean[m][p] - want);
            /* o is exact: only rounding tells the draws apart. */
            most = fmax(most, off / fmax(deviation, 1e-6 * (1e-3 + fabs(want))));
        }
    }
    return most;
}

static void test_unbiased(void **state)
{
    (void)state;
    enum { DRAWS = 400 };
    struct sums *exact = xcalloc(1, sizeof *exact);
    struct run r;
    /* A learning rate of 0: every step sees the same weights and data, and draws anew. */
    run_open(&r, WORDS("method.name=full", "optimizer.lr=0", "optimizer.weight_decay=0"));
    run_draw_batches(&r);
    run_step(&r, 1);
    take_gradient(&r, exact);
    assert_int_equal(exact->matrices, 35);
    run_close(&r);
    for (int s = 0; s < 3; s++) {
        struct sums *sums = xcalloc(1, sizeof *sums);
        char word[64];
        snprintf(word, sizeof word, "activation.sample=%s", samplers[s]);
        run_open(&r, WORDS("method.name=full", "optimizer.lr=0", "optimizer.weight_decay=0", word,
                           "activation.keep=0.3"));
        run_draw_batches(&r);
        for (int64_t step = 1; step <= DRAWS; step++) {
            run_step(&r, step);
            take_gradient(&r, sums);
        }
        double z = worst(sums, exact, 1.0);
        if (!(z < 5.0)) {
            fail_msg("%s: |z| = %g", samplers[s], z);
        }
        /* It would notice a factor that is off by half. */
        assert_true(worst(sums, exact, 1.5) > 20.0);
        run_close(&r);
        free(sums);
    }
    free(exact);
}

/* Gradients by number. */
struct listed {
    float *value[64];
    int64_t columns[64];
    int64_t rows[64];
    int64_t count;
};

static void list_one(void *context, const char *name, struct tensor *gradient)
{
    (void)name;
    struct listed *listed = context;
    size_t bytes = (size_t)tensor_count(gradient) * sizeof(float);
    assert_true(listed->count < 64 && gradient->dtype == DTYPE_F32);
    listed->value[listed->count] = malloc(bytes);
    memcpy(listed->value[listed->count], gradient->data, bytes);
    listed->rows[listed->count] = tensor_rows(gradient);
    listed->columns[listed->count++] = tensor_columns(gradient);
}

static void list_free(struct listed *listed)
{
    while (listed->count > 0) {
        free(listed->value[--listed->count]);
    }
}

/* Sampling thins out what weight gradients of matrices read, and nothing else: the backward passes
 * on exact gradients, so that those of norms and embedding have the same bits. */
static void test_others_are_exact(void **state)
{
    (void)state;
    struct run exact;
    struct listed all = { 0 };
    struct gradient_visitor visitor = { .visit = list_one, .context = &all };
    run_open(&exact, WORDS("method.name=full"));
    run_draw_batches(&exact);
    run_step(&exact, 1);
    dense_each_gradient(&exact.trainer->dense, &visitor);
    for (int s = 0; s < 3; s++) {
        char word[64];
        struct run r;
        struct listed same = { 0 };
        snprintf(word, sizeof word, "activation.sample=%s", samplers[s]);
        run_open(&r, WORDS("method.name=full", word, "activation.keep=0.3"));
        run_draw_batches(&r);
        run_step(&r, 1);
        visitor.context = &same;
        dense_each_gradient(&r.trainer->dense, &visitor);
        assert_int_equal(same.count, all.count);
        for (int64_t i = 0; i < all.count; i++) {
            assert_memory_equal(same.value[i], all.value[i],
                                (size_t)(all.rows[i] * all.columns[i]) * sizeof(float));
        }
        list_free(&same);
        run_close(&r);
    }
    list_free(&all);
    run_close(&exact);
}

/* One sample of k columns serves all tokens of a micro-batch: a gradient has no more columns than
 * the micro-batches drew. */
static void test_columns_of_rad(void **state)
{
    (void)state;
    struct run r;
    struct listed listed = { 0 };
    struct gradient_visitor visitor = { .visit = list_one, .context = &listed };
    run_open(&r, WORDS("method.name=full", "activation.sample=rad", "activation.keep=0.2"));
    run_draw_batches(&r);
    run_step(&r, 1);
    r.trainer->method.ops->each_gradient(&r.trainer->method, &visitor);
    int64_t thin = 0;
    for (int64_t i = 0; i < listed.count; i++) {
        int64_t filled = 0;
        for (int64_t c = 0; c < listed.columns[i]; c++) {
            bool any = false;
            for (int64_t row = 0; row < listed.rows[i]; row++) {
                any = any || listed.value[i][row * listed.columns[i] + c] != 0.0f;
            }
            filled += any;
        }
        bool sampled = filled < listed.columns[i];
        int64_t most = MICRO * (int64_t)ceil(0.2 * (double)listed.columns[i]);
        assert_true(!sampled || filled <= most);
        thin += sampled;
    }
    assert_true(thin >= listed.count / 2); /* not the inputs of o, which attention keeps anyway */
    list_free(&listed);
    run_close(&r);
}

/* ---- draws ------------------------------------------------------------------------------------
 */

/* Micro-batches, steps, layers and seeds all draw their own; a resumed run draws the same. */
static void test_resumed(void **state)
{
    (void)state;
    struct error err = { 0 };
    for (int s = 0; s < 3; s++) {
        char word[64];
        char whole[DIGEST_TEXT_SIZE];
        char resumed[DIGEST_TEXT_SIZE];
        struct run first;
        struct run second;
        snprintf(word, sizeof word, "activation.sample=%s", samplers[s]);
        train(WORDS("method.name=full", word), 5, whole);
        run_open(&first, WORDS("method.name=full", word));
        for (int64_t step = 1; step <= 2; step++) {
            run_draw_batches(&first);
            run_step(&first, step);
        }
        struct trainer_counters counters;
        trainer_counters(first.trainer, &counters);
        /* Weights by hand, states through the snapshot. */
        run_open(&second, WORDS("method.name=full", word));
        for (int64_t i = 0; i < first.trainer->model.parameter_count; i++) {
            const struct tensor *from = &first.trainer->model.parameter[i].value;
            memcpy(second.trainer->model.parameter[i].value.data, from->data, tensor_bytes(from));
        }
        struct state_snapshot *snapshot = trainer_snapshot(first.trainer, &err);
        assert_non_null(snapshot);
        struct state_source source = trainer_snapshot_source(snapshot);
        check(dense_restore(&second.trainer->dense, &source, &err), &err);
        check(second.trainer->method.ops->restore(&second.trainer->method, &source, &err), &err);
        trainer_snapshot_free(snapshot);
        second.dice = first.dice;
        for (int64_t step = 3; step <= 5; step++) {
            run_draw_batches(&second);
            run_step(&second, step);
        }
        small_digest(second.trainer, resumed);
        assert_string_equal(resumed, whole);
        run_close(&first);
        run_close(&second);
    }
}

/* Kept bytes of a layer, and the FLOPs of the weight gradients. */
static void test_costs(void **state)
{
    (void)state;
    struct recipe recipe;
    struct model_config seven;
    struct plan exact;
    struct plan sampled;
    struct error err = { 0 };
    const int64_t tokens = 2048, kept = 614, d = 4096, f = 11008, layers = 2; /* floor(.3 T) */
    check(config_read(SOURCE_ROOT "/presets/models/llama-7b.json", &seven, &err), &err);
    seven.layers = layers;
    recipe_init(&recipe);
    const char *const words[] = { "method.name=full",          "precision.weights=bf16",
                                  "optimizer.state=bf16",      "batch.micro=1",
                                  "data.sequence_length=2048", "train.steps=10",
                                  "train.sample_every=0",      NULL };
    lay_words(&recipe, words);
    check(plan_make(&recipe, &seven, &exact, &err), &err);
    check(recipe_set(&recipe, "activation.sample=wta-crs", &err), &err);
    check(recipe_set(&recipe, "activation.keep=0.3", &err), &err);
    check(plan_make(&recipe, &seven, &sampled, &err), &err);
    int64_t saved =
        (int64_t)exact.bytes[MEMORY_ACTIVATIONS] - (int64_t)sampled.bytes[MEMORY_ACTIVATIONS];
    int64_t want = layers * (2 * (tokens - kept) * (2 * d + f) - 3 * 8 * kept);
    assert_true(llabs(saved - want) <= layers * 9 * MEMORY_ALIGNMENT);
    /* All linear layers but o; row norms and scaling are what little is added. */
    double products = (double)layers * 2.0 * (double)(tokens - kept) * (double)d *
                      (3.0 * (double)d + 3.0 * (double)f);
    double less = exact.step_flops - sampled.step_flops;
    assert_true(less < products && less > 0.99 * products);
    recipe_free(&recipe);
}

int main(void)
{
    omp_set_num_threads(1); /* many tiny steps */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_is_exact),   cmocka_unit_test(test_recomputed),
        cmocka_unit_test(test_unbiased),       cmocka_unit_test(test_others_are_exact),
        cmocka_unit_test(test_columns_of_rad), cmocka_unit_test(test_resumed),
        cmocka_unit_test(test_costs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
