/* Saving states that are split over ranks, which are threads here: whole tensors from rank 0, and a
 * save that fails midway keeps nobody waiting. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../comm/loopback.h"
#include "engine/base/xalloc.h"
#include "engine/run/fixture.h"
#include "engine/run/parts.h"

enum { RANKS = 3, STEPS = 3 };

/* A disk that is full once the states begin to be written. Only rank 0 writes. */
static struct {
    bool full;
    int states; /* descriptor of the file; -1: it is not open */
} disk;

static int open_noted(const char *path, int flags, mode_t mode)
{
    int fd = open(path, flags, mode);
    if (strstr(path, CHECKPOINT_STATE) && (flags & O_CREAT)) {
        disk.states = fd;
    }
    return fd;
}

static ssize_t write_until_full(int fd, const void *bytes, size_t size)
{
    if (fd == disk.states && disk.full) {
        errno = ENOSPC;
        return -1;
    }
    return write(fd, bytes, size);
}

static int close_noted(int fd)
{
    disk.states = fd == disk.states ? -1 : disk.states;
    return close(fd);
}

/* A run on all ranks. Nothing is asserted on their threads. */
struct save_case {
    const struct fixture *fixture;
    const char *directory;
    bool full_at_first; /* the save after step 2 meets a full disk */
    int saved[2];
    int answer[RANKS];
    char error[RANKS][1024];
    char why[1024]; /* of the failed save */
    int64_t split;  /* state tensors of which rank 0 has a part */
};

static void count_split(struct run *run, struct save_case *c)
{
    int64_t count = trainer_state_count(run->trainer);
    for (int64_t i = 0; i < count; i++) {
        struct state_entry entry;
        trainer_state_entry(run->trainer, i, &entry);
        c->split += entry.split;
    }
}

static int lead(struct run *run, struct save_case *c, struct error *err)
{
    struct step_result ignored;
    int result = 0;
    for (int step = 1; step <= STEPS && result == 0; step++) {
        run_order_step(run);
        result = run_step(run, &ignored, err);
        if (result == 0 && step > 1) {
            struct error why = { 0 };
            disk.full = c->full_at_first && step == 2;
            c->saved[step - 2] = run_save(run, &why);
            disk.full = false;
            if (step == 2) {
                snprintf(c->why, sizeof c->why, "%s", why.message);
            }
        }
    }
    count_split(run, c);
    if (result == 0) {
        run_order_stop(run, 0);
    }
    return result;
}

static void train(struct comm *comm, void *context)
{
    struct save_case *c = context;
    struct run_options options = { .recipe = &c->fixture->recipe, .directory = c->directory };
    struct run run = { .options = &options, .directory = { .lock = -1, .events = -1 } };
    struct error err = { 0 };
    int code = 0;
    int rank = comm->rank;
    run.comm = comm;
    int result = run_prepare(&run, &err);
    if (result == 0) {
        result = rank == 0 ? lead(&run, c, &err) : run_follow(&run, &code, &err);
    }
    c->answer[rank] = result;
    snprintf(c->error[rank], sizeof c->error[rank], "%s", err.message);
    if (result != 0) {
        comm_fail(run.comm, "it ends");
    }
    run_release(&run);
}

static void run_case(struct save_case *c, struct fixture *fixture, const char *name)
{
    char *directory = fixture_path(fixture, name);
    c->fixture = fixture;
    c->directory = directory;
    loopback_run(&(struct loopback_options){ .ranks = RANKS, .silent_rank = -1, .gives = true },
                 train, c);
    for (int p = 0; p < RANKS; p++) {
        if (c->answer[p] != 0) {
            fail_msg("rank %d: %s", p, c->error[p]);
        }
    }
    free(directory);
}

/* The bytes of the states in the checkpoint of a step. */
static char *read_states(const struct fixture *fixture, const char *name, int step, size_t *size)
{
    struct error err = { 0 };
    char *inside = xasprintf("%s/checkpoints/step-%06d/%s", name, step, CHECKPOINT_STATE);
    char *path = fixture_path(fixture, inside);
    char *bytes = file_read_all(path, 1 << 26, size, &err);
    free(path);
    free(inside);
    return bytes;
}

/* A model whose states are written in several pieces. */
static void widen_model(const struct fixture *fixture)
{
    struct error err = { 0 };
    size_t size = 0;
    char *path = fixture_path(fixture, "model.json");
    char *text = file_read_all(path, 1 << 20, &size, &err);
    assert_non_null(text);
    char *hidden = strstr(text, "\"hidden_size\": 16");
    assert_non_null(hidden);
    hidden[strlen("\"hidden_size\": ")] = '9'; /* 96 */
    assert_int_equal(file_replace(path, text, size, &err), 0);
    free(text);
    free(path);
}

static void a_save_that_fails_keeps_nobody_waiting(void **state)
{
    struct fixture *fixture = *state;
    struct file_ops ops = *file_ops();
    struct save_case plain = { .saved = { 1, 1 } };
    struct save_case full = { .saved = { 1, 1 }, .full_at_first = true };
    size_t sizes[2] = { 0 };
    fixture_set(fixture, "method.name=full");
    widen_model(fixture);
    ops.open = open_noted;
    ops.write = write_until_full;
    ops.close = close_noted;
    disk.states = -1;
    file_install_ops(&ops);
    run_case(&plain, fixture, "plain");
    run_case(&full, fixture, "full");
    file_install_ops(NULL);
    assert_true(plain.split > 0 && full.split == plain.split);
    assert_int_equal(plain.saved[0], 0);
    assert_int_equal(plain.saved[1], 0);
    assert_int_equal(full.saved[0], -1);
    assert_non_null(strstr(full.why, strerror(ENOSPC)));
    assert_int_equal(full.saved[1], 0);
    /* What is saved after that is what would have been saved. */
    assert_null(read_states(fixture, "full", 2, &sizes[1]));
    char *one = read_states(fixture, "plain", 3, &sizes[0]);
    char *other = read_states(fixture, "full", 3, &sizes[1]);
    assert_non_null(one);
    assert_non_null(other);
    assert_int_equal(sizes[0], sizes[1]);
    assert_true(sizes[0] > 2 << 18); /* more than is written at once: it broke off midway */
    assert_memory_equal(one, other, sizes[0]);
    free(one);
    free(other);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, fixture_make, fixture_remove)

int main(int argc, char **argv)
{
    (void)argc;
    fixture_single_thread(argv);
    const struct CMUnitTest tests[] = {
        TEST(a_save_that_fails_keeps_nobody_waiting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
