/*
 * Training with sums by the engine "nccl", on a library that stands in for NCCL, with ranks that
 * are threads: the losses of one rank, the bits of the engine "host", whose order of summing the
 * library has too; and one rank alone, whose bits NCCL leaves as they are.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../comm/loopback.h"
#include "engine/base/digest.h"
#include "engine/comm/engine.h"
#include "engine/comm/nccl.h"
#include "ranked.h"

#define FAKE FAKE_NCCL_FOLDER "/whole/libnccl.so.2"

enum { STEPS = 6, RANKS_MAX = 4 };

/* One training on all its ranks. Nothing is asserted on the threads of ranks. */
struct training {
    const char *const *words;
    bool nccl;
    size_t bucket_bytes;
    struct batch batch[STEPS][RANKED_MICRO_BATCHES];
    float loss[RANKS_MAX][STEPS];
    char digest[RANKS_MAX][DIGEST_TEXT_SIZE];
    char engine[RANKS_MAX][8];
    struct comm_counts counts[RANKS_MAX];
    int layers[RANKS_MAX]; /* sums that begin with gradients of layers */
    char error[RANKS_MAX][256];
};

static int train(struct training *t, struct comm *comm, struct trainer *trainer, struct error *err)
{
    for (int64_t step = 1; step <= STEPS; step++) {
        struct batch batches[RANKED_MICRO_BATCHES];
        struct step_result result;
        for (int i = 0; i < RANKED_MICRO_BATCHES; i++) {
            batches[i] = ranked_share(comm, &t->batch[step - 1][i]);
        }
        if (trainer_step(trainer, step, batches, RANKED_MICRO_BATCHES, &result, err) != 0) {
            return -1;
        }
        t->loss[comm->rank][step - 1] = result.loss;
    }
    return 0;
}

static void count_layers(void *context, const char *last)
{
    int *layers = context;
    *layers += strncmp(last, "all-reduce of model.layers", 26) == 0;
}

static int use_nccl(struct comm *comm, struct trainer *trainer, struct error *err)
{
    char why[256];
    const struct nccl_options options = { .library = FAKE };
    if (comm_use_nccl(comm, trainer->be, &options, why, sizeof why)) {
        return 0;
    }
    return comm_check(comm, err) != 0 ? -1 : (fail)(err, ERROR_RUNTIME, "%s", why);
}

/* The weights, which are whole on every rank. */
static int digest_weights(struct trainer *trainer, char text[DIGEST_TEXT_SIZE], struct error *err)
{
    int rc = 0;
    struct digest *digest = digest_begin();
    int64_t states = trainer_state_count(trainer);
    for (int64_t i = 0; rc == 0 && i < states; i++) {
        struct state_entry entry;
        trainer_state_entry(trainer, i, &entry);
        if (entry.split) {
            continue;
        }
        int64_t n = entry.dim[0] * entry.dim[1] * entry.dim[2] * entry.dim[3];
        void *values = malloc((size_t)n * dtype_size(entry.dtype) + 1);
        rc = trainer_state_read(trainer, i, 0, n, values, err);
        digest_add(digest, entry.name, strlen(entry.name));
        digest_add(digest, values, (size_t)n * dtype_size(entry.dtype));
        free(values);
    }
    digest_end(digest, text);
    return rc;
}

static void rank_work(struct comm *comm, void *context)
{
    struct training *t = context;
    struct error err = { 0 };
    struct recipe recipe;
    struct plan plan;
    struct trainer *trainer = NULL;
    comm->bucket_bytes = t->bucket_bytes;
    int rc = ranked_recipe(&recipe, t->words, comm->ranks, &err);
    if (rc == 0) {
        trainer = ranked_trainer(&recipe, comm, &plan, &err);
        rc = trainer != NULL ? 0 : -1;
    }
    if (rc == 0 && t->nccl) {
        rc = use_nccl(comm, trainer, &err);
    }
    comm->counts = (struct comm_counts){ 0 };
    comm->begun = count_layers;
    comm->begun_context = &t->layers[comm->rank];
    if (rc == 0) {
        rc = train(t, comm, trainer, &err);
    }
    t->counts[comm->rank] = comm->counts;
    snprintf(t->engine[comm->rank], sizeof t->engine[0], "%s", comm->ops->name);
    if (rc == 0) {
        rc = digest_weights(trainer, t->digest[comm->rank], &err);
    }
    comm->begun = NULL;
    bool planned = rc != 0 || ranked_used(trainer, &plan);
    snprintf(t->error[comm->rank], sizeof t->error[0], "%.200s%s", rc != 0 ? err.message : "",
             planned ? "" : "plan != used");
    comm_leave_device(comm);
    ranked_close(trainer);
    recipe_free(&recipe);
}

static struct training *run_training(const char *const *words, int ranks, bool nccl,
                                     size_t bucket_bytes)
{
    struct training *t = calloc(1, sizeof *t);
    struct dice dice = { .state = 23 };
    struct error err = { 0 };
    t->words = words;
    t->nccl = nccl;
    t->bucket_bytes = bucket_bytes;
    for (int s = 0; s < STEPS; s++) {
        for (int i = 0; i < RANKED_MICRO_BATCHES; i++) {
            check(batch_init(&t->batch[s][i], RANKED_ROWS, RANKED_SEQUENCE, &err), &err);
            small_batch(&dice, ranked_config.vocabulary, &t->batch[s][i]);
        }
    }
    loopback_run(&(struct loopback_options){ .ranks = ranks, .silent_rank = -1 }, rank_work, t);
    for (int p = 0; p < ranks; p++) {
        if (t->error[p][0] != '\0') {
            fail_msg("%s ...: rank %d of %d: %s", words[0], p, ranks, t->error[p]);
        }
        assert_string_equal(t->engine[p], nccl ? "nccl" : "host");
    }
    return t;
}

static void free_training(struct training *t)
{
    for (int s = 0; s < STEPS; s++) {
        for (int i = 0; i < RANKED_MICRO_BATCHES; i++) {
            batch_free(&t->batch[s][i]);
        }
    }
    free(t);
}

static void expect_same_bits(const struct training *a, const struct training *b, int ranks)
{
    for (int p = 0; p < ranks; p++) {
        assert_memory_equal(a->loss[p], b->loss[p], sizeof a->loss[p]);
        assert_string_equal(a->digest[p], b->digest[p]);
    }
}

#define GRASS "method.name=grass", "method.rank=4", "method.interval=3"

static const char *const *const cases[] = {
    WORDS("method.name=full"),
    WORDS("method.name=full", "precision.weights=bf16"),
    WORDS("method.name=full", "method.embedding=rows"),
    WORDS(GRASS),
    WORDS(GRASS, "method.selection=norm", "method.head=rows"),
};
enum { CASES = sizeof cases / sizeof cases[0] };

static void test_several(void **state)
{
    (void)state;
    for (size_t i = 0; i < CASES; i++) {
        bool half = i == 1;
        struct training *one = run_training(cases[i], 1, false, COMM_BUCKET_BYTES);
        for (int ranks = 2; ranks <= RANKS_MAX; ranks += 2) {
            struct training *host = run_training(cases[i], ranks, false, COMM_BUCKET_BYTES);
            struct training *nccl = run_training(cases[i], ranks, true, COMM_BUCKET_BYTES);
            struct training *early = run_training(cases[i], ranks, true, 1);
            expect_same_bits(host, nccl, ranks);
            expect_same_bits(host, early, ranks);
            for (int s = 0; s < STEPS; s++) {
                float a = one->loss[0][s];
                float b = nccl->loss[ranks - 1][s];
                float most = half ? 2e-2f : 1e-5f; /* weights are rounded to 8 bits */
                if (!(fabsf(a - b) <= most * fabsf(a))) {
                    fail_msg("%s, %d ranks, step %d: loss %.8g, of one rank %.8g", cases[i][0],
                             ranks, s + 1, (double)b, (double)a);
                }
            }
            assert_true(nccl->counts[0].payload_bytes == host->counts[0].payload_bytes);
            assert_true(nccl->counts[0].wire_bytes == host->counts[0].wire_bytes);
            assert_int_equal(nccl->counts[0].hops, host->counts[0].hops);
            assert_true(early->counts[0].hops > nccl->counts[0].hops);
            free_training(host);
            free_training(nccl);
            free_training(early);
        }
        free_training(one);
    }
}

static void test_one(void **state)
{
    (void)state;
    for (size_t i = 0; i < CASES; i++) {
        struct training *host = run_training(cases[i], 1, false, COMM_BUCKET_BYTES);
        struct training *nccl = run_training(cases[i], 1, true, 1);
        expect_same_bits(host, nccl, 1);
        assert_int_equal(host->layers[0], 0);
        assert_true(nccl->layers[0] >= STEPS * 2 * 2); /* at least their norms, two a block */
        assert_true(nccl->counts[0].payload_bytes == 0.0);
        free_training(host);
        free_training(nccl);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_several),
        cmocka_unit_test(test_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
