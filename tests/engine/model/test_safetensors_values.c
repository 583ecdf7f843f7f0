/* safetensors: values are read exactly, files are written whole or not at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/faults.h"
#include "engine/base/file.h"
#include "engine/base/xalloc.h"
#include "engine/model/safetensors.h"

static char folder[] = "/tmp/windrow-test-stv-XXXXXX";
static char *path;

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder)) {
        return -1;
    }
    path = path_join(folder, "w.safetensors");
    return 0;
}

static int remove_folder(void **state)
{
    struct error err = { 0 };
    (void)state;
    free(path);
    return file_remove_tree(folder, &err);
}

static void write_one(enum dtype dtype, int64_t count, const void *values)
{
    struct error err = { 0 };
    struct safetensors_entry entry = { "w", dtype, 1, { count } };
    unlink(path);
    struct safetensors_writer *w = safetensors_writer_begin(path, &entry, 1, &err);
    assert_non_null(w);
    assert_int_equal(safetensors_writer_write(w, values, (size_t)count * dtype_size(dtype), &err),
                     0);
    assert_int_equal(safetensors_writer_finish(w, NULL, NULL, &err), 0);
}

static void read_one(int64_t first, int64_t count, void *out, enum dtype want)
{
    struct error err = { 0 };
    struct safetensors *file = safetensors_open(path, &err);
    assert_non_null(file);
    assert_int_equal(safetensors_read_range(file, file->tensor, first, count, out, want, &err), 0);
    safetensors_close(file);
}

static void test_all_halves(void **state)
{
    (void)state;
    enum { COUNT = 65536 };
    uint16_t *half = xmalloc(COUNT * sizeof *half);
    float *value = xmalloc(COUNT * sizeof *value);
    for (int i = 0; i < COUNT; i++) {
        half[i] = (uint16_t)i;
    }
    write_one(DTYPE_F16, COUNT, half);
    read_one(0, COUNT, value, DTYPE_F32);
    for (int i = 0; i < COUNT; i++) {
        /* The value by its definition: (-1)^s 2^(e-15) (1 + m/1024), subnormals 2^-14 m/1024. */
        int e = i >> 10 & 31;
        int m = i & 1023;
        double magnitude = e == 0 ? ldexp(m, -24) : ldexp(1024 + m, e - 25);
        double expected = i & 0x8000 ? -magnitude : magnitude;
        if (e == 31) {
            assert_true(m ? isnan(value[i]) : isinf(value[i]));
            assert_true(m || (signbit(value[i]) != 0) == (i >> 15 != 0));
        } else {
            assert_true((double)value[i] == expected);
            assert_int_equal(signbit(value[i]) != 0, (i & 0x8000) != 0);
        }
    }
    uint16_t *narrow = xmalloc(COUNT * sizeof *narrow);
    read_one(0, COUNT, narrow, DTYPE_BF16);
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(narrow[i], bf16_from_float(value[i]));
    }
    read_one(0, COUNT, narrow, DTYPE_F16);
    assert_memory_equal(narrow, half, COUNT * sizeof *half);
    /* bf16 in the same way: the upper half of a float. */
    write_one(DTYPE_BF16, COUNT, half);
    read_one(0, COUNT, value, DTYPE_F32);
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(float_bits(value[i]), (uint32_t)i << 16);
    }
    read_one(1000, 3, narrow, DTYPE_BF16);
    assert_int_equal(narrow[2], 1002);
    free(half);
    free(value);
    free(narrow);
}

static void test_ranges_across_chunks(void **state)
{
    (void)state;
    enum { COUNT = 200000 };
    float *value = xmalloc(COUNT * sizeof *value);
    uint16_t *narrow = xmalloc(COUNT * sizeof *narrow);
    for (int i = 0; i < COUNT; i++) {
        value[i] = sinf((float)i) * 1e3f;
    }
    write_one(DTYPE_F32, COUNT, value);
    static const struct {
        int first;
        int count;
    } ranges[] = { { 0, COUNT },     { 1, COUNT - 1 }, { 65535, 2 },
                   { COUNT - 1, 1 }, { COUNT, 0 },     { 3, 131072 } };
    for (size_t k = 0; k < sizeof ranges / sizeof ranges[0]; k++) {
        memset(narrow, 0, COUNT * sizeof *narrow);
        read_one(ranges[k].first, ranges[k].count, narrow, DTYPE_BF16);
        for (int i = 0; i < ranges[k].count; i++) {
            assert_int_equal(narrow[i], bf16_from_float(value[ranges[k].first + i]));
        }
    }
    float back[7];
    read_one(777, 7, back, DTYPE_F32);
    assert_memory_equal(back, value + 777, sizeof back);
    free(value);
    free(narrow);
}

static void test_writer(void **state)
{
    (void)state;
    struct error err = { 0 };
    static const struct safetensors_entry entries[] = {
        { "a\"\x1b", DTYPE_U8, 1, { 3 } },
        { "b", DTYPE_F32, 2, { 70000, 3 } },
        { "c", DTYPE_I32, 0, { 0 } },
        { "d", DTYPE_BF16, 2, { 0, 5 } },
    };
    enum { DATA = 3 + 840000 + 4 };
    unsigned char *data = xmalloc(DATA);
    for (int i = 0; i < DATA; i++) {
        data[i] = (unsigned char)(i * 31 + i / 255);
    }
    /* Pieces of every kind of size give the same file. */
    char first[DIGEST_TEXT_SIZE] = "";
    for (size_t piece = 1; piece < 2000000; piece = piece * 17 + 3) {
        char digest[DIGEST_TEXT_SIZE];
        char of_file[DIGEST_TEXT_SIZE];
        int64_t bytes = 0;
        unlink(path);
        struct safetensors_writer *w = safetensors_writer_begin(path, entries, 4, &err);
        assert_non_null(w);
        for (size_t at = 0; at < DATA; at += piece) {
            size_t part = DATA - at < piece ? DATA - at : piece;
            assert_int_equal(safetensors_writer_write(w, data + at, part, &err), 0);
        }
        assert_int_equal(safetensors_writer_finish(w, digest, &bytes, &err), 0);
        assert_int_equal(digest_of_file(path, of_file, &err), 0);
        assert_string_equal(digest, of_file);
        assert_int_equal(bytes, safetensors_file_bytes(entries, 4));
        if (!first[0]) {
            memcpy(first, digest, sizeof first);
        }
        assert_string_equal(digest, first);
    }
    size_t size = 0;
    char *text = file_read_all(path, 2000000, &size, &err);
    assert_int_equal((size - DATA) % 8, 0);
    assert_memory_equal(text + 8, "{\"__metadata__\":{\"format\":\"pt\"},", 32);
    assert_memory_equal(text + size - DATA, data, DATA);
    free(text);
    struct safetensors *file = safetensors_open(path, &err);
    assert_non_null(file);
    assert_int_equal(file->count, 4);
    const struct safetensors_tensor *b = safetensors_find(file, "b");
    assert_int_equal(b->rank, 2);
    assert_int_equal(b->dim[0], 70000);
    assert_int_equal(safetensors_find(file, "c")->elements, 1);
    assert_non_null(safetensors_find(file, "a\"\x1b"));
    assert_null(safetensors_writer_begin(path, entries, 4, &err)); /* never over a file */
    safetensors_close(file);
    free(data);
}

/* Writes two tensors of 300000 bytes in all; removes the file first. */
static int write_two(struct error *err)
{
    static const struct safetensors_entry entries[] = { { "a", DTYPE_U8, 1, { 100000 } },
                                                        { "b", DTYPE_U8, 1, { 200000 } } };
    static const unsigned char bytes[10000] = { 1, 2, 3 };
    struct safetensors_writer *w = safetensors_writer_begin(path, entries, 2, err);
    if (!w) {
        return -1;
    }
    for (int i = 0; i < 30; i++) {
        if (safetensors_writer_write(w, bytes, sizeof bytes, err) != 0) {
            safetensors_writer_abort(w);
            return -1;
        }
    }
    return safetensors_writer_finish(w, NULL, NULL, err);
}

static void test_every_failing_call_of_the_writer(void **state)
{
    (void)state;
    static const int numbers[] = { ENOSPC, EIO, EINTR };
    for (size_t i = 0; i < 3; i++) {
        bool hit = true;
        long at = 1;
        for (; hit; at++) {
            struct error err = { 0 };
            unlink(path);
            faults_begin(FAULT_ERROR, numbers[i], at);
            int result = write_two(&err);
            hit = faults_end().hit;
            assert_int_equal(file_exists(path), result == 0);
            if (result != 0) {
                assert_int_equal(err.code, ERROR_RUNTIME);
                assert_non_null(strstr(err.message, path));
            } else {
                struct safetensors *file = safetensors_open(path, &err);
                assert_non_null(file);
                safetensors_close(file);
            }
            assert_true(result != 0 || !hit || numbers[i] == EINTR);
        }
        assert_true(at > 5); /* open write write fsync close */
    }
}

static void test_file_that_shrinks(void **state)
{
    (void)state;
    struct error err = { 0 };
    float values[100] = { 0 };
    write_one(DTYPE_F32, 100, values);
    struct safetensors *file = safetensors_open(path, &err);
    assert_int_equal(truncate(path, 200), 0);
    assert_int_equal(safetensors_read(file, file->tensor, values, DTYPE_F32, &err), -1);
    assert_non_null(strstr(err.message, path));
    safetensors_close(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_halves),
        cmocka_unit_test(test_ranges_across_chunks),
        cmocka_unit_test(test_writer),
        cmocka_unit_test(test_every_failing_call_of_the_writer),
        cmocka_unit_test(test_file_that_shrinks),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
