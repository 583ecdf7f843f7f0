/* The plan is exact: planned bytes are used bytes, one byte less fails, and so does one tensor that
 * the plan does not know. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fixture.h"

static void check_used(struct fixture *f)
{
    struct error err = { 0 };
    int64_t step = 0;
    struct memory *memory = trainer_memory(f->trainer);
    fixture_step(f, &step);
    fixture_step(f, &step);
    if (recipe_evaluates(&f->recipe)) {
        double loss;
        int64_t tokens;
        check(trainer_evaluate(f->trainer, &f->batch, &loss, &tokens, &err), &err);
    }
    if (f->recipe.train_sample_every > 0) {
        float logits[96];
        check(trainer_generate_begin(f->trainer, 16, &err), &err);
        check(trainer_generate_feed(f->trainer, 1, logits, &err), &err);
        trainer_generate_end(f->trainer);
    }
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        assert_int_equal(memory_peak(memory, (enum memory_category)c), f->plan.bytes[c]);
    }
}

/* Every method preset of the project, laid over the tiny model. */
static void test_every_preset(void **state)
{
    (void)state;
    struct preset_list presets;
    struct error err = { 0 };
    setenv("WINDROW_PRESETS", SOURCE_ROOT "/presets", 1);
    check(preset_list_read("methods", &presets, &err), &err);
    assert_true(presets.count >= 2);
    for (size_t i = 0; i < presets.count; i++) {
        for (int extra = 0; extra < 4; extra++) {
            struct fixture f;
            struct recipe preset;
            char name[64], selection[64], side[64], state_word[64], precision[64], rank[64];
            char recompute[64], rule[64], sketch[64], unselected[64], embedding[64], head[64],
                inputs[64];
            char projection[64], stagger[64];
            recipe_init(&preset);
            check(recipe_load(&preset, presets.item[i].path, &err), &err);
            snprintf(name, sizeof name, "method.name=%s", preset.method_name);
            const char *formats[] = { "fp32", "bf16", "int8" };
            snprintf(rule, sizeof rule, "optimizer.name=%s", preset.optimizer_name);
            snprintf(sketch, sizeof sketch, "method.sketch=%lld", (long long)preset.method_sketch);
            snprintf(unselected, sizeof unselected, "method.unselected_every=%lld",
                     (long long)preset.method_unselected_every);
            snprintf(embedding, sizeof embedding, "method.embedding=%s",
                     preset.method_embedding == METHOD_EMBEDDING_ROWS ? "rows" : "dense");
            snprintf(head, sizeof head, "method.head=%s",
                     preset.method_head == METHOD_HEAD_ROWS ? "rows" : "full");
            snprintf(inputs, sizeof inputs, "method.inputs=%s",
                     preset.method_inputs == METHOD_INPUTS_COLUMNS ? "columns" : "whole");
            const char *rules[] = { "top", "norm", "norm2", "uniform" };
            const char *sides[] = { "out", "in", "short" };
            snprintf(selection, sizeof selection, "method.selection=%s",
                     rules[preset.method_selection]);
            snprintf(side, sizeof side, "method.side=%s", sides[preset.method_side]);
            snprintf(state_word, sizeof state_word, "optimizer.state=%s",
                     formats[preset.optimizer_state]);
            snprintf(precision, sizeof precision, "precision.weights=%s",
                     preset.precision_weights == DTYPE_BF16 ? "bf16" : "fp32");
            snprintf(rank, sizeof rank, "method.rank=%d", extra & 1 ? 5 : 32);
            snprintf(recompute, sizeof recompute, "activation.recompute=%s",
                     preset.activation_recompute);
            char sample[64], keep[64];
            snprintf(sample, sizeof sample, "activation.sample=%s", preset.activation_sample);
            snprintf(keep, sizeof keep, "activation.keep=%g", preset.activation_keep);
            snprintf(projection, sizeof projection, "method.projection=%s",
                     preset.method_projection == METHOD_PROJECTION_SVD && op_eigenvectors_built()
                         ? "svd"
                         : "subspace");
            snprintf(stagger, sizeof stagger, "method.stagger=%s",
                     preset.method_stagger ? "true" : "false");
            fixture_open(
                &f, "untied",
                WORDS(name, selection, side, state_word, precision, rank, recompute, sample, keep,
                      rule, projection, stagger, sketch, unselected, embedding, head, inputs,
                      extra & 1 ? "data.validation=0.1" : "data.validation=", "train.eval_every=10",
                      extra & 2 ? "train.sample_every=5" : "train.sample_every=0"));
            check_used(&f);
            fixture_close(&f);
            recipe_free(&preset);
        }
    }
    preset_list_free(&presets);
}

static struct trainer *open_with(struct fixture *f, const size_t *capacity, struct backend **be,
                                 struct error *err)
{
    char why[256];
    *be = backend_open("cpu", 0, why, sizeof why);
    assert_non_null(*be);
    return trainer_open(
        &(struct trainer_options){
            .recipe = &f->recipe, .config = &f->config, .be = *be, .capacity = capacity },
        err);
}

static void test_one_byte_less(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, "untied", WORDS("method.name=grass", "method.rank=8"));
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        struct error err = { 0 };
        size_t capacity[MEMORY_CATEGORY_COUNT];
        struct backend *be;
        memcpy(capacity, f.plan.bytes, sizeof capacity);
        capacity[c] -= 1;
        struct trainer *trainer = open_with(&f, capacity, &be, &err);
        int rc = -1;
        if (trainer != NULL) {
            struct step_result result;
            rc = trainer_step(trainer, 1, &f.batch, 1, &result, &err);
        }
        assert_int_equal(rc, -1);
        assert_non_null(strstr(err.message, memory_category_names[c]));
        trainer_close(trainer);
        backend_close(be);
    }
    fixture_close(&f);
}

static void test_unknown_tensor(void **state)
{
    (void)state;
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        struct fixture f;
        struct error err = { 0 };
        struct step_result result;
        fixture_open(&f, "untied", WORDS("method.name=grass", "method.rank=8"));
        memory_vector(trainer_memory(f.trainer), (enum memory_category)c, "stowaway", DTYPE_F32, 1);
        assert_int_equal(trainer_step(f.trainer, 1, &f.batch, 1, &result, &err), -1);
        assert_non_null(strstr(err.message, "does not fit"));
        assert_non_null(strstr(err.message, memory_category_names[c]));
        fixture_close(&f);
    }
}

static void open_preset_model(const char *name, struct recipe *recipe, struct model_config *config)
{
    struct error err = { 0 };
    char *path = xasprintf("%s/presets/models/%s.json", SOURCE_ROOT, name);
    check(config_read(path, config, &err), &err);
    free(path);
    recipe_init(recipe);
    const char *words[] = {
        "method.name=grass",    "method.rank=128",      "precision.weights=bf16",
        "optimizer.state=bf16", "batch.micro=1",        "data.sequence_length=256",
        "train.steps=10",       "train.sample_every=0", NULL
    };
    lay_words(recipe, words);
}

/* 7B: against sizes derived by hand from the shapes. */
static void test_seven_billion(void **state)
{
    (void)state;
    struct recipe recipe;
    struct model_config config;
    struct plan plan;
    struct error err = { 0 };
    const double gib = 1024.0 * 1024.0 * 1024.0;
    open_preset_model("llama-7b", &recipe, &config);
    check(recipe_set(&recipe, "method.side=short", &err), &err);
    check(plan_make(&recipe, &config, &plan, &err), &err);
    assert_int_equal(plan.parameters, INT64_C(6738415616));
    assert_int_equal(plan.bytes[MEMORY_WEIGHTS], UINT64_C(6738415616) * 2);
    /* Selected gradients 32 r (4 * 4096 + 3 * 11008) elements; embedding, head, norms in full. */
    double selected = 1581056.0 * 128.0;
    double dense = 2.0 * 32000.0 * 4096.0 + 65.0 * 4096.0;
    double gradients = 2.0 * (selected + dense);
    assert_true(fabs((double)plan.bytes[MEMORY_GRADIENTS] - gradients) < 1e-4 * gradients);
    double states = 2.0 * gradients;
    assert_true(fabs((double)plan.bytes[MEMORY_OPTIMIZER] - states) < 2e-3 * states);
    assert_true((double)plan.total_bytes < 18.0 * gib);
    assert_true(plan.refresh_flops > plan.step_flops);
    recipe_free(&recipe);
}

/* Full training of 7B on eight GPUs: each holds an eighth of the moments (fp32) of 6738415616
 * parameters, but all of those of 65 norms, and an age of each of 4 matrices a block, embedding,
 * head and norms. */
static void test_eight_gpus(void **state)
{
    (void)state;
    struct recipe recipe;
    struct model_config config;
    struct plan one;
    struct plan eight;
    struct error err = { 0 };
    open_preset_model("llama-7b", &recipe, &config);
    check(recipe_set(&recipe, "method.name=full", &err), &err);
    check(recipe_set(&recipe, "optimizer.state=fp32", &err), &err);
    check(recipe_set(&recipe, "optimizer.name=adamw", &err), &err);
    check(plan_make(&recipe, &config, &one, &err), &err);
    check(plan_make_ranks(&recipe, &config, 8, &eight, &err), &err);
    const size_t norms = 65 * 4096;
    const size_t matrices = 6738415616 - norms;
    const size_t ages = (4 * 32 + 2 + 65) * MEMORY_ALIGNMENT;
    assert_int_equal(one.bytes[MEMORY_OPTIMIZER], 8 * (matrices + norms) + ages);
    assert_int_equal(eight.bytes[MEMORY_OPTIMIZER], 8 * (matrices / 8 + norms) + ages);
    assert_int_equal(eight.bytes[MEMORY_WEIGHTS], one.bytes[MEMORY_WEIGHTS]);
    assert_int_equal(eight.bytes[MEMORY_GRADIENTS], one.bytes[MEMORY_GRADIENTS]);
    assert_int_equal(eight.checkpoint_bytes, one.checkpoint_bytes);
    /* As many bytes as an all-reduce of all gradients, and of loss and norm. */
    double width = (double)dtype_size((enum dtype)recipe.precision_weights);
    double payload = width * 6738415616.0 + 2 * sizeof(float);
    double told = 8 * sizeof(struct rank_report);
    assert_true(eight.step_payload_bytes == payload + told);
    assert_true(eight.step_wire_bytes == 7.0 / 8.0 * (2 * payload + told));
    recipe_free(&recipe);
}

/* 13B in bf16 with Grass fits a 40 GB card; full AdamW does not. */
static void test_thirteen_billion(void **state)
{
    (void)state;
    struct recipe recipe;
    struct model_config config;
    struct plan plan;
    struct error err = { 0 };
    const int64_t card = INT64_C(40) * 1000 * 1000 * 1000;
    open_preset_model("llama-13b", &recipe, &config);
    check(plan_make(&recipe, &config, &plan, &err), &err);
    assert_int_equal(plan.parameters, INT64_C(13015864320));
    assert_int_equal(plan_check(&plan, &recipe, &config, card, &err), 0);
    check(recipe_set(&recipe, "method.name=full", &err), &err);
    check(plan_make(&recipe, &config, &plan, &err), &err);
    assert_int_equal(plan_check(&plan, &recipe, &config, card, &err), -1);
    assert_int_equal(err.code, ERROR_FIT);
    assert_non_null(strstr(err.hint, "method.name=grass"));
    recipe_free(&recipe);
}

static void test_changes_fit(void **state)
{
    (void)state;
    struct fixture f;
    struct error err = { 0 };
    fixture_open(&f, "untied", WORDS("method.name=full"));
    int64_t limit = (int64_t)f.plan.total_bytes * 4 / 10;
    struct plan_change changes[PLAN_CHANGES_MAX];
    size_t count = 0;
    check(plan_changes(&f.recipe, &f.config, &(struct plan_place){ .limit_bytes = limit }, changes,
                       PLAN_CHANGES_MAX, &count, &err),
          &err);
    assert_true(count > 0);
    int grass = 0;
    int galore = 0;
    for (size_t i = 0; i < count; i++) {
        grass += strstr(changes[i].assignments, "method.name=grass method.rank=8") != NULL;
        galore += strstr(changes[i].assignments, "method.name=galore") != NULL;
        struct recipe changed;
        struct plan plan;
        recipe_init(&changed);
        recipe_copy(&changed, &f.recipe);
        char *rest = changes[i].assignments;
        for (char *word = strsep(&rest, " "); word != NULL; word = strsep(&rest, " ")) {
            check(recipe_set(&changed, word, &err), &err);
        }
        check(plan_make(&changed, &f.config, &plan, &err), &err);
        assert_int_equal(plan.total_bytes, changes[i].total_bytes);
        assert_true((int64_t)plan.total_bytes <= limit);
        recipe_free(&changed);
    }
    assert_true(grass > 0 && galore > 0);
    check(plan_changes(&f.recipe, &f.config, &(struct plan_place){ .limit_bytes = 1000 }, changes,
                       PLAN_CHANGES_MAX, &count, &err),
          &err);
    assert_int_equal(count, 0);
    fixture_close(&f);
}

/* Recomputing is offered with the time that its plan predicts, and not where it is done already. */
static void test_recompute_is_offered(void **state)
{
    (void)state;
    struct recipe recipe;
    struct model_config config;
    struct plan plan;
    struct plan block;
    struct plan_change changes[PLAN_CHANGES_MAX];
    struct error err = { 0 };
    size_t count = 0;
    open_preset_model("llama-7b", &recipe, &config);
    config.layers = 4;
    check(recipe_set(&recipe, "data.sequence_length=2048", &err), &err);
    check(plan_make(&recipe, &config, &plan, &err), &err);
    check(recipe_set(&recipe, "activation.recompute=block", &err), &err);
    check(plan_make(&recipe, &config, &block, &err), &err);
    check(recipe_set(&recipe, "activation.recompute=none", &err), &err);
    assert_true(block.total_bytes < plan.total_bytes);
    const struct card *card = card_for((int64_t)block.total_bytes);
    check(plan_changes(&recipe, &config,
                       &(struct plan_place){ .limit_bytes = (int64_t)block.total_bytes }, changes,
                       PLAN_CHANGES_MAX, &count, &err),
          &err);
    bool offered = false;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(changes[i].assignments, "activation.recompute=block") == 0) {
            offered = true;
            double factor =
                plan_step_seconds(&block, &recipe, card) / plan_step_seconds(&plan, &recipe, card);
            assert_true(factor > 1.1 && fabs(changes[i].time_factor - factor) < 1e-9);
            assert_int_equal(changes[i].total_bytes, block.total_bytes);
        }
    }
    assert_true(offered);
    check(recipe_set(&recipe, "activation.recompute=block", &err), &err);
    check(plan_changes(&recipe, &config,
                       &(struct plan_place){ .limit_bytes = (int64_t)block.total_bytes }, changes,
                       PLAN_CHANGES_MAX, &count, &err),
          &err);
    for (size_t i = 0; i < count; i++) {
        assert_null(strstr(changes[i].assignments, "activation.recompute"));
    }
    recipe_free(&recipe);
}

static void test_largest_rank(void **state)
{
    (void)state;
    struct fixture f;
    struct plan plan;
    struct error err = { 0 };
    fixture_open(&f, "untied", WORDS("method.name=grass", "method.rank=20"));
    int64_t limit = (int64_t)f.plan.total_bytes;
    int64_t rank =
        plan_largest_rank(&f.recipe, &f.config, &(struct plan_place){ .limit_bytes = limit });
    assert_true(rank >= 20 && rank < 32);
    char word[64];
    snprintf(word, sizeof word, "method.rank=%lld", (long long)rank + 1);
    check(recipe_set(&f.recipe, word, &err), &err);
    check(plan_make(&f.recipe, &f.config, &plan, &err), &err);
    assert_true((int64_t)plan.total_bytes > limit);
    assert_int_equal(
        plan_largest_rank(&f.recipe, &f.config, &(struct plan_place){ .limit_bytes = 0 }), 32);
    assert_int_equal(
        plan_largest_rank(&f.recipe, &f.config, &(struct plan_place){ .limit_bytes = 1000 }), 0);
    fixture_close(&f);
}

/* Phases that the recipe never runs have no bytes; the others account for the capacity. */
static void test_phases(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, "untied", WORDS("method.name=full"));
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        size_t most = 0;
        assert_int_equal(f.plan.phase_bytes[PHASE_REFRESH][c], 0);
        assert_int_equal(f.plan.phase_bytes[PHASE_SAMPLE][c], 0);
        assert_int_equal(f.plan.phase_bytes[PHASE_EVALUATE][c], 0);
        for (int p = 0; p < PHASE_COUNT; p++) {
            most = f.plan.phase_bytes[p][c] > most ? f.plan.phase_bytes[p][c] : most;
        }
        assert_int_equal(most, f.plan.bytes[c]);
    }
    assert_true(f.plan.largest_count > 0);
    assert_true(f.plan.peak_bytes <= f.plan.total_bytes);
    fixture_close(&f);
}

/* Where some steps do more than others the plan has the mean, with and without a refresh. */
static void test_dear_steps(void **state)
{
    (void)state;
    static const char *const accumulate[] = { "batch.accumulate=1", "batch.accumulate=3" };
    for (int v = 0; v < 4; v++) {
        struct fixture f;
        struct error err = { 0 };
        struct step_result result;
        struct batch batches[3];
        int64_t step = 0;
        double plain = 0.0;
        double refreshing = 0.0;
        fixture_open(&f, "untied",
                     WORDS("method.name=grass", "method.rank=8", "method.unselected_every=4",
                           v & 1 ? "method.interval=1" : "method.interval=100", accumulate[v / 2]));
        for (int i = 0; i < 3; i++) {
            batches[i] = f.batch;
        }
        for (int i = 0; i < 9; i++) { /* the eight after the first are two rounds */
            check(
                trainer_step(f.trainer, ++step, batches, f.recipe.batch_accumulate, &result, &err),
                &err);
            assert_true(result.refreshed == (v & 1 || step == 1));
            plain += step > 1 && !result.refreshed ? result.flops / 8 : 0.0;
            refreshing += step > 1 && result.refreshed ? result.flops / 8 : 0.0;
        }
        double planned = v & 1 ? f.plan.refresh_flops : f.plan.step_flops;
        assert_true(fabs(plain + refreshing - planned) < 1e-9 * planned);
        fixture_close(&f);
    }
}

/* Host memory: a basis a matrix under galore, spans that wait under activation.offload. */
static void test_host_bytes(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, "untied", WORDS("method.name=galore", "method.rank=8"));
    /* Two blocks of seven matrices, whose smaller side is 32 or, of k and v, 16. */
    assert_int_equal(f.plan.host_bytes, 2 * (5 * 32 + 2 * 16) * 8 * sizeof(float));
    assert_int_equal(f.plan.host_bytes, trainer_host_bytes(f.trainer));
    fixture_close(&f);
    fixture_open(&f, "untied", WORDS("method.name=grass", "method.rank=8"));
    assert_int_equal(f.plan.host_bytes, 0);
    struct error err = { 0 };
    struct plan plan;
    f.config.layers = 9;
    check(recipe_set(&f.recipe, "activation.offload=host", &err), &err);
    check(plan_make(&f.recipe, &f.config, &plan, &err), &err);
    assert_int_equal(plan.offload_spans, 6);
    assert_true(plan.host_bytes >= 6 * plan.offload_span_bytes);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_preset),         cmocka_unit_test(test_one_byte_less),
        cmocka_unit_test(test_unknown_tensor),       cmocka_unit_test(test_seven_billion),
        cmocka_unit_test(test_thirteen_billion),     cmocka_unit_test(test_changes_fit),
        cmocka_unit_test(test_largest_rank),         cmocka_unit_test(test_phases),
        cmocka_unit_test(test_recompute_is_offered), cmocka_unit_test(test_dear_steps),
        cmocka_unit_test(test_host_bytes),           cmocka_unit_test(test_eight_gpus),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
