/* The forecast of offloading: closed forms where there are some, and a store on a disk of known
 * speed. */
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/activation/offload.h"
#include "engine/activation/offload_model.h"
#include "engine/base/clock.h"
#include "engine/base/file.h"

static void assert_near(double got, double wanted)
{
    if (fabs(got - wanted) > 1e-9 * fmax(1.0, fabs(wanted))) {
        fail_msg("%.12g instead of %.12g", got, wanted);
    }
}

/* Nobody waits for a disk that is faster than the blocks. */
static void a_fast_disk_costs_the_copies_alone(void **state)
{
    (void)state;
    struct offload_forecast f;
    offload_forecast(&(struct offload_times){ .layers = 20,
                                              .forward = 1.0,
                                              .backward = 2.0,
                                              .between = 0.5,
                                              .copy = 0.01,
                                              .write = 0.9,
                                              .read = 1.5 },
                     &f);
    assert_near(f.stall, 0.0);
    assert_near(f.copying, 2 * 17 * 0.01);
    assert_near(f.seconds, 20 * 3.0 + 0.5 + f.copying);
    assert_true(f.read_spans <= f.written_spans && f.written_spans <= 17);
}

/* Where blocks take no time at all, the disk works without a break: the last three spans are never
 * written (they are handed back from memory), the fourth is written but not read. */
static void a_slow_disk_is_never_idle(void **state)
{
    (void)state;
    for (int64_t spans = 5; spans < 30; spans++) {
        struct offload_forecast f;
        offload_forecast(&(struct offload_times){ .layers = spans + 3, .write = 0.25, .read = 0.5 },
                         &f);
        assert_int_equal(f.written_spans, spans - 3);
        assert_int_equal(f.read_spans, spans - 4);
        assert_near(f.seconds, 0.25 * (double)(spans - 3) + 0.5 * (double)(spans - 4));
        assert_near(f.stall, f.seconds);
    }
}

static void host_memory_moves_nothing_to_a_disk(void **state)
{
    (void)state;
    struct offload_forecast f;
    offload_forecast(
        &(struct offload_times){ .layers = 12, .forward = 1, .backward = 2, .copy = 0.5 }, &f);
    assert_int_equal(f.written_spans, 0);
    assert_int_equal(f.read_spans, 0);
    assert_near(f.stall, 0.0);
    assert_near(f.seconds, 36 + 9);
}

static void slower_disks_and_fewer_resident_blocks_take_longer(void **state)
{
    (void)state;
    double before = 0.0;
    for (double write = 0.1; write < 8.0; write *= 1.3) {
        struct offload_forecast all;
        struct offload_forecast some;
        struct offload_times times = {
            .layers = 24, .forward = 1, .backward = 2, .between = 1, .write = write, .read = write
        };
        offload_forecast(&times, &all);
        times.resident = 8;
        offload_forecast(&times, &some);
        assert_true(all.seconds >= before - 1e-9);
        assert_true(some.seconds <= all.seconds + 1e-9);
        before = all.seconds;
    }
}

/* ---- a disk of known speed --------------------------------------------------------------------
 */

enum { LAYERS = 13, SPAN_BYTES = 4096, WRITE_MS = 30, READ_MS = 40, FORWARD_MS = 12 };
enum { BACKWARD_MS = 25, BETWEEN_MS = 20, ATTEMPTS = 5 };

static int plain_open(const char *path, int flags, mode_t mode)
{
    return open(path, flags & ~O_DIRECT, mode);
}

static ssize_t slow_write(int fd, const void *bytes, size_t size, off_t offset)
{
    usleep(WRITE_MS * 1000);
    return pwrite(fd, bytes, size, offset);
}

static ssize_t slow_read(int fd, void *bytes, size_t size, off_t offset)
{
    usleep(READ_MS * 1000);
    return pread(fd, bytes, size, offset);
}

static double run_pass(struct store *store)
{
    static char bytes[SPAN_BYTES];
    struct error err = { 0 };
    int64_t spans = offload_spans(LAYERS, 0);
    int64_t present = spans;
    double began = clock_monotonic();
    for (int64_t i = 0; i < LAYERS; i++) {
        usleep(FORWARD_MS * 1000);
        if (i < spans) {
            assert_int_equal(store_put(store, i, bytes, sizeof bytes, &err), 0);
        }
    }
    usleep(BETWEEN_MS * 1000);
    for (int64_t i = LAYERS - 1; i >= 0; i--) {
        while (present > (i > 0 ? i - 1 : 0)) {
            assert_int_equal(store_take(store, --present, bytes, sizeof bytes, &err), 0);
        }
        for (int64_t k = present - 1; k >= 0 && k >= present - 2; k--) {
            assert_int_equal(store_fetch(store, k, &err), 0);
        }
        usleep(BACKWARD_MS * 1000);
    }
    return clock_monotonic() - began;
}

static void a_store_takes_as_long_as_forecast(void **state)
{
    (void)state;
    struct file_ops ops = *file_ops();
    struct error err = { 0 };
    struct offload_forecast f;
    char why[128];
    bool good = false;
    offload_forecast(&(struct offload_times){ .layers = LAYERS,
                                              .forward = 1e-3 * FORWARD_MS,
                                              .backward = 1e-3 * BACKWARD_MS,
                                              .between = 1e-3 * BETWEEN_MS,
                                              .write = 1e-3 * WRITE_MS,
                                              .read = 1e-3 * READ_MS },
                     &f);
    assert_true(f.stall > 0.1);
    ops.open = plain_open;
    ops.pwrite = slow_write;
    ops.pread = slow_read;
    file_install_ops(&ops);
    struct backend *be = backend_open("cpu", 0, why, sizeof why);
    struct store *store = store_open(&(struct store_options){ .kind = STORE_SSD,
                                                              .be = be,
                                                              .directory = "/tmp",
                                                              .span_bytes = SPAN_BYTES,
                                                              .spans = offload_spans(LAYERS, 0) },
                                     &err);
    assert_non_null(store);
    /* A busy machine oversleeps: one undisturbed pass is enough. */
    for (int i = 0; i < ATTEMPTS && !good; i++) {
        struct store_counts before;
        struct store_counts after;
        store_count(store, &before);
        double seconds = run_pass(store);
        store_count(store, &after);
        double stall = after.stall_seconds - before.stall_seconds;
        int64_t written = (after.written_bytes - before.written_bytes) / SPAN_BYTES;
        int64_t read = (after.read_bytes - before.read_bytes) / SPAN_BYTES;
        printf("forecast %.3f s, %.3f waiting, %d out, %d in; took %.3f s, %.3f, %d, %d\n",
               f.seconds, f.stall, (int)f.written_spans, (int)f.read_spans, seconds, stall,
               (int)written, (int)read);
        good = fabs(seconds - f.seconds) < 0.2 * f.seconds && fabs(stall - f.stall) < 0.2 * f.stall;
    }
    assert_true(good);
    store_close(store);
    backend_close(be);
    file_install_ops(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fast_disk_costs_the_copies_alone),
        cmocka_unit_test(a_slow_disk_is_never_idle),
        cmocka_unit_test(host_memory_moves_nothing_to_a_disk),
        cmocka_unit_test(slower_disks_and_fewer_resident_blocks_take_longer),
        cmocka_unit_test(a_store_takes_as_long_as_forecast),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
