/*
 * The same bits on the emulated device, which may order blocks, threads and streams as it likes:
 * ten runs of a recipe end alike, and a run that is stopped, saved and resumed on a fresh device
 * ends like one that never stopped.
 */
#include <stdlib.h>
#include <string.h>

#include "saved_states.h"
#include "simt/order.h"
#include "small.h"
#include "tests/llama.h"

/* Rows are chosen in steps 1 and 4 (with method.stagger in others too). */
enum { RUNS = 10, STEPS = 5 };

static const struct model_config tiny = {
    LLAMA_REST,          .hidden_size = 16,       .intermediate_size = 24, .layers = 1,
    .heads = 2,          .kv_heads = 1,           .head_size = 8,          .vocabulary = 24,
    .max_positions = 16, .initializer_range = 0.3
};

struct way {
    bool eager;   /* inputs are copied as early as the streams allow */
    bool reverse; /* order of blocks and threads */
    int stop;     /* another trainer on a fresh device goes on after so many steps; 0: none */
    bool forget;  /* it is not given the states */
    int layers;
};

struct outcome {
    float loss[STEPS];
    int refreshes[STEPS]; /* so far */
    char digest[DIGEST_TEXT_SIZE];
    int64_t replays;
};

static void make_recipe(struct recipe *recipe, const char *const *words)
{
    static const char *const common[] = { "device=cuda",
                                          "model.init=random",
                                          "data.sequence_length=8",
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

static struct backend *open_device(void)
{
    char why[256];
    struct backend *be = backend_open("cuda", 0, why, sizeof why);
    assert_non_null(be);
    return be;
}

static void train(const struct recipe *recipe, const struct way *way, struct outcome *out)
{
    struct error err = { 0 };
    struct plan plan;
    struct batch batch;
    struct dice dice = { .state = 99 };
    struct model_config config = tiny;
    config.layers = way->layers;
    memset(out, 0, sizeof *out);
    setenv("SIMT_FEEDS", way->eager ? "eager" : "late", 1);
    simt_reverse(way->reverse);
    struct backend *be = open_device();
    check(plan_make(recipe, &config, &plan, &err), &err);
    struct trainer *trainer = small_trainer(recipe, &config, &plan, be);
    check(batch_init(&batch, recipe->batch_micro, recipe->data_sequence_length, &err), &err);
    for (int s = 0; s < STEPS; s++) {
        struct step_result result;
        if (way->stop > 0 && s == way->stop) {
            struct backend *fresh = open_device();
            struct trainer *next = small_trainer(recipe, &config, &plan, fresh);
            if (!way->forget) {
                states_copy(next, trainer, &err);
            }
            trainer_close(trainer);
            backend_close(be);
            trainer = next;
            be = fresh;
        }
        small_batch(&dice, config.vocabulary, &batch);
        check(trainer_step(trainer, s + 1, &batch, 1, &result, &err), &err);
        out->loss[s] = result.loss;
        out->refreshes[s] = (s > 0 ? out->refreshes[s - 1] : 0) + (result.refreshed ? 1 : 0);
    }
    out->replays = be->tally.replays;
    small_digest(trainer, out->digest);
    batch_free(&batch);
    trainer_close(trainer);
    backend_close(be);
}

static bool same(const struct outcome *a, const struct outcome *b)
{
    return memcmp(a->loss, b->loss, sizeof a->loss) == 0 && strcmp(a->digest, b->digest) == 0;
}

/* ---- ten runs ------------------------------------------------------------------------------- */

static void ten_runs(const char *const *words, int refreshes)
{
    struct outcome first;
    struct outcome again;
    struct recipe recipe;
    make_recipe(&recipe, words);
    train(&recipe, &(struct way){ .layers = 1 }, &first);
    assert_int_equal(first.refreshes[STEPS - 1], refreshes);
    assert_true(first.replays > 0); /* recorded steps are among those compared */
    for (int i = 1; i < RUNS; i++) {
        train(&recipe, &(struct way){ .eager = i / 2 % 2 == 1, .reverse = i % 2 == 1, .layers = 1 },
              &again);
        if (!same(&first, &again)) {
            fail_msg("run %d of %s %s ends with other bits", i + 1, words[0], words[1]);
        }
    }
    recipe_free(&recipe);
}

static void ten_runs_of_full(void **state)
{
    (void)state;
    ten_runs(WORDS("method.name=full", "precision.weights=bf16", "precision.rounding=stochastic"),
             0);
}

static void ten_runs_of_grass(void **state)
{
    (void)state;
    ten_runs(WORDS("method.name=grass", "method.side=out"), 2);
    ten_runs(WORDS("method.name=grass", "method.exact_rows=true", "precision.weights=bf16"), 2);
    ten_runs(WORDS("method.name=grass", "method.inputs=columns", "method.side=in",
                   "precision.weights=bf16", "precision.rounding=stochastic"),
             2);
}

/* ---- resuming ------------------------------------------------------------------------------- */

/* Stops after each of `stop` (ended by 0) steps. */
static void resume(const char *const *words, int layers, const int *stop)
{
    struct outcome whole;
    struct outcome stopped;
    struct recipe recipe;
    make_recipe(&recipe, words);
    train(&recipe, &(struct way){ .layers = layers }, &whole);
    for (int i = 0; stop[i] > 0; i++) {
        struct way way = { .layers = layers, .stop = stop[i] };
        train(&recipe, &way, &stopped);
        if (!same(&whole, &stopped)) {
            fail_msg("%s %s resumed after step %d ends with other bits", words[0], words[1],
                     stop[i]);
        }
        if (whole.refreshes[STEPS - 1] > 0) { /* one before the stop, one after */
            assert_true(whole.refreshes[stop[i] - 1] > 0);
            assert_true(whole.refreshes[STEPS - 1] > whole.refreshes[stop[i] - 1]);
        }
    }
    /* The states matter. */
    train(&recipe, &(struct way){ .layers = layers, .stop = stop[0], .forget = true }, &stopped);
    assert_false(same(&whole, &stopped));
    recipe_free(&recipe);
}
#define STOPS(...) ((const int[]){ __VA_ARGS__, 0 })

static void full_resumes(void **state)
{
    (void)state;
    resume(WORDS("method.name=full", "precision.weights=bf16", "precision.rounding=stochastic"), 1,
           STOPS(2));
    resume(WORDS("method.name=full", "optimizer.state=int8"), 1, STOPS(2));
    resume(WORDS("method.name=full", "method.embedding=rows"), 1, STOPS(2));
}

static void grass_resumes(void **state)
{
    (void)state;
    resume(WORDS("method.name=grass", "method.carry=true", "method.exact_rows=true",
                 "precision.weights=bf16"),
           1, STOPS(2, 3));
    resume(WORDS("method.name=grass", "method.inputs=columns", "method.side=in",
                 "method.carry=false", "optimizer.state=int8"),
           1, STOPS(2));
    resume(WORDS("method.name=grass", "method.stagger=true", "method.embedding=rows",
                 "method.head=rows", "precision.weights=bf16", "precision.rounding=stochastic"),
           2, STOPS(2, 3));
}

static void galore_and_lora_resume(void **state)
{
    (void)state;
    resume(WORDS("method.name=galore", "precision.weights=bf16"), 1, STOPS(2));
    resume(WORDS("method.name=lora", "precision.weights=bf16"), 1, STOPS(2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ten_runs_of_full),       cmocka_unit_test(ten_runs_of_grass),
        cmocka_unit_test(full_resumes),           cmocka_unit_test(grass_resumes),
        cmocka_unit_test(galore_and_lora_resume),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
