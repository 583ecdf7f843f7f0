/*
 * Several ranks against one with the same global batch: the same losses and weights for every
 * method, the same bits on all ranks, and the bytes that are exchanged.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../comm/loopback.h"
#include "ranked.h"

enum { STEPS = 7, MICRO_BATCHES = RANKED_MICRO_BATCHES };

/* One case on all its ranks. Nothing is asserted on the threads of ranks. */
struct rank_case {
    const char *const *words;
    int ranks;
    struct batch batch[STEPS][MICRO_BATCHES]; /* of all ranks together: ROWS rows */
    float loss[LOOPBACK_RANKS_MAX][STEPS];
    char digest[LOOPBACK_RANKS_MAX][DIGEST_TEXT_SIZE];
    float *weights[LOOPBACK_RANKS_MAX];
    int64_t weight_count[LOOPBACK_RANKS_MAX];
    double sent[LOOPBACK_RANKS_MAX];
    double wire[LOOPBACK_RANKS_MAX];
    struct plan plan;
    bool whole[LOOPBACK_RANKS_MAX]; /* ended without an error, in planned memory */
    char error[LOOPBACK_RANKS_MAX][256];
};

static float *read_weights(struct trainer *trainer, int64_t *count, struct error *err)
{
    float *out = NULL;
    int64_t states = trainer_state_count(trainer);
    *count = 0;
    for (int64_t i = 0; i < states; i++) {
        struct state_entry entry;
        trainer_state_entry(trainer, i, &entry);
        int64_t n = entry.dim[0] * entry.dim[1] * entry.dim[2] * entry.dim[3];
        if (!entry.weight || entry.dtype != DTYPE_F32) {
            continue;
        }
        out = realloc(out, (size_t)(*count + n) * sizeof *out);
        if (trainer_state_read(trainer, i, 0, n, out + *count, err) != 0) {
            break;
        }
        *count += n;
    }
    return out;
}

/* Of everything that every rank has whole: weights too. */
static int digest_whole(struct trainer *trainer, char text[DIGEST_TEXT_SIZE], struct error *err)
{
    struct digest *digest = digest_begin();
    int64_t count = trainer_state_count(trainer);
    int rc = 0;
    for (int64_t i = 0; i < count && rc == 0; i++) {
        struct state_entry entry;
        trainer_state_entry(trainer, i, &entry);
        int64_t n = entry.dim[0] * entry.dim[1] * entry.dim[2] * entry.dim[3];
        if (entry.split) {
            continue;
        }
        void *values = malloc((size_t)n * dtype_size(entry.dtype) + 1);
        rc = trainer_state_read(trainer, i, 0, n, values, err);
        digest_add(digest, entry.name, strlen(entry.name));
        digest_add(digest, values, (size_t)n * dtype_size(entry.dtype));
        free(values);
    }
    digest_end(digest, text);
    return rc;
}

static int train(struct trainer *trainer, struct comm *comm, struct rank_case *c, struct error *err)
{
    for (int64_t step = 1; step <= STEPS; step++) {
        struct batch batches[MICRO_BATCHES];
        struct step_result result;
        for (int i = 0; i < MICRO_BATCHES; i++) {
            batches[i] = ranked_share(comm, &c->batch[step - 1][i]);
        }
        double before = comm->counts.payload_bytes;
        double wire = comm->counts.wire_bytes;
        if (trainer_step(trainer, step, batches, MICRO_BATCHES, &result, err) != 0) {
            return -1;
        }
        c->sent[comm->rank] = comm->counts.payload_bytes - before;
        c->wire[comm->rank] = comm->counts.wire_bytes - wire;
        c->loss[comm->rank][step - 1] = result.loss;
    }
    return 0;
}

static void rank_work(struct comm *comm, void *context)
{
    struct rank_case *c = context;
    struct error err = { 0 };
    struct recipe recipe;
    struct plan plan = { 0 };
    struct trainer *trainer = NULL;
    int rc = ranked_recipe(&recipe, c->words, comm->ranks, &err);
    if (rc == 0) {
        trainer = ranked_trainer(&recipe, comm, &plan, &err);
        rc = trainer != NULL ? train(trainer, comm, c, &err) : -1;
    }
    bool planned = rc != 0 || ranked_used(trainer, &plan);
    if (rc == 0) {
        c->weights[comm->rank] = read_weights(trainer, &c->weight_count[comm->rank], &err);
        rc = digest_whole(trainer, c->digest[comm->rank], &err);
    }
    if (comm->rank == 0) {
        c->plan = plan;
    }
    c->whole[comm->rank] = rc == 0 && planned;
    snprintf(c->error[comm->rank], sizeof c->error[0], "%.200s%s", err.message,
             planned ? "" : "plan != used");
    ranked_close(trainer);
    recipe_free(&recipe);
}

static struct rank_case *run_case(const char *const *words, int ranks)
{
    struct rank_case *c = calloc(1, sizeof *c);
    struct dice dice = { .state = 11 };
    struct error err = { 0 };
    c->words = words;
    c->ranks = ranks;
    for (int s = 0; s < STEPS; s++) {
        for (int i = 0; i < MICRO_BATCHES; i++) {
            check(batch_init(&c->batch[s][i], RANKED_ROWS, RANKED_SEQUENCE, &err), &err);
            small_batch(&dice, ranked_config.vocabulary, &c->batch[s][i]);
        }
    }
    loopback_run(&(struct loopback_options){ .ranks = ranks, .silent_rank = -1 }, rank_work, c);
    for (int p = 0; p < ranks; p++) {
        if (!c->whole[p]) {
            fail_msg("%s ...: rank %d of %d: %s", words[0], p, ranks, c->error[p]);
        }
    }
    return c;
}

static void free_case(struct rank_case *c)
{
    for (int p = 0; p < c->ranks; p++) {
        free(c->weights[p]);
    }
    for (int s = 0; s < STEPS; s++) {
        for (int i = 0; i < MICRO_BATCHES; i++) {
            batch_free(&c->batch[s][i]);
        }
    }
    free(c);
}

/* The same on all ranks, and close to what one rank finds. */
static void compare(const struct rank_case *one, const struct rank_case *many)
{
    double square = 0.0;
    double difference = 0.0;
    for (int p = 0; p < many->ranks; p++) {
        assert_string_equal(many->digest[0], many->digest[p]);
        for (int s = 0; s < STEPS; s++) {
            float a = one->loss[0][s];
            float b = many->loss[p][s];
            if (!(fabsf(a - b) <= 1e-5f * fabsf(a))) {
                fail_msg("%s, %d ranks, step %d: loss %.8g, of one rank %.8g", many->words[0],
                         many->ranks, s + 1, (double)b, (double)a);
            }
        }
    }
    assert_int_equal(one->weight_count[0], many->weight_count[0]);
    for (int64_t i = 0; i < one->weight_count[0]; i++) {
        double a = (double)one->weights[0][i];
        double d = (double)many->weights[0][i] - a;
        square += a * a;
        difference += d * d;
    }
    if (!(sqrt(difference) <= 1e-4 * sqrt(square))) {
        fail_msg("%s, %d ranks: weights differ by %g of their norm", many->words[0], many->ranks,
                 sqrt(difference / square));
    }
}

/* ---- every method ---------------------------------------------------------------------------- */

#define GRASS "method.name=grass", "method.rank=4", "method.interval=3"

static const char *const *const cases[] = {
    WORDS("method.name=full"),
    WORDS("method.name=full", "method.embedding=rows"),
    WORDS("method.name=full", "optimizer.name=sgd"),
    WORDS("method.name=full", "optimizer.name=tradam"),
    WORDS("method.name=full", "method.frozen=k_proj"),
    WORDS(GRASS),
    WORDS(GRASS, "method.selection=norm"),
    WORDS(GRASS, "method.selection=norm2", "method.unbiased=true"),
    WORDS(GRASS, "method.selection=uniform", "method.carry=false"),
    WORDS(GRASS, "method.side=in"),
    WORDS(GRASS, "method.side=short"),
    WORDS(GRASS, "method.sketch=8"),
    WORDS(GRASS, "method.unselected_every=2"),
    WORDS(GRASS, "method.head=rows", "method.embedding=rows"),
    WORDS(GRASS, "method.stagger=true"),
    WORDS("method.name=galore", "method.rank=4", "method.interval=3"),
    WORDS("method.name=galore", "method.rank=4", "method.interval=3", "method.stagger=false"),
    WORDS("method.name=lora", "method.rank=2"),
};

static void check_methods(int ranks)
{
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct rank_case *one = run_case(cases[i], 1);
        struct rank_case *many = run_case(cases[i], ranks);
        compare(one, many);
        free_case(one);
        free_case(many);
    }
}

static void test_two(void **state)
{
    (void)state;
    check_methods(2);
}

static void test_four(void **state)
{
    (void)state;
    check_methods(4);
}

/* ---- bytes ----------------------------------------------------------------------------------- */

/* Gradients that exist between refreshes, in bytes of fp32, and what is small. */
static void test_bytes(void **state)
{
    (void)state;
    const double hidden = 16;
    const double norms = 5 * hidden;
    const double ends = 2 * 37 * hidden; /* embedding and head */
    const double attention = (16 + 8 + 8 + 16) * hidden;
    const double ffn = 3 * 24 * hidden;
    /* Rows of each matrix: rank * dimension / hidden, (4 + 2 + 2 + 4) and (6 + 6) of the hidden
     * size, and of down 4 of the intermediate size. */
    const double selected = 12 * hidden + 12 * hidden + 4 * 24;
    /* The loss, the squares of split gradients, and what two ranks tell. */
    const double told = 2 * sizeof(struct rank_report);
    const double small = 4 + 4 + told;
    struct rank_case *full = run_case(cases[0], 2);
    struct rank_case *grass =
        run_case(WORDS("method.name=grass", "method.rank=4", "method.interval=100"), 2);
    assert_true(full->sent[0] == 4 * (norms + ends + 2 * (attention + ffn)) + small);
    assert_true(grass->sent[0] == 4 * (norms + ends + 2 * selected) + small);
    /* Of two ranks each sends half of what it does not own, and of what it owns to the other: as
     * many bytes as a sum of all of it would take. */
    assert_true(full->wire[0] == full->sent[0] - told + told / 2);
    for (int p = 0; p < 2; p++) {
        assert_true(full->sent[p] == full->plan.step_payload_bytes);
        assert_true(full->wire[p] == full->plan.step_wire_bytes);
        assert_true(grass->sent[p] == grass->plan.step_payload_bytes);
    }
    assert_true(full->plan.refresh_payload_bytes == 0.0);
    /* A refresh sums every matrix in full besides. */
    assert_true(grass->plan.refresh_payload_bytes - grass->plan.step_payload_bytes ==
                4 * 2 * (attention + ffn));
    free_case(full);
    free_case(grass);
}

/* ---- what ranks tell ------------------------------------------------------------------------- */

enum { TELLING_STEPS = 2, SLOW_US = 60 * 1000 };

struct telling {
    struct rank_case *c;
    struct rank_report reports[2][2]; /* [by whom they were read][of whom] */
    double exchange_ms[2];
    double phase_ms[2];
};

/* Rank 1 comes late to its last step. */
static void tell_work(struct comm *comm, void *context)
{
    struct telling *t = context;
    struct error err = { 0 };
    struct recipe recipe;
    char why[128];
    struct plan plan;
    struct backend *be = backend_open("cpu", 0, why, sizeof why);
    int rc = ranked_recipe(&recipe, t->c->words, comm->ranks, &err);
    rc = rc == 0 ? plan_make_ranks(&recipe, &ranked_config, comm->ranks, &plan, &err) : rc;
    struct trainer_options options = {
        .recipe = &recipe, .config = &ranked_config, .be = be, .comm = comm, .capacity = plan.bytes
    };
    struct trainer *trainer = rc == 0 ? trainer_open(&options, &err) : NULL;
    struct step_result result = { .exchange_ms = (double)NAN };
    for (int64_t step = 1; trainer != NULL && step <= TELLING_STEPS; step++) {
        struct batch batches[MICRO_BATCHES];
        for (int i = 0; i < MICRO_BATCHES; i++) {
            batches[i] = ranked_share(comm, &t->c->batch[step - 1][i]);
        }
        struct rank_report mine = { .step_s = 0.5 + comm->rank,
                                    .peak_bytes = 1000 * step + comm->rank,
                                    .gpu_util = (double)NAN };
        trainer_tell_ranks(trainer, &mine);
        if (comm->rank == 1 && step == TELLING_STEPS) {
            usleep(SLOW_US);
        }
        rc = trainer_step(trainer, step, batches, MICRO_BATCHES, &result, &err);
    }
    if (trainer != NULL && rc == 0) {
        memcpy(t->reports[comm->rank], trainer_rank_reports(trainer), sizeof t->reports[0]);
        t->exchange_ms[comm->rank] = result.exchange_ms;
        for (int i = PHASE_FORWARD; i <= PHASE_UPDATE; i++) {
            t->phase_ms[comm->rank] += result.phase_ms[i];
        }
    }
    snprintf(t->c->error[comm->rank], sizeof t->c->error[0], "%.200s", err.message);
    trainer_close(trainer);
    backend_close(be);
    recipe_free(&recipe);
}

/* Every rank hears what each told with the latest step, and who waited for whom shows. */
static void test_telling(void **state)
{
    (void)state;
    struct rank_case *c = run_case(cases[0], 2);
    struct telling t = { .c = c };
    loopback_run(&(struct loopback_options){ .ranks = 2, .silent_rank = -1 }, tell_work, &t);
    for (int reader = 0; reader < 2; reader++) {
        assert_string_equal(c->error[reader], "");
        int64_t tokens = 0;
        for (int p = 0; p < 2; p++) {
            const struct rank_report *told = &t.reports[reader][p];
            assert_true(told->step_s == 0.5 + p);
            assert_int_equal(told->peak_bytes, 1000 * TELLING_STEPS + p);
            assert_true(isnan(told->gpu_util));
            tokens += told->tokens;
        }
        assert_int_equal(tokens, c->batch[1][0].trained_tokens + c->batch[1][1].trained_tokens);
        assert_true(t.exchange_ms[reader] > 0.0 && t.phase_ms[reader] > 0.0);
    }
    assert_true(t.exchange_ms[0] >= 1e-3 * SLOW_US / 2);
    assert_true(t.exchange_ms[0] > t.exchange_ms[1]);
    free_case(c);
}

/* ---- another format on the way -------------------------------------------------------------- */

/* In bf16 half the bytes go around for fp32 gradients, and losses stay within 2e-3 (relative) of
 * those without; bf16 gradients that are summed in fp32 take twice the bytes, and are what this
 * engine makes of them anyway, to the bit. */
static void test_formats(void **state)
{
    (void)state;
    static const struct {
        const char *method, *more;
    } kinds[] = { { "method.name=full", "train.steps=7" },
                  { "method.name=full", "method.embedding=rows" },
                  { "method.name=grass", "method.rank=4" },
                  { "method.name=galore", "method.rank=4" },
                  { "method.name=lora", "method.rank=2" } };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        const char *method = kinds[i].method;
        const char *more = kinds[i].more;
        struct rank_case *plain = run_case(WORDS(method, more), 2);
        struct rank_case *half = run_case(WORDS(method, more, "precision.exchange=bf16"), 2);
        /* The loss, squares where anything is split, what ranks tell, ids where they decide. */
        bool rows = strcmp(more, "method.embedding=rows") == 0;
        const double small = 4 + (strcmp(method, "method.name=lora") != 0 ? 4 : 0) +
                             2 * (double)sizeof(struct rank_report) +
                             (rows ? MICRO_BATCHES * RANKED_ROWS * RANKED_SEQUENCE * 4 : 0);
        assert_true(half->sent[0] - small == (plain->sent[0] - small) / 2);
        assert_true(half->sent[0] == half->plan.step_payload_bytes);
        assert_string_equal(half->digest[0], half->digest[1]);
        for (int s = 0; s < STEPS; s++) {
            float apart = fabsf(half->loss[0][s] - plain->loss[0][s]);
            assert_true(apart <= 2e-3f * plain->loss[0][s]);
        }
        assert_true(strcmp(half->digest[0], plain->digest[0]) != 0);
        free_case(plain);
        free_case(half);
    }
    const char *const embeddings[] = { "method.embedding=dense", "method.embedding=rows" };
    for (int i = 0; i < 2; i++) {
        struct rank_case *plain =
            run_case(WORDS("method.name=full", embeddings[i], "precision.weights=bf16"), 2);
        struct rank_case *wide =
            run_case(WORDS("method.name=full", embeddings[i], "precision.weights=bf16",
                           "precision.exchange=fp32"),
                     2);
        assert_string_equal(plain->digest[0], wide->digest[0]);
        assert_true(wide->sent[0] > 1.7 * plain->sent[0] && wide->sent[0] < 2.1 * plain->sent[0]);
        assert_true(wide->sent[0] == wide->plan.step_payload_bytes);
        free_case(plain);
        free_case(wide);
    }
}

/* ---- beside the backward --------------------------------------------------------------------- */

enum { ASKED_MAX = 64 };

/* What rank 0 begins to send, and in which phase of which step. */
struct asking {
    struct rank_case *c;
    struct trainer *trainer;
    int count;
    char name[ASKED_MAX][64];
    enum trainer_phase phase[ASKED_MAX];
    char error[2][256];
};

static void note_begun(void *context, const char *last)
{
    struct asking *a = context;
    if (a->count < ASKED_MAX) {
        snprintf(a->name[a->count], sizeof a->name[0], "%.63s", last);
        a->phase[a->count++] = a->trainer->phase;
    }
}

static void asking_work(struct comm *comm, void *context)
{
    struct asking *a = context;
    struct error err = { 0 };
    struct recipe recipe;
    struct plan plan;
    struct step_result result;
    comm->bucket_bytes = 1; /* each tensor by itself */
    int rc = ranked_recipe(&recipe, a->c->words, comm->ranks, &err);
    struct trainer *trainer = rc == 0 ? ranked_trainer(&recipe, comm, &plan, &err) : NULL;
    if (comm->rank == 0) {
        a->trainer = trainer;
        comm->begun = note_begun;
        comm->begun_context = a;
    }
    struct batch batches[MICRO_BATCHES];
    for (int i = 0; trainer != NULL && i < MICRO_BATCHES; i++) {
        batches[i] = ranked_share(comm, &a->c->batch[0][i]);
    }
    if (trainer != NULL) {
        trainer_step(trainer, 1, batches, MICRO_BATCHES, &result, &err);
    }
    snprintf(a->error[comm->rank], sizeof a->error[0], "%.200s", err.message);
    ranked_close(trainer);
    recipe_free(&recipe);
}

static int count_begun(const struct asking *a, const char *verb, enum trainer_phase phase)
{
    int count = 0;
    for (int i = 0; i < a->count; i++) {
        count += a->phase[i] == phase && strncmp(a->name[i], verb, strlen(verb)) == 0;
    }
    return count;
}

/* Full training sums the head once the loss is there, each layer right after its product, the last
 * one first, and what is left (embedding, norms, loss) after the backward of the last micro-batch.
 * Grass, which may be replayed, sums all of it after the backward. */
static void test_beside_the_backward(void **state)
{
    (void)state;
    for (int grass = 0; grass < 2; grass++) {
        struct rank_case *c = run_case(cases[grass ? 5 : 0], 2);
        struct asking a = { .c = c };
        loopback_run(&(struct loopback_options){ .ranks = 2, .silent_rank = -1 }, asking_work, &a);
        assert_string_equal(a.error[0], "");
        assert_string_equal(a.error[1], "");
        int early = grass ? 0 : 1;
        assert_int_equal(count_begun(&a, "reduce-scatter", PHASE_FORWARD), early);
        assert_int_equal(count_begun(&a, "reduce-scatter of lm_head", PHASE_FORWARD), early);
        assert_int_equal(count_begun(&a, "reduce-scatter of lm_head", PHASE_BACKWARD), 1 - early);
        assert_int_equal(count_begun(&a, "reduce-scatter of model.layers", PHASE_BACKWARD),
                         early * 8);
        assert_int_equal(count_begun(&a, "all-gather of", PHASE_UPDATE), early * 8 + 2);
        int head = 0;
        int embedding = 0;
        int first_layer = 0;
        int last_layer = 0;
        for (int i = 0; i < a.count; i++) {
            bool sum = strncmp(a.name[i], "reduce-scatter", 14) == 0;
            head = sum && strstr(a.name[i], "lm_head") != NULL ? i : head;
            embedding = sum && strstr(a.name[i], "embed_tokens") != NULL ? i : embedding;
            first_layer = sum && strstr(a.name[i], "layers.0.") != NULL ? i : first_layer;
            last_layer = sum && strstr(a.name[i], "layers.1.") != NULL ? i : last_layer;
        }
        assert_true(grass || (head < last_layer && last_layer < first_layer));
        assert_true(grass || first_layer < embedding);
        free_case(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two),
        cmocka_unit_test(test_four),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_beside_the_backward),
        cmocka_unit_test(test_telling),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
