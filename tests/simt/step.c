/*
 * Training steps on the emulated device: the same bits whether micro-batches are recorded or not,
 * whether inputs are copied as early or as late as the streams allow, and whether activations stay
 * or leave the device, also across refreshes and a live change of the rank; one wait a step (two
 * where rows are chosen); no memory taken after the second step; exactly the planned memory used;
 * the same times of the phases, where a piece of work is a millisecond.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/activation/store.h"
#include "kernels/ops.h"
#include "simt/order.h"
#include "small.h"
#include "tests/llama.h"

enum { STEPS = 6, CHANGE_AFTER = 4, RANK = 4, NEW_RANK = 2 };

static const struct model_config shallow = {
    LLAMA_REST,          .hidden_size = 8,        .intermediate_size = 12, .layers = 1,
    .heads = 2,          .kv_heads = 1,           .head_size = 4,          .vocabulary = 20,
    .max_positions = 32, .initializer_range = 0.3
};

/* How the steps are run. */
struct way {
    bool record;
    bool eager;        /* inputs are copied as early as the streams allow */
    bool reverse;      /* order of blocks and threads */
    bool change;       /* of the rank, in the middle */
    int steps;         /* 0: STEPS */
    bool choice_waits; /* a refresh waits for each matrix */
    int layers;        /* 0: as the configuration says */
};

struct outcome {
    float loss[STEPS];
    char digest[DIGEST_TEXT_SIZE];
    struct backend_tally before[STEPS]; /* each step */
    struct backend_tally after[STEPS];
    bool refreshed[STEPS];
    double phase_ms[STEPS][PHASE_COUNT];
    double flops;
};

static void make_recipe(struct recipe *recipe, const char *const *words)
{
    static const char *const common[] = { "device=cuda",
                                          "model.init=random",
                                          "data.sequence_length=5",
                                          "batch.micro=1",
                                          "method.rank=4",
                                          "method.interval=3",
                                          "optimizer.lr=0.01",
                                          "schedule.warmup=0",
                                          "train.steps=20",
                                          NULL };
    recipe_init(recipe);
    lay_words(recipe, common);
    lay_words(recipe, words);
}

static struct model_config config_of(const struct way *way)
{
    struct model_config config = shallow;
    config.layers = way->layers > 0 ? way->layers : shallow.layers;
    return config;
}

static void change_rank(struct trainer *trainer, const struct model_config *config,
                        struct recipe *recipe, struct plan *plan)
{
    struct error err = { 0 };
    recipe->method_rank = NEW_RANK;
    check(plan_make(recipe, config, plan, &err), &err);
    check(trainer_apply(trainer, recipe, plan->bytes, &err), &err);
}

static void check_memory(struct trainer *trainer, const struct plan *plan)
{
    for (int c = 0; c < MEMORY_CATEGORY_COUNT; c++) {
        assert_int_equal(memory_peak(trainer_memory(trainer), (enum memory_category)c),
                         plan->bytes[c]);
    }
}

/* Trains on batches that differ from step to step. */
static void train(const struct recipe *wanted, const struct way *way, struct outcome *out)
{
    struct error err = { 0 };
    struct recipe recipe;
    struct plan plan;
    char why[256];
    struct dice dice = { .state = 99 };
    struct model_config config = config_of(way);
    recipe_init(&recipe);
    recipe_copy(&recipe, wanted);
    setenv("SIMT_CLOCK", "work", 1);
    setenv("SIMT_FEEDS", way->eager ? "eager" : "late", 1);
    simt_reverse(way->reverse);
    struct backend *be = backend_open("cuda", 0, why, sizeof why);
    assert_non_null(be);
    be->replays_off = !way->record;
    check(plan_make(&recipe, &config, &plan, &err), &err);
    struct store *store = small_store(&recipe, &plan, be);
    struct trainer *trainer = small_trainer_with(&recipe, &config, &plan, be, store);
    struct batch *batch = calloc((size_t)recipe.batch_accumulate, sizeof *batch);
    for (int64_t i = 0; i < recipe.batch_accumulate; i++) {
        check(batch_init(&batch[i], recipe.batch_micro, recipe.data_sequence_length, &err), &err);
    }
    backend_clear_counts(be);
    for (int s = 0; s < (way->steps > 0 ? way->steps : STEPS); s++) {
        struct step_result result;
        for (int64_t i = 0; i < recipe.batch_accumulate; i++) {
            small_batch(&dice, config.vocabulary, &batch[i]);
        }
        if (way->change && s == CHANGE_AFTER) {
            change_rank(trainer, &config, &recipe, &plan);
        }
        out->before[s] = be->tally;
        check(trainer_step(trainer, s + 1, batch, recipe.batch_accumulate, &result, &err), &err);
        out->after[s] = be->tally;
        out->loss[s] = result.loss;
        out->refreshed[s] = result.refreshed;
        memcpy(out->phase_ms[s], result.phase_ms, sizeof result.phase_ms);
    }
    out->flops = backend_total(be).flops;
    check_memory(trainer, &plan);
    small_digest(trainer, out->digest);
    for (int64_t i = 0; i < recipe.batch_accumulate; i++) {
        batch_free(&batch[i]);
    }
    free(batch);
    trainer_close(trainer);
    store_close(store);
    backend_close(be);
    recipe_free(&recipe);
}

static void check_same(const struct outcome *a, const struct outcome *b)
{
    assert_memory_equal(a->loss, b->loss, sizeof a->loss);
    assert_string_equal(a->digest, b->digest);
    assert_true(a->flops == b->flops); /* replays are counted like the operations themselves */
}

/* Work of each phase: as much whether it is recorded or not. */
static void check_times(const struct outcome *a, const struct outcome *b)
{
    for (int s = 0; s < STEPS; s++) {
        for (int phase = 0; phase < PHASE_COUNT; phase++) {
            double ms = a->phase_ms[s][phase];
            bool some = phase == PHASE_FORWARD || phase == PHASE_BACKWARD || phase == PHASE_UPDATE;
            assert_float_equal(b->phase_ms[s][phase], ms, 1e-3);
            bool maybe = phase == PHASE_REFRESH || phase == PHASE_IDLE; /* what begins a step */
            assert_true(some ? ms > 5.0 : maybe || !(ms > 0.0));
        }
    }
}

static void check_tally(const struct outcome *o, const struct way *way)
{
    for (int s = 0; s < (way->steps > 0 ? way->steps : STEPS); s++) {
        const struct backend_tally *before = &o->before[s];
        const struct backend_tally *after = &o->after[s];
        int64_t waits = after->waits - before->waits;
        assert_true(o->refreshed[s] ? waits > 1 && (waits == 2 || way->choice_waits) : waits == 1);
        /* Memory moved in a change of rank: what was recorded there is recorded anew, once. */
        bool changed = way->change && s > CHANGE_AFTER && s <= CHANGE_AFTER + 1;
        bool makes = way->choice_waits && o->refreshed[s]; /* a snapshot of a large basis, say */
        if (s >= 2 && !changed && !makes) {
            assert_int_equal(after->allocations, before->allocations);
        }
    }
}

static void train_all_ways(const char *const *words, bool change)
{
    static struct outcome plain;
    static struct outcome other;
    struct recipe recipe;
    make_recipe(&recipe, words);
    bool galore = strcmp(recipe.method_name, "galore") == 0;
    const struct way ways[] = {
        { .record = true, .change = change, .choice_waits = galore },
        { .record = true, .eager = true, .change = change, .choice_waits = galore },
    };
    const struct way plainly = { .change = change, .choice_waits = galore };
    train(&recipe, &plainly, &plain);
    check_tally(&plain, &plainly);
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        memset(&other, 0, sizeof other);
        train(&recipe, &ways[i], &other);
        check_same(&plain, &other);
        check_times(&plain, &other);
        check_tally(&other, &ways[i]);
        for (int s = 0; s < STEPS && strcmp(recipe.method_name, "grass") == 0; s++) {
            assert_int_equal(other.phase_ms[s][PHASE_REFRESH] > 0.0, other.refreshed[s]);
        }
        assert_int_equal(other.after[STEPS - 1].replays > 0, ways[i].record);
    }
    recipe_free(&recipe);
}

static void test_full(void **state)
{
    (void)state;
    train_all_ways(WORDS("method.name=full"), false);
    train_all_ways(WORDS("method.name=full", "batch.accumulate=6", "precision.weights=bf16"),
                   false);
}

static void test_grass(void **state)
{
    (void)state;
    train_all_ways(WORDS("method.name=grass", "batch.accumulate=3", "precision.weights=bf16",
                         "precision.rounding=stochastic"),
                   true);
    train_all_ways(WORDS("method.name=grass", "method.side=in"), true);
    /* What is kept of the inputs is chosen by the rows in use. */
    train_all_ways(
        WORDS("method.name=grass", "method.side=in", "method.inputs=columns", "batch.accumulate=2"),
        false);
}

/* Between refreshes, and always where nothing is chosen. */
static void test_galore_and_lora(void **state)
{
    (void)state;
    train_all_ways(WORDS("method.name=galore", "precision.weights=bf16", "batch.accumulate=2"),
                   true);
    train_all_ways(WORDS("method.name=lora", "batch.accumulate=3", "precision.weights=bf16"),
                   false);
}

/* Bases by the library for tests, and by the host where it does not start: nearly the same course.
 */
static void test_exact_bases(void **state)
{
    (void)state;
    static struct outcome library;
    static struct outcome host;
    const char *const *words = WORDS("method.name=galore", "method.projection=svd");
    struct way way = { .record = true, .choice_waits = true, .steps = 4 };
    struct recipe recipe;
    if (!op_eigenvectors_built()) {
        skip();
    }
    train_all_ways(words, false);
    make_recipe(&recipe, words);
    train(&recipe, &way, &library);
    setenv("FAKE_CUSOLVER", "no-start", 1);
    train(&recipe, &way, &host);
    unsetenv("FAKE_CUSOLVER");
    assert_int_equal(library.after[3].host_solves, 0);
    assert_true(host.after[3].host_solves > 0);
    for (int s = 0; s < 4; s++) {
        assert_float_equal(library.loss[s], host.loss[s], s == 0 ? 0.0f : 5e-3f);
    }
    recipe_free(&recipe);
}

/* A sample is drawn anew in every step: nothing is recorded. */
static void test_sample(void **state)
{
    (void)state;
    static struct outcome drawn;
    struct way way = { .record = true, .steps = 3 };
    struct recipe recipe;
    make_recipe(&recipe, WORDS("method.name=full", "activation.sample=crs", "activation.keep=0.5"));
    train(&recipe, &way, &drawn);
    assert_int_equal(drawn.after[2].captures, 0);
    recipe_free(&recipe);
}

/* A replay is what most micro-batches are. */
static void test_replays(void **state)
{
    (void)state;
    static struct outcome out;
    struct way way = { .record = true, .reverse = true, .steps = 4 };
    struct recipe recipe;
    make_recipe(&recipe, WORDS("method.name=grass"));
    train(&recipe, &way, &out);
    /* Steps 1 and 4 choose rows, step 2 records, step 3 is replayed. */
    assert_int_equal(out.after[3].replays, 1);
    assert_int_equal(out.after[3].captures, 1);
    recipe_free(&recipe);
}

/* What leaves the device comes back the same, however early or late the copies are made, and nobody
 * waits for the device. Such micro-batches are never recorded. */
static void offload_both_ways(const char *place, int layers, const char *const *words)
{
    static struct outcome plain;
    static struct outcome other;
    struct way way = { .record = true, .layers = layers, .steps = 3 };
    struct recipe recipe;
    make_recipe(&recipe, words);
    train(&recipe, &way, &plain);
    assert_true(plain.after[2].captures > 0);
    lay_words(&recipe, WORDS(place));
    for (int eager = 0; eager < 2; eager++) {
        way.eager = eager == 1;
        memset(&other, 0, sizeof other);
        train(&recipe, &way, &other);
        check_same(&plain, &other);
        check_tally(&other, &way);
        assert_int_equal(other.after[2].captures, 0);
        assert_int_equal(other.after[2].replays, 0);
    }
    recipe_free(&recipe);
}

static void test_offload(void **state)
{
    (void)state;
    offload_both_ways("activation.offload=ssd", 8, WORDS("method.name=full", "batch.accumulate=2"));
    offload_both_ways(
        "activation.offload=host", 5,
        WORDS("method.name=grass", "activation.recompute=block", "precision.weights=bf16"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_grass),
        cmocka_unit_test(test_galore_and_lora),
        cmocka_unit_test(test_exact_bases),
        cmocka_unit_test(test_sample),
        cmocka_unit_test(test_replays),
        cmocka_unit_test(test_offload),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
