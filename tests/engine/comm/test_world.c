/* What environments of launchers mean, and what is wrong with others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/comm/world.h"

static const char *const known[] = {
    "WINDROW_RANKS",
    "WINDROW_RANK",
    "WINDROW_LOCAL_RANK",
    "WINDROW_RENDEZVOUS",
    "WINDROW_JOB",
    "WINDROW_JOIN_SECONDS",
    "WINDROW_LISTENER",
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_RANK",
    "WORLD_SIZE",
    "RANK",
    "LOCAL_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
    "TORCHELASTIC_RUN_ID",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_PROCID",
    "SLURM_LOCALID",
    "SLURM_STEP_NODELIST",
    "SLURM_JOB_ID",
    "SLURM_STEP_ID",
    "PMIX_RANK",
    "SLURM_LAUNCH_NODE_IPADDR",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "TORCHELASTIC_RESTART_COUNT",
};

/* Sets these variables (name, value, ... NULL) and no others. */
static int find(struct world *world, struct error *err, const char *const *pairs)
{
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        unsetenv(known[i]);
    }
    for (; *pairs; pairs += 2) {
        setenv(pairs[0], pairs[1], 1);
    }
    *err = (struct error){ 0 };
    return world_find(world, err);
}
#define FIND(world, err, ...) find(world, err, (const char *const[]){ __VA_ARGS__, NULL })

/* The environment is refused with a sentence that has both words. */
static void refuses(const char *first, const char *second, const char *const *pairs)
{
    struct world world;
    struct error err;
    assert_int_equal(find(&world, &err, pairs), -1);
    assert_int_equal(err.code, ERROR_USAGE);
    bool both = strstr(err.message, first) && strstr(err.message, second);
    if (!both) {
        print_error("\"%s\" has not both of %s and %s\n", err.message, first, second);
    }
    assert_true(both);
}
#define REFUSES(first, second, ...)                                                                \
    refuses(first, second, (const char *const[]){ __VA_ARGS__, NULL })

static void test_alone(void **state)
{
    (void)state;
    struct world world;
    struct error err;
    assert_int_equal(FIND(&world, &err, "WINDROW_JOB", "x"), 0);
    assert_int_equal(world.ranks, 1);
    assert_null(world.launcher);
    assert_int_equal(FIND(&world, &err, "WORLD_SIZE", "1", "RANK", "0"), 0);
    assert_int_equal(world.ranks, 1);
    assert_int_equal(FIND(&world, &err, "WORLD_SIZE", "1"), 0);
    assert_int_equal(FIND(&world, &err, "SLURM_PROCID", "0", "SLURM_JOB_ID", "7"), 0);
    assert_int_equal(world.ranks, 1);
    assert_int_equal(FIND(&world, &err, "WORLD_SIZE", "", "RANK", "3"), 0);
    assert_int_equal(world.ranks, 1);
    assert_int_equal(FIND(&world, &err, "WINDROW_RANKS", "1", "WINDROW_RENDEZVOUS", "tcp://a:1"),
                     0);
    assert_int_equal(world.ranks, 1);
}

static void test_torchrun(void **state)
{
    (void)state;
    struct world world;
    struct error err;
    assert_int_equal(FIND(&world, &err, "WORLD_SIZE", "8", "RANK", "5", "LOCAL_RANK", "1",
                          "MASTER_ADDR", "node03", "MASTER_PORT", "29400", "TORCHELASTIC_RUN_ID",
                          "none"),
                     0);
    assert_string_equal(world.launcher, "torchrun");
    assert_int_equal(world.ranks, 8);
    assert_int_equal(world.rank, 5);
    assert_int_equal(world.tcp.local_rank, 1);
    assert_false(world.mpi);
    assert_string_equal(world.tcp.place.host, "node03");
    assert_int_equal(world.tcp.place.port, 29401);
    assert_int_equal(world.tcp.place.port_count, 8);
    assert_string_equal(world.tcp.job, "torchrun none 0");
    assert_true(world.tcp.wait_s == 120.0);
    /* Within a step of srun: who is nearer counts. */
    assert_int_equal(FIND(&world, &err, "WORLD_SIZE", "4", "RANK", "2", "MASTER_ADDR", "a",
                          "MASTER_PORT", "5", "SLURM_STEP_NUM_TASKS", "2", "SLURM_PROCID", "1"),
                     0);
    assert_string_equal(world.launcher, "torchrun");
    assert_int_equal(world.ranks, 4);
    REFUSES("RANK is not set", "WORLD_SIZE is 4", "WORLD_SIZE", "4");
    REFUSES("RANK is 4", "from 0 to 3", "WORLD_SIZE", "4", "RANK", "4");
    REFUSES("WORLD_SIZE is four", "whole number", "WORLD_SIZE", "four", "RANK", "0");
    REFUSES("WORLD_SIZE is 0", "from 1", "WORLD_SIZE", "0", "RANK", "0");
    REFUSES("LOCAL_RANK is -1", "from 0", "WORLD_SIZE", "4", "RANK", "0", "LOCAL_RANK", "-1");
    REFUSES("MASTER_ADDR is not set", "", "WORLD_SIZE", "4", "RANK", "0");
    REFUSES("MASTER_PORT is not set", "", "WORLD_SIZE", "4", "RANK", "0", "MASTER_ADDR", "a");
    REFUSES("MASTER_PORT is 99999", "", "WORLD_SIZE", "4", "RANK", "0", "MASTER_ADDR", "a",
            "MASTER_PORT", "99999");
}

static void test_srun(void **state)
{
    (void)state;
    struct world world;
    struct error err;
    const char *step[] = { "SLURM_STEP_NUM_TASKS",
                           "6",
                           "SLURM_PROCID",
                           "4",
                           "SLURM_LOCALID",
                           "0",
                           "SLURM_JOB_ID",
                           "4711",
                           "SLURM_STEP_ID",
                           "2",
                           "SLURM_STEP_NODELIST",
                           "gpu[07-09,12]",
                           "SLURM_LAUNCH_NODE_IPADDR",
                           "10.0.0.1",
                           NULL,
                           NULL,
                           NULL };
    assert_int_equal(find(&world, &err, step), 0);
    assert_string_equal(world.launcher, "srun");
    assert_int_equal(world.rank, 4);
    assert_int_equal(world.tcp.local_rank, 0);
    assert_string_equal(world.tcp.place.host, "gpu07");
    assert_string_equal(world.tcp.job, "srun 4711 2");
    assert_false(world.mpi);
    int port = world.tcp.place.port;
    assert_in_range(port, 20480, 32480);
    setenv("SLURM_STEP_ID", "3", 1);
    assert_int_equal(world_find(&world, &err), 0);
    assert_int_not_equal(world.tcp.place.port, port); /* steps of a job do not meet */
    step[14] = "PMIX_RANK";
    step[15] = "4";
    assert_int_equal(find(&world, &err, step), 0);
    assert_true(world.mpi);
    assert_false(world.mpi_only);
    /* A script's WORLD_SIZE beside srun's ranks. */
    step[14] = "WORLD_SIZE";
    assert_int_equal(find(&world, &err, step), 0);
    assert_string_equal(world.launcher, "srun");
    step[14] = "WINDROW_RENDEZVOUS";
    step[15] = "file:/shared/place";
    assert_int_equal(find(&world, &err, step), 0);
    assert_string_equal(world.tcp.place.file, "/shared/place");
    assert_false(world.mpi);
    assert_int_equal(FIND(&world, &err, "SLURM_STEP_NUM_TASKS", "2", "SLURM_PROCID", "0",
                          "SLURM_LAUNCH_NODE_IPADDR", "10.0.0.1"),
                     0);
    assert_string_equal(world.tcp.place.host, "10.0.0.1");
    REFUSES("SLURM_STEP_NODELIST", "SLURM_LAUNCH_NODE_IPADDR", "SLURM_STEP_NUM_TASKS", "2",
            "SLURM_PROCID", "0");
    REFUSES("SLURM_STEP_NODELIST is gpu[", "first host", "SLURM_STEP_NUM_TASKS", "2",
            "SLURM_PROCID", "0", "SLURM_STEP_NODELIST", "gpu[");
}

static void test_first_host(void **state)
{
    (void)state;
    const struct {
        const char *list;
        const char *host; /* NULL: none */
    } cases[] = {
        { "node1", "node1" },
        { "node1,node2", "node1" },
        { "node[03-05,9]", "node03" },
        { "node[7]", "node7" },
        { "a-b.c[10,2].d,e", "a-b.c10.d" },
        { "n[1-2],m[3-4]", "n1" },
        { "", NULL },
        { "n[", NULL },
        { "n[]", NULL },
        { "n[x]", NULL },
        { "r[1-2]n[3-4]", NULL },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char host[32] = "";
        int found = world_first_host(cases[i].list, host, sizeof host);
        assert_int_equal(found, cases[i].host ? 0 : -1);
        if (cases[i].host) {
            assert_string_equal(host, cases[i].host);
        }
    }
    char small[4];
    assert_int_equal(world_first_host("node1", small, sizeof small), -1);
}

static void test_own(void **state)
{
    (void)state;
    struct world world;
    struct error err;
    assert_int_equal(FIND(&world, &err, "WINDROW_RANKS", "3", "WINDROW_RANK", "2",
                          "WINDROW_RENDEZVOUS", "tcp://[::1]:700", "WINDROW_JOB", "mine",
                          "WINDROW_JOIN_SECONDS", "5", "WORLD_SIZE", "9", "RANK", "8"),
                     0);
    assert_string_equal(world.launcher, "windrow");
    assert_int_equal(world.ranks, 3);
    assert_int_equal(world.tcp.local_rank, -1);
    assert_string_equal(world.tcp.place.host, "::1");
    assert_int_equal(world.tcp.place.port, 700);
    assert_int_equal(world.tcp.place.port_count, 1);
    assert_string_equal(world.tcp.job, "own mine");
    assert_true(world.tcp.wait_s == 5.0);
    assert_int_equal(
        FIND(&world, &err, "RANK", "0", "WORLD_SIZE", "2", "WINDROW_RENDEZVOUS", "file:///tmp/x"),
        0);
    assert_string_equal(world.tcp.place.file, "/tmp/x");
    /* mpirun that only starts them. */
    assert_int_equal(FIND(&world, &err, "OMPI_COMM_WORLD_SIZE", "2", "OMPI_COMM_WORLD_RANK", "1",
                          "WINDROW_RENDEZVOUS", "tcp://a.b:80"),
                     0);
    assert_string_equal(world.launcher, "mpirun");
    assert_false(world.mpi);
    assert_string_equal(world.tcp.place.host, "a.b");
    assert_int_equal(FIND(&world, &err, "OMPI_COMM_WORLD_SIZE", "2", "OMPI_COMM_WORLD_RANK", "1"),
                     0);
    assert_true(world.mpi && world.mpi_only);
    REFUSES("WINDROW_RENDEZVOUS is not set", "WINDROW_RANKS is 3", "WINDROW_RANKS", "3",
            "WINDROW_RANK", "2");
    REFUSES("WINDROW_RANK is not set", "WINDROW_RANKS is 3", "WINDROW_RANKS", "3",
            "WINDROW_RENDEZVOUS", "tcp://a:1");
    REFUSES("which rank", "", "WINDROW_RENDEZVOUS", "tcp://a:1");
    static const char *const bad[] = { "a:1",           "tcp://a",    "tcp://:5",  "tcp://a:0",
                                       "tcp://a:70000", "tcp://a:b",  "file:x",    "file:",
                                       "file:/",        "udp://a:12", "tcp://a:1/" };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        REFUSES(bad[i], "tcp://HOST:PORT or file:/PATH", "WINDROW_RANKS", "3", "WINDROW_RANK", "2",
                "WINDROW_RENDEZVOUS", bad[i]);
    }
    REFUSES("WINDROW_JOIN_SECONDS is soon", "", "WINDROW_RANKS", "3", "WINDROW_RANK", "2",
            "WINDROW_RENDEZVOUS", "tcp://a:1", "WINDROW_JOIN_SECONDS", "soon");
    REFUSES("WINDROW_LISTENER is 999", "", "WINDROW_RANKS", "3", "WINDROW_RANK", "0",
            "WINDROW_RENDEZVOUS", "tcp://a:1", "WINDROW_LISTENER", "999");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alone), cmocka_unit_test(test_torchrun),
        cmocka_unit_test(test_srun),  cmocka_unit_test(test_first_host),
        cmocka_unit_test(test_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
