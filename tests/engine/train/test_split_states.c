/*
 * Optimizer states that are split over the ranks: what each rank holds, saving whole tensors and
 * taking them back on another number of ranks, changes between steps, and what rank 0 is told.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../comm/loopback.h"
#include "ranked.h"

enum { STEPS = 9, MICRO_BATCHES = RANKED_MICRO_BATCHES };

/* All states of a trainer, as a checkpoint has them. */
struct saved {
    int64_t count;
    struct state_entry *entry;
    char (*name)[STATE_NAME_SIZE];
    void **data;
    struct trainer_counters counters;
};

static int refuse(struct error *err, const char *why)
{
    snprintf(err->message, sizeof err->message, "%s", why);
    return -1;
}

static int64_t elements_of(const struct state_entry *entry)
{
    return entry->dim[0] * entry->dim[1] * entry->dim[2] * entry->dim[3];
}

static size_t bytes_of(const struct state_entry *entry)
{
    return (size_t)elements_of(entry) * dtype_size(entry->dtype);
}

static void free_saved(struct saved *saved)
{
    for (int64_t i = 0; i < saved->count; i++) {
        free(saved->data[i]);
    }
    free(saved->entry);
    free(saved->name);
    free(saved->data);
    *saved = (struct saved){ 0 };
}

/* On all ranks; rank 0 fills `saved`. */
static int save(struct trainer *trainer, struct saved *saved, struct error *err)
{
    if (trainer->comm->rank > 0) {
        return trainer_serve_states(trainer, err);
    }
    int rc = 0;
    trainer_show_states(trainer);
    int64_t count = trainer_state_count(trainer);
    free_saved(saved);
    saved->entry = calloc((size_t)count, sizeof *saved->entry);
    saved->name = calloc((size_t)count, sizeof *saved->name);
    saved->data = calloc((size_t)count, sizeof *saved->data);
    for (int64_t i = 0; i < count && rc == 0; i++) {
        struct state_entry *entry = &saved->entry[saved->count];
        trainer_state_entry(trainer, i, entry);
        memcpy(saved->name[saved->count], entry->name, strlen(entry->name) + 1);
        entry->name = saved->name[saved->count];
        saved->data[saved->count++] = malloc(bytes_of(entry) + 1);
        rc = trainer_state_read(trainer, i, 0, elements_of(entry), saved->data[i], err);
    }
    trainer_counters(trainer, &saved->counters);
    trainer_show_end(trainer);
    return rc;
}

static int64_t find_saved(void *context, const char *name, struct state_entry *entry)
{
    const struct saved *saved = context;
    for (int64_t i = 0; i < saved->count; i++) {
        if (strcmp(saved->name[i], name) == 0) {
            *entry = saved->entry[i];
            return i;
        }
    }
    return -1;
}

static int read_saved(void *context, int64_t index, int64_t first, int64_t count, void *out,
                      struct error *err)
{
    const struct saved *saved = context;
    (void)err;
    size_t width = dtype_size(saved->entry[index].dtype);
    memcpy(out, (const char *)saved->data[index] + (size_t)first * width, (size_t)count * width);
    return 0;
}

static void assert_same(const struct saved *a, const struct saved *b)
{
    assert_int_equal(a->count, b->count);
    for (int64_t i = 0; i < a->count; i++) {
        assert_string_equal(a->name[i], b->name[i]);
        assert_int_equal(bytes_of(&a->entry[i]), bytes_of(&b->entry[i]));
        if (memcmp(a->data[i], b->data[i], bytes_of(&a->entry[i])) != 0) {
            fail_msg("%s differs", a->name[i]);
        }
    }
}

/* ---- a part of a run ------------------------------------------------------------------------ */

/* Steps [first, last] on some ranks. Nothing is asserted on their threads. */
struct life {
    const char *const *words;
    const struct batch (*batch)[MICRO_BATCHES];
    int ranks;
    int first;
    int last;
    struct saved *from; /* NULL: it begins */
    struct saved again; /* what is saved at once after restoring */
    struct saved to;
    /* Done at the end, on every rank. */
    int (*then)(struct trainer *trainer, struct life *life, struct error *err);
    size_t split_bytes[LOOPBACK_RANKS_MAX]; /* that a rank holds of what is split */
    size_t whole_bytes;                     /* of all that is split */
    struct plan plan;
    float loss[STEPS + 1];
    bool well[LOOPBACK_RANKS_MAX];
    char error[LOOPBACK_RANKS_MAX][256];
    bool finite_alone;
    bool finite_of_all;
    char bad[STATE_NAME_SIZE];
};

static int train(struct trainer *trainer, struct life *life, struct error *err)
{
    struct comm *comm = trainer->comm;
    for (int step = life->first; step <= life->last; step++) {
        struct batch batches[MICRO_BATCHES];
        struct step_result result;
        for (int i = 0; i < MICRO_BATCHES; i++) {
            batches[i] = ranked_share(comm, &life->batch[step - 1][i]);
        }
        if (trainer_step(trainer, step, batches, MICRO_BATCHES, &result, err) != 0) {
            return -1;
        }
        if (comm->rank == 0) {
            life->loss[step] = result.loss;
        }
    }
    return 0;
}

static void measure_split(struct trainer *trainer, struct life *life)
{
    int64_t count = trainer_state_count(trainer);
    size_t here = 0;
    size_t whole = 0;
    for (int64_t i = 0; i < count; i++) {
        struct state_entry entry;
        trainer_state_entry(trainer, i, &entry);
        if (entry.split) {
            whole += bytes_of(&entry);
            here += bytes_of(&entry) / (size_t)entry.dim[0] * (size_t)entry.here_count;
        }
    }
    life->split_bytes[trainer->comm->rank] = here;
    if (trainer->comm->rank == 0) {
        life->whole_bytes = whole;
    }
}

static int live(struct trainer *trainer, struct life *life, struct error *err)
{
    struct state_source source = { find_saved, read_saved, life->from };
    if (life->from != NULL && (trainer_restore(trainer, &source, &life->from->counters, err) != 0 ||
                               save(trainer, &life->again, err) != 0)) {
        return -1;
    }
    if (train(trainer, life, err) != 0) {
        return -1;
    }
    measure_split(trainer, life);
    if (!ranked_used(trainer, &life->plan)) {
        return refuse(err, "plan != used");
    }
    if (life->then != NULL && life->then(trainer, life, err) != 0) {
        return -1;
    }
    return save(trainer, &life->to, err);
}

static void rank_work(struct comm *comm, void *context)
{
    struct life *life = context;
    struct error err = { 0 };
    struct recipe recipe;
    struct plan plan;
    struct trainer *trainer = NULL;
    int rc = ranked_recipe(&recipe, life->words, comm->ranks, &err);
    if (rc == 0) {
        trainer = ranked_trainer(&recipe, comm, &plan, &err);
        rc = trainer != NULL ? 0 : -1;
    }
    if (comm->rank == 0) {
        life->plan = plan;
    }
    comm_sum_count(comm, 0); /* all ranks see the plan */
    if (rc == 0) {
        rc = live(trainer, life, &err);
    }
    life->well[comm->rank] = rc == 0;
    snprintf(life->error[comm->rank], sizeof life->error[0], "%.200s", err.message);
    ranked_close(trainer);
    recipe_free(&recipe);
}

static void run_life(struct life *life)
{
    loopback_run(&(struct loopback_options){ .ranks = life->ranks, .silent_rank = -1 }, rank_work,
                 life);
    for (int p = 0; p < life->ranks; p++) {
        if (!life->well[p]) {
            fail_msg("%s ...: rank %d of %d: %s", life->words[0], p, life->ranks, life->error[p]);
        }
    }
}

static void free_life(struct life *life)
{
    free_saved(&life->again);
    free_saved(&life->to);
}

/* ---- the batches of a run ------------------------------------------------------------------- */

static struct batch batches[STEPS][MICRO_BATCHES];

static int make_batches(void **state)
{
    (void)state;
    struct dice dice = { .state = 23 };
    struct error err = { 0 };
    for (int s = 0; s < STEPS; s++) {
        for (int i = 0; i < MICRO_BATCHES; i++) {
            check(batch_init(&batches[s][i], RANKED_ROWS, RANKED_SEQUENCE, &err), &err);
            small_batch(&dice, ranked_config.vocabulary, &batches[s][i]);
        }
    }
    return 0;
}

static int free_batches(void **state)
{
    (void)state;
    for (int s = 0; s < STEPS; s++) {
        for (int i = 0; i < MICRO_BATCHES; i++) {
            batch_free(&batches[s][i]);
        }
    }
    return 0;
}

static struct life life_of(const char *const *words, int ranks, int first, int last)
{
    return (struct life){ .words = words,
                          .batch = (const struct batch(*)[MICRO_BATCHES])batches,
                          .ranks = ranks,
                          .first = first,
                          .last = last };
}

/* ---- other numbers of ranks ----------------------------------------------------------------- */

/* Four ranks, then two, then one: states come back to the bit, and the losses are those of one rank
 * that was never disturbed, as far as `tolerance` (of bits that are rounded at random or coarsely,
 * not at all: NAN). */
static void check_fewer(const char *const *words, float tolerance)
{
    struct life one = life_of(words, 1, 1, STEPS);
    struct life part[3] = { life_of(words, 4, 1, 3), life_of(words, 2, 4, 6),
                            life_of(words, 1, 7, STEPS) };
    run_life(&one);
    for (int i = 0; i < 3; i++) {
        part[i].from = i > 0 ? &part[i - 1].to : NULL;
        run_life(&part[i]);
        if (i > 0) {
            assert_same(&part[i - 1].to, &part[i].again);
        }
        for (int step = part[i].first; step <= part[i].last; step++) {
            float apart = fabsf(part[i].loss[step] - one.loss[step]);
            if (apart > tolerance * one.loss[step] || !isfinite(part[i].loss[step])) {
                fail_msg("%s %s, step %d: loss %.8g, undisturbed %.8g", words[0], words[1], step,
                         (double)part[i].loss[step], (double)one.loss[step]);
            }
        }
    }
    for (int i = 0; i < 3; i++) {
        free_life(&part[i]);
    }
    free_life(&one);
}

static void test_fewer_ranks(void **state)
{
    (void)state;
    check_fewer(WORDS("method.name=full", "optimizer.name=adamw"), 1e-5f);
    check_fewer(WORDS("method.name=full", "optimizer.name=tradam"), 1e-5f);
    check_fewer(WORDS("method.name=full", "optimizer.name=sgd"), 1e-5f);
    check_fewer(WORDS("method.name=full", "method.embedding=rows"), 1e-5f);
    check_fewer(WORDS("method.name=full", "method.frozen=k_proj"), 1e-5f);
    check_fewer(WORDS("method.name=full", "method.embedding=rows", "optimizer.state=int8"), NAN);
    check_fewer(WORDS("method.name=grass", "method.rank=4", "method.interval=2"), 1e-5f);
    check_fewer(WORDS("method.name=grass", "method.rank=4", "method.interval=2", "method.head=rows",
                      "method.embedding=rows"),
                1e-5f);
    check_fewer(WORDS("method.name=galore", "method.rank=4", "method.interval=2"), 1e-5f);
    check_fewer(WORDS("method.name=lora", "method.rank=2"), 1e-5f);
    check_fewer(WORDS("method.name=full", "precision.exchange=bf16"), 2e-3f);
    check_fewer(WORDS("method.name=full", "optimizer.state=bf16"), NAN);
    check_fewer(WORDS("method.name=full", "optimizer.state=int8"), NAN);
    check_fewer(WORDS("method.name=full", "precision.weights=bf16"), NAN);
}

/* ---- what a rank holds ---------------------------------------------------------------------- */

static size_t placed(size_t bytes)
{
    return (bytes + MEMORY_ALIGNMENT - 1) / MEMORY_ALIGNMENT * MEMORY_ALIGNMENT;
}

/* Two moments of a share of each matrix, two of each norm, and ages: by rows the embedding has one
 * for each word. */
static void check_bytes(bool by_rows, int ranks)
{
    static const struct {
        int64_t rows, columns, count;
    } matrices[] = {
        { 37, 16, 2 }, { 32, 16, 2 }, { 16, 16, 2 }, { 48, 16, 2 }, { 16, 24, 2 },
    };
    const char *embedding = by_rows ? "method.embedding=rows" : "method.embedding=dense";
    struct life life = life_of(WORDS("method.name=full", embedding), ranks, 1, 2);
    size_t expected = 5 * (2 * placed(16 * sizeof(float)) + placed(sizeof(int32_t)));
    size_t split = by_rows ? 37 * sizeof(int32_t) : 0;
    run_life(&life);
    if (by_rows) {
        size_t share = (size_t)(37 + ranks - 1) / (size_t)ranks;
        expected += placed(share * sizeof(int32_t)) - placed(sizeof(int32_t));
    }
    for (size_t i = 0; i < sizeof matrices / sizeof matrices[0]; i++) {
        int64_t share = (matrices[i].rows + ranks - 1) / ranks;
        size_t moments = 2 * (size_t)matrices[i].columns * sizeof(float);
        expected += (size_t)matrices[i].count *
                    (2 * placed((size_t)share * moments / 2) + placed(sizeof(int32_t)));
        split += (size_t)(matrices[i].count * matrices[i].rows) * moments;
    }
    assert_int_equal(life.plan.bytes[MEMORY_OPTIMIZER], expected);
    assert_int_equal(life.whole_bytes, ranks == 1 ? 0 : split);
    size_t of_all = 0;
    for (int p = 0; p < ranks; p++) {
        of_all += life.split_bytes[p];
    }
    assert_int_equal(of_all, life.whole_bytes); /* every row is somewhere, and once */
    free_life(&life);
}

static void test_bytes_of_a_rank(void **state)
{
    (void)state;
    for (int ranks = 1; ranks <= 4; ranks *= 2) {
        check_bytes(false, ranks);
        check_bytes(true, ranks);
    }
}

/* Where few words occur some ranks have none to update: all of them are of the first rank, or of
 * the last. */
static void test_few_words(void **state)
{
    (void)state;
    for (int32_t least = 0; least <= 34; least += 34) {
        static struct batch few[STEPS][MICRO_BATCHES];
        struct error err = { 0 };
        for (int s = 0; s < STEPS; s++) {
            for (int i = 0; i < MICRO_BATCHES; i++) {
                check(batch_init(&few[s][i], RANKED_ROWS, RANKED_SEQUENCE, &err), &err);
                struct dice dice = { .state = (uint64_t)(100 + s * MICRO_BATCHES + i) };
                small_batch(&dice, 3, &few[s][i]);
                for (int t = 0; t < RANKED_ROWS * RANKED_SEQUENCE; t++) {
                    few[s][i].ids[t] += least;
                }
            }
        }
        struct life one = life_of(WORDS("method.name=full", "method.embedding=rows"), 1, 1, STEPS);
        struct life four = life_of(WORDS("method.name=full", "method.embedding=rows"), 4, 1, STEPS);
        one.batch = (const struct batch(*)[MICRO_BATCHES])few;
        four.batch = one.batch;
        run_life(&one);
        run_life(&four);
        for (int step = 1; step <= STEPS; step++) {
            assert_true(fabsf(one.loss[step] - four.loss[step]) <= 1e-5f * one.loss[step]);
        }
        free_life(&one);
        free_life(&four);
        for (int s = 0; s < STEPS; s++) {
            for (int i = 0; i < MICRO_BATCHES; i++) {
                batch_free(&few[s][i]);
            }
        }
    }
}

/* ---- between steps -------------------------------------------------------------------------- */

/* Memory is laid out anew for a little more workspace. */
static int change_settings(struct trainer *trainer, struct life *life, struct error *err)
{
    struct recipe recipe;
    size_t capacity[MEMORY_CATEGORY_COUNT];
    uint64_t before = trainer->layout;
    int rc = save(trainer, &life->again, err);
    memcpy(capacity, life->plan.bytes, sizeof capacity);
    capacity[MEMORY_WORKSPACE] += MEMORY_ALIGNMENT;
    recipe_init(&recipe);
    recipe_copy(&recipe, trainer_recipe(trainer));
    if (rc == 0) {
        rc = trainer_apply(trainer, &recipe, capacity, err);
    }
    recipe_free(&recipe);
    if (rc == 0 && trainer->layout == before) {
        rc = refuse(err, "nothing was laid out anew");
    }
    return rc;
}

static void test_live_change(void **state)
{
    (void)state;
    const char *const *const words[] = {
        WORDS("method.name=full"),
        WORDS("method.name=full", "optimizer.state=int8"),
        WORDS("method.name=grass", "method.rank=4"),
        WORDS("method.name=full", "method.embedding=rows"),
    };
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        struct life life = life_of(words[i], 2, 1, 3);
        life.then = change_settings;
        run_life(&life);
        assert_same(&life.again, &life.to);
        free_life(&life);
    }
}

/* ---- what rank 0 is told -------------------------------------------------------------------- */

/* A row of the head's moments on the last rank is spoilt. Rank 0 sees it only while all show what
 * they have; when it has seen enough it may end at any time. */
static int spoil(struct trainer *trainer, struct life *life, struct error *err)
{
    struct comm *comm = trainer->comm;
    const char *bad = "";
    float nan_value = NAN;
    if (comm->rank == comm->ranks - 1) {
        struct owned_rows *owned = &trainer->dense.owned[trainer->model.head->id];
        struct tensor last = tensor_row_range(&owned->state.slot[1], owned->count - 1, 1);
        backend_upload(trainer->be, last.data, &nan_value, sizeof nan_value);
    }
    if (comm->rank > 0) {
        return trainer_serve_states(trainer, err);
    }
    life->finite_alone = trainer_state_finite(trainer, &bad);
    trainer_show_states(trainer);
    life->finite_of_all = trainer_state_finite(trainer, &bad);
    snprintf(life->bad, sizeof life->bad, "%s", bad);
    trainer_show_end(trainer);
    return 0;
}

static void test_not_finite(void **state)
{
    (void)state;
    struct life life = life_of(WORDS("method.name=full"), 4, 1, 2);
    life.then = spoil;
    run_life(&life);
    assert_true(life.finite_alone);
    assert_false(life.finite_of_all);
    assert_string_equal(life.bad, "optimizer/lm_head.weight/v");
    free_life(&life);
}

/* A save that breaks off, as on a full disk: the ranks train on. */
static int break_off(struct trainer *trainer, struct life *life, struct error *err)
{
    struct error refused = { 0 };
    float value;
    int rc = 0;
    if (trainer->comm->rank > 0) {
        rc = trainer_serve_states(trainer, err);
    } else {
        int64_t count = trainer_state_count(trainer);
        int64_t split = -1;
        for (int64_t i = 0; i < count && split < 0; i++) {
            struct state_entry entry;
            trainer_state_entry(trainer, i, &entry);
            split = entry.split ? i : -1;
        }
        if (trainer_state_read(trainer, split, 0, 1, &value, &refused) == 0) {
            rc = refuse(err, "what others hold was read unasked");
        }
        trainer_show_states(trainer);
        trainer_state_count(trainer);
        if (trainer_state_read(trainer, split, 20 * 16, 1, &value, err) != 0) {
            rc = -1;
        }
        trainer_show_end(trainer);
    }
    life->first = 3;
    life->last = 4;
    return rc == 0 ? train(trainer, life, err) : -1;
}

static void test_break_off(void **state)
{
    (void)state;
    struct life life = life_of(WORDS("method.name=full"), 2, 1, 2);
    struct life whole = life_of(WORDS("method.name=full"), 2, 1, 4);
    life.then = break_off;
    run_life(&life);
    run_life(&whole);
    assert_same(&life.to, &whole.to);
    free_life(&life);
    free_life(&whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fewer_ranks), cmocka_unit_test(test_bytes_of_a_rank),
        cmocka_unit_test(test_few_words),   cmocka_unit_test(test_live_change),
        cmocka_unit_test(test_not_finite),  cmocka_unit_test(test_break_off),
    };
    return cmocka_run_group_tests(tests, make_batches, free_batches);
}
