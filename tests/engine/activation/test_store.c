/* Spans that leave the device and come back: every byte, whatever the disk does. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/activation/store.h"
#include "engine/base/clock.h"
#include "engine/base/file.h"

enum { SPANS = 9 };

static struct backend *cpu;

static void fill(uint8_t *bytes, size_t size, unsigned seed)
{
    for (size_t i = 0; i < size; i++) {
        seed = seed * 1664525u + 1013904223u;
        bytes[i] = (uint8_t)(seed >> 24);
    }
}

static struct store *open_store(enum store_kind kind, size_t size, bool no_ring)
{
    struct error err = { 0 };
    struct store *store = store_open(&(struct store_options){ .kind = kind,
                                                              .be = cpu,
                                                              .directory = "/tmp",
                                                              .span_bytes = size,
                                                              .spans = SPANS,
                                                              .no_ring = no_ring },
                                     &err);
    if (store == NULL) {
        fail_msg("%s", err.message);
    }
    return store;
}

/* One pass: every span put in order, taken in reverse with the next one fetched ahead. */
static int pass(struct store *store, size_t size, unsigned seed, struct error *err)
{
    uint8_t *made = malloc(size);
    uint8_t *got = malloc(size);
    int rc = 0;
    for (int i = 0; rc == 0 && i < SPANS; i++) {
        fill(made, size, seed + (unsigned)i);
        rc = store_put(store, i, made, size, err);
        memset(made, 0xee, size); /* the device goes on with other things */
    }
    for (int i = SPANS - 1; rc == 0 && i >= 0; i--) {
        if (i > 0) {
            rc = store_fetch(store, i - 1, err);
        }
        memset(got, 0xdd, size);
        rc = rc == 0 ? store_take(store, i, got, size, err) : -1;
        fill(made, size, seed + (unsigned)i);
        if (rc == 0 && memcmp(made, got, size) != 0) {
            fail_msg("span %d came back with other bytes", i);
        }
    }
    free(made);
    free(got);
    return rc;
}

static void every_byte_comes_back(void **state)
{
    (void)state;
    static const size_t sizes[] = { 1, 256, 4095, 4096, 4097, 1 << 20, (3 << 20) + 768 };
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        for (int how = 0; how < 3; how++) {
            struct store *store = open_store(how == 0 ? STORE_HOST : STORE_SSD, sizes[s], how == 1);
            struct error err = { 0 };
            for (unsigned micro = 0; micro < 3; micro++) {
                assert_int_equal(pass(store, sizes[s], micro * 100, &err), 0);
            }
            struct store_counts counts;
            store_count(store, &counts);
            if (how == 0) {
                assert_int_equal(counts.written_bytes, 0);
                assert_string_equal(store_how(store), "host memory");
            } else {
                assert_true(counts.written_bytes + counts.forwarded_spans > 0);
                assert_true(strstr(store_how(store), how == 1 ? "pwrite" : ", ") != NULL);
            }
            store_close(store);
        }
    }
}

/* ---- a disk that misbehaves --------------------------------------------------------------------
 */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool held;    /* writes wait */
    int delay_us; /* at most, before each call */
    unsigned seed;
    int fail_write; /* the errno of every write, 0: none */
    int fail_read;
    bool short_calls; /* at most one block at a time */
    bool damage;      /* reads give a wrong byte */
    long reads, writes;
} disk = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

static int plain_open(const char *path, int flags, mode_t mode)
{
    return open(path, flags & ~O_DIRECT, mode);
}

static void before_call(void)
{
    pthread_mutex_lock(&disk.lock);
    disk.seed = disk.seed * 1664525u + 1013904223u;
    unsigned wait = disk.delay_us > 0 ? (disk.seed >> 8) % (unsigned)disk.delay_us : 0;
    pthread_mutex_unlock(&disk.lock);
    usleep(wait);
}

static ssize_t odd_write(int fd, const void *bytes, size_t size, off_t offset)
{
    before_call();
    pthread_mutex_lock(&disk.lock);
    while (disk.held) {
        pthread_cond_wait(&disk.changed, &disk.lock);
    }
    disk.writes++;
    int number = disk.fail_write;
    pthread_mutex_unlock(&disk.lock);
    if (number != 0) {
        errno = number;
        return -1;
    }
    return pwrite(fd, bytes, disk.short_calls && size > 512 ? 512 : size, offset);
}

static ssize_t odd_read(int fd, void *bytes, size_t size, off_t offset)
{
    before_call();
    pthread_mutex_lock(&disk.lock);
    disk.reads++;
    int number = disk.fail_read;
    pthread_mutex_unlock(&disk.lock);
    if (number != 0) {
        errno = number;
        return -1;
    }
    ssize_t n = pread(fd, bytes, disk.short_calls && size > 512 ? 512 : size, offset);
    if (n > 0 && disk.damage) {
        ((uint8_t *)bytes)[0] ^= 1;
    }
    return n;
}

static const struct file_ops odd_ops = { .open = plain_open,
                                         .write = write,
                                         .pread = odd_read,
                                         .pwrite = odd_write,
                                         .fsync = fsync,
                                         .close = close,
                                         .rename = rename,
                                         .mkdir = mkdir,
                                         .unlink = unlink,
                                         .rmdir = rmdir };

static int odd_disk(void **state)
{
    (void)state;
    disk.held = false;
    disk.delay_us = 0;
    disk.fail_write = disk.fail_read = 0;
    disk.short_calls = disk.damage = false;
    disk.reads = disk.writes = 0;
    file_install_ops(&odd_ops);
    return 0;
}

static int good_disk(void **state)
{
    (void)state;
    file_install_ops(NULL);
    return 0;
}

static void slow_and_short_transfers_change_nothing(void **state)
{
    (void)state;
    disk.delay_us = 3000;
    disk.short_calls = true;
    for (unsigned seed = 1; seed <= 4; seed++) {
        disk.seed = seed;
        struct store *store = open_store(STORE_SSD, 9000, false);
        struct error err = { 0 };
        assert_int_equal(pass(store, 9000, seed, &err), 0);
        struct store_counts counts;
        store_count(store, &counts);
        assert_true(counts.stall_seconds > 0.0);
        store_close(store);
    }
}

/* What has not left yet is handed back from memory: a disk that writes nothing is no hindrance. */
static void unwritten_spans_are_forwarded(void **state)
{
    (void)state;
    struct store *store = open_store(STORE_SSD, 5000, false);
    struct error err = { 0 };
    uint8_t made[5000];
    uint8_t got[5000];
    disk.held = true;
    for (int i = 0; i < STORE_STAGING; i++) {
        fill(made, sizeof made, (unsigned)i);
        assert_int_equal(store_put(store, i, made, sizeof made, &err), 0);
    }
    for (int i = STORE_STAGING - 1; i >= 0; i--) {
        assert_int_equal(store_take(store, i, got, sizeof got, &err), 0);
        fill(made, sizeof made, (unsigned)i);
        assert_memory_equal(made, got, sizeof made);
    }
    struct store_counts counts;
    store_count(store, &counts);
    assert_int_equal(counts.forwarded_spans, STORE_STAGING);
    assert_int_equal(counts.read_bytes, 0);
    assert_int_equal(disk.reads, 0);
    pthread_mutex_lock(&disk.lock);
    disk.held = false;
    pthread_cond_broadcast(&disk.changed);
    pthread_mutex_unlock(&disk.lock);
    /* A late write of an old span does not disturb a new one. */
    assert_int_equal(pass(store, 5000, 77, &err), 0);
    store_close(store);
}

static void trouble_is_never_swallowed(void **state)
{
    (void)state;
    static const struct {
        int write, read;
        bool damage;
        const char *says;
    } faults[] = { { ENOSPC, 0, false, "No space left" },
                   { EIO, 0, false, "cannot write" },
                   { 0, EIO, false, "cannot read" },
                   { 0, 0, true, "damaged" } };
    for (size_t f = 0; f < sizeof faults / sizeof faults[0]; f++) {
        odd_disk(NULL);
        disk.fail_write = faults[f].write;
        disk.fail_read = faults[f].read;
        disk.damage = faults[f].damage;
        struct store *store = open_store(STORE_SSD, 6000, false);
        struct error err = { 0 };
        assert_int_equal(pass(store, 6000, 5, &err), -1);
        assert_non_null(strstr(err.message, faults[f].says));
        assert_true(err.hint[0] != '\0');
        /* And it goes on failing. */
        uint8_t bytes[10] = { 0 };
        store_reset(store);
        assert_int_equal(store_put(store, 0, bytes, sizeof bytes, &err), -1);
        store_close(store);
    }
}

static void a_broken_pass_can_be_forgotten(void **state)
{
    (void)state;
    struct store *store = open_store(STORE_SSD, 5000, false);
    struct error err = { 0 };
    uint8_t made[5000] = { 1 };
    disk.delay_us = 2000;
    for (int i = 0; i < 6; i++) {
        assert_int_equal(store_put(store, i, made, sizeof made, &err), 0);
    }
    assert_int_equal(store_fetch(store, 0, &err), 0);
    store_reset(store);
    assert_int_equal(pass(store, 5000, 3, &err), 0);
    store_close(store);
}

static void a_place_that_cannot_be_used_is_refused(void **state)
{
    (void)state;
    struct error err = { 0 };
    struct store_options options = {
        .kind = STORE_SSD, .be = cpu, .directory = "/nowhere/at/all", .span_bytes = 100, .spans = 2
    };
    assert_null(store_open(&options, &err));
    assert_non_null(strstr(err.message, "/nowhere/at/all"));
    options.directory = "/tmp";
    options.spans = 1 << 20;
    options.span_bytes = 64 << 20;
    assert_null(store_open(&options, &err));
    assert_non_null(strstr(err.message, "no room"));
}

static void a_directory_can_be_measured(void **state)
{
    (void)state;
    struct error err = { 0 };
    struct store_rates rates;
    assert_int_equal(store_measure("/tmp", 1 << 20, &rates, &err), 0);
    assert_true(rates.write > 1e6 && rates.read > 1e6 && rates.copy > 1e6);
    assert_int_equal(store_measure("/nowhere", 1 << 20, &rates, &err), -1);
}

static int open_cpu(void **state)
{
    (void)state;
    char why[128];
    cpu = backend_open("cpu", 0, why, sizeof why);
    return cpu == NULL ? -1 : 0;
}

static int close_cpu(void **state)
{
    (void)state;
    backend_close(cpu);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_comes_back),
        cmocka_unit_test_setup_teardown(slow_and_short_transfers_change_nothing, odd_disk,
                                        good_disk),
        cmocka_unit_test_setup_teardown(unwritten_spans_are_forwarded, odd_disk, good_disk),
        cmocka_unit_test_setup_teardown(trouble_is_never_swallowed, odd_disk, good_disk),
        cmocka_unit_test_setup_teardown(a_broken_pass_can_be_forgotten, odd_disk, good_disk),
        cmocka_unit_test(a_place_that_cannot_be_used_is_refused),
        cmocka_unit_test(a_directory_can_be_measured),
    };
    return cmocka_run_group_tests(tests, open_cpu, close_cpu);
}
