/* Files: whole or not at all, whatever call fails. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/faults.h"
#include "engine/base/file.h"
#include "engine/base/xalloc.h"

static char folder[] = "/tmp/windrow-test-file-XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    struct error err = { 0 };
    (void)state;
    return file_remove_tree(folder, &err);
}

static size_t count_entries(const char *path)
{
    DIR *directory = opendir(path);
    size_t count = 0;
    assert_non_null(directory);
    while (readdir(directory)) {
        count++;
    }
    closedir(directory);
    return count - 2;
}

/* What file_replace must leave: the old content or the new one, and the new one if it says so. */
static void check_replace(enum fault kind, int number, long at, bool *done)
{
    struct error err = { 0 };
    static const char old_text[] = "the old content";
    static const char new_text[] = "something else and longer";
    char *path = path_join(folder, "replaced");
    assert_int_equal(file_replace(path, old_text, strlen(old_text), &err), 0);

    faults_begin(kind, number, at);
    int result = file_replace(path, new_text, strlen(new_text), &err);
    struct faults faults = faults_end();
    size_t size = 0;
    struct error read_err = { 0 };
    char *text = file_read_all(path, 1000, &size, &read_err);
    assert_non_null(text);
    bool is_old = strcmp(text, old_text) == 0;
    bool is_new = strcmp(text, new_text) == 0;
    assert_true(is_old || is_new);
    if (result == 0) {
        assert_true(is_new);
    } else {
        assert_int_equal(err.code, ERROR_RUNTIME);
        assert_non_null(strstr(err.message, folder));
    }
    bool harmless = number == EINTR || kind == FAULT_SHORT_WRITE;
    if (!harmless && faults.hit && kind == FAULT_ERROR) {
        /* Only the last close, of the directory, may fail in silence. */
        assert_true(result != 0 || at == faults.calls);
    }
    if (kind != FAULT_POWER) {
        assert_int_equal(count_entries(folder), 1);
    }
    *done = faults.calls < at;
    free(text);
    free(path);
}

static void test_replace_survives_every_failing_call(void **state)
{
    (void)state;
    static const int numbers[] = { ENOSPC, EIO, EINTR };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        bool done = false;
        long at = 1;
        for (; !done; at++) {
            check_replace(FAULT_ERROR, numbers[i], at, &done);
        }
        assert_true(at > 7); /* open write fsync close rename open fsync close */
    }
}

static void test_replace_syncs_before_and_after_the_rename(void **state)
{
    (void)state;
    struct error err = { 0 };
    char *path = path_join(folder, "order");
    faults_begin(FAULT_NONE, 0, 0);
    assert_int_equal(file_replace(path, "abc", 3, &err), 0);
    assert_string_equal(faults_end().log, "owfcrofc");
    assert_int_equal(unlink(path), 0);
    free(path);
}

static void test_replace_survives_short_writes(void **state)
{
    (void)state;
    bool done = false;
    for (long at = 1; !done; at++) {
        check_replace(FAULT_SHORT_WRITE, 0, at, &done);
    }
}

static void test_replace_survives_power_failure(void **state)
{
    (void)state;
    bool done = false;
    struct error err = { 0 };
    for (long at = 1; !done; at++) {
        check_replace(FAULT_POWER, EIO, at, &done);
        assert_int_equal(file_remove_tree(folder, &err), 0);
        assert_int_equal(mkdir(folder, 0700), 0);
    }
    /* A temporary file that was left does not stand in the way of the next one. */
    check_replace(FAULT_POWER, EIO, 3, &done);
    assert_int_equal(count_entries(folder), 2);
    char *path = path_join(folder, "replaced");
    assert_int_equal(file_replace(path, "x", 1, &err), 0);
    struct stat facts;
    assert_int_equal(stat(path, &facts), 0);
    assert_int_equal(facts.st_mode & 0777, 0600);
    assert_int_equal(file_remove_tree(folder, &err), 0);
    assert_int_equal(mkdir(folder, 0700), 0);
    free(path);
}

static void test_interrupted_write_goes_on(void **state)
{
    (void)state;
    struct error err = { 0 };
    char *path = path_join(folder, "a");
    faults_begin(FAULT_ERROR, EINTR, 2); /* the write */
    assert_int_equal(file_replace(path, "abc", 3, &err), 0);
    assert_true(faults_end().hit);
    faults_begin(FAULT_ERROR, ENOSPC, 2);
    assert_int_equal(file_replace(path, "abc", 3, &err), -1);
    faults_end();
    assert_non_null(strstr(err.message, "No space left"));
    assert_true(strlen(err.hint) > 0);
    assert_int_equal(unlink(path), 0);
    free(path);
}

static void test_read_refuses_what_is_no_file(void **state)
{
    (void)state;
    struct error err = { 0 };
    size_t size = 0;
    char *pipe_path = path_join(folder, "pipe");
    assert_int_equal(mkfifo(pipe_path, 0600), 0);
    assert_null(file_read_all(pipe_path, 10, &size, &err)); /* and does not wait for a writer */
    assert_non_null(strstr(err.message, "named pipe"));
    assert_null(file_read_all(folder, 10, &size, &err));
    assert_non_null(strstr(err.message, "directory"));
    assert_null(file_read_all("/dev/zero", 10, &size, &err));
    assert_non_null(strstr(err.message, "device"));
    assert_null(file_read_all("/nowhere/at/all", 10, &size, &err));
    assert_int_equal(err.code, ERROR_DATA);
    assert_non_null(strstr(err.message, "/nowhere/at/all"));
    assert_int_equal(unlink(pipe_path), 0);
    free(pipe_path);
}

static void test_read_limits_and_short_files(void **state)
{
    (void)state;
    struct error err = { 0 };
    size_t size = 0;
    char *path = path_join(folder, "ten");
    assert_int_equal(file_replace(path, "0123456789", 10, &err), 0);
    assert_null(file_read_all(path, 9, &size, &err));
    char *text = file_read_all(path, 10, &size, &err);
    assert_int_equal(size, 10);
    assert_int_equal(text[10], '\0');
    free(text);

    char bytes[8];
    int64_t length = 0;
    int fd = file_open_read(path, &length, &err);
    assert_int_equal(length, 10);
    assert_int_equal(file_read_at(fd, path, bytes, 8, 2, &err), 0);
    assert_memory_equal(bytes, "23456789", 8);
    assert_int_equal(file_read_at(fd, path, bytes, 8, 3, &err), -1);
    assert_non_null(strstr(err.message, "ends at byte 10"));
    faults_begin(FAULT_SHORT_WRITE, 0, 1);
    assert_int_equal(file_read_at(fd, path, bytes, 8, 0, &err), 0);
    assert_true(faults_end().hit);
    assert_memory_equal(bytes, "01234567", 8);
    faults_begin(FAULT_ERROR, EIO, 1);
    assert_int_equal(file_read_at(fd, path, bytes, 8, 0, &err), -1);
    faults_end();
    assert_int_equal(err.code, ERROR_RUNTIME);
    close(fd);
    assert_int_equal(unlink(path), 0);
    free(path);
}

static void test_directories(void **state)
{
    (void)state;
    struct error err = { 0 };
    char *deep = path_join(folder, "a/b//c/");
    assert_int_equal(file_make_directories(deep, &err), 0);
    assert_int_equal(file_make_directories(deep, &err), 0);
    assert_true(file_is_directory(deep));
    char *file = path_join(folder, "a/file");
    assert_int_equal(file_replace(file, "x", 1, &err), 0);
    char *below = path_join(file, "sub");
    assert_int_equal(file_make_directories(below, &err), -1);

    /* A link to a directory is removed, what it points to stays. */
    char *outside = path_join(folder, "outside");
    char *kept = path_join(outside, "kept");
    char *link_path = path_join(folder, "a/link");
    assert_int_equal(file_make_directories(outside, &err), 0);
    assert_int_equal(file_replace(kept, "x", 1, &err), 0);
    assert_int_equal(symlink(outside, link_path), 0);
    char *a = path_join(folder, "a");
    assert_int_equal(file_remove_tree(a, &err), 0);
    assert_false(file_exists(a));
    assert_true(file_exists(kept));
    assert_int_equal(file_remove_tree(a, &err), 0); /* not there: fine */
    faults_begin(FAULT_ERROR, EIO, 1);
    assert_int_equal(file_remove_tree(outside, &err), -1);
    faults_end();
    assert_int_equal(file_remove_tree(outside, &err), 0);
    free(deep);
    free(file);
    free(below);
    free(outside);
    free(kept);
    free(link_path);
    free(a);
}

static void test_copy(void **state)
{
    (void)state;
    struct error err = { 0 };
    char *from = path_join(folder, "from");
    char *to = path_join(folder, "to");
    enum { SIZE = 600000 };
    char *bytes = xmalloc(SIZE);
    for (int i = 0; i < SIZE; i++) {
        bytes[i] = (char)(i * 7 + i / 251);
    }
    assert_int_equal(file_replace(from, bytes, SIZE, &err), 0);
    assert_int_equal(file_copy(from, to, &err), 0);
    size_t size = 0;
    char *copy = file_read_all(to, SIZE, &size, &err);
    assert_int_equal(size, SIZE);
    assert_memory_equal(copy, bytes, SIZE);
    free(copy);
    /* A copy that fails leaves nothing. */
    for (long at = 1;; at++) {
        assert_int_equal(file_remove_tree(to, &err), 0);
        faults_begin(FAULT_ERROR, ENOSPC, at);
        int result = file_copy(from, to, &err);
        struct faults faults = faults_end();
        if (!faults.hit) {
            assert_int_equal(result, 0);
            assert_true(at > 8);
            break;
        }
        assert_int_equal(file_exists(to), result == 0);
    }
    assert_int_equal(unlink(from), 0);
    assert_int_equal(unlink(to), 0);
    free(bytes);
    free(from);
    free(to);
}

static void test_paths_and_space(void **state)
{
    (void)state;
    char *joined = path_join("a/", "b");
    assert_string_equal(joined, "a/b");
    free(joined);
    joined = path_join("a", "b");
    assert_string_equal(joined, "a/b");
    free(joined);
    assert_string_equal(path_base("/x/y.txt"), "y.txt");
    assert_string_equal(path_base("y.txt"), "y.txt");
    char *later = path_join(folder, "not/yet/made");
    assert_true(file_free_bytes(later) > 0);
    assert_true(file_free_bytes("here") > 0);
    free(later);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replace_survives_every_failing_call),
        cmocka_unit_test(test_replace_syncs_before_and_after_the_rename),
        cmocka_unit_test(test_replace_survives_short_writes),
        cmocka_unit_test(test_replace_survives_power_failure),
        cmocka_unit_test(test_interrupted_write_goes_on),
        cmocka_unit_test(test_read_refuses_what_is_no_file),
        cmocka_unit_test(test_read_limits_and_short_files),
        cmocka_unit_test(test_directories),
        cmocka_unit_test(test_copy),
        cmocka_unit_test(test_paths_and_space),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
