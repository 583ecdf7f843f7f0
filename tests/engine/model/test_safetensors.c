/* safetensors: hostile files are refused with a sentence, good ones are read exactly. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/file.h"
#include "engine/base/xalloc.h"
#include "engine/model/safetensors.h"

static char folder[] = "/tmp/windrow-test-st-XXXXXX";
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

static void put(const void *bytes, size_t size)
{
    struct error err = { 0 };
    assert_int_equal(file_replace(path, bytes, size, &err), 0);
}

/* Length, header and `data` zero bytes. */
static void put_file(uint64_t length, const char *header, size_t size, size_t data)
{
    struct buffer out = { 0 };
    char prefix[8];
    char *zeros = xcalloc(1, data + 1);
    for (int i = 0; i < 8; i++) {
        prefix[i] = (char)(unsigned char)(length >> (8 * i));
    }
    buffer_append(&out, prefix, 8);
    buffer_append(&out, header, size);
    buffer_append(&out, zeros, data);
    put(out.text, out.size);
    buffer_free(&out);
    free(zeros);
}

/* The file at `path` is refused with a sentence that names it and holds `part`. */
static void check_refused(const char *what, const char *part)
{
    struct error err = { 0 };
    struct safetensors *file = safetensors_open(path, &err);
    if (file || !strstr(err.message, path) || !strstr(err.message, part)) {
        print_message("%s: %s: %s\n", what, file ? "accepted" : "message", err.message);
    }
    assert_null(file);
    assert_int_equal(err.code, ERROR_DATA);
    assert_non_null(strstr(err.message, path));
    assert_non_null(strstr(err.message, part));
    for (const char *p = err.message; *p; p++) {
        assert_true((unsigned char)*p >= 0x20);
    }
}

static void check_accepted(size_t count)
{
    struct error err = { 0 };
    struct safetensors *file = safetensors_open(path, &err);
    if (!file) {
        print_message("%s\n", err.message);
    }
    assert_non_null(file);
    assert_int_equal(file->count, count);
    safetensors_close(file);
}

#define W "{\"w\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}}"

static void test_length_prefix(void **state)
{
    (void)state;
    put("", 0);
    check_refused("no file", "is empty");
    put("\x10\0\0\0\0\0\0", 7);
    check_refused("7 bytes", "too short");
    put("\0\0\0\0\0\0\0\0", 8);
    check_refused("zero", "too short");
    put_file(0, W, sizeof W - 1, 16);
    check_refused("zero length", "length of its header is 0");
    put_file(UINT64_C(1) << 63, W, sizeof W - 1, 16);
    check_refused("2^63", "length of its header");
    put_file(UINT64_MAX - 7, W, sizeof W - 1, 16);
    check_refused("2^64 - 8", "length of its header");
    put_file(100000001, W, sizeof W - 1, 16);
    check_refused("cap", "length of its header");
    put_file(sizeof W, W, sizeof W - 1, 0);
    check_refused("one more", "cut off");
    put_file(sizeof W - 1, W, sizeof W - 1, 0);
    check_refused("no data", "end at byte 81, the file has 65");
    put_file(sizeof W - 1, W, sizeof W - 1, 16);
    check_accepted(1);
}

/* Headers with the bytes of data that follow. */
struct recipe {
    const char *id;
    const char *header;
    size_t size;
    size_t data;
    const char *part; /* of the message */
};
#define RECIPE(id, header, data, part)                                                             \
    {                                                                                              \
        id, header, sizeof header - 1, data, part                                                  \
    }
#define T(fields) "{\"w\":{" fields "}}"

static const struct recipe recipes[] = {
    RECIPE("hdr-array", "[1,2,3]", 0, "does not start with {"),
    RECIPE("hdr-blank-first", " " W, 16, "does not start with {"),
    RECIPE("hdr-nulpad", W "\0\0\0\0\0\0\0\0", 16, "nothing may follow"),
    RECIPE("hdr-trailing", W "{}", 16, "nothing may follow"),
    RECIPE("hdr-badutf8",
           "{\"\xff\xfe\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}}", 16,
           "UTF-8"),
    RECIPE("hdr-overlong",
           "{\"\xc0\xaf\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}}", 16,
           "UTF-8"),
    RECIPE("hdr-dupkey",
           "{\"w\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},"
           "\"w\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}}",
           16, "twice"),
    RECIPE("hdr-escapedkey",
           "{\"w\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},"
           "\"\\u0077\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}}",
           16, "twice"),
    RECIPE("hdr-nulkey",
           "{\"w\\u0000x\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}}", 16,
           "u0000"),
    RECIPE("hdr-dupfield",
           T("\"dtype\":\"F32\",\"dtype\":\"U8\",\"shape\":[2,2],\"data_offsets\":[0,16]"), 16,
           "twice"),
    RECIPE("hdr-extrafield", T("\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16],\"x\":1"),
           16, "unknown key"),
    RECIPE("hdr-metatensor",
           "{\"__metadata__\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}}", 16,
           "__metadata__"),
    RECIPE("hdr-metanumber", "{\"__metadata__\":{\"a\":1}}", 0, "__metadata__"),
    RECIPE("hdr-metalist", "{\"__metadata__\":[]}", 0, "__metadata__"),
    RECIPE("hdr-tensorlist", "{\"w\":[]}", 0, "an object"),
    RECIPE("hdr-cut", "{\"w\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_off", 16, "line 1"),
    RECIPE("dtype-null", T("\"dtype\":null,\"shape\":[2,2],\"data_offsets\":[0,16]"), 16, "dtype"),
    RECIPE("dtype-lower", T("\"dtype\":\"f32\",\"shape\":[2,2],\"data_offsets\":[0,16]"), 16,
           "dtype"),
    RECIPE("dtype-none", T("\"shape\":[2,2],\"data_offsets\":[0,16]"), 16, "dtype"),
    RECIPE("dtype-f4odd", T("\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]"), 2,
           "whole bytes"),
    RECIPE("shape-neg", T("\"dtype\":\"F32\",\"shape\":[-1,4],\"data_offsets\":[0,16]"), 16,
           "negative"),
    RECIPE("shape-float", T("\"dtype\":\"F32\",\"shape\":[2.0,2],\"data_offsets\":[0,16]"), 16,
           "whole"),
    RECIPE("shape-exp", T("\"dtype\":\"F32\",\"shape\":[2e0,2],\"data_offsets\":[0,16]"), 16,
           "whole"),
    RECIPE("shape-text", T("\"dtype\":\"F32\",\"shape\":[\"2\",2],\"data_offsets\":[0,16]"), 16,
           "shape"),
    RECIPE("shape-none", T("\"dtype\":\"F32\",\"data_offsets\":[0,16]"), 16, "shape"),
    RECIPE("shape-wrong", T("\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,16]"), 16,
           "do not fit"),
    RECIPE("mul-2p64-to-0",
           T("\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]"), 0,
           "2^63"),
    RECIPE("mul-bytes-to-0",
           T("\"dtype\":\"BF16\",\"shape\":[8589934592,1073741824],\"data_offsets\":[0,0]"), 0,
           "2^63"),
    RECIPE("mul-bits",
           T("\"dtype\":\"F32\",\"shape\":[1073741824,1073741824],\"data_offsets\":[0,0]"), 0,
           "whole bytes"),
    RECIPE("mul-wrap-to-4",
           T("\"dtype\":\"BF16\",\"shape\":[9223372036854775809,2],\"data_offsets\":[0,4]"), 4,
           "2^53"),
    RECIPE("mul-i32-neg", T("\"dtype\":\"F32\",\"shape\":[46341,46341],\"data_offsets\":[0,0]"), 0,
           "do not fit"),
    RECIPE("mul-zero-last",
           T("\"dtype\":\"F32\",\"shape\":[9223372036854775808,9223372036854775808,0],"
             "\"data_offsets\":[0,0]"),
           0, "2^53"),
    RECIPE("off-neg", T("\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[-16,0]"), 16,
           "negative"),
    RECIPE("off-past", T("\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,32]"), 16,
           "do not fit"),
    RECIPE("off-three", T("\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16,16]"), 16,
           "two counts"),
    RECIPE("off-back", T("\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[16,0]"), 16,
           "do not fit"),
    RECIPE("off-wrapadd",
           T("\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[18446744073709551600,0]"), 16,
           "two counts"),
    RECIPE("off-same",
           "{\"a\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},"
           "\"b\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}}",
           16, "overlap"),
    RECIPE("off-overlap",
           "{\"a\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},"
           "\"b\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[8,24]}}",
           24, "overlap"),
    RECIPE("off-gap",
           "{\"a\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},"
           "\"b\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[24,40]}}",
           40, "hole"),
    RECIPE("off-tail", W, 64, "follow the data"),
    RECIPE("off-short", W, 15, "cut off"),
    RECIPE(
        "name-esc",
        "{\"\\u001b]52;c;x\\u0007\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,15]}}",
        16, "\\x1b]52;c;x\\x07"),
};

static void test_recipes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof recipes / sizeof recipes[0]; i++) {
        const struct recipe *r = &recipes[i];
        struct error err = { 0 };
        put_file(r->size, r->header, r->size, r->data);
        bool hinted = strstr(r->part, "cut off") != NULL && r->data == 15;
        if (hinted) { /* the end of the data: numbers in the message, the reason in the hint */
            assert_null(safetensors_open(path, &err));
            assert_non_null(strstr(err.hint, "cut off"));
            continue;
        }
        check_refused(r->id, r->part);
    }
}

#define L(bytes) bytes, sizeof bytes - 1

static void test_lookalikes(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
        const char *part;
    } cases[] = {
        { L("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1044992\n"),
          "Git LFS" },
        { L("<!DOCTYPE html>\n<html><head><title>404</title>"), "web page" },
        { L("<html><body>Sign in</body></html>"), "web page" },
        { L("GGUF\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), "GGUF" },
        { L("\x80\x04\x95\x0b\0\0\0\0\0\0\0}\x94\x8c\x01w\x94K\x01s."), "pickle" },
        { L("PK\x03\x04\0\0\x08\x08\0\0\0\0\0\0archive/data.pkl"), "zip" },
        { L("{\"error\":\"Entry not found\"}"), "JSON" },
        { L("Entry not found, and some more text"), "not a safetensors file" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct error err = { 0 };
        put(cases[i].bytes, cases[i].size);
        check_refused(cases[i].part, cases[i].part);
        assert_null(safetensors_open(path, &err));
        assert_true(strlen(err.hint) > 0);
    }
    struct error err = { 0 };
    assert_null(safetensors_open("/dev/zero", &err));
    assert_null(safetensors_open(folder, &err));
    assert_null(safetensors_open("/nowhere", &err));
    char *pipe_path = path_join(folder, "pipe");
    assert_int_equal(mkfifo(pipe_path, 0600), 0);
    assert_null(safetensors_open(pipe_path, &err)); /* and does not wait */
    assert_int_equal(unlink(pipe_path), 0);
    free(pipe_path);
}

static void test_long_ones(void **state)
{
    (void)state;
    struct buffer b = { 0 };
    enum { DEEP = 200000, MANY = 20000 };
    char *brackets = xmalloc(DEEP);
    memset(brackets, '[', DEEP);
    buffer_printf(&b, "{\"w\":");
    buffer_append(&b, brackets, DEEP);
    put_file(b.size, b.text, b.size, 0);
    check_refused("deep-open", "deeper");
    memset(brackets, ']', DEEP);
    buffer_append(&b, brackets, DEEP);
    buffer_printf(&b, "}");
    put_file(b.size, b.text, b.size, 0);
    check_refused("deep-arr", "deeper");
    buffer_free(&b);

    buffer_printf(&b, "{");
    for (int i = 0; i < MANY; i++) {
        buffer_printf(
            &b, "%s\"t%06d\":{\"dtype\":\"F32\",\"shape\":[200,200],\"data_offsets\":[0,160000]}",
            i ? "," : "", i);
    }
    buffer_printf(&b, "}");
    put_file(b.size, b.text, b.size, 160000);
    check_refused("many-overlap", "overlap");
    buffer_free(&b);

    buffer_printf(&b, "{\"w\":{\"dtype\":\"F32\",\"shape\":[1");
    for (int i = 1; i < DEEP; i++) {
        buffer_append(&b, ",1", 2);
    }
    buffer_printf(&b, "],\"data_offsets\":[0,4]}}");
    put_file(b.size, b.text, b.size, 4);
    /* A legal file whose tensor cannot be read. */
    struct error err = { 0 };
    struct safetensors *file = safetensors_open(path, &err);
    assert_non_null(file);
    float value;
    assert_int_equal(safetensors_read(file, file->tensor, &value, DTYPE_F32, &err), -1);
    assert_non_null(strstr(err.message, "200000 dimensions"));
    safetensors_close(file);
    buffer_free(&b);

    char *name = xmalloc(1000001);
    memset(name, 'n', 1000000);
    name[1000000] = '\0';
    buffer_printf(&b, "{\"%s\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,5]}}", name);
    put_file(b.size, b.text, b.size, 4);
    check_refused("name-long", "nnn...nnn");
    buffer_free(&b);
    free(name);
    free(brackets);
}

static void test_good_forms(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t data;
        size_t count;
    } good[] = {
        { "{}", 0, 0 },
        { "{}      ", 0, 0 },
        { "{\"__metadata__\":{}}", 0, 0 },
        { "{\"__metadata__\":{\"format\":\"pt\",\"x\":\"-1.5e3\"}}", 0, 0 },
        { W "   ", 16, 1 },
        { "{\"s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4, 1 },
        { "{\"z\":{\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[0,0]}}", 0, 1 },
        { "{\"b\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[2,10]},"
          "\"a\":{\"dtype\":\"F4\",\"shape\":[4],\"data_offsets\":[0,2]},"
          "\"z\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[2,2]}}",
          10, 3 },
        { "{\"e-1.5\\\"\\\\\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1],\"data_offsets\":[0,1]}}", 1,
          1 },
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        put_file(strlen(good[i].header), good[i].header, strlen(good[i].header), good[i].data);
        check_accepted(good[i].count);
    }
    struct error err = { 0 };
    static const char mixed[] = "{\"b\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[2,10]},"
                                "\"a\":{\"dtype\":\"F4\",\"shape\":[4],\"data_offsets\":[0,2]}}";
    put_file(sizeof mixed - 1, mixed, sizeof mixed - 1, 10);
    struct safetensors *file = safetensors_open(path, &err);
    assert_string_equal(file->tensor[0].name, "a"); /* in the order of the data */
    assert_string_equal(safetensors_find(file, "b")->type, "I64");
    assert_null(safetensors_find(file, "c"));
    int64_t value;
    assert_int_equal(safetensors_read(file, safetensors_find(file, "b"), &value, DTYPE_F32, &err),
                     -1);
    assert_non_null(strstr(err.message, "I64"));
    safetensors_close(file);
}

/* A small valid file for damaging. */
static char *small_file(size_t *size)
{
    struct error err = { 0 };
    static const struct safetensors_entry entries[] = { { "a", DTYPE_BF16, 2, { 2, 3 } },
                                                        { "b", DTYPE_F32, 1, { 2 } } };
    static const unsigned char data[20] = { 1, 2, 3, 4 };
    unlink(path);
    struct safetensors_writer *w = safetensors_writer_begin(path, entries, 2, &err);
    assert_non_null(w);
    assert_int_equal(safetensors_writer_write(w, data, sizeof data, &err), 0);
    assert_int_equal(safetensors_writer_finish(w, NULL, NULL, &err), 0);
    return file_read_all(path, 10000, size, &err);
}

static void test_every_truncation(void **state)
{
    (void)state;
    size_t size = 0;
    char *whole = small_file(&size);
    for (size_t cut = 0; cut < size; cut++) {
        put(whole, cut);
        check_refused("cut", "");
    }
    char *longer = xcalloc(1, size + 1);
    memcpy(longer, whole, size);
    put(longer, size + 1);
    check_refused("longer", "follow the data");
    free(longer);
    free(whole);
}

static void test_mutations(void **state)
{
    (void)state;
    size_t size = 0;
    uint32_t random = 12345;
    char *whole = small_file(&size);
    char *copy = xmalloc(size);
    int accepted = 0;
    for (int round = 0; round < 4000; round++) {
        memcpy(copy, whole, size);
        int changes = 1 + round % 3;
        for (int k = 0; k < changes; k++) {
            random = random * 1664525u + 1013904223u;
            size_t at = (random >> 8) % size;
            random = random * 1664525u + 1013904223u;
            copy[at] = (char)(random >> 24);
        }
        struct error err = { 0 };
        int fd = open(path, O_WRONLY | O_TRUNC | O_CREAT, 0600);
        assert_int_equal(file_write_all(fd, path, copy, size, &err), 0);
        close(fd);
        struct safetensors *file = safetensors_open(path, &err);
        for (size_t i = 0; file && i < file->count; i++) {
            /* What is accepted can be read to its end. */
            const struct safetensors_tensor *t = &file->tensor[i];
            assert_true(t->bytes <= (int64_t)size);
            float values[32];
            bool reads = t->readable && t->dtype != DTYPE_I32 && t->dtype != DTYPE_U8;
            if (reads) {
                assert_int_equal(safetensors_read(file, t, values, DTYPE_F32, &err), 0);
            }
        }
        accepted += file != NULL;
        assert_true(file || err.message[0]);
        safetensors_close(file);
    }
    assert_in_range(accepted, 100, 3900); /* damage of the data cannot be seen */
    free(copy);
    free(whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_length_prefix), cmocka_unit_test(test_recipes),
        cmocka_unit_test(test_lookalikes),    cmocka_unit_test(test_long_ones),
        cmocka_unit_test(test_good_forms),    cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_mutations),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
