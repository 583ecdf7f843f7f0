/* Checkpoints: what was saved stays whole whatever fails, damage is refused by name, and pruning
 * never takes the last whole one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/file.h"
#include "engine/base/xalloc.h"
#include "engine/run/checkpoint.h"
#include "kernels/random.h"
#include "saved.h"

/* ---- failing calls -------------------------------------------------------------------------- */

/* The state of the injected faults; one test at a time uses it. */
static struct {
    int64_t calls;
    int64_t fails_at; /* the call that fails; 0: none */
    bool sticky;      /* and all after it */
    int number;       /* errno */
} faults;

static bool fault(void)
{
    faults.calls++;
    bool now = faults.fails_at != 0 &&
               (faults.sticky ? faults.calls >= faults.fails_at : faults.calls == faults.fails_at);
    if (now) {
        errno = faults.number;
    }
    return now;
}

static int fault_open(const char *path, int flags, mode_t mode)
{
    return fault() ? -1 : open(path, flags, mode);
}
static ssize_t fault_write(int fd, const void *bytes, size_t size)
{
    if (fault()) {
        if (faults.number == ENOSPC && size > 1) {
            return write(fd, bytes, size / 2); /* a short write comes first */
        }
        return -1;
    }
    return write(fd, bytes, size);
}
static ssize_t fault_pread(int fd, void *bytes, size_t size, off_t offset)
{
    return fault() ? -1 : pread(fd, bytes, size, offset);
}
static int fault_fsync(int fd)
{
    (void)fd; /* the disk of the machine is not what is tested */
    return fault() ? -1 : 0;
}
static int fault_close(int fd)
{
    bool now = fault();
    int number = errno;
    int result = close(fd);
    errno = number;
    return now ? -1 : result;
}
static int fault_rename(const char *from, const char *to)
{
    return fault() ? -1 : rename(from, to);
}
static int fault_mkdir(const char *path, mode_t mode)
{
    return fault() ? -1 : mkdir(path, mode);
}
static int fault_unlink(const char *path)
{
    return fault() ? -1 : unlink(path);
}
static int fault_rmdir(const char *path)
{
    return fault() ? -1 : rmdir(path);
}

static const struct file_ops fault_ops = {
    .open = fault_open,
    .write = fault_write,
    .pread = fault_pread,
    .fsync = fault_fsync,
    .close = fault_close,
    .rename = fault_rename,
    .mkdir = fault_mkdir,
    .unlink = fault_unlink,
    .rmdir = fault_rmdir,
};

static void arm(int64_t at, bool sticky, int number)
{
    faults.calls = 0;
    faults.fails_at = at;
    faults.sticky = sticky;
    faults.number = number;
    file_install_ops(&fault_ops);
}

static int leftovers(const char *run)
{
    char *folder = path_join(run, "checkpoints");
    DIR *directory = opendir(folder);
    int count = 0;
    const struct dirent *entry;
    while (directory && (entry = readdir(directory))) {
        count += strncmp(entry->d_name, ".tmp", 4) == 0 || strncmp(entry->d_name, ".del", 4) == 0;
    }
    if (directory) {
        closedir(directory);
    }
    free(folder);
    return count;
}

/* One save of step 20 with call number `at` failing. */
static void one_fault(const char *run, int64_t at, bool sticky, int number)
{
    struct error err = { 0 };
    arm(at, sticky, number);
    int result = save_step(run, 20, false, &err);
    file_install_ops(NULL);
    assert_true(is_whole(run, 10));
    char *path = step_path(run, 20);
    if (result == 0) {
        assert_true(is_whole(run, 20));
    } else {
        assert_non_null(strstr(err.message, "step 20"));
        assert_true(!file_exists(path) || is_whole(run, 20));
    }
    struct error clean = { 0 };
    assert_int_equal(checkpoint_clean(run, &clean), 0);
    assert_int_equal(leftovers(run), 0);
    assert_int_equal(file_remove_tree(path, &clean), 0);
    free(path);
}

static void any_call_may_fail(void **state)
{
    const char *run = *state;
    static const int numbers[] = { ENOSPC, EIO, EMFILE, EINTR };
    struct error err = { 0 };
    assert_int_equal(save_step(run, 10, false, &err), 0);
    arm(0, false, 0);
    assert_int_equal(save_step(run, 20, false, &err), 0);
    int64_t calls = faults.calls;
    file_install_ops(NULL);
    assert_true(calls > 20);
    for (int64_t at = 1; at <= calls + 2; at++) {
        for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
            one_fault(run, at, false, numbers[i]);
            if (numbers[i] != EINTR) { /* a call that is interrupted for ever never ends */
                one_fault(run, at, true, numbers[i]);
            }
        }
    }
}

static void replacing_a_step_is_safe_too(void **state)
{
    const char *run = *state;
    struct error err = { 0 };
    assert_int_equal(save_step(run, 10, false, &err), 0);
    for (int64_t at = 1; at <= 60; at++) {
        arm(at, false, EIO);
        save_step(run, 10, false, &err);
        file_install_ops(NULL);
        assert_true(is_whole(run, 10));
        assert_int_equal(checkpoint_clean(run, &err), 0);
    }
}

static void a_device_that_fails_leaves_nothing(void **state)
{
    const char *run = *state;
    struct error err = { 0 };
    assert_int_equal(save_step(run, 10, false, &err), 0);
    assert_int_equal(save_step(run, 20, true, &err), -1);
    assert_non_null(strstr(err.message, "the device is gone"));
    assert_true(is_whole(run, 10));
    assert_int_equal(leftovers(run), 0);
}

/* ---- the order of calls --------------------------------------------------------------------- */

/* What a power cut would lose: files written and not synced, names not synced. */
static struct {
    bool unsynced[256]; /* by descriptor: a file with bytes that are not synced */
    bool folder[256];   /* by descriptor: a directory */
    int unsynced_files; /* closed without a sync */
    bool folder_synced; /* a directory was synced since the last file was made */
    bool published;     /* the checkpoint got its name */
    bool parent_synced; /* and a directory was synced after that */
} order;

static int order_open(const char *path, int flags, mode_t mode)
{
    int fd = open(path, flags, mode);
    if (fd >= 0 && fd < 256) {
        order.unsynced[fd] = (flags & O_ACCMODE) != O_RDONLY;
        order.folder[fd] = (flags & O_DIRECTORY) != 0;
        order.folder_synced = order.folder_synced && !(flags & O_CREAT);
    }
    return fd;
}
static ssize_t order_write(int fd, const void *bytes, size_t size)
{
    assert_true(fd < 256);
    order.unsynced[fd] = true;
    return write(fd, bytes, size);
}
static int order_fsync(int fd)
{
    order.unsynced[fd] = false;
    order.folder_synced = order.folder_synced || order.folder[fd];
    order.parent_synced = order.published && order.folder[fd];
    return 0;
}
static int order_close(int fd)
{
    order.unsynced_files += order.unsynced[fd] ? 1 : 0;
    return close(fd);
}
static int order_rename(const char *from, const char *to)
{
    if (strstr(to, "checkpoints/step-")) {
        assert_int_equal(order.unsynced_files, 0);
        assert_true(order.folder_synced); /* every name in it is durable */
        order.published = true;
    }
    return rename(from, to);
}

static void everything_is_durable_before_it_counts(void **state)
{
    const char *run = *state;
    struct file_ops ops = *file_ops();
    struct error err = { 0 };
    ops.open = order_open;
    ops.write = order_write;
    ops.fsync = order_fsync;
    ops.close = order_close;
    ops.rename = order_rename;
    memset(&order, 0, sizeof order);
    file_install_ops(&ops);
    assert_int_equal(save_step(run, 10, false, &err), 0);
    file_install_ops(NULL);
    assert_true(order.published);
    assert_true(order.parent_synced); /* before the save is announced */
    assert_int_equal(order.unsynced_files, 0);
}

/* ---- reading -------------------------------------------------------------------------------- */

static void tensors_come_back(void **state)
{
    const char *run = *state;
    struct error err = { 0 };
    assert_int_equal(save_step(run, 30, false, &err), 0);
    char *path = step_path(run, 30);
    struct checkpoint checkpoint;
    assert_int_equal(checkpoint_open(path, &checkpoint, &err), 0);
    assert_int_equal(checkpoint.step, 30);
    assert_non_null(checkpoint.state);
    const struct safetensors *file = NULL;
    const struct safetensors_tensor *index = checkpoint_find(&checkpoint, "method/index", &file);
    assert_non_null(index);
    unsigned char bytes[12];
    assert_int_equal(safetensors_read(file, index, bytes, DTYPE_I32, &err), 0);
    for (int64_t i = 0; i < 12; i++) {
        assert_int_equal(bytes[i], byte_of(30, 1, i));
    }
    assert_null(checkpoint_find(&checkpoint, "absent", &file));
    checkpoint_close(&checkpoint);
    free(path);
}

static void damage_is_refused_by_name(void **state)
{
    const char *run = *state;
    static const char *const names[] = { "model.safetensors", "state.safetensors", "state.json",
                                         "config.json", "manifest.json" };
    struct error err = { 0 };
    struct random_key key = { .seed = 5, .purpose = RANDOM_TEST };
    arm(0, false, 0); /* without waiting for the disk */
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        for (int trial = 0; trial < 24; trial++) {
            assert_int_equal(save_step(run, 40, false, &err), 0);
            char *folder = step_path(run, 40);
            char *path = path_join(folder, names[i]);
            change_file(path,
                        trial < 18   ? 0
                        : trial < 21 ? 1
                        : trial < 23 ? 2
                                     : 3,
                        random_u32(&key, (uint64_t)trial) >> 4);
            struct error why = { 0 };
            assert_int_equal(checkpoint_verify(folder, true, &why), -1);
            if (!strstr(why.message, names[i]) || !strstr(why.message, "step-000040")) {
                fail_msg("damage to %s is reported as \"%s\"", names[i], why.message);
            }
            struct checkpoint checkpoint;
            assert_int_equal(checkpoint_open(folder, &checkpoint, &why), -1);
            free(path);
            free(folder);
        }
    }
}

static void only_whole_names_are_listed(void **state)
{
    const char *run = *state;
    static const char *const odd[] = {
        "step-99999999999999999999", "step-000010 (copy)", "step-10", "step--00001",
        ".tmp-step-000050",          "step-0000100",       "latest",
    };
    struct error err = { 0 };
    struct checkpoint_list list;
    assert_int_equal(checkpoint_list_read(run, &list, &err), 0);
    assert_int_equal(list.count, 0);
    for (int64_t step = 10; step <= 30; step += 10) {
        assert_int_equal(save_step(run, step, false, &err), 0);
    }
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        char *path = xasprintf("%s/checkpoints/%s", run, odd[i]);
        assert_int_equal(file_make_directories(path, &err), 0);
        free(path);
    }
    char *link = step_path(run, 40);
    assert_int_equal(symlink("step-000010", link), 0);
    free(link);
    assert_int_equal(checkpoint_list_read(run, &list, &err), 0);
    assert_int_equal(list.count, 3);
    assert_int_equal(list.item[0].step, 30);
    assert_int_equal(list.item[2].step, 10);
    checkpoint_list_free(&list);
    char *renamed = step_path(run, 77);
    char *old = step_path(run, 30);
    assert_int_equal(rename(old, renamed), 0);
    assert_int_equal(checkpoint_verify(renamed, false, &err), -1);
    free(old);
    free(renamed);
    char *folder = path_join(run, "checkpoints");
    assert_int_equal(file_remove_tree(folder, &err), 0);
    assert_int_equal(file_replace(folder, "x", 1, &err), 0);
    assert_int_equal(checkpoint_list_read(run, &list, &err), -1); /* not "there are none" */
    free(folder);
}

/* ---- pruning -------------------------------------------------------------------------------- */

static int64_t newest_whole(const char *run)
{
    struct error err = { 0 };
    struct checkpoint_list list;
    int64_t found = -1;
    assert_int_equal(checkpoint_list_read(run, &list, &err), 0);
    for (size_t i = 0; i < list.count && found < 0; i++) {
        found = is_whole(run, list.item[i].step) ? list.item[i].step : -1;
    }
    checkpoint_list_free(&list);
    return found;
}

static void break_step(const char *run, int64_t step)
{
    char *folder = step_path(run, step);
    char *path = path_join(folder, "manifest.json");
    if (file_exists(path)) {
        change_file(path, 1, 17);
    }
    free(path);
    free(folder);
}

/* Random sequences of saves, failed saves, damage and pruning with keep 1 .. 5 and a pinned step.
 */
static void pruning_keeps_what_is_needed(void **state)
{
    const char *run = *state;
    for (uint32_t sequence = 0; sequence < 60; sequence++) {
        struct random_key key = { .seed = 9, .purpose = RANDOM_TEST, .step = sequence };
        struct error err = { 0 };
        int64_t pinned = -1;
        arm(0, false, 0);
        for (uint32_t turn = 0; turn < 20; turn++) {
            uint32_t word = random_u32(&key, turn);
            int64_t step = (int64_t)turn + 1;
            int64_t before = newest_whole(run);
            if (word % 8 < 5) {
                assert_int_equal(save_step(run, step, false, &err), 0);
                before = step;
                pinned = pinned < 0 ? step : pinned;
            } else if (word % 8 == 5) {
                assert_int_equal(save_step(run, step, true, &err), -1);
            } else if (word % 8 == 6 && before > 1 && before != pinned) {
                break_step(run, before);
                before = newest_whole(run);
            }
            int64_t keep = 1 + word / 8 % 5;
            assert_int_equal(checkpoint_prune(run, keep, &pinned, 1, &err), 0);
            assert_int_equal(newest_whole(run), before);
            assert_true(pinned < 0 || is_whole(run, pinned));
            struct checkpoint_list list;
            assert_int_equal(checkpoint_list_read(run, &list, &err), 0);
            int64_t whole = 0;
            for (size_t i = 0; i < list.count; i++) {
                whole += is_whole(run, list.item[i].step) ? 1 : 0;
            }
            assert_true(whole <= keep + 1);
            checkpoint_list_free(&list);
        }
        char *folder = path_join(run, "checkpoints");
        assert_int_equal(file_remove_tree(folder, &err), 0);
        free(folder);
    }
}

/* What another process begins from stays; a pin that comes too late says so. */
static void pins_hold(void **state)
{
    const char *run = *state;
    struct error err = { 0 };
    char *path = xasprintf("%s/checkpoints/step-000001", run);
    arm(0, false, 0);
    assert_int_equal(checkpoint_pin(path), -1);
    for (int64_t step = 1; step <= 3; step++) {
        assert_int_equal(save_step(run, step, false, &err), 0);
    }
    int first = checkpoint_pin(path);
    int second = checkpoint_pin(path);
    assert_true(first >= 0 && second >= 0);
    assert_int_equal(checkpoint_prune(run, 1, NULL, 0, &err), 0);
    assert_true(is_whole(run, 1) && is_whole(run, 3));
    assert_false(is_whole(run, 2));
    checkpoint_unpin(first);
    assert_int_equal(checkpoint_prune(run, 1, NULL, 0, &err), 0);
    assert_true(is_whole(run, 1));
    checkpoint_unpin(second);
    assert_int_equal(checkpoint_prune(run, 1, NULL, 0, &err), 0);
    assert_false(file_exists(path));
    assert_int_equal(checkpoint_pin(path), -1);
    assert_true(is_whole(run, 3));
    assert_int_equal(leftovers(run), 0);
    free(path);
}

static void pruning_may_fail_anywhere(void **state)
{
    const char *run = *state;
    struct error err = { 0 };
    for (int64_t at = 1; at <= 40; at++) {
        arm(0, false, 0);
        for (int64_t step = 1; step <= 4; step++) {
            assert_int_equal(save_step(run, step, false, &err), 0);
        }
        arm(at, at % 2 == 0, EIO);
        checkpoint_prune(run, 2, NULL, 0, &err);
        file_install_ops(NULL);
        assert_true(is_whole(run, 4));
        assert_int_equal(checkpoint_clean(run, &err), 0);
        assert_int_equal(leftovers(run), 0);
    }
}

static void links_point_where_they_should(void **state)
{
    const char *run = *state;
    struct error err = { 0 };
    assert_int_equal(save_step(run, 3, false, &err), 0);
    assert_int_equal(checkpoint_link(run, "latest", 2, &err), 0);
    assert_int_equal(checkpoint_link(run, "latest", 3, &err), 0);
    char *link = path_join(run, "latest");
    assert_true(file_is_directory(link));
    free(link);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(any_call_may_fail, make_run, remove_run),
        cmocka_unit_test_setup_teardown(replacing_a_step_is_safe_too, make_run, remove_run),
        cmocka_unit_test_setup_teardown(a_device_that_fails_leaves_nothing, make_run, remove_run),
        cmocka_unit_test_setup_teardown(everything_is_durable_before_it_counts, make_run,
                                        remove_run),
        cmocka_unit_test_setup_teardown(tensors_come_back, make_run, remove_run),
        cmocka_unit_test_setup_teardown(damage_is_refused_by_name, make_run, remove_run),
        cmocka_unit_test_setup_teardown(only_whole_names_are_listed, make_run, remove_run),
        cmocka_unit_test_setup_teardown(pruning_keeps_what_is_needed, make_run, remove_run),
        cmocka_unit_test_setup_teardown(pins_hold, make_run, remove_run),
        cmocka_unit_test_setup_teardown(pruning_may_fail_anywhere, make_run, remove_run),
        cmocka_unit_test_setup_teardown(links_point_where_they_should, make_run, remove_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
