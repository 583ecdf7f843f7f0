/* What the event about ranks says, of ranks that are threads: one is slow, one has a device that
 * NVML tells of. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../comm/loopback.h"
#include "engine/base/xalloc.h"
#include "engine/run/fixture.h"
#include "engine/run/parts.h"
#include "kernels/backend_ops.h"

enum { RANKS = 3, STEPS = 6, SLOW = 1, SAMPLED = 2, SLOW_US = 1000, EVENTS = 8 };

#define NVML FAKE_NVML_FOLDER "/whole/libnvidia-ml.so.1"

/* Nothing is asserted on the threads of ranks. */
struct fare_case {
    const struct fixture *fixture;
    const char *directory;
    int result[RANKS];
    char error[RANKS][1024];
    int64_t peak_bytes[RANKS];
    struct event event[EVENTS]; /* about ranks */
    int count;
};

/* The device of the slow rank takes its time for every operation. */
static struct backend_ops slow_ops;

static void take_time(struct backend *be)
{
    (void)be;
    usleep(SLOW_US);
}

static void take_line(void *context, const char *line, size_t size)
{
    struct fare_case *c = context;
    struct error ignored = { 0 };
    struct event event;
    if (event_read(line, size, &event, &ignored) != 0) {
        return;
    }
    if (event.kind == EVENT_RANKS && c->count < EVENTS) {
        c->event[c->count++] = event;
    } else {
        event_free(&event);
    }
}

static int lead(struct run *run, struct error *err)
{
    struct step_result ignored;
    int result = 0;
    for (int step = 1; step <= STEPS && result == 0; step++) {
        run_order_step(run);
        result = run_step(run, &ignored, err);
        if (result == 0) {
            run_report_ranks(run, step == STEPS);
        }
    }
    if (result == 0) {
        run_order_stop(run, 0);
    }
    return result;
}

static void work(struct comm *comm, void *context)
{
    struct fare_case *c = context;
    struct run_options options = {
        .recipe = &c->fixture->recipe, .directory = c->directory, .on_line = take_line, .context = c
    };
    struct run run = { .options = &options, .directory = { .lock = -1, .events = -1 } };
    struct error err = { 0 };
    int code = 0;
    run.comm = comm;
    int rank = comm->rank;
    int result = run_prepare(&run, &err);
    if (result == 0 && rank == SLOW) {
        slow_ops = *run.be->ops;
        slow_ops.enter = take_time;
        run.be->ops = &slow_ops;
    }
    if (result == 0 && rank == SAMPLED) {
        struct nvml_sample sample = { .used_bytes = -1 };
        run.sampler = sampler_open("0000:65:00.0", NVML);
        for (int i = 0; i < 1000 && sample.used_bytes < 0; i++) {
            sampler_read(run.sampler, &sample);
            usleep(5000);
        }
    }
    if (result == 0) {
        result = rank == 0 ? lead(&run, &err) : run_follow(&run, &code, &err);
    }
    c->result[rank] = result;
    snprintf(c->error[rank], sizeof c->error[rank], "%s", err.message);
    for (int m = 0; run.trainer && m < MEMORY_CATEGORY_COUNT; m++) {
        c->peak_bytes[rank] +=
            (int64_t)memory_peak(trainer_memory(run.trainer), (enum memory_category)m);
    }
    if (result != 0) {
        comm_fail(run.comm, "it ends");
    }
    run_release(&run);
}

static void check_event(const struct fare_case *c, const struct event_ranks *ranks)
{
    assert_int_equal(ranks->count, RANKS);
    assert_int_equal(ranks->slowest, SLOW);
    for (int p = 0; p < RANKS; p++) {
        const struct event_rank *rank = &ranks->item[p];
        assert_true(rank->compute_ms > 0 && rank->wait_ms > 0);
        assert_true(fabs(rank->compute_ms + rank->wait_ms - rank->step_ms) < 1e-6);
        assert_true(p == SLOW || rank->compute_ms < ranks->item[SLOW].compute_ms);
        /* The others have to wait for it. */
        assert_true(p == SLOW || rank->wait_ms > ranks->item[SLOW].wait_ms);
        assert_true(rank->host[0] != '\0' && strcmp(rank->host, ranks->item[0].host) == 0);
        assert_true(rank->device[0] != '\0');
        assert_int_equal(rank->local_rank, p);
        assert_true(rank->exchanged_bytes > 0);
        assert_int_equal(rank->exchanged_bytes, ranks->item[0].exchanged_bytes);
        assert_true(rank->bytes > 0 && rank->bytes <= rank->peak_bytes);
        assert_true(rank->peak_bytes <= rank->planned_bytes);
        assert_true(rank->peak_bytes <= c->peak_bytes[p]);
        assert_true(rank->host_bytes > 0);
        if (p == SAMPLED) {
            assert_true(rank->gpu_util == 97 && rank->temperature_c > 0);
            assert_int_equal(rank->device_used_bytes, (int64_t)5 << 30);
            assert_true(rank->device_total_bytes > rank->device_used_bytes);
        } else {
            assert_true(isnan(rank->gpu_util) && isnan(rank->power_w));
            assert_true(rank->device_used_bytes == EVENT_UNKNOWN);
        }
    }
}

static void the_slow_one_is_named(void **state)
{
    struct fixture *fixture = *state;
    struct fare_case c = { .fixture = fixture };
    char *directory = fixture_path(fixture, "fare");
    c.directory = directory;
    loopback_run(&(struct loopback_options){ .ranks = RANKS, .silent_rank = -1, .gives = true },
                 work, &c);
    for (int p = 0; p < RANKS; p++) {
        if (c.result[p] != 0) {
            fail_msg("rank %d: %s", p, c.error[p]);
        }
    }
    /* The first as soon as there is a step to tell of, the last with the last step; what a step
     * took is told as the next one begins. */
    assert_true(c.count >= 2);
    assert_int_equal(c.event[0].step, 2);
    assert_int_equal(c.event[0].ranks.steps, 1);
    assert_int_equal(c.event[c.count - 1].step, STEPS);
    int64_t steps = 0;
    for (int i = 0; i < c.count; i++) {
        check_event(&c, &c.event[i].ranks);
        steps += c.event[i].ranks.steps;
        event_free(&c.event[i]);
    }
    assert_int_equal(steps, STEPS - 1);
    free(directory);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, fixture_make, fixture_remove)

int main(int argc, char **argv)
{
    (void)argc;
    fixture_single_thread(argv);
    setenv("FAKE_NVML", "no-power", 1);
    const struct CMUnitTest tests[] = {
        TEST(the_slow_one_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
