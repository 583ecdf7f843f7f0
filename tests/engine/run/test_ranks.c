/* What rank 0 decides between two steps, on ranks that are threads: a live change that one of them
 * cannot make. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../comm/loopback.h"
#include "engine/base/xalloc.h"
#include "engine/run/fixture.h"
#include "engine/run/parts.h"
#include "kernels/backend_ops.h"

enum { RANKS = 3, STEPS = 4 };

/* One try of a change between steps, and what each rank ends with. Nothing is asserted on the
 * threads of ranks. */
struct rank_case {
    const struct fixture *fixture;
    const char *directory;
    const char *change; /* NULL: none */
    int poor;           /* the rank whose device has nothing for the change; -1: all can */
    int failures;       /* so many allocations in a row */
    int stranger;       /* the rank that has other data; 0: none */
    int answer[RANKS];  /* of the change, or (others than 0) of all that was obeyed */
    char error[RANKS][1024];
    char hint[RANKS][512];
    bool broken[RANKS];
    bool together[RANKS]; /* it knows that all end */
    int code[RANKS];      /* with which all end before the first step */
    int64_t method_rank[RANKS];
    int64_t optimizer_bytes[RANKS];
    char digest[RANKS][DIGEST_TEXT_SIZE];
};

/* The device of one rank that has nothing for `failures` allocations. */
static struct {
    const struct backend *be;
    const struct backend_ops *real;
    struct backend_ops ops;
    int failures; /* written by rank 0 before the order to it */
} scarce;

static void *scarce_alloc(struct backend *be, size_t bytes)
{
    if (be == scarce.be && __atomic_load_n(&scarce.failures, __ATOMIC_SEQ_CST) > 0) {
        __atomic_sub_fetch(&scarce.failures, 1, __ATOMIC_SEQ_CST);
        return NULL;
    }
    return scarce.real->alloc(be, bytes);
}

static void make_scarce(struct backend *be)
{
    scarce.real = be->ops;
    scarce.ops = *be->ops;
    scarce.ops.alloc = scarce_alloc;
    scarce.be = be;
    be->ops = &scarce.ops;
}

/* Of the thread of a rank that finds other bytes than the others behind the data's path. */
static __thread bool elsewhere;

static int open_elsewhere(const char *path, int flags, mode_t mode)
{
    const char *data = elsewhere ? strstr(path, "data.txt") : NULL;
    if (!data) {
        return open(path, flags, mode);
    }
    char *other = xasprintf("%.*sdiff.txt", (int)(data - path), path);
    int fd = open(other, flags, mode);
    free(other);
    return fd;
}

static int try(struct run *run, const struct rank_case *c, struct error *err)
{
    struct recipe effective;
    struct plan plan;
    recipe_init(&effective);
    recipe_copy(&effective, &run->effective);
    int result = recipe_set(&effective, c->change, err);
    if (result == 0) {
        result = plan_make_ranks(&effective, &run->material.config, RANKS, &plan, err);
    }
    if (result == 0) {
        __atomic_store_n(&scarce.failures, c->failures, __ATOMIC_SEQ_CST);
        run_order_settings(run, &effective);
        result = run_apply(run, &effective, &plan, err);
        __atomic_store_n(&scarce.failures, 0, __ATOMIC_SEQ_CST);
    }
    recipe_free(&effective);
    return result;
}

static int lead(struct run *run, struct rank_case *c, struct error *err)
{
    struct step_result ignored;
    int result = 0;
    for (int step = 0; step < STEPS && result == 0 && !run->broken; step++) {
        run_order_step(run);
        result = run_step(run, &ignored, err);
        if (result == 0 && step == 1 && c->change) {
            c->answer[0] = try(run, c, err);
        }
    }
    if (result == 0 && !run->broken) {
        run_order_stop(run, 0);
    }
    return result;
}

static void digest_states(struct trainer *trainer, char text[DIGEST_TEXT_SIZE])
{
    struct digest *digest = digest_begin();
    struct error err = { 0 };
    int64_t count = trainer_state_count(trainer);
    for (int64_t i = 0; i < count; i++) {
        struct state_entry entry;
        trainer_state_entry(trainer, i, &entry);
        int64_t elements = entry.dim[0] * entry.dim[1] * entry.dim[2] * entry.dim[3];
        size_t bytes = (size_t)elements * dtype_size(entry.dtype);
        void *out = xcalloc(bytes + 1, 1);
        trainer_state_read(trainer, i, 0, elements, out, &err);
        digest_add(digest, out, bytes);
        free(out);
    }
    digest_end(digest, text);
}

static void note(struct run *run, struct rank_case *c, const struct error *err)
{
    int rank = run->comm->rank;
    snprintf(c->error[rank], sizeof c->error[rank], "%s", err->message);
    snprintf(c->hint[rank], sizeof c->hint[rank], "%s", err->hint);
    c->broken[rank] = run->broken;
    c->together[rank] = run->ended_together;
    c->code[rank] = run->end_code;
    if (run->trainer && !run->broken) {
        c->method_rank[rank] = trainer_recipe(run->trainer)->method_rank;
        c->optimizer_bytes[rank] = (int64_t)run->plan.bytes[MEMORY_OPTIMIZER];
        digest_states(run->trainer, c->digest[rank]);
    }
}

static void train(struct comm *comm, void *context)
{
    struct rank_case *c = context;
    struct run_options options = { .recipe = &c->fixture->recipe, .directory = c->directory };
    struct run run = { .options = &options, .directory = { .lock = -1, .events = -1 } };
    struct error err = { 0 };
    int code = 0;
    run.comm = comm;
    int rank = comm->rank;
    elsewhere = rank > 0 && rank == c->stranger;
    int result = run_prepare(&run, &err);
    if (result == 0 && rank == c->poor) {
        make_scarce(run.be);
    }
    if (result == 0) {
        result = rank == 0 ? lead(&run, c, &err) : run_follow(&run, &code, &err);
    }
    if (rank > 0 || result != 0) {
        c->answer[rank] = result;
    }
    note(&run, c, &err);
    if (result != 0) {
        comm_fail(run.comm, "it ends");
    }
    run_release(&run);
}

static void run_case(struct rank_case *c, struct fixture *fixture, const char *name)
{
    char *directory = fixture_path(fixture, name);
    c->fixture = fixture;
    c->directory = directory;
    scarce.be = NULL;
    loopback_run(&(struct loopback_options){ .ranks = RANKS, .silent_rank = -1, .gives = true },
                 train, c);
    free(directory);
}

/* All ranks came to their end, as one. */
static void expect_together(const struct rank_case *c, int64_t method_rank)
{
    for (int p = 0; p < RANKS; p++) {
        if (p > 0 && c->answer[p] != 0) {
            fail_msg("rank %d: %s", p, c->error[p]);
        }
        assert_false(c->broken[p]);
        assert_int_equal(c->method_rank[p], method_rank);
        assert_int_equal(c->optimizer_bytes[p], c->optimizer_bytes[0]);
        assert_string_equal(c->digest[p], c->digest[0]);
    }
}

static void a_change_is_made_by_all_ranks_or_by_none(void **state)
{
    struct fixture *fixture = *state;
    struct rank_case plain = { .poor = -1 };
    struct rank_case changed = { .poor = -1, .change = "method.rank=12" };
    run_case(&plain, fixture, "plain");
    expect_together(&plain, 8);
    run_case(&changed, fixture, "changed");
    assert_int_equal(changed.answer[0], 0);
    expect_together(&changed, 12);
    assert_string_not_equal(changed.digest[0], plain.digest[0]);
    for (int poor = 0; poor < RANKS; poor++) {
        struct rank_case refused = { .poor = poor, .change = "method.rank=12", .failures = 1 };
        char name[32];
        char said[32];
        snprintf(name, sizeof name, "refused-%d", poor);
        run_case(&refused, fixture, name);
        assert_int_equal(refused.answer[0], -1);
        expect_together(&refused, 8);
        assert_string_equal(refused.digest[0], plain.digest[0]);
        snprintf(said, sizeof said, "rank %d on ", poor);
        assert_int_equal(strncmp(refused.error[0], said, strlen(said)) == 0, poor > 0);
        assert_non_null(strstr(refused.error[0], "cannot take"));
        assert_non_null(strstr(refused.hint[0], "free memory"));
    }
}

static void a_rank_that_loses_its_memory_ends_all(void **state)
{
    struct fixture *fixture = *state;
    for (int poor = 0; poor < RANKS; poor++) {
        struct rank_case lost = { .poor = poor, .change = "method.rank=12", .failures = 1000 };
        char name[32];
        snprintf(name, sizeof name, "lost-%d", poor);
        run_case(&lost, fixture, name);
        for (int p = 0; p < RANKS; p++) {
            char said[32];
            assert_int_equal(lost.answer[p], -1);
            assert_true(lost.broken[p] && lost.together[p]);
            assert_non_null(strstr(lost.error[p], "nor could the change be taken back"));
            snprintf(said, sizeof said, "rank %d on ", poor);
            assert_int_equal(strncmp(lost.error[p], said, strlen(said)) == 0, p != poor);
        }
    }
}

/* All refuse, and rank 0 says it. */
static void other_data_behind_the_same_words_is_refused(void **state)
{
    struct fixture *fixture = *state;
    struct error err = { 0 };
    struct file_ops ops = *file_ops();
    struct rank_case strange = { .poor = -1, .stranger = 2 };
    size_t size = 0;
    char *data = fixture_path(fixture, "data.txt");
    char *other = fixture_path(fixture, "diff.txt");
    char *text = file_read_all(data, 1 << 24, &size, &err);
    assert_non_null(text);
    text[size / 2] = text[size / 2] == 'a' ? 'b' : 'a';
    assert_int_equal(file_replace(other, text, size, &err), 0);
    char *tokenizer = xasprintf("tokenizer.path=%s/presets/tokenizers/stories.model", SOURCE_ROOT);
    fixture_set(fixture, "tokenizer.vocab=0");
    fixture_set(fixture, tokenizer);
    ops.open = open_elsewhere;
    file_install_ops(&ops);
    run_case(&strange, fixture, "strange");
    file_install_ops(NULL);
    for (int p = 0; p < RANKS; p++) {
        assert_int_equal(strange.answer[p], -1);
        assert_int_equal(strange.code[p], ERROR_DATA);
        assert_int_equal(strange.error[p][0] == '\0', p > 0); /* rank 0 says it */
    }
    assert_non_null(strstr(strange.error[0], "rank 2 on "));
    assert_non_null(strstr(strange.error[0], "has another training data than rank 0"));
    char *run = fixture_path(fixture, "strange");
    assert_false(file_exists(run));
    free(run);
    free(tokenizer);
    free(text);
    free(other);
    free(data);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, fixture_make, fixture_remove)

int main(int argc, char **argv)
{
    (void)argc;
    fixture_single_thread(argv);
    const struct CMUnitTest tests[] = {
        TEST(a_change_is_made_by_all_ranks_or_by_none),
        TEST(a_rank_that_loses_its_memory_ends_all),
        TEST(other_data_behind_the_same_words_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
