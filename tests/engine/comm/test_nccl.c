/*
 * The engine "nccl" on a library that stands in for NCCL: the same sums as through host memory, who
 * goes without it, and every way in which it fails.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/comm/engine.h"
#include "engine/comm/nccl.h"
#include "loopback.h"

#define FAKE FAKE_NCCL_FOLDER "/whole/libnccl.so.2"
#define OLD  FAKE_NCCL_FOLDER "/old/libnccl.so.2"

enum { SUMS = 3, COLUMNS = 5 };

/* What all ranks do, and what each leaves. */
struct task {
    const char *library; /* NULL: through host memory */
    const char *other;   /* the library of the last rank */
    bool deterministic;
    int patience;     /* the waits until it gives up; 0: never */
    int missing_rank; /* stays away from the sums */
    int64_t count;
    enum dtype dtype;
    char *sum[LOOPBACK_RANKS_MAX];
    char *spread[LOOPBACK_RANKS_MAX];
    char *rows[LOOPBACK_RANKS_MAX];   /* reduce-scatter and all-gather, equal shares */
    char *uneven[LOOPBACK_RANKS_MAX]; /* and with bounds */
    bool used[LOOPBACK_RANKS_MAX];
    bool failed[LOOPBACK_RANKS_MAX];
    char why[LOOPBACK_RANKS_MAX][256];
    char error[LOOPBACK_RANKS_MAX][512];
    char engine[LOOPBACK_RANKS_MAX][8];
    struct comm_counts counts[LOOPBACK_RANKS_MAX];
    int64_t counted[LOOPBACK_RANKS_MAX];
    char word[LOOPBACK_RANKS_MAX][16];
};

static bool patience(void *context)
{
    int *left = context;
    return --*left > 0;
}

static struct backend *open_cpu(void)
{
    char why[128];
    return backend_open("cpu", 0, why, sizeof why);
}

/* Very different from rank to rank, so that the order of a sum shows in its bits. */
static void fill(char *data, int64_t count, enum dtype dtype, int rank)
{
    for (int64_t i = 0; i < count; i++) {
        float value =
            (0.1f + (float)((i * 7 + rank * 13) % 101)) * (rank % 2 == 0 ? 1.0f : -777.7f);
        if (dtype == DTYPE_BF16) {
            ((uint16_t *)(void *)data)[i] = bf16_from_float(value);
        } else {
            ((float *)(void *)data)[i] = value;
        }
    }
}

/* The last rank has half of the rows, the first one none. */
static void bounds_of(int ranks, int64_t rows, int64_t *bound)
{
    for (int p = 0; p <= ranks; p++) {
        bound[p] = p == ranks ? rows : p < 2 ? 0 : (p - 1) * (rows / 2) / (ranks - 1);
    }
}

/* Sums rows to their owners and gives them to all: nothing undefined is left to compare. */
static void exchange_rows(struct comm *comm, struct backend *be, struct task *task)
{
    int64_t bound[LOOPBACK_RANKS_MAX + 1];
    struct tensor rows = { .data = task->rows[comm->rank],
                           .dtype = task->dtype,
                           .rank = 2,
                           .dim = { task->count, COLUMNS, 1, 1 },
                           .name = "shared rows" };
    struct tensor uneven = rows;
    uneven.data = task->uneven[comm->rank];
    bounds_of(comm->ranks, task->count, bound);
    comm_ask_reduce_scatter(comm, be, &rows, NULL);
    comm_ask_reduce_scatter(comm, be, &uneven, bound);
    comm_wait(comm, be);
    comm_ask_all_gather(comm, be, &rows, NULL);
    comm_ask_all_gather(comm, be, &uneven, bound);
    comm_wait(comm, be);
}

static void exchange(struct comm *comm, struct backend *be, struct task *task)
{
    int rank = comm->rank;
    struct tensor sum = { .data = task->sum[rank],
                          .dtype = task->dtype,
                          .rank = 1,
                          .dim = { task->count, 1, 1, 1 },
                          .name = "numbers" };
    struct tensor spread = { .data = task->spread[rank],
                             .dtype = task->dtype,
                             .rank = 2,
                             .dim = { task->count, COLUMNS, 1, 1 },
                             .name = "rows" };
    for (int i = 0; i < SUMS; i++) {
        comm_all_reduce(comm, be, &sum);
    }
    comm_ask_all_reduce(comm, be, &sum);
    comm_ask_all_gather(comm, be, &spread, NULL);
    comm_wait(comm, be);
    exchange_rows(comm, be, task);
    task->counted[rank] = comm_sum_count(comm, rank + 1);
    snprintf(task->word[rank], sizeof task->word[0], "from %d", rank);
    comm_broadcast_bytes(comm, "a word", task->word[rank], sizeof task->word[0]);
    task->counts[rank] = comm->counts;
    task->counts[rank].wait_seconds = 0.0; /* the only one that is not the same each time */
}

static void work(struct comm *comm, void *context)
{
    struct task *task = context;
    int rank = comm->rank;
    int left = task->patience;
    struct backend *be = open_cpu();
    struct nccl_options options = {
        .library = rank == comm->ranks - 1 && task->other ? task->other : task->library,
        .deterministic = task->deterministic,
        .patience_s = 0.3,
    };
    task->sum[rank] = calloc((size_t)task->count + 1, 4);
    task->spread[rank] = calloc((size_t)task->count * COLUMNS + 1, 4);
    task->rows[rank] = calloc((size_t)task->count * COLUMNS + 1, 4);
    task->uneven[rank] = calloc((size_t)task->count * COLUMNS + 1, 4);
    fill(task->rows[rank], task->count * COLUMNS, task->dtype, rank + 1);
    fill(task->uneven[rank], task->count * COLUMNS, task->dtype, rank + 2);
    fill(task->sum[rank], task->count, task->dtype, rank);
    fill(task->spread[rank], task->count * COLUMNS, task->dtype, rank);
    if (task->patience > 0) {
        comm_on_wait(comm, patience, &left);
    }
    if (task->library != NULL) {
        task->used[rank] = comm_use_nccl(comm, be, &options, task->why[rank], sizeof task->why[0]);
    }
    comm->counts = (struct comm_counts){ .calls = 0 };
    snprintf(task->engine[rank], sizeof task->engine[0], "%s", comm->ops->name);
    if (!comm->failed && rank != task->missing_rank) {
        exchange(comm, be, task);
    }
    struct error err = { 0 };
    task->failed[rank] = comm_check(comm, &err) != 0;
    snprintf(task->error[rank], sizeof task->error[0], "%.500s", err.message);
    comm_leave_device(comm);
    backend_close(be);
}

static struct task *run_task(struct task task, int ranks, const char *words)
{
    struct task *made = malloc(sizeof *made);
    *made = task;
    made->count = made->count > 0 ? made->count : 7;
    setenv("FAKE_NCCL", words, 1);
    loopback_run(&(struct loopback_options){ .ranks = ranks, .silent_rank = -1 }, work, made);
    return made;
}

static void drop_task(struct task *task)
{
    for (int p = 0; p < LOOPBACK_RANKS_MAX; p++) {
        free(task->sum[p]);
        free(task->spread[p]);
        free(task->rows[p]);
        free(task->uneven[p]);
    }
    free(task);
}

static void compare(int ranks, int64_t count, enum dtype dtype)
{
    struct task task = { .count = count, .dtype = dtype, .missing_rank = -1 };
    struct task *host = run_task(task, ranks, "");
    task.library = FAKE;
    struct task *nccl = run_task(task, ranks, "");
    size_t bytes = (size_t)count * dtype_size(dtype);
    for (int p = 0; p < ranks; p++) {
        assert_string_equal(host->engine[p], "host");
        assert_string_equal(nccl->error[p], "");
        assert_true(nccl->used[p] && !nccl->failed[p]);
        assert_string_equal(nccl->engine[p], "nccl");
        assert_memory_equal(nccl->sum[p], host->sum[p], bytes);
        assert_memory_equal(nccl->spread[p], host->spread[p], bytes * COLUMNS);
        assert_memory_equal(nccl->rows[p], host->rows[p], bytes * COLUMNS);
        assert_memory_equal(nccl->uneven[p], host->uneven[p], bytes * COLUMNS);
        assert_memory_equal(&nccl->counts[p], &host->counts[p], sizeof host->counts[p]);
        assert_int_equal(nccl->counted[p], ranks * (ranks + 1) / 2);
        assert_string_equal(nccl->word[p], "from 0");
        assert_memory_equal(nccl->spread[p], nccl->spread[0], bytes * COLUMNS);
        assert_memory_equal(nccl->rows[p], nccl->rows[0], bytes * COLUMNS);
        assert_memory_equal(nccl->uneven[p], nccl->uneven[0], bytes * COLUMNS);
    }
    drop_task(host);
    drop_task(nccl);
}

static void test_same_as_host(void **state)
{
    (void)state;
    const int64_t counts[] = { 1, 2, 5, 1031 };
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        for (int ranks = 2; ranks <= 5; ranks++) {
            compare(ranks, counts[i], DTYPE_F32);
            compare(ranks, counts[i], DTYPE_BF16);
        }
    }
}

/* As "single": nothing changes, nothing is counted, though NCCL is asked. */
static void test_one_rank(void **state)
{
    (void)state;
    struct task *task = run_task((struct task){ .library = FAKE, .missing_rank = -1 }, 1, "");
    float before[7];
    fill((char *)before, 7, DTYPE_F32, 0);
    assert_true(task->used[0] && !task->failed[0]);
    assert_string_equal(task->engine[0], "nccl");
    assert_memory_equal(task->sum[0], before, sizeof before);
    assert_int_equal(task->counts[0].calls, 0);
    assert_true(task->counts[0].payload_bytes == 0.0 && task->counts[0].hops == 0);
    drop_task(task);
    task = run_task((struct task){ .library = FAKE, .missing_rank = -1 }, 1, "error-at=3");
    assert_true(task->failed[0]);
    assert_non_null(strstr(task->error[0], "all-reduce of numbers did not come about: NCCL"));
    drop_task(task);
}

static void check_stays(struct task task, const char *words, const char *why)
{
    task.missing_rank = -1;
    struct task *made = run_task(task, 3, words);
    for (int p = 0; p < 3; p++) {
        assert_false(made->used[p]);
        assert_false(made->failed[p]);
        assert_string_equal(made->engine[p], "host");
        assert_non_null(strstr(made->why[p], why));
        assert_memory_equal(made->sum[p], made->sum[0], 7 * sizeof(float));
    }
    drop_task(made);
}

static void test_without(void **state)
{
    (void)state;
    check_stays((struct task){ .library = FAKE, .other = "/nowhere/libnccl.so.2" }, "",
                "rank 2: /nowhere/libnccl.so.2 cannot be opened");
    check_stays((struct task){ .library = OLD }, "", "rank 0: NCCL has no ncclGetLastError");
    check_stays((struct task){ .library = FAKE }, "no-id", "NCCL gives no address to meet at");
    setenv("WINDROW_NCCL", "off", 1);
    check_stays((struct task){ .library = FAKE }, "", "WINDROW_NCCL=off is set");
    unsetenv("WINDROW_NCCL");
}

/* All ranks end with an error that has these words. */
static void check_fails(struct task task, const char *words, const char *error)
{
    task.library = FAKE;
    struct task *made = run_task(task, 3, words);
    for (int p = 0; p < 3; p++) {
        if (p != task.missing_rank) {
            assert_true(made->failed[p]);
            assert_non_null(strstr(made->error[p], error));
        }
    }
    drop_task(made);
}

static void test_failures(void **state)
{
    (void)state;
    const struct task all = { .missing_rank = -1 };
    check_fails(all, "bad-init", "start of NCCL did not come about: NCCL: unhandled system error");
    check_fails((struct task){ .missing_rank = -1, .patience = 400 }, "no-init",
                "start of NCCL did not come about: it was given up");
    check_fails(all, "wrong", "NCCL sums wrongly: 7 instead of 6");
    check_fails(all, "error-at=2",
                "all-reduce of numbers did not come about: NCCL: remote process");
    check_fails(all, "error-at=5",
                "all-reduce of numbers and 1 more did not come about: NCCL: remote process");
    check_fails(all, "error-at=8",
                "reduce-scatter of shared rows and 1 more did not come about: NCCL: remote");
    check_fails((struct task){ .missing_rank = 1, .patience = 3000 }, "",
                "all-reduce of numbers did not come about: it was given up");
}

/* Ranks that do not come to the end are not waited for long. */
static void test_stuck_end(void **state)
{
    (void)state;
    struct task *task =
        run_task((struct task){ .library = FAKE, .missing_rank = -1 }, 2, "stuck-end");
    assert_true(task->used[0] && !task->failed[0] && !task->failed[1]);
    drop_task(task);
}

/* An abort that hangs takes the process with it. */
static void test_stuck_abort(void **state)
{
    (void)state;
    int status = 0;
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)!freopen("/dev/null", "w", stderr);
        run_task((struct task){ .library = FAKE, .missing_rank = -1, .patience = 400 }, 2,
                 "no-init stuck-abort");
        _exit(0); /* not to be reached */
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), ERROR_RUNTIME);
}

/* What the user has chosen stays. */
static void test_deterministic(void **state)
{
    (void)state;
    const struct task task = { .library = FAKE, .missing_rank = -1, .deterministic = true };
    unsetenv("NCCL_ALGO");
    drop_task(run_task((struct task){ .library = FAKE, .missing_rank = -1 }, 1, ""));
    assert_null(getenv("NCCL_ALGO"));
    drop_task(run_task(task, 1, ""));
    assert_string_equal(getenv("NCCL_ALGO"), "Ring");
    setenv("NCCL_ALGO", "Tree", 1);
    drop_task(run_task(task, 1, ""));
    assert_string_equal(getenv("NCCL_ALGO"), "Tree");
    unsetenv("NCCL_ALGO");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_as_host),  cmocka_unit_test(test_one_rank),
        cmocka_unit_test(test_without),       cmocka_unit_test(test_failures),
        cmocka_unit_test(test_stuck_end),     cmocka_unit_test(test_stuck_abort),
        cmocka_unit_test(test_deterministic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
